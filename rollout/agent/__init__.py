"""
The small program at the target: it compares, stores and acts in one go, and brings back what is ours when nobody lives any more.

Standard library only, and nothing else of rollout: this folder is copied to a host as it is, and `agent.py` in it is run there. What it
does is described in docs/decisions/0005-agent.md.
"""

# Of the host's own Python: `match` is of that version.
PYTHON_MIN = (3, 10)
