"""The automatic cycle and its parts, which a new task subclasses: label, train, select, compare, query.

`training` has data loader, graph, agent and the trainer made of them, `asking` the data selector, `selection` the model selector,
`comparison` the comparer, `rules` what these share with the cluster, `state` the folder, `cycle` the loop, `simulation` a loop
whose labels are all known and `savings` what such loops say. A task of your own: docs/developer/cycle.md. Imports nothing by
itself.
"""
