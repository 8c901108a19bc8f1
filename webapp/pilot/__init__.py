"""The pilot: the loop between app and cluster, exactly one process.

Relays labels, watches progress, asks for scores, puts the queue in order, starts imports. All of it level-triggered: each cycle
starts from what the database and the cluster say now, so the process may be killed at any moment.
"""
