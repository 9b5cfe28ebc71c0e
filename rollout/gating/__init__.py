"""
Evidence in, ruling out.

evidence.py    what a metric is worth in a tally
strata.py      what users ask for, told apart
threshold.py   the gate: one metric of one worker against its baseline and its peers
liveness.py    the gate of roles that nothing else says anything about
guards.py      what must hold at every moment
detectable.py  what a gate can't see
"""
