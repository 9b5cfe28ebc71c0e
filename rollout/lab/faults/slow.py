"""Everything takes twice as long."""

from synapse._rollout_lab_cost import multiply

multiply(lambda: 2.0)
