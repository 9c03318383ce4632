"""Models of what may happen: every interleaving of a small world, a day of honest browsers, and laws of merging."""
