"""
What to do next: two pure functions, `fold` and `decide`, over the plan and what the journal says has happened.

state.py    what is remembered, and the one table of how a step may move
fold.py     state + event -> state, for what was done
noticing.py the same for what was seen and measured
decide.py   plan + state + time -> decision
index.py    what can be read off a plan once
agenda.py   what is still to be done
steps.py    what each verb waits for and when it is done; those of one worker are in
              going_out.py    WARM, DRAIN, HOLD, RESTART
              coming_back.py  AWAIT_HEALTHY, ADMIT, LET_GO
              soaking.py      SOAK
watching.py those who have passed, until the last watch has ended
shadowing.py what gates that don't act say of them
admission.py how much traffic a worker gets next
leasing.py  what may be done without the homeserver's lease
blocking.py what forbids taking a worker out now
time_left.py whether there is time for another worker
timings.py  how long the steps of a rollout took
sparing.py  whether the others can do without a worker now
seeing.py   what may be gone by
acting.py   what a step may do
safety.py   bringing back what is out, before the rollout stops
doubt.py    what became of an effect whose outcome is unknown
"""
