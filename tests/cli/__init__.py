"""The command line, as txt scripts and as what may never be printed."""
