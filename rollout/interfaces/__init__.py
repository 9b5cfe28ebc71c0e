"""
What people and pipelines see.

cli/          the command line
live.py       a rollout while it runs: a line per event, and how far it is
narrate.py    one sentence per event
plan_text.py  a plan as text
report/       what a journal amounts to: accounts, status, reasons, advice
"""
