"""What `labelloop status`, `nodes` and `actions` print.

Owns the output. Must never hold logic of the cluster; rich is imported only for the live table. Imported by `cluster.commands` when
one of them runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import msgspec

from cluster.ops_door import OpsDoor, open_door
from cluster.tables import (
    ACTION_COLUMNS,
    LIVE_COLUMNS,
    TextTable,
    action_rows,
    draw,
    live_row,
    role_of,
    state_of,
    status_tables,
    title_of,
)
from labelloop import messages as m
from labelloop.errors import InvalidInputError, RetryableError

_WATCH_S = 1.0
_WATCH_DEADLINE_S = 3.0
_LIVE_ACTIONS = 8


class Snapshot(msgspec.Struct, frozen=True):
    """All that status knows of one moment."""

    nodes: m.NodesReply
    topology: m.Topology
    actions: tuple[m.Action, ...]


def run_status(args: argparse.Namespace) -> int:
    """Show the whole cluster, once or for ever."""
    with open_door(args) as door:
        if args.watch and sys.stdout.isatty() and not args.json:
            return _watch(door)
        while True:
            _show(_look(door), args.json)
            if not args.watch:
                return 0
            sys.stdout.flush()
            time.sleep(_WATCH_S)


def run_nodes(args: argparse.Namespace) -> int:
    """List the nodes."""
    with open_door(args) as door:
        show_nodes(door.client.nodes(), args.json)
    return 0


def run_actions(args: argparse.Namespace) -> int:
    """Print the action journal."""
    if args.last < 1:
        raise InvalidInputError(f"--last {args.last}: ask for at least one")
    with open_door(args) as door:
        actions = door.client.actions().actions
    if args.json:
        say(msgspec.json.encode(m.ActionsReply(actions=actions[-args.last :])).decode())
    else:
        for at, what, reason in action_rows(actions, args.last):
            say(f"{at}\t{what}\t{reason}")
    return 0


def show_nodes(reply: m.NodesReply, is_json: bool) -> None:
    """Print the nodes, one a line with tabs, then the last decision."""
    if is_json:
        say(msgspec.json.encode(reply).decode())
        return
    for node in reply.nodes:
        status = node.status
        say(f"{status.hostname}\t{status.ip}\t{role_of(node)}\t{state_of(node)}\tepoch {status.epoch}\t{status.rpc or '-'}")
    say(f"{reply.state}, epoch {reply.epoch}: {reply.last_reason}")


def say(text: str) -> None:
    """Print one line."""
    sys.stdout.write(text + "\n")


def _look(door: OpsDoor, deadline_s: float | None = None) -> Snapshot:
    return Snapshot(
        nodes=door.client.nodes(deadline_s=deadline_s),
        topology=door.client.topology(deadline_s=deadline_s),
        actions=door.client.actions(deadline_s=deadline_s).actions,
    )


def _show(now: Snapshot, is_json: bool) -> None:
    if is_json:
        say(msgspec.json.encode(now).decode())
        return
    say("\n\n".join(draw(table) for table in status_tables(now.nodes, now.actions) if table.rows or "cluster" in table.title))
    for warning in now.topology.warnings:
        say(f"warning: {warning}")


def _watch(door: OpsDoor) -> int:
    """Redraw once a second; a registry that does not answer is said below the last table."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    now = _look(door)
    with Live(_live(now), refresh_per_second=4) as live:
        while True:
            time.sleep(_WATCH_S)
            try:
                now = _look(door, _WATCH_DEADLINE_S)
                live.update(_live(now))
            except RetryableError as exc:
                live.update(Group(_live(now), Text(f"as of before; the registry does not answer: {exc}", style="red")))


def _live(now: Snapshot) -> Any:
    from rich.console import Group
    from rich.text import Text

    nodes = rich_table(TextTable(title_of(now.nodes), LIVE_COLUMNS, tuple(map(live_row, now.nodes.nodes))))
    actions = rich_table(TextTable("last actions", ACTION_COLUMNS, action_rows(now.actions, _LIVE_ACTIONS)))
    return Group(nodes, actions, *(Text(f"warning: {warning}", style="yellow") for warning in now.topology.warnings))


def rich_table(table: TextTable) -> Any:
    """Return the table as rich draws it; its cells are text, never markup."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(title=Text(table.title), title_justify="left", box=SIMPLE_HEAD)
    for column in table.columns:
        made.add_column(column, overflow="fold")
    for row in table.rows:
        made.add_row(*map(Text, row))
    return made
