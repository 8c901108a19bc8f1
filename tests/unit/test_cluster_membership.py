"""Membership: what a node does about the broker cluster, as a table, and what its neighbours may ask."""

from __future__ import annotations

import threading

import pytest

from cluster.initial import Assignment
from cluster.membership import FAILED_STARTS, Action, Seen, View, caretaker, decide, living_cluster, to_forget
from cluster.neighbours import check_neighbour
from cluster.ordering import Ordering
from labelloop.errors import ForbiddenError, LabelloopError, NotReadyError, StaleEpochError
from labelloop.messages import BrokerView, MachineInfo
from labelloop.tls import Peer
from tests.fleet_scenarios import formed
from tests.simulated_fleet import Fleet

# ------------------------------------------------------------ the decision


def _in(cluster: str, members: str, running: str, state: str = "running") -> BrokerView:
    return BrokerView(
        kind="rabbitmq",
        state=state,
        cluster=cluster,
        members=tuple(members),
        running=tuple(running),  # type: ignore[arg-type]
    )


ALONE = BrokerView(kind="rabbitmq", state="running")
DOWN = BrokerView(kind="rabbitmq", state="stopped")
KNOWN = BrokerView(kind="rabbitmq", state="stopped", cluster="C")
PAUSED = BrokerView(kind="rabbitmq", state="paused", cluster="C", members=("a", "b", "c"))


def _view(me: str, brokers: dict[str, BrokerView], hashes: dict[str, str] | None = None, **more: object) -> View:
    machines = tuple(
        Seen(hostname=name, ip=f"10.0.0.{9 + index}", broker=broker, erlang_hash=(hashes or {}).get(name, "h"))
        for index, (name, broker) in enumerate(brokers.items())
    )
    return View(me=me, machines=machines, **more)  # type: ignore[arg-type]


