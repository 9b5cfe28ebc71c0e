"""
A real peer for the lab's federation sender, so that what it should have sent and didn't is counted.

server.py    the peer itself: one file that Synapse's own Python runs
peer.py      what the lab does with it: start it, join it to rooms
receipts.py  reading what it has received
"""
