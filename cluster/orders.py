"""Gives orders: `initial` to all good managers at once, `stop_role` to released ones.

Owns nothing but the calls and the judgement of their answers. Must never decide who gets an order. Called by
`cluster.registry`'s loop, one order at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cluster.reachability import address_of
from labelloop.clients import ManagerClient
from labelloop.errors import LabelloopError
from labelloop.messages import (
    InitialReply,
    InitialRequest,
    MachineInfo,
    OpenTaskReply,
    OpenTaskRequest,
    RoleRequest,
    TaskExtraInfo,
)
from labelloop.settings import WireSettings
from labelloop.tls import Identity

ORDER_DEADLINE_S = 120.0
_MOST_AT_ONCE = 64

R = TypeVar("R")


def form_request(machines: Sequence[MachineInfo], epoch: int) -> InitialRequest:
    """Return the `initial` that forms `machines` in `epoch` and opens no task."""
    return InitialRequest(
        machines_info=tuple(machines),
        task_category="",
        task_extra_info=TaskExtraInfo(labels=()),
        task_datastore_path="",
        epoch=epoch,
    )


class Orders:
    """Calls managers as the registry. Thread-safe."""

    def __init__(self, identity: Identity, settings: WireSettings) -> None:
        self._identity = identity
        self._settings = settings

    def initial(self, targets: Sequence[MachineInfo], request: InitialRequest) -> tuple[dict[str, InitialReply], dict[str, str]]:
        """Call `initial` on all targets at once; return (replies, why others failed), by hostname."""

        def call(client: ManagerClient) -> InitialReply:
            return client.initial(request, deadline_s=ORDER_DEADLINE_S)

        return self._call_all(targets, call)

    def release(self, targets: Sequence[MachineInfo]) -> dict[str, str]:
        """Take the roles from all targets; return why some failed, by hostname."""
        return self._call_all(targets, lambda client: client.stop_role(RoleRequest(), deadline_s=ORDER_DEADLINE_S))[1]

    def open_task(self, target: MachineInfo, request: OpenTaskRequest) -> OpenTaskReply:
        """Open a task through one manager."""
        with contextlib.closing(ManagerClient(address_of(target), self._identity, self._settings)) as client:
            return client.open_task(request)

    def _call_all(self, targets: Sequence[MachineInfo], call: Callable[[ManagerClient], R]) -> tuple[dict[str, R], dict[str, str]]:
        def one(target: MachineInfo) -> R | LabelloopError:
            try:
                with contextlib.closing(ManagerClient(address_of(target), self._identity, self._settings)) as client:
                    return call(client)
            except LabelloopError as exc:
                return exc

        replies: dict[str, R] = {}
        failures: dict[str, str] = {}
        with ThreadPoolExecutor(max_workers=max(1, min(_MOST_AT_ONCE, len(targets)))) as pool:
            for target, answer in zip(targets, pool.map(one, targets), strict=True):
                if isinstance(answer, LabelloopError):
                    failures[target.hostname] = f"{answer.code}: {answer}"
                else:
                    replies[target.hostname] = answer
        return replies, failures


def why_not_agreed(replies: dict[str, InitialReply], expected: Sequence[MachineInfo]) -> str:
    """Return '' when every reply names exactly `expected` as good, else the sentence that says who differs; pure."""
    names = frozenset(machine.hostname for machine in expected)
    found = {name: frozenset(m.hostname for m in reply.good_machines_info) for name, reply in replies.items()}
    odd = [f"{name} found {', '.join(sorted(good)) or 'none'} good" for name, good in sorted(found.items()) if good != names]
    return f"{'; '.join(odd)}, alive are {', '.join(sorted(names))}" if odd else ""


def agreed_good(replies: dict[str, InitialReply], expected: Sequence[MachineInfo]) -> tuple[MachineInfo, ...]:
    """Return those of `expected` that every reply names as good; pure."""
    found = [{m.hostname for m in reply.good_machines_info} for reply in replies.values()]
    return tuple(machine for machine in expected if all(machine.hostname in good for good in found))
