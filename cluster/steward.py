"""The registry's loop: looks at what is wanted and seen, decides, and has it done.

Owns the epoch, the last decision and the orders in flight. Must never wait for a node: each call runs in a thread of its own and
its answer comes back through the inbox, so that a node that hangs delays no other. Built by `labelloop registry`.

Locks: `lock` guards all of this object, the wanted state included; it is never held over a call to a node. Only the loop's thread
gives orders, and epochs put them in order: a manager refuses an older one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec

from cluster.census import Census
from cluster.chores import Chores
from cluster.journal import Journal
from cluster.orders import Orders, form_request
from cluster.reconcile import Action, View, alive_wanted, due, lagging, next_action, unwanted
from cluster.rounds import Pauses, Round
from cluster.wanted import Wanted, WantedFile
from cluster.watches import DrainWatch, MajorityWatch
from labelloop import messages as m
from labelloop.errors import InternalError, LabelloopError, NotReadyError
from labelloop.settings import ClusterSettings

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.25
_QUARREL = "quarrel"
SETTLE_WAIT_S = 110.0
_TOLD = frozenset({Action.LEARN, Action.KEEP})


class Steward:
    """`lock` is a condition that is told of each decision."""

    def __init__(
        self,
        file: WantedFile,
        census: Census,
        orders: Orders,
        journal: Journal,
        settings: ClusterSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lock = threading.Condition()
        self._file = file
        self._census = census
        self._orders = orders
        self._journal = journal
        self._dead_after_s = settings.dead_after_s
        self._clock = clock
        self.chores = Chores(orders, journal, self._post, clock, settings.dead_after_s)
        self._majority = MajorityWatch(settings.majority_lost_s, settings.dead_after_s)
        self._drains = DrainWatch(settings.drain_wait_s, settings.dead_after_s)
        self._pauses = Pauses()
        self._told_failures: dict[str, str] = {}
        self._is_confirmed = True
        self._look_until_s = clock() + settings.dead_after_s
        self._round: Round | None = None
        self._releasing: set[str] = set()
        self._inbox: deque[Callable[[], None]] = deque()
        self._decided = (Action.WAIT, "just started")
        self._revision = 0  # grows with each change of what is wanted
        self._decided_revision = -1  # the revision that `_decided` has seen
        self._failed_rounds = 0
        self._failure = ""
        self._is_awake = False
        self._is_ending = False
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------ for the registry

    def start(self) -> None:
        """Start the loop."""
        self._thread = threading.Thread(target=self._run, name="reconcile", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the loop; no node is disturbed."""
        with self.lock:
            self._is_ending = self._is_awake = True
            self.lock.notify_all()
        if self._thread is not None:
            self._thread.join()
        self._orders.close()

    def wake(self) -> None:
        """Look now."""
        with self.lock:
            self._is_awake = True
            self.lock.notify_all()

    @property
    def wanted(self) -> Wanted:
        """Return what is wanted now."""
        return self._file.value

    @property
    def decided(self) -> tuple[Action, str]:
        """Return the last decision and its reason."""
        return self._decided

    def change(self, **fields: object) -> int:
        """Change what is wanted (under the lock), have it looked at now; return the revision to `settle`."""
        self._revision += 1
        self._file.change(**fields)
        self._pauses.hurry()
        self._is_awake = True
        self.lock.notify_all()
        return self._revision

    def settle(self, revision: int, is_done: Callable[[], bool] = lambda: True) -> None:
        """Return (under the lock, given up meanwhile) once everything is as wanted, every role answers, and `is_done`.

        Raises NotReadyError when an order failed or it takes too long; the loop goes on trying.
        """
        failed = self._failed_rounds

        def is_settled() -> bool:
            is_kept = self._decided[0] is Action.KEEP or self._is_empty()
            return self._decided_revision >= revision and is_kept and not self._unready() and is_done()

        self.lock.wait_for(lambda: is_settled() or self._failed_rounds > failed or self._is_ending, SETTLE_WAIT_S)
        if not is_settled():
            why = self._failure or self._unready() or self._decided[1]
            raise NotReadyError(f"not there yet: {why}; the registry goes on trying, see `labelloop status`")

    def _is_empty(self) -> bool:
        """Return whether no role is wanted and none is held."""
        return not self.wanted.roles and not self._releasing and not unwanted(self._view(self._clock()))

    def _unready(self) -> str:
        """Return which living node has taken its order and does not serve in its role yet, or not safely, and why; '' = none."""
        wanted = self.wanted
        for view in self._census.nodes(self._clock()):
            status = view.status
            is_working = view.is_alive and status.hostname in wanted.roles and status.hostname not in wanted.draining
            if is_working and (status.role == "inference" or status.is_master) and not status.rpc:
                return f"{status.hostname} does not answer as {status.role} yet: {status.last_reason}"
            if is_working and status.role == "inference" and not self._census.has_reported(status.hostname):
                return f"{status.hostname} has taken its order and has not said since how its broker is"
            if is_working and status.role == "inference" and status.broker.short:
                return f"{status.hostname} has queues that are still being copied: {', '.join(status.broker.short)}"
        return ""

    def must_be_confirmed(self) -> None:
        """Raise NotReadyError (under the lock) while this registry knows less than the nodes do."""
        if not self._is_confirmed or self._newest() > self.wanted.epoch:
            raise NotReadyError(
                "this registry knows less than the nodes do and is learning: look at `labelloop status`, then `labelloop confirm`"
            )

    def confirm(self) -> None:
        """End learning (under the lock): epoch and roles become those of the heartbeats; of silent nodes, what was known here."""
        newest = self._newest()
        if newest <= self.wanted.epoch and self._is_confirmed:
            return
        alive = [v.status for v in self._census.nodes(self._clock()) if v.is_alive]
        heard = {status.hostname for status in alive}
        roles = {name: role for name, role in self.wanted.roles.items() if name not in heard}
        roles |= {status.hostname: status.role for status in alive if status.role}
        self._journal.note("confirm", f"epoch {newest} and the roles that the nodes hold: {_roles(roles)}")
        self.change(epoch=max(newest, self.wanted.epoch), roles=roles, ordered=(), ordered_drained=())
        self._is_confirmed = True

    def _newest(self) -> int:
        return max((node.epoch for node in self._census.seen(self._clock())), default=0)

    # ------------------------------------------------------------ the loop

    def _post(self, work: Callable[[], None]) -> None:
        """Have `work` done under the lock by the loop; for the threads of calls."""
        self._inbox.append(work)
        self.wake()

    def _run(self) -> None:
        looked_s = self._clock()
        while True:
            with self.lock:
                self.lock.wait_for(lambda: self._is_awake, _LOOK_EVERY_S)
                self._is_awake = False
                if self._is_ending:
                    return
                try:
                    looked_s, before_s = self._clock(), looked_s
                    self._excuse(looked_s - before_s, looked_s)
                    self._cycle(looked_s)
                except LabelloopError as exc:
                    self._fail("registry", f"{exc.code}: {exc}")
                except Exception:  # the daemon loop
                    logger.exception("a turn of the reconcile loop failed, trying again")

    def _excuse(self, still_s: float, now_s: float) -> None:
        """Take no node for dead that may have been unheard because this registry itself stood still (paused, a disk that hung)."""
        if still_s >= max(self._dead_after_s / 2, 2 * _LOOK_EVERY_S):
            logger.warning("the registry stood still for %.1f s: nodes get as long as after a start to be heard", still_s)
            self._look_until_s = now_s + self._dead_after_s

    def _cycle(self, now_s: float) -> None:
        while self._inbox:
            self._inbox.popleft()()
        view = self._view(now_s)
        action, reason = next_action(view, now_s)
        self._take_decision(action, reason)
        self._census.forget_strangers(frozenset(view.wanted), now_s)
        if action is Action.ORDER_ALL:
            self._order_all(view, reason, now_s)
        elif action is Action.ORDER_SOME:
            self._order_some(view, now_s)
        elif action is Action.RELEASE:
            self._release(due(view, unwanted(view), now_s))
        if action is not Action.LEARN:
            self.chores.do(self.wanted.removed, now_s)

    def _take_decision(self, action: Action, reason: str) -> None:
        if (action, reason) != self._decided:
            logger.info("%s: %s", action.value, reason)
            if action in _TOLD:
                self._journal.note(action.value, reason)
        self._decided, self._decided_revision = (action, reason), self._revision
        if action is Action.LEARN:
            self._is_confirmed = False
        elif action is Action.KEEP:
            self._failure = ""
        self.lock.notify_all()

    def _view(self, now_s: float) -> View:
        wanted = self.wanted
        nodes = self._census.seen(now_s)
        drains = self._drains.look(nodes, wanted.draining, wanted.ordered_drained, now_s)
        drained = tuple(name for name, drain in drains.items() if drain.is_over)
        working = [name for name, role in wanted.roles.items() if role == "inference" and name not in drained]
        loss = self._majority.look(nodes, working, now_s)
        current = self._round
        return View(
            wanted=wanted.roles,
            nodes=nodes,
            epoch=wanted.epoch,
            ordered=wanted.ordered,
            attempted=current.alive if current else None,
            drained=drained,
            ordered_drained=wanted.ordered_drained,
            busy=frozenset((current.pending if current else set()) | self._releasing),
            is_confirmed=self._is_confirmed,
            dead_after_s=self._dead_after_s,
            look_until_s=self._look_until_s,
            retry_at_s=self._pauses.until_s.get(_QUARREL, 0.0),
            node_retry_at_s=self._pauses.until_s,
            failure=self._failure,
            survivors=loss.survivors if loss else (),
            loss=loss.reason if loss else "",
        )

    def drain_reason(self, hostname: str) -> str:
        """Return how far the draining of a node is, '' = it is not draining (under the lock)."""
        drains = self._drains.look(
            self._census.seen(self._clock()), self.wanted.draining, self.wanted.ordered_drained, self._clock()
        )
        return drains[hostname].reason if hostname in drains else ""

    # ------------------------------------------------------------ orders

    def _order_all(self, view: View, reason: str, now_s: float) -> None:
        wanted, alive = self.wanted, alive_wanted(view)
        machines = {**wanted.machines, **{machine.hostname: machine for machine in alive}}
        places = {name: role for name, role in wanted.roles.items() if name in machines}
        known = {name: msgspec.structs.replace(machines[name], type=role) for name, role in places.items()}
        self._file.change(
            epoch=wanted.epoch + 1, machines=known, ordered=alive, ordered_drained=view.drained, survivors=view.survivors
        )
        if view.survivors:
            self._majority.restart(now_s)
        self._round = Round(wanted.epoch + 1, alive)
        self._journal.note("order", f"epoch {wanted.epoch + 1}: {reason}")
        self._order(alive)

    def _order_some(self, view: View, now_s: float) -> None:
        late = set(due(view, lagging(view), now_s))
        alive = alive_wanted(view)
        if self._round is None or self._round.epoch != view.epoch:
            self._round = Round(view.epoch, alive)
        self._order(tuple(machine for machine in alive if machine.hostname in late))

    def _order(self, targets: tuple[m.MachineInfo, ...]) -> None:
        wanted, current = self.wanted, self._round
        assert current is not None
        current.ask(machine.hostname for machine in targets)
        request = form_request(tuple(wanted.machines.values()), wanted.epoch, wanted.survivors, wanted.ordered_drained)

        def done(name: str, answer: m.Message | LabelloopError) -> None:
            self._post(lambda: self._take_answer(current, name, answer))

        for machine in targets:
            self._journal.count("orders")
            self._orders.initial(machine, request, done)

    def _take_answer(self, asked: Round, name: str, answer: m.Message | LabelloopError) -> None:
        if not isinstance(answer, m.InitialReply | LabelloopError):
            answer = InternalError(f"{name} answered an order with {type(answer).__name__}")
        role = self.wanted.roles.get(name)
        if isinstance(answer, m.InitialReply) and role:
            self._census.note_order(name, role, answer)
        if asked is not self._round:
            return  # a newer order is out
        is_last = asked.answer(name, answer)
        if isinstance(answer, LabelloopError):
            self._fail(name, asked.failures[name])
        else:
            self._pauses.clear(name)
            self._told_failures.pop(name, None)
        if is_last:
            self._judge(asked)

    def _judge(self, asked: Round) -> None:
        if asked.quarrel:
            self._file.change(ordered=asked.agreed)
            self._fail(_QUARREL, asked.quarrel)
        else:
            self._pauses.clear(_QUARREL)
            self._told_failures.pop(_QUARREL, None)
        self._failure = asked.trouble
        if asked.trouble:
            self._failed_rounds += 1

    def _release(self, names: tuple[str, ...]) -> None:
        def done(name: str, answer: m.Message | LabelloopError) -> None:
            self._post(lambda: self._take_release(name, answer))

        for machine in self._census.alive(self._clock()):
            if machine.hostname in names:
                self._journal.note("release", f"{machine.hostname} is not wanted any more")
                self._releasing.add(machine.hostname)
                self._orders.release(machine, done)

    def _take_release(self, name: str, answer: m.Message | LabelloopError) -> None:
        self._releasing.discard(name)
        if isinstance(answer, LabelloopError):
            self._fail(name, f"{answer.code}: {answer}")
            self._failure = f"{name}: {answer.code}: {answer}"
            self._failed_rounds += 1
        else:
            self._pauses.clear(name)
            self._census.note_release(name)

    def _fail(self, key: str, reason: str) -> None:
        """Pause before `key` is tried again; the same trouble is told once."""
        self._pauses.fail(key, self._clock())
        self._journal.count("order_failures")
        if self._told_failures.get(key) != reason:
            self._told_failures[key] = reason
            logger.warning("order failed: %s: %s; trying again", key, reason)
            self._journal.note("failure", f"{key}: {reason}")


def _roles(roles: dict[str, m.Role]) -> str:
    return ", ".join(f"{name} {role}" for name, role in sorted(roles.items())) or "none"
