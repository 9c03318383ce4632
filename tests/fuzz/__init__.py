"""Hostile inputs."""
