"""
What to do next: two pure functions, `fold` and `decide`, over the plan and what the journal says has happened.

state.py    what is remembered, and the one table of how a step may move
fold.py     state + event -> state
decide.py   plan + state + time -> decision
steps.py    what each verb waits for and when it is done
safety.py   bringing back what is out, before the rollout stops
doubt.py    what became of an effect whose outcome is unknown
"""
