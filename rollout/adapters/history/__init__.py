"""What was measured in the past."""