SILENT = BrokerView(kind="rabbitmq", state="unknown", cluster="C")
STARTING = BrokerView(kind="rabbitmq", state="unknown")
ABC = _in("C", "abc", "abc")
AB = _in("C", "ab", "ab")
BC = _in("C", "bc", "bc")
AB_OF_ABC = _in("C", "abc", "ab")
TABLE: list[tuple[str, View, Action, str]] = [
    ("nobody lives, lowest", _view("a", {"a": ALONE, "b": ALONE}), Action.FOUND, "lowest IP of a, b"),
    ("nobody lives, not lowest", _view("b", {"a": ALONE, "b": ALONE}), Action.JOIN, "a founds it"),
    ("9 is below 10", _view("b", {"a": ALONE, "b": ALONE, "c": ALONE}), Action.JOIN, "a founds it"),
    ("a running member", _view("b", {"a": ABC, "b": ABC, "c": ABC}), Action.KEEP, "3 of 3 members"),
    ("a lower IP came", _view("a", {"a": ALONE, "b": BC, "c": BC}), Action.JOIN, "through b"),
    ("the others keep", _view("b", {"a": ALONE, "b": BC, "c": BC}), Action.KEEP, ""),
    ("wiped", _view("c", {"a": AB_OF_ABC, "b": AB_OF_ABC, "c": ALONE}), Action.REJOIN, "earlier life"),
    ("wiped, record kept", _view("c", {"a": AB_OF_ABC, "b": AB_OF_ABC, "c": _in("C", "c", "c")}), Action.REJOIN, "earlier life"),
    ("wiped master", _view("a", {"a": ALONE, "b": _in("C", "abc", "bc"), "c": _in("C", "abc", "bc")}), Action.REJOIN, "through b"),
    ("wiped master of two", _view("b", {"a": _in("C", "a", "a"), "b": _in("C", "ab", "b")}), Action.KEEP, ""),
    (
        "forgotten while down",
        _view("c", {"a": _in("C", "ab", "ab"), "b": _in("C", "ab", "ab"), "c": KNOWN}),
        Action.JOIN,
        "forgotten",
    ),
    ("a member that is down", _view("c", {"a": AB_OF_ABC, "b": AB_OF_ABC, "c": KNOWN}), Action.START, "stopped"),
    (
        "a member that cannot start",
        _view("c", {"a": AB_OF_ABC, "b": AB_OF_ABC, "c": KNOWN}, failed_starts=FAILED_STARTS),
        Action.REJOIN,
        "failed to start",
    ),
    ("paused", _view("c", {"a": AB_OF_ABC, "b": AB_OF_ABC, "c": PAUSED}), Action.WAIT, "paused"),
    ("paused for long", _view("c", {"a": AB_OF_ABC, "b": AB_OF_ABC, "c": PAUSED}, is_stranded=True), Action.WAIT, "paused"),
    ("paused, and the others count it as running", _view("c", {"a": ABC, "b": ABC, "c": PAUSED}), Action.WAIT, "paused"),
    (
        "paused for long, and the others count it as running: its boot hangs",
        _view("c", {"a": ABC, "b": ABC, "c": PAUSED}, is_stranded=True),
        Action.RESTART,
        "paused though a reaches it",
    ),
    ("cut off, not paused yet", _view("c", {"a": AB_OF_ABC, "b": AB_OF_ABC, "c": _in("C", "abc", "c")}), Action.WAIT, "cut off"),
    (
        "cut off and never paused: it was frozen",
        _view("c", {"a": AB_OF_ABC, "b": AB_OF_ABC, "c": _in("C", "abc", "c")}, is_stranded=True),
        Action.RESTART,
        "dropped by a, b",
    ),
    (
        "cut off for long, the others are no majority",
        _view("d", {"a": _in("C", "abcd", "ab"), "b": _in("C", "abcd", "ab"), "d": _in("C", "abcd", "d")}, is_stranded=True),
        Action.WAIT,
        "cut off",
    ),
    ("the others are not stranded", _view("a", {"a": AB_OF_ABC, "b": AB_OF_ABC, "c": _in("C", "abc", "c")}), Action.KEEP, ""),
    ("another cookie", _view("c", {"a": AB_OF_ABC, "b": AB_OF_ABC, "c": PAUSED}, {"c": "x"}), Action.REJOIN, "cookie"),
    ("another cookie on disk alone", _view("c", {"a": ABC, "b": ABC, "c": ABC}, {"c": "x"}), Action.KEEP, ""),
    ("in the smaller cluster", _view("a", {"a": _in("D", "a", "a"), "b": BC, "c": BC}), Action.JOIN, "is in D"),
    (
        "in the larger cluster",
        _view("c", {"a": _in("D", "a", "a"), "b": BC, "c": BC}),
        Action.KEEP,
        "",
    ),
    ("a tie: the lowest IP", _view("b", {"a": _in("D", "a", "a"), "b": _in("C", "b", "b")}), Action.JOIN, "join D"),
    ("a tie: the lowest IP stays", _view("a", {"a": _in("D", "a", "a"), "b": _in("C", "b", "b")}), Action.KEEP, ""),
    ("a member without a record", _view("c", {"a": ABC, "b": ABC, "c": _in("", "abc", "abc")}), Action.ADOPT, "already"),
    (
        "remembered",
        _view("c", {"a": _in("C", "ab", "ab"), "b": ALONE, "c": DOWN}, is_remembered=True),
        Action.REJOIN,
        "earlier life",
    ),
    ("all down: start", _view("a", {"a": KNOWN, "b": KNOWN, "c": KNOWN}), Action.START, "nobody runs"),
    ("all down: a stranger waits", _view("a", {"a": ALONE, "b": KNOWN}), Action.WAIT, "does not run"),
    ("majority lost", _view("a", {"a": PAUSED, "b": PAUSED}), Action.WAIT, "lost its majority"),
    ("survivors", _view("a", {"a": PAUSED, "b": PAUSED}, survivors=("a", "b")), Action.RESET_AND_FORM, "begin anew"),
    ("a survivor, emptied", _view("a", {"a": DOWN, "b": PAUSED}, survivors=("a", "b")), Action.FOUND, "lowest"),
    ("the next survivor, emptied", _view("b", {"a": DOWN, "b": DOWN}, survivors=("a", "b")), Action.JOIN, "a founds"),
    ("survivors, healed meanwhile", _view("a", {"a": AB_OF_ABC, "b": AB_OF_ABC}, survivors=("a", "b")), Action.KEEP, ""),
    ("silent for a moment", _view("c", {"a": ABC, "b": ABC, "c": SILENT}), Action.START, "may be a running member"),
    ("silent, failed before", _view("c", {"a": ABC, "b": ABC, "c": SILENT}, failed_starts=FAILED_STARTS), Action.START, "may be"),
    ("silent, no record", _view("c", {"a": ABC, "b": ABC, "c": STARTING}), Action.START, "may be a running member"),
    ("silent, another cookie", _view("c", {"a": ABC, "b": ABC, "c": SILENT}, {"c": "x"}), Action.REJOIN, "cookie"),
    ("silent survivor", _view("a", {"a": SILENT, "b": PAUSED}, survivors=("a", "b")), Action.START, "may be a running member"),
    ("new and still starting", _view("c", {"a": AB, "b": AB, "c": STARTING}), Action.JOIN, "is outside"),
    ("no survivor", _view("a", {"a": PAUSED, "b": DOWN}, survivors=("b",)), Action.JOIN, "b founds"),
    ("somebody is silent", _view("a", {"a": ALONE, "b": ALONE}, unheard=("c",)), Action.WAIT, "c may run a cluster"),
    ("somebody is silent, another lives", _view("a", {"a": ALONE, "b": _in("C", "b", "b")}, unheard=("c",)), Action.JOIN, "join C"),
    ("the living are silent", _view("a", {"a": ALONE, "b": _in("C", "a", "")}), Action.WAIT, "none of"),
]


