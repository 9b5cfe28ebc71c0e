"""
What a journal, or a look, amounts to. All pure: values in, values or text out.

accounts.py   where the time went, worker by worker
score.py      how good the forecast was
progress.py   how far a rollout is, in a line
standing.py   what runs
reasons.py    why a rollout waits or stopped
advice.py     what a person does next, as commands
words.py      durations and tables
"""
