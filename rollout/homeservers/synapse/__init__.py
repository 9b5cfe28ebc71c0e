"""
Synapse with workers.

roles.py         what each role is for, what happens while it is out, and what shows that it is well
metrics.py       its metrics pages as counters, and counters as tallies
canaries.py      requests of our own that harm nobody
schema_rules.py  which release may run on which database, and whether there is a way back
hazards.py       what the upgrade notes say of the releases between two others
topology.py      who does what, as the configuration says
deriving/        an inventory from its configurations
"""
