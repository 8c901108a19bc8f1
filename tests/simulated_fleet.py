"""A fleet of simulated brokers and managers for membership tests: no process, no network, every fault at will.

It behaves as RabbitMQ does where it matters: joining empties the joiner, a cluster refuses a node it remembers under an earlier
life, a member that was forgotten does not boot, a minority pauses, other cookies cannot meet, views are a moment old. `violations`
collects every running member of a majority that was stopped or emptied.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Sequence

from cluster.broker import BrokerUrls, QueueSpec, never
from cluster.initial import Assignment
from cluster.member import Circle, Member
from cluster.membership import Action, Step
from cluster.neighbours import Neighbours
from labelloop.errors import ConflictError, LabelloopError, NotReadyError, UnreachableError
from labelloop.messages import (
    BrokerView,
    ForgetRequest,
    InviteReply,
    InviteRequest,
    LinkReply,
    LinkRequest,
    MachineInfo,
    NodeStatus,
)
from labelloop.tls import Peer

PORT = 7000


class Crash(BaseException):
    """The manager was killed in the middle of a step; its broker lives on."""


class Database:
    """What one broker has on disk. `lives` maps each member to the life under which it is known."""

    def __init__(self, me: str, life: int) -> None:
        self.cluster = ""
        self.lives = {me: life}
        self.messages: set[str] = set()


class SimBroker:
    """One node's broker behind the protocol `Broker`."""

    def __init__(self, fleet: Fleet, name: str, ip: str) -> None:
        self.fleet, self.name, self.ip = fleet, name, ip
        self.cookie = self.vm_cookie = f"own-{name}"
        self.database: Database | None = None
        self.known = ""
        self.is_up = False
        self.is_dropped = False  # frozen for so long that the others go on without it, and thawed: until it starts anew
        self.is_hung = False  # paused, and does not go on though the others count it as running: until it starts anew
        self.changes = 0
        self.balanced = 0
        self._snapshot: BrokerView | None = None

    # ---------------- what is true

    @property
    def life(self) -> int:
        return self.database.lives[self.name] if self.database else 0

    def meets(self, other: SimBroker) -> bool:
        """Whether the two virtual machines are connected."""
        is_connected = self.is_up and other.is_up and self.fleet.is_linked(self.name, other.name)
        return is_connected and self.vm_cookie == other.vm_cookie and not (self.is_dropped or other.is_dropped)

    def knows(self, other: SimBroker) -> bool:
        return self.database is not None and self.database.lives.get(other.name) == other.life != 0

    def reached(self) -> list[SimBroker]:
        """The members, this one included, that this one is connected to and that agree."""
        assert self.database is not None
        others = [self.fleet.brokers[name] for name in self.database.lives if name in self.fleet.brokers and name != self.name]
        return [self, *(other for other in others if self.meets(other) and self.knows(other) and other.knows(self))]

    @property
    def is_paused(self) -> bool:
        """In a cluster of two or more, and not with more than half of it; one that was frozen does not notice."""
        return (
            self.is_up and not self.is_dropped and self.database is not None and len(self.reached()) * 2 <= len(self.database.lives)
        )

    @property
    def is_running(self) -> bool:
        return self.is_up and not self.is_paused

    def running(self) -> list[SimBroker]:
        return [broker for broker in self.reached() if broker.is_running]

    def truth(self) -> BrokerView:
        if self.database is None or not self.is_up:
            known = self.known if self.database is not None else ""
            return BrokerView(kind="rabbitmq", state="stopped", cluster=known)
        members = tuple(sorted(self.database.lives))
        if self.is_paused or self.is_hung:
            return BrokerView(kind="rabbitmq", state="paused", cluster=self.known, members=members)
        self.known = self.database.cluster
        running = tuple(sorted(broker.name for broker in self.running()))
        return BrokerView(kind="rabbitmq", state="running", cluster=self.known, members=members, running=running)

    # ---------------- the protocol

    def view(self) -> BrokerView:
        if self._snapshot is None or not self.fleet.is_stale():
            self._snapshot = self.truth()
        return self._snapshot

    def start(self, is_over: Callable[[], bool] = never) -> None:
        self.fleet.tick()
        if self.is_up:
            if self.is_paused or self.is_hung:
                raise NotReadyError("paused")
            return
        self.changes += 1
        if self.database is None:
            self.database = Database(self.name, self.fleet.new_life())
        self.vm_cookie = self.cookie
        self.is_up, self.is_dropped, self.is_hung = True, False, False
        others = [self.fleet.brokers[name] for name in self.database.lives if name in self.fleet.brokers and name != self.name]
        if any(self.meets(other) and other.database is not None and not other.knows(self) for other in others):
            self.is_up = False
            raise NotReadyError("inconsistent_cluster: the others do not know it any more")
        if self.is_paused:
            raise NotReadyError("paused")
        for member in self.running()[1:2]:  # a member that comes back hears what happened meanwhile
            assert member.database is not None
            self.database.lives = dict(member.database.lives)
            self.database.messages |= member.database.messages

    def stop(self) -> None:
        self.fleet.tick()
        self._end("stopped")

    def _end(self, what: str) -> None:
        if self.is_up:
            if self.is_running and not self.is_hung and len(self.running()) > 1 and self.name not in self.fleet.leaving:
                self.fleet.violations.append(f"{self.name} was {what} as a running member of {self.truth().cluster}")
            self.changes += 1
        self.is_up = False

    def _wipe(self, what: str) -> None:
        self._end(what)
        self.fleet.tick()
        self.database, self.known = None, ""
        self.changes += 1

    def urls(self, role: str = "inference") -> BrokerUrls:
        return BrokerUrls(broker=f"amqp://{self.cookie}", result="", web="")

    def link(self) -> str:
        return f"amqps://{self.cookie}"

    def read_hosts(self) -> None:
        return

    def check(self) -> None:
        if not self.is_running:
            raise UnreachableError("down")

    def erlang_hash(self, cluster_id: str) -> str:
        return f"hash of {self.cookie}"

    def invite(self) -> InviteReply:
        view = self.truth()
        if view.state != "running" or not view.cluster:
            return InviteReply(is_ready=False, reason=f"{self.name} is {view.state}")
        return InviteReply(is_ready=True, cluster=view.cluster, cookie=self.cookie, members=view.running)

    def found(self, cluster: str) -> None:
        self.fleet.tick()
        self.start()
        assert self.database is not None
        if self.database.cluster == cluster:
            return
        if len(self.database.lives) > 1:
            raise ConflictError("it has other members")
        self.database.cluster = self.known = cluster
        self.changes += 1

    def join(self, invite: InviteReply) -> None:
        if self.truth().state == "running" and self.truth().cluster == invite.cluster:
            return
        contact = next((self.fleet.brokers[name] for name in invite.members if self._can_ask(name, invite)), None)
        if contact is None:
            raise NotReadyError("no member answers")
        assert contact.database is not None
        if self.name in contact.database.lives:
            if self.database is None or not contact.knows(self):
                raise ConflictError("the cluster knows an earlier life")
            if self.cookie != invite.cookie:
                self._end("stopped")
                self.cookie = invite.cookie
            self.start()
            return
        self._wipe("emptied")
        self.fleet.tick()
        self.cookie = invite.cookie
        self.fleet.tick()
        if not self._can_ask(contact.name, invite):
            raise NotReadyError("the contact went away")
        self.database = Database(self.name, self.fleet.new_life())
        self.database.lives |= contact.database.lives
        self.database.cluster = self.known = invite.cluster
        self.database.messages = set(contact.database.messages)
        for member in contact.running():
            assert member.database is not None
            member.database.lives[self.name] = self.life
        self.vm_cookie, self.is_up = self.cookie, True
        self.changes += 1
        self.fleet.tick()

    def _can_ask(self, name: str, invite: InviteReply) -> bool:
        other = self.fleet.brokers.get(name)
        if other is None or other is self or not other.is_running or other.database is None:
            return False
        is_open = other.vm_cookie == invite.cookie and self.fleet.is_linked(self.name, name)
        return is_open and other.database.cluster == invite.cluster

    def reset(self) -> None:
        self.fleet.tick()
        self._wipe("reset")
        self.cookie = f"new-{self.name}-{self.fleet.new_life()}"

    def forget(self, hostname: str) -> None:
        self.fleet.tick()
        if not self.is_running:
            raise NotReadyError("not running")
        if any(member.name == hostname for member in self.running()):
            raise ConflictError(f"{hostname} runs")
        for member in self.running():
            assert member.database is not None
            member.changes += hostname in member.database.lives
            member.database.lives.pop(hostname, None)

    def ensure_queues(self, queues: Sequence[QueueSpec]) -> None:
        self.check()

    def balance(self) -> None:
        self.fleet.tick()
        self.balanced += 1

    def leave(self) -> None:
        self.fleet.leaving.add(self.name)
        others = [member for member in self.running() if member is not self] if self.is_running else []
        for member in others:
            assert member.database is not None
            member.database.lives.pop(self.name, None)
        self.reset()
        self.fleet.leaving.discard(self.name)


