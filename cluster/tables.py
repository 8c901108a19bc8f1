"""Rows of text for people: what a table of the ops commands holds, and how it looks without colours.

Pure. Must never import what is slow: `labelloop status` draws with it; the live tables draw the same with rich.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from labelloop import messages as m

_GIB = 2**30


class TextTable(NamedTuple):
    """A title, the names of the columns, the rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def draw(table: TextTable) -> str:
    """Return the table as lines of text, its columns aligned, no line padded at its end."""
    widths = [max(len(cell) for cell in column) for column in zip(table.columns, *table.rows, strict=True)]
    lines = [table.title, *(_line(row, widths) for row in (table.columns, *table.rows))]
    lines.insert(2, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def state_of(node: m.NodeView) -> str:
    """Return alive, draining, drained (nothing of it runs any more), or how long it has been silent."""
    drain = ("drained" if node.is_drained else "draining") if node.is_draining else ""
    if not node.is_alive:
        return f"silent {node.age_s:.0f} s{f', {drain}' if drain else ''}"
    return drain or "alive"


def role_of(node: m.NodeView) -> str:
    """Return the role, '-' = none, with 'master' where it leads; who is silent leads nobody."""
    return f"{node.status.role or '-'}{' master' if node.status.is_master and node.is_alive else ''}"


def _broker_cells(node: m.NodeView) -> tuple[str, str, str]:
    """Return broker, queues and workers; nobody knows those of a node that is silent."""
    s = node.status
    return (_broker(s.broker), _queues(s.broker), _workers(s)) if node.is_alive else ("-", "-", "-")


def _broker(view: m.BrokerView) -> str:
    if view.kind == "embedded":
        return f"embedded {view.state}"
    return f"{view.state}, {len(view.running)} of {len(view.members)} run" if view.members else view.state


def _queues(view: m.BrokerView) -> str:
    waiting = {name: depth for name, depth in view.queues.items() if depth}
    deepest = sorted(waiting, key=lambda name: -waiting[name])[:2]
    return ", ".join(f"{name} {waiting[name]}" for name in deepest) or "empty"


def _workers(status: m.NodeStatus) -> str:
    return f"{sum(p.state == 'running' for p in status.processes)} of {len(status.processes)}"


def _memory(status: m.NodeStatus) -> str:
    return f"{status.memory_free_bytes / _GIB:.1f} of {status.memory_bytes / _GIB:.1f} GiB free"


def _activity(node: m.NodeView) -> str:
    """Return what a node is at; a dead one is at nothing, whatever it said last."""
    said = [process.activity for process in node.status.processes if process.activity]
    return "; ".join(said) or "-" if node.is_alive else "-"


def _restarts(status: m.NodeStatus) -> str:
    return str(sum(process.restarts for process in status.processes))


def title_of(reply: m.NodesReply) -> str:
    """Return the line above everything: cluster, epoch, state, last decision."""
    return f"cluster {reply.cluster_id}, epoch {reply.epoch}, {reply.state}: {reply.last_reason}"


NODE_COLUMNS = ("node", "role", "state", "broker", "queues", "workers", "restarts", "at work on", "last reason")
MACHINE_COLUMNS = ("node", "ip", "cores", "memory", "GPUs", "datastore")
PROCESS_COLUMNS = ("node", "process", "pid", "state", "restarts", "at work on", "reason")
ACTION_COLUMNS = ("at", "what", "reason")


def node_row(node: m.NodeView) -> tuple[str, ...]:
    """Return a row of NODE_COLUMNS."""
    s = node.status
    return (
        *(s.hostname, role_of(node), state_of(node), *_broker_cells(node)),
        *(_restarts(s), _activity(node), s.last_reason or "-"),
    )


def machine_row(node: m.NodeView) -> tuple[str, ...]:
    """Return a row of MACHINE_COLUMNS."""
    s = node.status
    return (s.hostname, s.ip, f"{s.cores}, load {s.load:.1f}", _memory(s), "; ".join(s.gpus) or "none", s.datastore or "ok")


def process_rows(nodes: Iterable[m.NodeView]) -> tuple[tuple[str, ...], ...]:
    """Return the rows of PROCESS_COLUMNS of the living nodes."""
    return tuple(
        (node.status.hostname, p.name, str(p.pid or "-"), p.state, str(p.restarts), p.activity or "-", p.reason)
        for node in nodes
        if node.is_alive
        for p in node.status.processes
    )


def action_rows(actions: Sequence[m.Action], most: int) -> tuple[tuple[str, ...], ...]:
    """Return the newest `most` rows of ACTION_COLUMNS, the latest last."""
    return tuple((action.at, action.what, action.reason) for action in actions[-most:])


def status_tables(reply: m.NodesReply, actions: Sequence[m.Action]) -> tuple[TextTable, ...]:
    """Return all that `labelloop status` shows."""
    return (
        TextTable(title_of(reply), NODE_COLUMNS, tuple(map(node_row, reply.nodes))),
        TextTable("machines", MACHINE_COLUMNS, tuple(map(machine_row, reply.nodes))),
        TextTable("processes", PROCESS_COLUMNS, process_rows(reply.nodes)),
        TextTable("last actions", ACTION_COLUMNS, action_rows(actions, 5)),
    )


LIVE_COLUMNS = ("node", "role", "state", "GPU, memory", "broker", "queues", "workers", "at work on", "restarts", "last reason")


def live_row(node: m.NodeView) -> tuple[str, ...]:
    """Return a row of LIVE_COLUMNS."""
    s = node.status
    machine = f"{len(s.gpus)} GPU, {_memory(s)}"
    return (
        *(s.hostname, role_of(node), state_of(node), machine, *_broker_cells(node)),
        *(_activity(node), _restarts(s), s.last_reason or "-"),
    )


FORM_COLUMNS = ("node", "role", "epoch", "waits for")


def form_row(node: m.NodeView, epoch: int) -> tuple[str, ...]:
    """Return a row of FORM_COLUMNS: what a node that is being formed waits for."""
    s = node.status
    if not node.is_alive:
        waits = "its heartbeat"
    elif s.epoch < epoch:
        waits = f"the order of epoch {epoch}: {s.last_reason or 'at work on it'}"
    elif any(p.state != "running" for p in s.processes):
        waits = ", ".join(p.name for p in s.processes if p.state != "running")
    else:
        waits = "nothing, ready"
    return (s.hostname, role_of(node), str(s.epoch), waits)