@pytest.mark.parametrize(("view", "action", "words"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_a_node_does_about_the_broker_cluster(view: View, action: Action, words: str) -> None:
    step = decide(view)
    assert step.action is action, step.reason
    assert words in step.reason


def test_the_master_invites_where_it_is_a_member_and_the_lowest_running_member_where_it_is_not() -> None:
    inside = _view("d", {"a": ABC, "b": ABC, "c": ABC, "d": ALONE})
    outside = _view("d", {"a": ALONE, "b": BC, "c": BC, "d": ALONE})
    assert (decide(inside).host, decide(inside).forgetter) == ("a", "a")
    assert (decide(outside).host, decide(outside).forgetter) == ("b", "b")


def test_the_best_informed_member_tells_of_the_cluster() -> None:
    machines = _view("a", {"a": _in("C", "a", "a"), "b": _in("C", "abc", "bc"), "c": _in("D", "c", "c")}).machines
    living = living_cluster(machines)
    assert living is not None
    assert (living.cluster, living.teller, living.running) == ("C", "b", ("b", "c"))
    assert living_cluster(_view("a", {"a": PAUSED, "b": KNOWN, "c": ALONE}).machines) is None


def test_the_lowest_running_member_of_a_majority_cares_for_the_rest() -> None:
    machines = [("b", "10.0.0.10"), ("a", "10.0.0.9"), ("x", "10.0.0.1")]
    assert caretaker(_in("C", "abc", "ab"), machines) == "a"
    assert caretaker(_in("C", "abc", "bc"), machines) == "b"
    assert caretaker(_in("C", "abcd", "ab"), machines) == ""
    assert caretaker(ALONE, machines) == ""


def test_the_dead_are_forgotten_after_their_time_and_the_unlisted_at_once() -> None:
    view = _in("C", "abcd", "ab")
    assert to_forget(view, "abcd", {"c": 299.0, "d": 301.0}, 300.0).keys() == {"d"}
    assert to_forget(view, "abd", {"c": 0.0, "d": 0.0}, 300.0).keys() == {"c"}
    assert to_forget(view, "", {"c": 0.0, "d": 0.0}, 300.0) == {}
    assert to_forget(view, "cd", {"a": 999.0}, 300.0) == {}, "a running member is never struck off"


# ------------------------------------------------------------ what neighbours may ask


@pytest.mark.parametrize(
    ("peer", "hostname", "epoch", "error"),
    [
        (Peer("b", "node", "10.0.0.10"), "b", 4, None),
        (Peer("c", "node", "10.0.0.10"), "b", 4, ForbiddenError),
        (Peer("b", "node", "10.0.0.99"), "b", 4, ForbiddenError),
        (Peer("b", "node", "10.0.0.10"), "b", 3, StaleEpochError),
        (Peer("b", "node", "10.0.0.10"), "b", 5, NotReadyError),
        (Peer("t", "node", "10.0.0.11"), "t", 4, NotReadyError),
        (Peer("z", "node", "10.0.0.12"), "z", 4, NotReadyError),
    ],
)
def test_a_neighbour_asks_for_itself_from_its_own_address_in_our_epoch(
    peer: Peer, hostname: str, epoch: int, error: type[LabelloopError] | None
) -> None:
    good = tuple(
        MachineInfo(hostname=name, ip=f"10.0.0.{9 + index}", port=1, type=role)  # type: ignore[arg-type]
        for index, (name, role) in enumerate((("a", "inference"), ("b", "inference"), ("t", "train")))
    )
    assignment = Assignment(epoch=4, role="inference", good=good)
    if error is None:
        check_neighbour(assignment, "a", peer, hostname, epoch, "inference")
        return
    with pytest.raises(error):
        check_neighbour(assignment, "a", peer, hostname, epoch, "inference")


def test_a_node_that_waits_for_others_stops_waiting_when_a_newer_order_comes() -> None:
    fleet = Fleet(["a", "b"])
    fleet.order()
    late = fleet.managers["b"]
    late.member.is_overtaken = lambda: fleet.now_s >= 3.0
    with pytest.raises(NotReadyError, match="not in the cluster yet: a: "):
        late.member.settle(late.circle, timeout_s=1000.0)
    assert fleet.now_s < 10.0


def test_declaring_queues_is_tried_again_while_the_broker_is_busy_and_no_longer_than_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = formed()
    member, failures = fleet.managers["a"].member, [NotReadyError("busy"), NotReadyError("busy")]

    def declare(queues: object) -> None:
        if failures:
            raise failures.pop()

    monkeypatch.setattr(fleet.brokers["a"], "ensure_queues", declare)
    with pytest.raises(NotReadyError):
        member.declare((), timeout_s=0.0)
    member.declare((), timeout_s=5.0)
    failures = [NotReadyError("busy")] * 1000
    with pytest.raises(NotReadyError):
        member.declare((), timeout_s=5.0)


def test_a_newer_order_that_waits_overtakes_and_an_older_one_does_not() -> None:
    ordering = Ordering("a")
    begun, ended = threading.Event(), threading.Event()

    def older_and_newer(epoch: int) -> threading.Thread:
        def run() -> None:
            with ordering.one(epoch):
                pass

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    with ordering.one(5):
        assert not ordering.try_begin()
        older = older_and_newer(4)
        assert not begun.wait(0.05)
        assert not ordering.is_overtaken()
        newer = older_and_newer(6)
        while not ordering.is_overtaken():
            assert not ended.wait(0.001)
    older.join()
    newer.join()
    assert not ordering.is_overtaken()
    assert ordering.try_begin()
    ordering.end()
