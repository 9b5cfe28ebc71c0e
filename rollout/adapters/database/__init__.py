"""The homeserver's database, read only."""
