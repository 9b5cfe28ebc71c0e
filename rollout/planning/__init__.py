"""
What shall be done, decided beforehand: `make_plan` turns playbook, inventory and what was seen into a plan, or refuses with every reason at
once.

planner.py      puts the parts below together
situation.py    everything they look at
scope.py        which workers a rollout touches, and where it ends
standing.py     how each worker stands: what it runs, who drained it
order.py        who comes first, and who is the canary
waves.py        who may be out together
worker_steps.py the steps of one worker, there and back
evidence.py     which gates a role must pass
plan_checks.py  what forbids the rollout
reasons.py      why each step stands where it stands
notes.py        what to know before saying yes
forecast.py     how long it takes
capacity.py     what the others carry while one is out (asked again before each drain)
digest.py       what makes two plans the same
basis.py        what a plan was made from
drift.py        what changed since a plan was made, and whether it still holds
preflight.py    whether a rollout could begin now: workers, metrics, guards; preflight_database.py and preflight_release.py the rest
disruption.py   whether a worker may go down now (asked again before each step)
"""
