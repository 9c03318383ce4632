"""What users write, for type checkers only: nothing here runs, every line must please mypy strict and pyright."""
