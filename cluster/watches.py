"""The registry's stop-watches: how long no inference broker has run, how long a node has been draining.

Owns the moments at which each began, by the registry's monotonic clock; a registry that restarts counts anew. Must never call
anybody. Used by `cluster.steward` under its lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cluster.losses import Loss, lost_majority
from cluster.reconcile import Drain, NodeSeen, drain_of


class MajorityWatch:
    """Names the survivors of a broker cluster once none of its brokers has run for `patience_s`."""

    def __init__(self, patience_s: float, dead_after_s: float) -> None:
        self._patience_s = patience_s
        self._dead_after_s = dead_after_s
        self._cluster = ""
        self._since_s = 0.0

    def look(self, nodes: Sequence[NodeSeen], wanted: Sequence[str], now_s: float) -> Loss | None:
        """Return a loss that has lasted; None as long as the rest could still come back."""
        loss = lost_majority(nodes, wanted, self._dead_after_s)
        if loss is None:
            self._cluster = ""
            return None
        if loss.cluster != self._cluster:
            self._cluster, self._since_s = loss.cluster, now_s
        return loss if now_s - self._since_s >= self._patience_s else None

    def restart(self, now_s: float) -> None:
        """Count anew: survivors have just been named."""
        self._since_s = now_s


class DrainWatch:
    """Says which draining nodes may stop."""

    def __init__(self, patience_s: float, dead_after_s: float) -> None:
        self._patience_s = patience_s
        self._dead_after_s = dead_after_s
        self._since_s: dict[str, float] = {}
        self._states: dict[str, Drain] = {}

    def look(self, nodes: Iterable[NodeSeen], draining: Sequence[str], stopped: Sequence[str], now_s: float) -> dict[str, Drain]:
        """Return how far each draining node is; one in `stopped` stays so while it is draining."""
        seen = {node.hostname: node for node in nodes}
        self._since_s = {name: self._since_s.get(name, now_s) for name in draining}
        self._states = {name: self._state(seen.get(name), name in stopped, now_s - self._since_s[name]) for name in draining}
        return self._states

    def _state(self, node: NodeSeen | None, is_stopped: bool, waited_s: float) -> Drain:
        if is_stopped:
            return Drain(is_over=True, reason="stopped")
        if node is None:
            return Drain(is_over=True, reason="it is not there")
        return drain_of(node, waited_s, self._patience_s, self._dead_after_s)
