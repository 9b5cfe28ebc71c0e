"""
What a bad release of the lab does wrong: a module each, which runs inside Synapse (see bad_releases.py).

Each is imported when a worker starts; `config` already when a configuration is read.
"""
