"""The registry: who is in the cluster, what they should be, and the loop that makes it so.

Owns wanted state, the census of heartbeats and the epoch. Must never touch a role process: managers do, when ordered, and they
go on without a registry. Built by `labelloop registry`.

Locks: `_lock` guards the wanted state and what the loop last decided; it is never held over a call to a manager. Only the loop's
thread gives orders, so there is one order at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from cluster.authority import Authority
from cluster.census import Census, topology_of
from cluster.election import choose_roles, ip_order
from cluster.orders import Orders, agreed_good, form_request, why_not_agreed
from cluster.reconcile import Action, View, alive_wanted, lagging, next_action, unwanted
from cluster.wanted import Wanted, WantedFile
from labelloop import messages as m
from labelloop.errors import LabelloopError, NotFoundError, NotReadyError
from labelloop.settings import Settings
from labelloop.tls import Peer

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.25
_RETRY_FIRST_S = 1.0
_RETRY_MOST_S = 15.0
FORM_WAIT_S = 110.0


class Registry:
    """The service 'registry'. `first_roles` are wanted where nothing ever was: a cluster may form without a person."""

    def __init__(
        self,
        folder: Path,
        authority: Authority,
        orders: Orders,
        settings: Settings,
        first_roles: Mapping[str, m.Role] = MappingProxyType({}),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._authority = authority
        self._orders = orders
        self._dead_after_s = settings.cluster.dead_after_s
        self._clock = clock
        self._census = Census(self._dead_after_s)
        self._lock = threading.Condition()
        self._file = WantedFile(folder)
        if first_roles and not self._file.value.roles and not self._file.value.epoch:
            self._file.change(roles=dict(first_roles))
        self._is_confirmed = True
        self._failures = 0  # failed orders in a row
        self._failed_orders = 0  # in all
        self._failure = ""
        self._retry_at_s = 0.0
        self._look_until_s = clock() + self._dead_after_s
        self._decided = (Action.WAIT, "just started")
        self._revision = 0  # grows with each change of what is wanted
        self._decided_revision = -1  # the revision that `_decided` has seen
        self._is_awake = False
        self._is_ending = False
        self._thread: threading.Thread | None = None

    def handlers(self) -> Mapping[str, Callable[..., m.Message]]:
        """Return the method table for `wire.Server`."""
        return {
            "admit": self.admit,
            "renew": self.renew,
            "heartbeat": self.heartbeat,
            "nodes": lambda request, peer: self.nodes(),
            "topology": lambda request, peer: self.topology(),
            "form": self.form,
            "open_task": self.open_task,
        }

    def start(self) -> None:
        """Start the reconcile loop."""
        self._thread = threading.Thread(target=self._run, name="reconcile", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the loop after the order in flight; no node is disturbed."""
        with self._lock:
            self._is_ending = self._is_awake = True
            self._lock.notify_all()
        if self._thread is not None:
            self._thread.join()

    # ------------------------------------------------------------ methods

    def admit(self, request: m.AdmitRequest, peer: Peer) -> m.AdmitReply:
        """Sign a certificate under a join token, unless a living node holds the name or address under another key."""
        now_s = self._clock()
        return self._authority.admit(request, lambda name, address, key: self._census.is_taken(name, address, key, now_s))

    def renew(self, request: m.AdmitRequest, peer: Peer) -> m.AdmitReply:
        """Sign a fresh certificate for the caller's own key and name."""
        return self._authority.renew(request, peer)

    def heartbeat(self, request: m.Heartbeat, peer: Peer) -> m.HeartbeatReply:
        """Take in what a manager says of its node."""
        if self._census.note(request.status, peer, self._clock()):
            self._wake()
        with self._lock:
            return m.HeartbeatReply(epoch=self._file.value.epoch, cluster_id=self._authority.cluster_id)

    def nodes(self) -> m.NodesReply:
        """Return all nodes, the epoch and the last decision's reason."""
        with self._lock:
            action, reason = self._decided
            epoch = self._file.value.epoch
        return m.NodesReply(
            nodes=self._census.nodes(self._clock()),
            epoch=epoch,
            cluster_id=self._authority.cluster_id,
            state="learning" if action is Action.LEARN else "running",
            last_reason=reason,
        )

    def topology(self) -> m.Topology:
        """Return where to call."""
        with self._lock:
            epoch = self._file.value.epoch
        return topology_of(self._census.nodes(self._clock()), epoch)

    def form(self, request: m.FormRequest, peer: Peer) -> m.NodesReply:
        """Change which nodes train and which infer, and return once they do.

        It also confirms a learning registry. Raises InvalidInputError (too few machines), NotFoundError (a name never heard of),
        NotReadyError when the order failed or takes too long; the loop goes on trying.
        """
        with self._lock:
            self._confirm()
            roles = self._chosen_roles(request)
            logger.info("%s forms %s", peer.name, roles)
            self._change(roles=roles)
            revision = self._revision
            failed, self._retry_at_s = self._failed_orders, 0.0
            self._is_awake = True
            self._lock.notify_all()
            self._lock.wait_for(lambda: self._is_settled(revision) or self._failed_orders > failed or self._is_ending, FORM_WAIT_S)
            if not self._is_settled(revision):
                raise NotReadyError(
                    f"not formed yet: {self._failure or self._decided[1]}; the registry goes on trying, see `labelloop nodes`"
                )
        return self.nodes()

    def open_task(self, request: m.OpenTaskRequest, peer: Peer) -> m.OpenTaskReply:
        """Open a task, or change its settings, through a living node. Raises NotReadyError without one, or what the node says."""
        nodes = [n.status for n in self._census.nodes(self._clock()) if n.is_alive and n.status.role]
        if not nodes:
            raise NotReadyError("no node of the cluster is online: start managers and `labelloop form` first")
        nodes.sort(key=lambda s: (not (s.role == "train" and s.is_master), ip_order(s.ip)))
        reply = self._orders.open_task(m.MachineInfo(hostname=nodes[0].hostname, ip=nodes[0].ip, port=nodes[0].port), request)
        with self._lock:
            self._change(tasks={**self._file.value.tasks, reply.task: reply.revision})
        warnings = topology_of(self._census.nodes(self._clock()), 0).warnings
        return msgspec.structs.replace(reply, warnings=(*reply.warnings, *warnings))

    # ------------------------------------------------------------ wanted (under the lock)

    def _change(self, **fields: object) -> Wanted:
        self._revision += 1
        return self._file.change(**fields)

    def _is_settled(self, revision: int) -> bool:
        return self._decided_revision >= revision and self._decided[0] is Action.KEEP

    def _confirm(self) -> None:
        """End learning: take epoch and roles from the heartbeats where this registry knows less than they."""
        seen = self._census.seen(self._clock())
        newest = max((node.epoch for node in seen), default=0)
        if newest <= self._file.value.epoch and self._is_confirmed:
            return
        held: dict[str, m.Role] = {
            v.status.hostname: v.status.role for v in self._census.nodes(self._clock()) if v.is_alive and v.status.role
        }
        self._change(epoch=max(newest, self._file.value.epoch), roles=held, ordered=())
        self._is_confirmed = True

    def _chosen_roles(self, request: m.FormRequest) -> dict[str, m.Role]:
        if request.roles:
            known = {v.status.hostname for v in self._census.nodes(self._clock())} | set(self._file.value.machines)
            for name in request.roles:
                if name not in known:
                    raise NotFoundError(f"no node {name!r} has registered; there are: {', '.join(sorted(known)) or 'none'}")
            return dict(request.roles)
        if not request.train and not request.inference and self._file.value.roles:
            return self._file.value.roles
        return choose_roles(self._file.value.roles, self._census.alive(self._clock()), request.train, request.inference)

    # ------------------------------------------------------------ the loop

    def _wake(self) -> None:
        with self._lock:
            self._is_awake = True
            self._lock.notify_all()

    def _run(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._is_awake, _LOOK_EVERY_S)
                self._is_awake = False
                if self._is_ending:
                    return
            try:
                self._cycle()
            except LabelloopError as exc:
                self._fail(str(exc))
            except Exception:  # the daemon loop
                logger.exception("reconcile cycle failed, trying again")
                self._fail("a defect, see the registry's log")

    def _cycle(self) -> None:
        now_s = self._clock()
        with self._lock:
            view = self._view(now_s)
            action, reason = next_action(view, now_s)
            if (action, reason) != self._decided:
                logger.info("%s: %s", action.value, reason)
            self._decided, self._decided_revision = (action, reason), self._revision
            if action is Action.LEARN:
                self._is_confirmed = False
            self._lock.notify_all()
            self._census.forget_strangers(frozenset(view.wanted), now_s)
        if action is Action.ORDER_ALL:
            self._order_all(alive_wanted(view))
        elif action is Action.ORDER_SOME:
            late = set(lagging(view))
            alive = alive_wanted(view)
            self._order(tuple(machine for machine in alive if machine.hostname in late), alive)
        elif action is Action.RELEASE:
            self._release(set(unwanted(view)))

    def _view(self, now_s: float) -> View:
        wanted = self._file.value
        return View(
            wanted=wanted.roles,
            nodes=self._census.seen(now_s),
            epoch=wanted.epoch,
            ordered=wanted.ordered,
            is_confirmed=self._is_confirmed,
            dead_after_s=self._dead_after_s,
            look_until_s=self._look_until_s,
            retry_at_s=self._retry_at_s,
            failure=self._failure,
        )

    def _order_all(self, alive: tuple[m.MachineInfo, ...]) -> None:
        with self._lock:
            wanted = self._file.value
            machines = {**wanted.machines, **{machine.hostname: machine for machine in alive}}
            known = {
                name: msgspec.structs.replace(machines[name], type=role) for name, role in wanted.roles.items() if name in machines
            }
            self._file.change(epoch=wanted.epoch + 1, machines=known, ordered=alive)
        self._order(alive, alive)

    def _order(self, targets: tuple[m.MachineInfo, ...], alive: tuple[m.MachineInfo, ...]) -> None:
        with self._lock:
            wanted = self._file.value
        request = form_request(tuple(wanted.machines.values()), wanted.epoch)
        replies, failures = self._orders.initial(targets, request)
        for machine in targets:
            if machine.hostname in replies and machine.type:
                self._census.note_order(machine.hostname, machine.type, replies[machine.hostname])
        odd = why_not_agreed(replies, alive)
        if odd:
            with self._lock:
                self._file.change(ordered=agreed_good(replies, alive))
        self._judge("; ".join(filter(None, [*(f"{name}: {why}" for name, why in sorted(failures.items())), odd])))

    def _release(self, names: set[str]) -> None:
        targets = [machine for machine in self._census.alive(self._clock()) if machine.hostname in names]
        failures = self._orders.release(targets)
        for name in names - failures.keys():
            self._census.note_release(name)
        self._judge("; ".join(f"{name}: {why}" for name, why in sorted(failures.items())))

    def _judge(self, trouble: str) -> None:
        if trouble:
            self._fail(trouble)
            return
        with self._lock:
            self._failures, self._failure, self._retry_at_s = 0, "", 0.0
            self._is_awake = True  # look again at once

    def _fail(self, reason: str) -> None:
        with self._lock:
            self._failures += 1
            self._failed_orders += 1
            pause_s = min(_RETRY_MOST_S, _RETRY_FIRST_S * 2.0 ** min(self._failures - 1, 10))
            self._retry_at_s = self._clock() + pause_s
            if self._failure != reason:
                logger.warning("order failed: %s; again in %.0f s", reason, pause_s)
            self._failure = reason
            self._lock.notify_all()
