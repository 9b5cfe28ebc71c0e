"""Drivers of the port `warming`."""
