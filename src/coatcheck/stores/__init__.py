"""Where records lie: one file a driver. A store keeps, finds and forgets; it never judges."""
