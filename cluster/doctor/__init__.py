"""`labelloop doctor`: finds what is wrong with a cluster and says why it matters and what to do.

`exam` is what was seen, `collect` sees it, the `*_checks` decide, `report` prints. Must never change a node.
"""
