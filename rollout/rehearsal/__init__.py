"""
Many seeded rollouts of simulated homeservers with faults, and what must never happen in any of them.

coverage.py    which fault can strike at which moment of which verb, and how often each has
scenario.py    from a seed to a homeserver, a playbook and what goes wrong
perform.py     one rehearsal: the rollout, its crashes and resumptions, and what became of the homeserver ten minutes later
given.py       what of a person's own playbook can be rehearsed
invariants.py  what must hold of each
campaign.py    many of them, in several processes
"""
