"""The only code that waits: load before the handler, commit when the response starts."""
