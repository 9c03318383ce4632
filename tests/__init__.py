"""The tests mirror the rooms of src/coatcheck; what several of them share lies in tests/support."""
