"""Real servers for the tests: one file a kind, each started on free ports of the loopback and stopped afterwards."""
