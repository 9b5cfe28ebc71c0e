"""What we took out, written down at the target."""
