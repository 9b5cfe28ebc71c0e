"""
The files that a person writes: inventory and playbook, read from YAML.

scalars.py      what a plain scalar becomes, and which are traps
marked_yaml.py  text -> plain values, and where in the file each of them stands
read.py         a file -> a model, every problem with its place
cross_checks.py what one part of a file says about another
drivers.py      what drivers say of their settings, with its place
"""
