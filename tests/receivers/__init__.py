"""Receivers of what identity providers say."""
