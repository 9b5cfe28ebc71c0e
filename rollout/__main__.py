"""`python -m rollout`."""

from rollout.interfaces.cli import main

main()
