"""Chaos: labels and items flow through both RPCs, faults hurt the cluster meanwhile, and an oracle judges what came out.

`oracle` and `whole` are pure; `flow` owns the clients, `faults` the table, `ground` what a fault may do to a lab. Called by
`scripts/bench chaos` and by tests/cluster. See docs/developer/chaos.md.
"""
