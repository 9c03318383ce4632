"""Translators: each turns one framework's requests and responses into the flow's, and decides nothing."""
