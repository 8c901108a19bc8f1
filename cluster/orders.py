"""Calls managers as the registry: each call in a thread of its own, so that none waits for another.

Owns the calls in flight and the judgement of their answers. Must never decide who gets an order. Called by `cluster.steward`,
which hears of each answer through `done`, on the call's thread.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence

from cluster.reachability import address_of
from labelloop.clients import ManagerClient
from labelloop.errors import LabelloopError
from labelloop.messages import (
    Empty,
    InitialReply,
    InitialRequest,
    MachineInfo,
    Message,
    NodeStatus,
    OpenTaskReply,
    OpenTaskRequest,
    RoleRequest,
    TaskExtraInfo,
)
from labelloop.settings import WireSettings
from labelloop.tls import Identity

ORDER_DEADLINE_S = 120.0
CHORE_DEADLINE_S = 60.0
LOOK_DEADLINE_S = 2.0
_CLOSE_GRACE_S = 2.0

Done = Callable[[str, Message | LabelloopError], None]


def form_request(
    machines: Sequence[MachineInfo], epoch: int, survivors: Sequence[str] = (), drained: Sequence[str] = ()
) -> InitialRequest:
    """Return the `initial` that forms `machines` in `epoch` and opens no task."""
    return InitialRequest(
        machines_info=tuple(machines),
        task_category="",
        task_extra_info=TaskExtraInfo(labels=()),
        task_datastore_path="",
        epoch=epoch,
        survivors=tuple(survivors),
        drained=tuple(drained),
    )


class Orders:
    """Thread-safe. A call whose node hangs holds its own thread alone, until its deadline."""

    def __init__(self, identity: Identity, settings: WireSettings) -> None:
        self._identity = identity
        self._settings = settings
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()

    def initial(self, target: MachineInfo, request: InitialRequest, done: Done) -> None:
        """Begin to order one node; `done(hostname, InitialReply or error)`."""
        self._start(target, lambda client: client.initial(request, deadline_s=ORDER_DEADLINE_S), done)

    def release(self, target: MachineInfo, done: Done) -> None:
        """Begin to take the role from one node."""
        self._start(target, lambda client: client.stop_role(RoleRequest(), deadline_s=CHORE_DEADLINE_S), done)

    def leave(self, target: MachineInfo, done: Done) -> None:
        """Begin to tell one node to leave the cluster."""
        self._start(target, lambda client: client.leave(Empty(), deadline_s=CHORE_DEADLINE_S), done)

    def open_task(self, target: MachineInfo, request: OpenTaskRequest) -> OpenTaskReply:
        """Open a task through one manager and return its answer."""
        with contextlib.closing(self._client(target)) as client:
            return client.open_task(request)

    def look(self, target: MachineInfo) -> NodeStatus:
        """Return what a manager says of itself now."""
        with contextlib.closing(self._client(target)) as client:
            return client.status(Empty(), deadline_s=LOOK_DEADLINE_S)

    def close(self) -> None:
        """Wait a moment for the calls in flight; whatever hangs longer dies with the process."""
        end_s = time.monotonic() + _CLOSE_GRACE_S
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, end_s - time.monotonic()))

    def _client(self, target: MachineInfo) -> ManagerClient:
        return ManagerClient(address_of(target), self._identity, self._settings)

    def _start(self, target: MachineInfo, call: Callable[[ManagerClient], Message], done: Done) -> None:
        def run() -> None:
            answer: Message | LabelloopError
            try:
                with contextlib.closing(self._client(target)) as client:
                    answer = call(client)
            except LabelloopError as exc:
                answer = exc
            done(target.hostname, answer)
            with self._lock:
                self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name=f"order-{target.hostname}", daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()


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