class SimPeers:
    """The other managers as one node sees them."""

    def __init__(self, fleet: Fleet, me: str) -> None:
        self._fleet, self._me = fleet, me

    def look(self, machines: Sequence[MachineInfo], me: str) -> dict[str, NodeStatus]:
        fleet = self._fleet
        heard = [x for x in machines if x.hostname != me and x.hostname in fleet.managers and not fleet.is_deaf(me, x.hostname)]
        return {
            machine.hostname: NodeStatus(
                hostname=machine.hostname,
                ip=machine.ip,
                port=PORT,
                epoch=fleet.managers[machine.hostname].circle.epoch,
                broker=fleet.brokers[machine.hostname].view(),
                erlang_hash=fleet.brokers[machine.hostname].erlang_hash(""),
            )
            for machine in heard
        }

    def _door(self, host: MachineInfo) -> Neighbours:
        if host.hostname not in self._fleet.managers:
            raise UnreachableError(f"{host.hostname} is off")
        return self._fleet.managers[host.hostname].neighbours

    def _peer(self) -> Peer:
        return Peer(name=self._me, kind="node", address=self._fleet.brokers[self._me].ip)

    def invite(self, host: MachineInfo, request: InviteRequest) -> InviteReply:
        return self._door(host).invite(request, self._peer())

    def forget(self, host: MachineInfo, request: ForgetRequest) -> None:
        self._door(host).forget(request, self._peer())

    def link(self, host: MachineInfo, request: LinkRequest) -> LinkReply:
        return self._door(host).link(request, self._peer())


