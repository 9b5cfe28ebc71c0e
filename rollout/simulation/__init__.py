"""
A homeserver that exists only on a virtual clock, driven by the real loop.

virtual_clock.py   time that moves when it is told to
parts.py           what such a homeserver consists of
world.py           how it behaves; it counts what a rollout must never do
database.py        a database, in which what goes on is what a test says
drivers.py         the ports over that world; they pass the same contract tests as the real drivers
looking.py         what is seen of that world: as the real Surveyor sees it, or quicker
performer.py       effects, looks and measurements on the virtual clock, with faults
faults.py          what may go wrong, each by its name, and when
fitting.py         its figures, from the journals of real rollouts
striking.py        letting it go wrong at its moment
faulty_drivers.py  the ports when something is wrong
rehearse.py        one rollout, by the real loop, through crashes
"""
