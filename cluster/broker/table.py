"""The table of queues: which ones a node declares on its broker, and which of them have replicas; pure.

Must never talk to a broker. Called by the manager; roles use the same names without declaring anything.
"""

from __future__ import annotations

from cluster.broker import QueueSpec
from cluster.initial import Assignment
from labelloop import queues


def queue_table(assignment: Assignment, cluster_id: str, node: str, rpc_processes: int) -> list[QueueSpec]:
    """Return the queues of `node` in its role: inference queues that all nodes share have replicas, those of one node have none.

    A train node's broker is its own; only the train master's carries work, for all good train nodes.
    """
    if assignment.role == "inference":
        dead = queues.dead_letter_queue("inference", cluster_id)
        shared = [queues.interactive_queue(cluster_id), queues.bulk_queue(cluster_id)]
        own = [queues.node_queue(node), *(queues.reply_queue(node, index) for index in range(rpc_processes))]
        return [
            QueueSpec(name=dead, is_replicated=True),
            *(QueueSpec(name=name, is_replicated=True, dead_letters=dead) for name in shared),
            *(QueueSpec(name=name, is_replicated=False) for name in own),
        ]
    if not assignment.is_master:
        return []
    dead = queues.dead_letter_queue("train", node)
    ranks = [queues.rank_queue(machine.hostname) for machine in assignment.good if machine.type == "train"]
    return [
        QueueSpec(name=dead, is_replicated=True),
        QueueSpec(name=queues.data_queue(node), is_replicated=True, dead_letters=dead),
        QueueSpec(name=queues.run_queue(node), is_replicated=True, dead_letters=dead),
        QueueSpec(name=queues.simulate_queue(node), is_replicated=True, dead_letters=dead),
        *(QueueSpec(name=name, is_replicated=False) for name in ranks),
    ]
