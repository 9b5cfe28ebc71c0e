"""What a probe may meet."""
