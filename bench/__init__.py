"""What a session costs: added to a bare application, in process, beside what others cost in the same run."""
