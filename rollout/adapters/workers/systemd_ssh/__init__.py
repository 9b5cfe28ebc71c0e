"""
systemd on the homeserver's hosts, over SSH.

settings.py   hosts and units, from the inventory
refusals.py   what is said when it can't be done
driver.py     look, stop, start, last lines

What is run there, word for word, and how `systemctl show` is read is the agent's, too: rollout.agent.systemctl and rollout.agent.units.
"""

from rollout.adapters.workers.systemd_ssh.driver import build

__all__ = ["build"]
