"""Sessions for Python web applications: the counter decides whether a ticket still counts."""
