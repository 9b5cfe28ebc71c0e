"""The proxy in front of the homeserver."""
