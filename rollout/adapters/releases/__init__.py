"""Releases at the target."""
