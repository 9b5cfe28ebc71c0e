"""What people and pipelines see: the command line, and everything that is said in words."""
