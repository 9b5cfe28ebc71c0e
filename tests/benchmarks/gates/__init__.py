"""
Which gate tells a bad restart from a good one, and how soon: ours and its peers' on the same made-up traces.

`traces` and `rollouts` make what a gate would have seen, `scenarios` says of what; `flagger`, `argo`, `kayenta` and `probes` are the peers;
`contest` lets each judge every trace, `table` prints what came of it. `tuning` chose the peers' thresholds, on traces of its own.
"""
