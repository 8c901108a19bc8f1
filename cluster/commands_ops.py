"""What `labelloop form`, `confirm`, `assign`, `drain`, `add`, `remove`, `revoke` and `logs` do.

Owns their output and the waiting that they offer. Must never hold logic of the cluster: the registry decides. Imported by
`cluster.commands` when one of them runs.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar, cast

import msgspec

from cluster.commands import parse_roles
from cluster.commands_status import rich_table, say, show_nodes
from cluster.ops_door import OpsDoor, open_door
from cluster.tables import FORM_COLUMNS, TextTable, form_row, title_of
from labelloop import messages as m
from labelloop.clients import ManagerClient
from labelloop.errors import DeadlineError, InvalidInputError, LabelloopError, NotFoundError, RetryableError
from labelloop.ids import parse_node, parse_task

SETTLE_DEADLINE_S = 120.0
_POLL_S = 0.3
_FOLLOW_S = 0.5
_FOLLOW_LINES = 1000

T = TypeVar("T")


def run_form(args: argparse.Namespace) -> int:
    """Form the cluster, open the task if one is named, list the nodes."""
    request = m.FormRequest(train=args.train, inference=args.inference, roles=parse_roles(args.role))
    task = _task(args)
    with _told_that_it_goes_on(), open_door(args) as door:
        reply = _with_progress(args, door, lambda: door.client.form(request, deadline_s=SETTLE_DEADLINE_S))
        opened = door.client.open_task(m.OpenTaskRequest(spec=task)) if task else None
    if opened and args.json:
        say(msgspec.json.encode({"nodes": reply, "task": opened}).decode())
        return 0
    show_nodes(reply, args.json)
    if opened:
        say(f"task {opened.task} is open at revision {opened.revision}")
        for warning in opened.warnings:
            say(f"warning: {warning}")
    return 0


def run_confirm(args: argparse.Namespace) -> int:
    """End a registry's learning."""
    with _told_that_it_goes_on(), open_door(args) as door:
        show_nodes(door.client.form(m.FormRequest(), deadline_s=SETTLE_DEADLINE_S), args.json)
    return 0


def run_assign(args: argparse.Namespace) -> int:
    """Change roles of named nodes."""
    request = m.AssignRequest(roles=parse_assignments(args.role))
    with _told_that_it_goes_on(), open_door(args) as door:
        reply = _with_progress(args, door, lambda: door.client.assign(request, deadline_s=SETTLE_DEADLINE_S))
    show_nodes(reply, args.json)
    return 0


def run_drain(args: argparse.Namespace) -> int:
    """Drain nodes, or take it back; wait where asked."""
    if args.wait < 0:
        raise InvalidInputError(f"--wait {args.wait:g}: 0 or more seconds")
    with _told_that_it_goes_on(), open_door(args) as door:
        reply = _each(args.node, lambda name: door.client.drain(m.NodeRequest(hostname=name, is_undone=args.undo)))
        if args.wait and not args.undo:
            reply = _await_drained(door, args.node, args.wait)
    show_nodes(reply, args.json)
    return 0


def run_add(args: argparse.Namespace) -> int:
    """Let removed nodes in again."""
    with _told_that_it_goes_on(), open_door(args) as door:
        reply = _each(args.node, lambda name: door.client.add(m.NodeRequest(hostname=name)))
        if args.role:
            reply = door.client.assign(m.AssignRequest(roles=dict.fromkeys(args.node, args.role)), deadline_s=SETTLE_DEADLINE_S)
    show_nodes(reply, args.json)
    return 0


def run_remove(args: argparse.Namespace) -> int:
    """Take nodes out."""
    with _told_that_it_goes_on(), open_door(args) as door:
        reply = _each(args.node, lambda name: door.client.remove(m.NodeRequest(hostname=name), deadline_s=SETTLE_DEADLINE_S))
    show_nodes(reply, args.json)
    return 0


def run_revoke(args: argparse.Namespace) -> int:
    """Revoke the certificates of names."""
    with open_door(args) as door:
        _each(args.node, lambda name: door.client.revoke(m.NodeRequest(hostname=name)))
    say(msgspec.json.encode({"revoked": args.node}).decode() if args.json else f"revoked: {', '.join(args.node)}")
    return 0


def _each(names: Sequence[str], call: Callable[[str], T]) -> T:
    """Return the last reply of `call` for each name; an error says which names were done before it."""
    done: list[str] = []
    for name in names:
        try:
            reply = call(name)
        except LabelloopError as exc:
            raise type(exc)(f"{exc} (done: {', '.join(done)})" if done else str(exc)) from exc
        done.append(name)
    return reply


def run_logs(args: argparse.Namespace) -> int:
    """Print the last lines of a node's logs, and what comes."""
    with open_door(args) as door:
        found = [n.status for n in door.client.nodes().nodes if n.status.hostname == args.node]
        if not found:
            raise NotFoundError(f"no node {args.node!r} has registered: see `labelloop nodes`")
        address = f"[{found[0].ip}]:{found[0].port}" if ":" in found[0].ip else f"{found[0].ip}:{found[0].port}"
        with contextlib.closing(ManagerClient(address, door.identity, door.settings.wire)) as manager:
            if args.follow:
                _follow(manager, args)
            text = manager.logs(m.LogsRequest(process=args.process, lines=args.lines)).text
    if args.json:
        say(msgspec.json.encode({"node": args.node, "process": args.process, "text": text}).decode())
    else:
        say(text)
    return 0


