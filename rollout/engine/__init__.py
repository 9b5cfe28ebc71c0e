"""
The loop that turns decisions into acts.

drivers.py   the ports of one homeserver, opened
survey.py    looking, and asking for what is measured
metering.py  what each worker did between two readings
files.py     file handles: how many are open, and where their growth leads
strain.py    how workers keep up with what comes to them
changes.py   what of a look is news
readiness.py everything that a rollout depends on, looked at before it begins
loading.py   how busy workers are, before a plan is made
judging.py   measuring the homeserver as it runs, for a baseline or a ruling
past.py      what workers did before, by pages that somebody else has kept
baseline.py  a baseline from earlier rollouts, or from such pages
timings.py   what earlier rollouts took
deploy.py    beginning a rollout, and taking one up again
run.py       decide, record, perform, until the end
work.py      what an effect does, under its number
perform.py   one effect, done through the ports; and the threads that do it
buying.py    canary requests that buy evidence
leasing.py   holding the homeserver's lease meanwhile
ahead.py     the clock of a rollout whose journal ends in the future
rescue.py    admitting what is ours, with nothing but the proxy and the ledger
"""
