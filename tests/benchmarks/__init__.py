"""
What a rollout costs, measured on the lab: `python -m tests.benchmarks [NAME ...]`.

Each benchmark prints one table and writes build/bench/NAME.json. Figures of one run may be compared with one another, and with nothing
else: machines differ, and one machine differs from minute to minute.
"""
