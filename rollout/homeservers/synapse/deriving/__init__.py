"""
An inventory from what is there.

The configurations of Synapse, of systemd and of the proxy go in, as they were read; an inventory comes out, with a mark on everything that
they don't say, and a sentence for everything in which they contradict one another.

sources.py         what was read, with its places
findings.py        marks and contradictions
listeners.py       where a process listens, and where it is reached
processes.py       main and workers, one by one
proxied.py         which server of the proxy is which process
role_of.py         what a process does, and so its role
managed.py         which unit of systemd starts which process
reached.py         where it and its metrics page are reached
starting.py        who starts and stops it, and from where
drivers.py         how proxy and database are reached
contradictions.py  what can't all be true
derive.py          all of it, put together

Nothing is guessed silently. What must be known and isn't, is left empty, so that `rollout check` refuses it in its line; what has a usual
answer is given it, and marked.
"""
