"""The program at the target: real processes, real locks, a real proxy."""
