"""
A real Synapse worker cluster on this machine, from pip wheels alone: no container engine, no root, no compiler.

cluster.py    up, down and status of the whole
paths.py      where everything is, and the ports
artefacts.py  locks, and the wheel that lets Synapse find its PostgreSQL driver
database.py   PostgreSQL
templates.py  every configuration file, as text
processes.py  supervisord and what runs under it
seeding.py    users and rooms
receiver/     a peer that counts what the federation sender sends
load/         a load that counts every cut request itself
"""
