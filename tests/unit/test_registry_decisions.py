"""What the registry decides about losses, drains, removals and failures: tables of view → answer, without a clock or a call."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.commands_ops import new_lines, parse_assignments
from cluster.election import choose_roles, ip_order
from cluster.losses import lost_majority
from cluster.reconcile import DRAIN_LEAST_S, Action, NodeSeen, View, drain_of, next_action
from cluster.rounds import Pauses, Round
from cluster.watches import DrainWatch, MajorityWatch
from labelloop.errors import InvalidInputError, UnreachableError
from labelloop.messages import BrokerView, InitialReply, MachineInfo, Role

DEAD_S = 5.0
MEMBERS = ("a", "b", "c", "d")


def _node(name: str, state: str = "paused", age_s: float = 0.0, **broker: object) -> NodeSeen:
    fields: dict[str, object] = {"kind": "rabbitmq", "state": state, "cluster": "C", "members": MEMBERS, **broker}
    return NodeSeen(
        hostname=name,
        ip=f"10.0.0.{1 + MEMBERS.index(name)}",
        port=1,
        age_s=age_s,
        role="inference",
        epoch=3,
        broker=msgspec.convert(fields, BrokerView),
    )


# ------------------------------------------------------------ losses


@pytest.mark.parametrize(
    ("nodes", "wanted", "survivors"),
    [
        ([_node("a"), _node("b")], MEMBERS, ("a", "b")),
        ([_node("a"), _node("b", "running", running=("b", "c", "d"))], MEMBERS, None),
        ([_node("a"), _node("b", "running", age_s=9.0)], MEMBERS, ("a",)),
        ([_node("a", "stopped"), _node("b", "unknown")], MEMBERS, ("a", "b")),
        ([_node("a", cluster="")], MEMBERS, None),
        ([_node("a", kind="embedded")], MEMBERS, None),
        ([_node("a", age_s=9.0)], MEMBERS, None),
        ([], MEMBERS, None),
        ([_node("a")], ("b", "c", "d"), None),  # a is drained or removed: it does not begin anew
        ([_node("b", members=())], ("a", "b"), ("b",)),
        # two sides of a cut that the registry sees both: the larger one, on a tie the one with the lowest address
        ([_node(n, running=r) for n, r in (("a", ("a",)), ("b", ("b", "c")), ("c", ("b", "c")))], MEMBERS, ("b", "c")),
        ([_node(n, running=tuple(r)) for n, r in (("a", "ad"), ("b", "bc"), ("c", "bc"), ("d", "ad"))], MEMBERS, ("a", "d")),
        ([_node("b", cluster="D", members=("b",)), _node("c"), _node("d")], MEMBERS, ("c", "d")),
    ],
)
def test_survivors_are_named_only_when_no_broker_runs(
    nodes: list[NodeSeen], wanted: tuple[str, ...], survivors: tuple[str, ...] | None
) -> None:
    loss = lost_majority(nodes, wanted, DEAD_S)
    assert (loss.survivors if loss else None) == survivors
    if loss:
        assert f"{', '.join(survivors or ())} form anew" in loss.reason


def test_the_members_of_a_loss_are_those_that_the_brokers_remember_else_the_wanted_ones() -> None:
    loss = lost_majority([_node("a")], ("a",), DEAD_S)
    assert loss and loss.members == MEMBERS
    loss = lost_majority([_node("a", members=())], ("a", "b"), DEAD_S)
    assert loss and loss.members == ("a", "b")


def test_the_rest_has_its_thirty_seconds_to_come_back_and_each_return_counts_anew() -> None:
    watch = MajorityWatch(30.0, DEAD_S)
    down, up = [_node("a")], [_node("a"), _node("b", "running", running=("b", "c", "d"))]
    assert watch.look(down, MEMBERS, 0.0) is None
    assert watch.look(down, MEMBERS, 29.9) is None
    assert watch.look(up, MEMBERS, 29.95) is None
    assert watch.look(down, MEMBERS, 30.0) is None
    assert watch.look(down, MEMBERS, 59.9) is None
    loss = watch.look(down, MEMBERS, 60.0)
    assert loss and loss.survivors == ("a",)
    watch.restart(60.0)
    assert watch.look(down, MEMBERS, 89.0) is None
    assert watch.look(down, MEMBERS, 90.0)


brokers = st.builds(
    lambda state, running, members, age: {"state": state, "running": running, "members": members, "age_s": age},
    st.sampled_from(["running", "paused", "stopped", "unknown"]),
    st.lists(st.sampled_from(MEMBERS), unique=True).map(tuple),
    st.sampled_from([(), MEMBERS, MEMBERS[:2]]),
    st.sampled_from([0.0, 4.9, 5.0, 40.0]),
)


@given(st.dictionaries(st.sampled_from(MEMBERS), brokers), st.sets(st.sampled_from(MEMBERS)))
def test_survivors_live_are_wanted_and_a_running_broker_forbids_them(seen: dict[str, dict[str, object]], wanted: set[str]) -> None:
    nodes = [_node(name, **view) for name, view in seen.items()]  # type: ignore[arg-type]
    loss = lost_majority(nodes, sorted(wanted), DEAD_S)
    alive = {node.hostname: node for node in nodes if node.age_s < DEAD_S}
    if any(node.broker.state == "running" for node in alive.values()):
        assert loss is None
    if loss is not None:
        assert loss.survivors
        assert set(loss.survivors) <= set(alive) & wanted
        assert list(loss.survivors) == sorted(loss.survivors, key=lambda name: ip_order(alive[name].ip))
        assert loss == lost_majority(list(reversed(nodes)), sorted(wanted, reverse=True), DEAD_S)


# ------------------------------------------------------------ the loop's promises, whatever is seen

NAMES = ("a", "b", "c", "d")
roles: st.SearchStrategy[dict[str, Role]] = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["train", "inference"]))
nodes_seen = st.dictionaries(
    st.sampled_from(NAMES),
    st.tuples(st.sampled_from([0.0, 4.9, 5.0, 60.0]), st.sampled_from(["", "train", "inference"]), st.integers(0, 3)),
)


@given(roles, nodes_seen, st.integers(0, 3), st.sets(st.sampled_from(NAMES)), st.booleans())
def test_the_registry_orders_nobody_that_knows_more_and_is_done_only_when_all_are_as_wanted(
    wanted: dict[str, Role], seen: dict[str, tuple[float, str, int]], epoch: int, busy: set[str], is_confirmed: bool
) -> None:
    nodes = tuple(
        NodeSeen(hostname=name, ip=f"10.0.0.{1 + NAMES.index(name)}", port=1, age_s=age_s, role=role, epoch=at)
        for name, (age_s, role, at) in seen.items()
    )
    alive = tuple(
        MachineInfo(hostname=n.hostname, ip=n.ip, port=1, type=wanted[n.hostname])
        for n in nodes
        if n.hostname in wanted and n.age_s < DEAD_S
    )
    view = View(
        wanted=wanted, nodes=nodes, epoch=epoch, ordered=alive, attempted=alive, busy=frozenset(busy), is_confirmed=is_confirmed
    )
    action, reason = next_action(view, now_s=100.0)
    assert reason
    if not is_confirmed or any(node.epoch > epoch for node in nodes):
        assert action is Action.LEARN
        return
    if action is Action.KEEP:
        living = [node for node in nodes if node.age_s < DEAD_S]
        assert all(node.role == wanted.get(node.hostname, "") for node in living if node.role or node.hostname in wanted)
        assert all(node.epoch == epoch for node in living if node.hostname in wanted)
        assert not busy
    if action is Action.ORDER_SOME:
        assert not any(name in busy for name in reason.split(" not in epoch")[0].split(", "))


def test_a_node_that_fails_or_hangs_does_not_delay_the_order_after_a_death() -> None:
    wanted: dict[str, Role] = {"a": "train", "b": "train", "c": "inference"}
    before = tuple(MachineInfo(hostname=n, ip=f"10.0.0.{i}", port=1, type=r) for i, (n, r) in enumerate(wanted.items(), 1))
    nodes = tuple(
        NodeSeen(hostname=m.hostname, ip=m.ip, port=1, age_s=9.0 if m.hostname == "a" else 0.0, role=m.type, epoch=4)
        for m in before
    )
    hanging = View(
        wanted=wanted,
        nodes=nodes,
        epoch=4,
        ordered=before,
        attempted=before,
        busy=frozenset("c"),
        retry_at_s=1e9,
        node_retry_at_s={"b": 1e9},
        failure="b: no datastore",
    )
    assert next_action(hanging, now_s=0.0) == (Action.ORDER_ALL, "a is dead")


# ------------------------------------------------------------ draining


def _working(role: str, work: str = "", age_s: float = 0.0) -> NodeSeen:
    return NodeSeen(hostname="a", ip="10.0.0.1", port=1, age_s=age_s, role=role, work=work)


@pytest.mark.parametrize(
    ("node", "waited_s", "is_over", "words"),
    [
        (_working("inference"), 0.0, False, "callers to look elsewhere"),
        (_working("inference"), DRAIN_LEAST_S, True, "no work"),
        (_working("inference", "inference-worker: 3 chunks"), 100.0, False, "inference-worker: 3 chunks"),
        (_working("train"), 0.0, True, "no work"),
        (_working("train", "train-worker: run 7, step 3"), 599.0, False, "run 7, step 3"),
        (_working("train", "train-worker: run 7, step 3"), 600.0, True, "goes on elsewhere: train-worker: run 7"),
        (_working("train", "train-worker: run 7", age_s=DEAD_S), 0.0, True, "dead"),
    ],
)
def test_a_draining_node_stops_when_its_work_has_ended_or_patience_has(
    node: NodeSeen, waited_s: float, is_over: bool, words: str
) -> None:
    drain = drain_of(node, waited_s, patience_s=600.0, dead_after_s=DEAD_S)
    assert drain.is_over is is_over
    assert words in drain.reason


def test_a_drained_node_stays_so_whatever_it_says_until_it_is_undone() -> None:
    watch = DrainWatch(600.0, DEAD_S)
    busy = _working("train", "train-worker: run 1")
    assert not watch.look([busy], ["a"], [], 0.0)["a"].is_over
    assert watch.look([busy], ["a"], ["a"], 1.0)["a"].is_over
    assert watch.look([busy], [], ["a"], 2.0) == {}
    assert not watch.look([busy], ["a"], [], 900.0)["a"].is_over, "a second drain waits as long as the first"
    assert watch.look([busy], ["a"], [], 1500.0)["a"].is_over
    assert watch.look([], ["ghost"], [], 0.0)["ghost"].is_over


# ------------------------------------------------------------ rounds and pauses


def _reply(*good: str) -> InitialReply:
    machines = tuple(MachineInfo(hostname=name, ip="10.0.0.1", port=1) for name in good)
    return InitialReply(
        rpc="", good_machines_info=machines, bad_machines_info=(), master_train="", master_inference="", erlang_hash="", epoch=4
    )


def test_a_round_is_over_with_its_last_answer_and_tells_failures_and_quarrels() -> None:
    alive = tuple(MachineInfo(hostname=name, ip="10.0.0.1", port=1) for name in ("a", "b", "c"))
    asked = Round(4, alive)
    asked.ask(["a", "b", "c"])
    assert not asked.answer("a", _reply("a", "b", "c"))
    assert not asked.answer("b", _reply("a", "b"))
    assert asked.answer("c", UnreachableError("no route"))
    assert asked.quarrel == "b found a, b good, alive are a, b, c"
    assert [m.hostname for m in asked.agreed] == ["a", "b"]
    assert asked.trouble == f"c: unreachable: no route; {asked.quarrel}"
    asked.ask(["c"])
    assert asked.answer("c", _reply("a", "b", "c"))
    assert asked.failures == {}


def test_pauses_double_to_fifteen_seconds_and_hurry_forgets_none_of_the_failures() -> None:
    pauses = Pauses()
    waits = []
    for _ in range(7):
        pauses.fail("a", 100.0)
        waits.append(pauses.until_s["a"] - 100.0)
    assert waits == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
    assert (pauses.is_over("a", 114.9), pauses.is_over("a", 115.0), pauses.is_over("b", 0.0)) == (False, True, True)
    pauses.hurry()
    assert pauses.is_over("a", 0.0)
    pauses.fail("a", 0.0)
    assert pauses.until_s["a"] == 15.0
    pauses.clear("a")
    pauses.fail("a", 0.0)
    assert pauses.until_s["a"] == 1.0


# ------------------------------------------------------------ who trains


def test_nodes_with_gpus_are_taken_for_training_first_then_by_address() -> None:
    alive = [MachineInfo(hostname=name, ip=f"10.0.0.{n}", port=1) for n, name in enumerate(("a", "b", "c", "d"), 9)]
    assert choose_roles({}, alive, 2, 2) == {"a": "train", "b": "train", "c": "inference", "d": "inference"}
    assert choose_roles({}, alive, 2, 2, frozenset("cd")) == {"c": "train", "d": "train", "a": "inference", "b": "inference"}
    assert choose_roles({}, alive, 1, 2, frozenset("b")) == {"b": "train", "a": "inference", "c": "inference"}
    assert choose_roles({}, alive, 0, 1, frozenset("a")) == {"b": "inference"}
    assert choose_roles({"a": "train"}, alive, 1, 1, frozenset("d")) == {"a": "train", "b": "inference"}


# ------------------------------------------------------------ words of the command line


def test_assignments_name_train_inference_or_none() -> None:
    assert parse_assignments(["a=train", "b=none", "c=inference"]) == {"a": "train", "b": "", "c": "inference"}
    for wrong in ("a", "a=", "a=data", "A=train"):
        with pytest.raises(InvalidInputError):
            parse_assignments([wrong])


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        ([], ["1", "2"], ["1", "2"]),
        (["1", "2"], ["1", "2"], []),
        (["1", "2"], ["1", "2", "3"], ["3"]),
        (["1", "2", "3"], ["2", "3", "4", "5"], ["4", "5"]),
        (["2", "3"], ["1", "2", "3", "4"], ["4"]),
        (["1", "1"], ["1", "1", "1"], ["1"]),
        (["1", "2"], ["8", "9"], ["8", "9"]),
        (["1"], [], []),
    ],
)
def test_following_prints_each_line_once(before: list[str], now: list[str], new: list[str]) -> None:
    if (before, now) == (["1", "1"], ["1", "1", "1"]):
        assert set(new_lines(before, now)) <= {"1"}  # equal lines cannot be told apart
    else:
        assert new_lines(before, now) == new
