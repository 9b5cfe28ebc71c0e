"""
systemd on the homeserver's hosts, over SSH.

commands.py   what is run there, word for word
units.py      what `systemctl show` says, read
settings.py   hosts and units, from the inventory
clocks.py     whether a host's clock can be believed
refusals.py   what is said when it can't be done
driver.py     look, stop, start, last lines
"""

from rollout.adapters.workers.systemd_ssh.driver import build

__all__ = ["build"]
