"""The names of all queues: one pure table for the broker that declares them and the roles that use them.

Must never talk to a broker. One embedded broker stands for several nodes, so each name carries role and node.
"""

from __future__ import annotations


def data_queue(master_host: str) -> str:
    """Return the intake queue of the train master; the data workers of all good train nodes consume it."""
    return f"train.{master_host}.data"


def run_queue(master_host: str) -> str:
    """Return the queue of training hints of the train master; the train workers of all good train nodes consume it."""
    return f"train.{master_host}.run"


def rank_queue(node: str) -> str:
    """Return the queue, on the train master's broker, of orders to one train node: take a rank of a run."""
    return f"train.{node}.rank"


def simulate_queue(master_host: str) -> str:
    """Return the queue of simulated cells of the train master; data workers consume it when no batch waits."""
    return f"train.{master_host}.simulate"


def interactive_queue(cluster_id: str) -> str:
    """Return the queue of calls that a person waits for; every inference worker consumes it first."""
    return f"inference.{cluster_id}.interactive"


def bulk_queue(cluster_id: str) -> str:
    """Return the queue of job chunks; every inference worker consumes it."""
    return f"inference.{cluster_id}.bulk"


def node_queue(node: str) -> str:
    """Return the queue of one inference node alone (warming a version)."""
    return f"inference.{node}.control"


def dead_letter_queue(role: str, node: str) -> str:
    """Return where a broker puts what it gave up delivering."""
    return f"{role}.{node}.dead"


def reply_queue(node: str, index: int) -> str:
    """Return where inference workers answer the `index`-th inference_rpc process of a node; a new process takes over the name."""
    return f"inference.{node}.reply.{index}"


def is_replicated(name: str) -> bool:
    """Return whether a queue has replicas on RabbitMQ: work that several nodes take has, what one node alone takes has not."""
    return name.rpartition(".")[2] in ("data", "run", "simulate", "interactive", "bulk", "dead")
