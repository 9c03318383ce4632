"""What several tests share, and what the test command itself needs."""