# ---------------------------------------------------------------- arguments


def parse_assignments(pairs: Sequence[str]) -> dict[str, Literal["", "train", "inference"]]:
    """Return hostname → role ('' = none) of 'NAME=ROLE' arguments. Raises InvalidInputError naming the one that is not."""
    roles: dict[str, Literal["", "train", "inference"]] = {}
    for pair in pairs:
        name, _, role = pair.partition("=")
        if role not in ("train", "inference", "none"):
            raise InvalidInputError(f"{pair!r}: use NAME=train, NAME=inference or NAME=none")
        if name in roles:
            raise InvalidInputError(f"{name!r} is named twice: a node has one role")
        roles[parse_node(name)] = cast(Literal["", "train", "inference"], "" if role == "none" else role)
    return roles


def _task(args: argparse.Namespace) -> m.TaskSpec | None:
    if not args.task:
        if args.category or args.labels:
            raise InvalidInputError("--category and --labels describe a task: name it with --task")
        return None
    if not args.category or not args.labels:
        raise InvalidInputError(f"--task {args.task} needs --category and --labels")
    extra = m.TaskExtraInfo(
        kind=_kind_of(args),
        labels=tuple(label.strip() for label in args.labels.split(",")),
        target=args.target,
        budget=args.budget,
    )
    fields = {"task": parse_task(args.task), "category": args.category, "extra": extra, "revision": args.revision}
    try:
        return msgspec.convert(fields, m.TaskSpec)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"--task {args.task}: {exc}") from exc


def _kind_of(args: argparse.Namespace) -> Literal["multiclass", "multilabel", "regions"]:
    if args.category in m.REGION_CATEGORIES:
        return "regions"
    return "multilabel" if args.multilabel else "multiclass"


# ---------------------------------------------------------------- waiting


@contextlib.contextmanager
def _told_that_it_goes_on() -> Iterator[None]:
    """Say, when a person stops waiting, that this stops nothing else."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; what the registry was asked for goes on: see `labelloop status`\n")
        raise


def _with_progress(args: argparse.Namespace, door: OpsDoor, call: Callable[[], m.NodesReply]) -> m.NodesReply:
    """Return what `call` returns, showing on a terminal what each node waits for meanwhile."""
    if args.json or not sys.stdout.isatty():
        return call()
    from rich.live import Live

    answers: list[m.NodesReply | LabelloopError] = []

    def run() -> None:
        try:
            answers.append(call())
        except LabelloopError as exc:
            answers.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    with Live(refresh_per_second=4, transient=True) as live:
        while thread.is_alive():
            with contextlib.suppress(RetryableError):
                live.update(_progress(door.client.nodes()))
            thread.join(_POLL_S)
    if isinstance(answers[0], LabelloopError):
        raise answers[0]
    return answers[0]


def _progress(reply: m.NodesReply) -> Any:
    return rich_table(TextTable(title_of(reply), FORM_COLUMNS, tuple(form_row(node, reply.epoch) for node in reply.nodes)))


def _await_drained(door: OpsDoor, names: Sequence[str], wait_s: float) -> m.NodesReply:
    """Return once nothing runs on `names` any more. Raises DeadlineError naming those where something does."""
    end_s = time.monotonic() + wait_s
    while True:
        reply = door.client.nodes()
        left = [n.status.hostname for n in reply.nodes if n.status.hostname in names and not n.is_drained]
        if not left:
            return reply
        if time.monotonic() >= end_s:
            raise DeadlineError(f"{', '.join(left)} still at work after {wait_s:.0f} s; draining goes on, see `labelloop status`")
        time.sleep(_POLL_S)


def _follow(manager: ManagerClient, args: argparse.Namespace) -> None:
    """Print what is logged until interrupted; a manager that does not answer for a moment is asked again."""
    shown: dict[str, list[str]] = {}
    told = args.process
    while True:
        with contextlib.suppress(RetryableError):
            for name in (args.process,) if args.process else _processes(manager):
                lines = max(args.lines, _FOLLOW_LINES) if name in shown else args.lines
                now = manager.logs(m.LogsRequest(process=name, lines=lines)).text.splitlines()
                fresh = new_lines(shown.get(name, []), now)
                shown[name] = now
                if fresh:
                    _say_lines(args, name, fresh, is_headed=name != told)
                    told = name
            sys.stdout.flush()
        time.sleep(_FOLLOW_S)


def _processes(manager: ManagerClient) -> tuple[str, ...]:
    return tuple(process.name for process in manager.status(m.Empty()).processes)


def _say_lines(args: argparse.Namespace, process: str, lines: Sequence[str], is_headed: bool) -> None:
    """Print new lines of one process's log, below its name where the lines before were of another one."""
    if is_headed and not args.json:
        say(f"==> {process} <==")
    for line in lines:
        say(msgspec.json.encode({"node": args.node, "process": process, "line": line}).decode() if args.json else line)


def new_lines(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Return the lines of `now` after its overlap with `before`: `before` may begin earlier or later, and end earlier."""
    if not before:
        return list(now)
    tail = list(before[-50:])
    for at in range(len(now), 0, -1):
        kept = tail[-at:]
        if list(now[max(0, at - len(kept)) : at]) == kept:
            return list(now[at:])
    return list(now)
