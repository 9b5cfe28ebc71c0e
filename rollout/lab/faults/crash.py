"""It ends a moment after it was started, before it listens."""

import sys
import time

time.sleep(0.5)
sys.exit("a fault of the lab: this release ends when it is started")
