"""
A load on a lab that counts every cut request itself.

records.py    one finished request, and what a stretch of time holds of them
delivery.py   which event arrived where, how often
clients.py    the users: long-polls, sends, reads, initial syncs
process.py    the load as a process of its own, started and stopped by others
"""
