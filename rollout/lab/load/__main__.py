"""`python -m rollout.lab.load`: the load as a process."""

import sys

from rollout.lab.load.process import main

if __name__ == "__main__":
    sys.exit(main())
