"""
Releases as images in pod templates.

settings.py   which images are the homeserver's, and what Jobs run
parts.py      what is ours in a workload's template, and which release that is
records.py    which releases have been prepared: a ConfigMap
jobs.py       preparing and migrating: Jobs, watched and never killed
driver.py     the port
"""

from rollout.adapters.releases.kubernetes.driver import build

__all__ = ["build"]
