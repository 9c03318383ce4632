"""The tables of the "django" store."""
