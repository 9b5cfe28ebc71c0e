"""The process manager that runs the workers."""
