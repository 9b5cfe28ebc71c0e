"""
Evidence in, ruling out.

evidence.py    what a metric is worth in a tally
strata.py      what users ask for, told apart
windows.py     stretches of time of one worker, one after the other
chance.py      how likely something is by chance alone

threshold.py   the gate that looks once: one metric of one worker against its baseline and its peers
sequential.py  the gate that adds up evidence, and may be looked at after every measurement
recovery.py    the gate that asks whether a restarted worker carries its load again
liveness.py    the gate of roles that nothing else says anything about
guards.py      what must hold at every moment

latency.py     for sequential.py: whether requests take or cost more than before
shares.py      whether more of them fail than before
shift.py       by how much a whole histogram is slower
curves.py      how restarted workers recover
hypotheses.py  how likely every ratio and curve makes what was seen
drift.py       what slows everybody down alike
excuse.py      what all who have passed show at the same moment
pooled.py      what all workers of a role show together

detectable.py  what a gate can't see, for a plan
foreseen.py    when a sequential gate will have ruled, for detectable.py
"""
