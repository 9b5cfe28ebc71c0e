"""Drivers of the port `lease`."""
