"""The flow, as far as the adapters and drills do not show it."""
