"""Labelling: leases, answers, undo and the order in which items are asked."""
