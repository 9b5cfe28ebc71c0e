"""It ends a moment after it was started as a worker, before it listens."""

import sys
import time

# A migration imports the same modules, and is none of what shall fail here.
if any(word.startswith("synapse.app.") for word in sys.orig_argv):
    time.sleep(0.5)
    sys.exit("a fault of the lab: this release ends when it is started")