class SimManager:
    """What stands for one manager: its member and what it was ordered last."""

    def __init__(self, fleet: Fleet, name: str, circle: Circle) -> None:
        self.circle = circle
        broker = fleet.brokers[name]
        self.member = Member(
            name, broker, SimPeers(fleet, name), lambda: broker.erlang_hash(""), 300.0, 16.0, lambda: fleet.now_s, fleet.sleep
        )
        self.neighbours = Neighbours(name, broker, self.member, self._moment)

    def _moment(self) -> tuple[Assignment, bool]:
        good = tuple(self.circle.machines)
        return Assignment(epoch=self.circle.epoch, role="inference", good=good, listed=self.circle.listed), True


class Fleet:
    """`names` get the addresses 10.0.0.1, 10.0.0.2, ... in their order. `staleness`: share of looks that see the last state."""

    def __init__(self, names: Sequence[str], seed: int = 0, staleness: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.staleness = staleness
        self.brokers: dict[str, SimBroker] = {}
        self.managers: dict[str, SimManager] = {}
        self.violations: list[str] = []
        self.leaving: set[str] = set()
        self.cuts: set[frozenset[str]] = set()
        self.deaf: set[tuple[str, str]] = set()
        self.now_s = 0.0
        self.epoch = 0
        self.fuse = -1
        self._lives = itertools.count(1)
        for name in names:
            self.add(name)

    # ---------------- machines

    def add(self, name: str, number: int = 0) -> SimBroker:
        """Boot a docker with an empty disk: its broker runs alone."""
        broker = SimBroker(self, name, f"10.0.0.{number or len(self.brokers) + 1}")
        self.brokers[name] = broker
        broker.start()
        return broker

    def wipe(self, name: str) -> None:
        """Lose the disk of a docker; it boots with an empty one."""
        old = self.brokers[name]
        fresh = SimBroker(self, name, old.ip)
        fresh.cookie = f"wiped-{name}-{self.new_life()}"
        self.brokers[name] = fresh
        self.managers.pop(name, None)
        fresh.start()

    def rename(self, name: str, new: str) -> None:
        """Boot a docker under another host name: the broker finds no database of that name."""
        old = self.brokers.pop(name)
        self.managers.pop(name, None)
        fresh = SimBroker(self, new, old.ip)
        fresh.cookie = old.cookie
        self.brokers[new] = fresh
        fresh.start()

    def machine(self, name: str) -> MachineInfo:
        return MachineInfo(hostname=name, ip=self.brokers[name].ip, port=PORT, type="inference")

    def publish(self, name: str, *messages: str) -> None:
        """Put messages into the queues of the cluster that `name` runs in."""
        for member in self.brokers[name].running():
            assert member.database is not None
            member.database.messages |= set(messages)

    # ---------------- orders

    def order(
        self, views: dict[str, Sequence[str]] | None = None, survivors: tuple[str, ...] = (), listed: Iterable[str] = ()
    ) -> None:
        """Give everyone the next epoch; `views`: whom each finds good (default: all find all)."""
        self.epoch += 1
        everyone = tuple(self.brokers)
        for name in everyone:
            good = (views or {}).get(name, everyone)
            circle = Circle(
                epoch=self.epoch,
                machines=tuple(self.machine(other) for other in everyone if other in good or other == name),
                listed=tuple(listed) or everyone,
                survivors=survivors,
            )
            if name in self.managers:
                self.managers[name].circle = circle
            else:
                self.managers[name] = SimManager(self, name, circle)

    def advance(self, name: str) -> Step:
        """Let one manager do one step; errors are what it would wait for, a crash a new manager process."""
        manager = self.managers[name]
        self.now_s += 1.0
        try:
            return manager.member.advance(manager.circle)
        except Crash:
            self.managers[name] = SimManager(self, name, manager.circle)
            return Step(action=Action.WAIT, reason="crashed")
        except LabelloopError as exc:
            return Step(action=Action.WAIT, reason=f"{exc.code}: {exc}")

    def run(self, rounds: int = 40) -> int:
        """Let all managers work in random order until all keep; return after how many rounds, or raise AssertionError."""
        steps: dict[str, Step] = {}
        for number in range(rounds):
            names = list(self.managers)
            self.random.shuffle(names)
            for name in names:
                steps[name] = self.advance(name)
            staleness, self.staleness = self.staleness, 0.0
            is_done = self.is_whole() and all(self.advance(name).action is Action.KEEP for name in names)
            self.staleness = staleness
            if is_done:
                return number
        raise AssertionError({name: (step.action.value, step.reason) for name, step in steps.items()})

    def is_whole(self) -> bool:
        """Whether all brokers are running members of one cluster, and it has no other member."""
        views = [broker.truth() for broker in self.brokers.values()]
        everyone = tuple(sorted(self.brokers))
        return all(view.state == "running" and view.cluster and view.running == view.members == everyone for view in views)

    def living(self) -> dict[str, list[SimBroker]]:
        """Every cluster that runs somewhere, with its running members."""
        found: dict[str, list[SimBroker]] = {}
        for broker in self.brokers.values():
            view = broker.truth()
            if view.state == "running" and view.cluster:
                found.setdefault(view.cluster, []).append(broker)
        return found

    def changes(self) -> int:
        return sum(broker.changes for broker in self.brokers.values())

    # ---------------- faults

    def tick(self) -> None:
        """Count a point at which the acting manager may be killed."""
        if self.fuse == 0:
            self.fuse = -1
            raise Crash
        if self.fuse > 0:
            self.fuse -= 1

    def is_linked(self, one: str, other: str) -> bool:
        return frozenset((one, other)) not in self.cuts

    def is_deaf(self, one: str, other: str) -> bool:
        return (one, other) in self.deaf

    def is_stale(self) -> bool:
        return self.random.random() < self.staleness

    def new_life(self) -> int:
        return next(self._lives)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
