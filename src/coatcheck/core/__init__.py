"""The pure core: decides, and never waits. Clock and randomness are arguments."""
