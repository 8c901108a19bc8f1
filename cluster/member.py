"""This node as a member of the broker cluster: looks, lets `cluster.membership` decide, does it, looks again.

Owns every change of this node's broker and what the lowest running member does for the others (forget, balance). Must never
decide by itself and never remember a plan: each turn starts from what is, so a fall at any point is mended by the next turn.
Called by the manager, one order or turn of upkeep at a time; `forget` also by the threads of the manager's server.

Locks: `_others` is held while other members are struck off or queues balanced, so that a peer's request and our own upkeep take
turns. It is never held while a peer is called.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from cluster.broker import Broker, QueueSpec
from cluster.membership import Action, Seen, Step, View, caretaker, decide, is_cut_off, is_held_up, to_forget
from cluster.peers import Peers
from labelloop.errors import ConflictError, LabelloopError, NotReadyError, RetryableError, StaleEpochError
from labelloop.messages import BrokerView, ForgetRequest, InviteReply, InviteRequest, MachineInfo, NodeStatus

logger = logging.getLogger(__name__)

_POLL_S = 0.1
_ASK_AGAIN_S = 0.05
_ASK_FOR_S = 1.0
_MOST_DEEDS = 20


class Circle(msgspec.Struct, frozen=True, kw_only=True):
    """The inference nodes of an order: the good ones, this one included, and the names of all that it lists, good or bad."""

    epoch: int
    machines: tuple[MachineInfo, ...]
    listed: tuple[str, ...] = ()
    survivors: tuple[str, ...] = ()

    def machine(self, hostname: str) -> MachineInfo:
        """Return one of the good machines."""
        return next(machine for machine in self.machines if machine.hostname == hostname)


class Member:
    """See the module. `erlang_hash` tells the hash of this node's cookie of the moment."""

    def __init__(
        self,
        me: str,
        broker: Broker,
        peers: Peers,
        erlang_hash: Callable[[], str],
        forget_after_s: float,
        stranded_after_s: float = 16.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.is_overtaken: Callable[[], bool] = lambda: False  # whoever gives orders says when a newer one waits
        self._me = me
        self._broker = broker
        self._peers = peers
        self._erlang_hash = erlang_hash
        self._forget_after_s = forget_after_s
        self._stranded_after_s = stranded_after_s
        self._clock = clock
        self._sleep = sleep
        self._others = threading.Lock()
        self._failed_starts = 0
        self._is_remembered = False
        self._dead_since_s: dict[str, float] = {}
        self._stranded_since_s: float | None = None
        self._balanced: tuple[frozenset[str], frozenset[str]] | None = None
        self._said = ""

    def invite(self) -> InviteReply:
        """Return the way into the cluster that this node is a running member of, or why there is none yet."""
        view = self._broker.view()
        if view.kind != "embedded" and (view.state != "running" or not view.cluster):
            return InviteReply(is_ready=False, reason=f"its broker is {view.state}{'' if view.cluster else ' outside any cluster'}")
        return self._broker.invite()

    # ------------------------------------------------------------ becoming a member

    def settle(self, circle: Circle, timeout_s: float) -> str:
        """Return why this node needs nothing more: it is a running member. 0 s = do what can be done without waiting.

        Raises NotReadyError saying what it waited for, or at once when a newer order waits; StaleEpochError when the others are
        past this epoch.
        """
        if self._broker.view().kind == "embedded":
            self._broker.start(self.is_overtaken)
            return "one embedded broker serves all nodes"
        deadline_s = self._clock() + timeout_s
        deeds = 0
        while True:
            try:
                step = self.advance(circle)
            except StaleEpochError:
                raise
            except (RetryableError, ConflictError) as exc:
                step = Step(action=Action.WAIT, reason=str(exc))
            if step.action is Action.KEEP:
                return step.reason
            deeds += step.action is not Action.WAIT
            is_over = self._clock() >= deadline_s or self.is_overtaken()
            if (step.action is Action.WAIT or deeds > _MOST_DEEDS) and is_over:
                raise NotReadyError(f"the broker of {self._me} is not in the cluster yet: {step.reason}")
            if step.action is Action.WAIT:
                self._sleep(_POLL_S)

    def advance(self, circle: Circle) -> Step:
        """Look, decide and do one step; return it, as WAIT when it could not be done yet."""
        step = decide(self._view(circle))
        if f"{step.action.value}: {step.reason}" != self._said:
            self._said = f"{step.action.value}: {step.reason}"
            logger.info("%s", self._said)
        return self._do(step, circle)

    def wake(self, circle: Circle) -> None:
        """Start this node's broker where it is a member that does not run, and change nothing else.

        For a node that must not act on its last order any more: its paused peers cannot go on without it, and with the registry
        down no order comes that would say so. Raises RetryableError saying what the broker waits for.
        """
        if decide(self._view(circle)).action is Action.START:
            self._start()

    def declare(self, queues: Sequence[QueueSpec], timeout_s: float) -> None:
        """Declare the queues that are missing; again within `timeout_s` while the broker is too busy to. Raises its last word."""
        deadline_s = self._clock() + timeout_s
        while True:
            try:
                return self._broker.ensure_queues(queues)
            except RetryableError:
                if self._clock() >= deadline_s or self.is_overtaken():
                    raise
            self._sleep(_POLL_S)

    def stand_alone(self) -> None:
        """Run a broker of our own, outside any cluster: that of a train node, or of a node without a role."""
        view = self._broker.view()
        if view.kind != "embedded" and view.cluster:
            logger.info("leaving the broker cluster %s: this node is no inference node any more", view.cluster)
            self.leave()
        self._broker.start(self.is_overtaken)

    def tend_alone(self) -> None:
        """See that a broker of our own runs. One that serves several nodes is not ours to look after."""
        view = self._broker.view()
        if view.kind != "embedded" and (view.state != "running" or view.cluster):
            self.stand_alone()

    def leave(self) -> None:
        """Take this node out of the cluster; where the others cannot be told, they forget it by themselves."""
        try:
            self._broker.leave()
        except LabelloopError as exc:
            logger.warning("cannot leave the broker cluster in order (%s: %s): emptying this node's broker", exc.code, exc)
            self._broker.reset()
        self._is_remembered, self._failed_starts = False, 0

    def _view(self, circle: Circle) -> View:
        said = self._peers.look(circle.machines, self._me)
        machines = [self._seen(machine, said.get(machine.hostname)) for machine in circle.machines]
        view = View(
            me=self._me,
            machines=tuple(machine for machine in machines if machine is not None),
            survivors=circle.survivors,
            unheard=tuple(machine.hostname for machine, seen in zip(circle.machines, machines, strict=True) if seen is None),
            is_remembered=self._is_remembered,
            failed_starts=self._failed_starts,
        )
        return msgspec.structs.replace(view, is_stranded=self._is_stranded(view))

    def _is_stranded(self, view: View) -> bool:
        now_s = self._clock()
        if not is_cut_off(view) and not is_held_up(view):
            self._stranded_since_s = None
        elif self._stranded_since_s is None:
            self._stranded_since_s = now_s
        return self._stranded_since_s is not None and now_s - self._stranded_since_s >= self._stranded_after_s

    def _seen(self, machine: MachineInfo, status: NodeStatus | None) -> Seen | None:
        if machine.hostname == self._me:
            return Seen(hostname=self._me, ip=machine.ip, broker=self._broker.view(), erlang_hash=self._erlang_hash())
        if status is None:
            return None
        return Seen(hostname=machine.hostname, ip=machine.ip, broker=status.broker, erlang_hash=status.erlang_hash)

    # ------------------------------------------------------------ one step

    def _do(self, step: Step, circle: Circle) -> Step:
        match step.action:
            case Action.KEEP:
                self._failed_starts, self._is_remembered = 0, False
            case Action.START:
                self._start()
            case Action.RESTART:
                if not self._is_inside((step.host,)):
                    self._broker.stop()
            case Action.FOUND:
                if not self._is_inside(()):
                    self._broker.start(self.is_overtaken)
                    self._broker.found(f"e{circle.epoch}-{secrets.token_hex(4)}")
            case Action.RESET_AND_FORM:
                if not self._is_inside(()):
                    self._broker.reset()
            case Action.JOIN | Action.REJOIN | Action.ADOPT:
                return self._enter(step, circle)
        return step

    def _is_inside(self, others: Sequence[str]) -> bool:
        """Return whether the broker itself says at this moment that it runs in a cluster, with one of `others` if any are given.

        A view may be a second old: nothing that a running member would lose is done on its word alone.
        """
        own = self._broker.invite()
        return own.is_ready and (not others or bool(set(own.members) & set(others) - {self._me}))

    def _start(self) -> None:
        """Start the broker and wait for it, unless a newer order waits.

        A start that was cut short has not failed, nor has one of a broker that lives and is silent.
        """
        try:
            self._broker.start(self.is_overtaken)
        except RetryableError:
            self._failed_starts += not self.is_overtaken() and self._broker.view().state != "unknown"
            raise
        self._failed_starts = 0

    def _enter(self, step: Step, circle: Circle) -> Step:
        """Touch the broker only once the inviting manager has said that its own runs in this epoch."""
        invite = self._ask(circle, step.host)
        if not invite.is_ready:
            return Step(action=Action.WAIT, reason=f"{step.host}: {invite.reason}")
        if step.action is Action.REJOIN:
            if self._is_inside(invite.members):
                return Step(action=Action.WAIT, reason="it is a running member after all: looking again")
            self._broker.stop()
            request = ForgetRequest(hostname=self._me, epoch=circle.epoch)
            self._peers.forget(circle.machine(step.forgetter), request)
        try:
            self._broker.join(invite)
        except ConflictError:
            self._is_remembered = True
            raise
        self._is_remembered, self._failed_starts = False, 0
        return step

    def _ask(self, circle: Circle, host: str) -> InviteReply:
        request = InviteRequest(hostname=self._me, epoch=circle.epoch)
        machine, deadline_s = circle.machine(host), self._clock() + _ASK_FOR_S
        while True:
            invite = self._peers.invite(machine, request)
            if invite.is_ready or self._clock() >= deadline_s:
                return invite
            self._sleep(_ASK_AGAIN_S)

    # ------------------------------------------------------------ staying one

    def tend(self, circle: Circle) -> str:
        """Mend this node's membership where it is broken, and do the caretaker's work where this is the one; '' = nothing was done.

        Raises RetryableError saying what is waited for. No peer is asked while all is well.
        """
        view = self._broker.view()
        if view.kind == "embedded":
            return ""
        names = {machine.hostname for machine in circle.machines}
        if view.state == "running" and view.cluster and self._me in view.running and names <= set(view.running):
            self._failed_starts = 0
            return self._care(view, circle)
        was_alone = view.state == "running" and len(view.running) == 1 < len(view.members)
        before = f"{view.state}{' alone' if was_alone else ''} in {view.cluster or 'no cluster'}"
        kept = self.settle(circle, timeout_s=0.0)
        after = self._broker.view()
        done = self._care(after, circle)
        is_other = (view.state, view.cluster) != (after.state, after.cluster) or (was_alone and len(after.running) > 1)
        is_mended = after.state == "running" and is_other
        mended = f"broker was {before}, mended by itself: {kept}" if is_mended else ""
        return "; ".join(filter(None, (mended, done)))

    def _care(self, view: BrokerView, circle: Circle) -> str:
        """Forget the dead and balance the queues, if this is the lowest running member of a majority."""
        now_s = self._clock()
        gone = [name for name in view.members if name not in view.running]
        self._dead_since_s = {name: self._dead_since_s.get(name, now_s) for name in gone}
        if caretaker(view, ((machine.hostname, machine.ip) for machine in circle.machines)) != self._me:
            self._balanced = None
            return ""
        dead_s = {name: now_s - since_s for name, since_s in self._dead_since_s.items()}
        done = []
        for name, why in to_forget(view, circle.listed, dead_s, self._forget_after_s).items():
            self.forget(name)
            done.append(f"forgot {name}, which {why}")
        state = (frozenset(view.members), frozenset(view.running))
        if state != self._balanced or done:
            with self._others:
                self._broker.balance()
            self._balanced = state if not done else None
        return "; ".join(done)

    def forget(self, hostname: str) -> None:
        """Strike a member that does not run off the cluster. Raises ConflictError while it runs."""
        with self._others:
            self._broker.forget(hostname)
        self._dead_since_s.pop(hostname, None)
        self._balanced = None
