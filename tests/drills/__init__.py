"""Attacks, as tests: each names the drill that it runs (D01 ...), and its cases stand in a table."""
