"""
The loop that turns decisions into acts.

drivers.py   the ports of one homeserver, opened
survey.py    looking and measuring
files.py     file handles: how many are open, and where their growth leads
readiness.py everything that a rollout depends on, looked at before it begins
perform.py   one effect, done through the ports; and the threads that do it
run.py       decide, record, perform, until the end
deploy.py    beginning a rollout, and taking one up again
baseline.py  a baseline from earlier rollouts
loading.py   how busy workers are, before a plan is made
rescue.py    admitting what is ours, with nothing but the proxy and the ledger
"""
