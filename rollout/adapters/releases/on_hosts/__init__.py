"""
Releases on the homeserver's hosts, over SSH; with the layout that rollout.adapters.releases.venv describes.

settings.py   hosts and target, from the inventory
site.py       all hosts: what is there, what each worker is told to run, configurations
installer.py  the program at a host: brought there, asked, and its jobs followed
venv.py       the driver `venv` on hosts
"""
