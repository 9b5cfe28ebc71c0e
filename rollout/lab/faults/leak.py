"""Everything takes longer and longer: twice as long after a minute, three times after two."""

import time

from synapse._rollout_lab_cost import multiply

_BEGAN_S = time.monotonic()

multiply(lambda: 1.0 + (time.monotonic() - _BEGAN_S) / 60.0)
