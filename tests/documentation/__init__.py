"""What is written for people is true, and every command in it was run."""
