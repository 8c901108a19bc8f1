"""Election, validation and the registry's decision: tables of view → answer."""

from __future__ import annotations

import pytest

from cluster.election import check_machines, choose_masters, choose_roles, ip_order
from cluster.facts import Facts, inference_processes, read_facts, worker_concurrency
from cluster.reachability import split_machines
from cluster.reconcile import Action, NodeSeen, View, lagging, next_action, unwanted
from labelloop.errors import InvalidInputError, UnreachableError
from labelloop.messages import MachineInfo, NodeStatus, Role


def _machine(hostname: str, ip: str, kind: str = "train", port: int = 7000) -> MachineInfo:
    return MachineInfo(hostname=hostname, ip=ip, port=port, type=kind)  # type: ignore[arg-type]


# ------------------------------------------------------------ election


def test_the_master_is_the_lowest_ip_as_a_number() -> None:
    good = [_machine("b", "10.0.0.10"), _machine("a", "10.0.0.9"), _machine("i", "9.255.0.1", "inference")]
    assert choose_masters(good) == ("10.0.0.9", "9.255.0.1", ())
    assert sorted(["10.0.0.10", "10.0.0.9", "9.9.9.9"], key=ip_order) == ["9.9.9.9", "10.0.0.9", "10.0.0.10"]


def test_a_role_without_a_good_machine_has_no_master_and_a_warning() -> None:
    train, inference, warnings = choose_masters([_machine("a", "10.0.0.9")])
    assert (train, inference) == ("10.0.0.9", "")
    assert warnings == ("no good inference machine: nothing can be pre-labelled",)


@pytest.mark.parametrize(
    ("machines", "words"),
    [
        ([], "machines_info is empty"),
        ([_machine("A_b", "10.0.0.1")], r"machines_info\[0\] \('A_b'\): hostname 'A_b'"),
        ([_machine("", "10.0.0.1")], "hostname ''"),
        ([_machine("a", "10.0.0.1"), _machine("a", "10.0.0.2")], r"\[1\] \('a'\): the hostname is also that of machines_info\[0\]"),
        ([_machine("a", "10.0.0.1"), _machine("b", "10.0.0.1")], r"\[1\] \('b'\): ip '10.0.0.1' is also that of"),
        ([_machine("a", "10.0.0.300")], "'10.0.0.300' is not an address"),
        ([_machine("a", "224.0.0.1")], "not a unicast"),
        ([_machine("a", "0.0.0.0")], "not a unicast"),
        ([_machine("a", "255.255.255.255")], "not a unicast"),
        ([_machine("a", "127.0.0.2")], "loopback"),
        ([_machine("a", "10.0.0.1", port=0)], "port 0"),
        ([_machine("a", "10.0.0.1", kind="")], "type ''"),
    ],
)
def test_malformed_machines_are_one_error_naming_the_entry(machines: list[MachineInfo], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        check_machines(machines, is_loopback_allowed=False)


def test_loopback_nodes_are_fine_on_one_machine() -> None:
    check_machines([_machine("a", "127.0.0.2"), _machine("b", "127.0.0.3", "inference")], is_loopback_allowed=True)


def test_nodes_keep_their_role_and_free_ones_are_taken_from_the_lowest_ip() -> None:
    alive = [_machine(name, ip) for name, ip in (("d", "10.0.0.10"), ("a", "10.0.0.9"), ("b", "10.0.0.2"))]
    assert choose_roles({}, alive, 1, 1) == {"b": "train", "a": "inference"}
    assert choose_roles({"d": "train"}, alive, 1, 1) == {"d": "train", "b": "inference"}
    assert choose_roles({"b": "train", "a": "inference"}, alive, 0, 2) == {"a": "inference", "d": "inference"}
    assert choose_roles({"b": "train", "a": "inference"}, alive, 3, 0) == {"b": "train", "d": "train", "a": "train"}


@pytest.mark.parametrize(("train", "inference", "words"), [(2, 0, "1 alive: a"), (0, 0, "at least one"), (-1, 2, "none below 0")])
def test_too_many_or_too_few_machines_asked_for_is_an_error(train: int, inference: int, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        choose_roles({}, [_machine("a", "10.0.0.1")], train, inference)


# ------------------------------------------------------------ reachability


def test_a_machine_that_does_not_answer_or_is_another_is_bad_with_its_reason() -> None:
    def ping(machine: MachineInfo) -> NodeStatus:
        if machine.hostname == "dead":
            raise UnreachableError("no route")
        return NodeStatus(hostname="imposter" if machine.hostname == "b" else machine.hostname, ip=machine.ip, port=1)

    machines = [_machine(name, f"10.0.0.{n}") for n, name in enumerate(("me", "dead", "b", "c"), 1)]
    good, bad, said = split_machines(machines, "me", ping)
    assert [m.hostname for m in good] == ["me", "c"]
    assert [(b.machine.hostname, b.reason) for b in bad] == [
        ("dead", "unreachable: no route"),
        ("b", "10.0.0.3:7000 answers as 'imposter'"),
    ]
    assert list(said) == ["c"]


# ------------------------------------------------------------ facts


def _facts(cores: int = 2, memory: int = 2**34, gpus: tuple[str, ...] = ()) -> Facts:
    return Facts(cores=cores, memory_bytes=memory, memory_free_bytes=memory, load=0.0, gpus=gpus, versions={})


@pytest.mark.parametrize(
    ("n_good", "facts", "cap", "n", "words"),
    [
        (2, _facts(), 0, 2, "2 good machines"),
        (1, _facts(), 0, 1, "1 good machines"),
        (8, _facts(cores=4), 0, 4, "8 good machines, capped at 4: 4 cores"),
        (8, _facts(cores=16, memory=2**30), 0, 2, "capped at 2: 16 cores, 1024 MiB"),
        (8, _facts(), 3, 3, "capped at 3: cluster.inference_processes is 3"),
        (8, _facts(cores=1, memory=2**20), 0, 1, "capped at 1"),
    ],
)
def test_inference_forks_as_many_as_good_machines_within_the_cap(n_good: int, facts: Facts, cap: int, n: int, words: str) -> None:
    count, reason = inference_processes(n_good, facts, cap)
    assert count == n
    assert words in reason


def test_a_worker_has_one_child_a_gpu_or_one_or_as_set() -> None:
    assert [worker_concurrency(_facts(gpus=g), s) for g, s in (((), 0), (("x", "y"), 0), (("x",), 5))] == [1, 2, 5]


def test_facts_of_this_machine_are_read() -> None:
    facts = read_facts()
    assert facts.cores >= 1
    assert 0 < facts.memory_free_bytes <= facts.memory_bytes
    assert "python" in facts.versions


# ------------------------------------------------------------ next_action

WANTED: dict[str, Role] = {"t": "train", "i": "inference"}
T = NodeSeen(hostname="t", ip="127.0.0.2", port=1, age_s=0.0, role="train", epoch=3)
I = NodeSeen(hostname="i", ip="127.0.0.3", port=2, age_s=0.0, role="inference", epoch=3)  # noqa: E741
ORDERED = (_machine("t", "127.0.0.2", "train", 1), _machine("i", "127.0.0.3", "inference", 2))


def _seen(node: NodeSeen, **changes: object) -> NodeSeen:
    return NodeSeen(**{**{f: getattr(node, f) for f in node.__struct_fields__}, **changes})  # type: ignore[arg-type]


def _view(*nodes: NodeSeen, **changes: object) -> View:
    base: dict[str, object] = {"wanted": WANTED, "epoch": 3, "ordered": ORDERED}
    return View(nodes=nodes, **{**base, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("view", "action", "words"),
    [
        (_view(T, I), Action.KEEP, "2 of 2 nodes as wanted in epoch 3"),
        (_view(wanted={}, epoch=0, ordered=()), Action.WAIT, "0 nodes seen, no roles wanted yet"),
        (_view(T, I, epoch=2), Action.LEARN, "t knows epoch 3, this registry 2"),
        (_view(T, I, wanted={}, epoch=0, ordered=()), Action.LEARN, "t knows epoch 3, this registry 0"),
        (_view(T, I, is_confirmed=False), Action.LEARN, "until `labelloop confirm`"),
        (_view(T, look_until_s=11.0), Action.WAIT, "first look round, i not heard of yet"),
        (_view(T, look_until_s=10.0), Action.ORDER_ALL, "i is dead"),
        (_view(look_until_s=10.0), Action.WAIT, "none of the wanted nodes is alive: i, t"),
        (_view(T, _seen(I, age_s=4.9)), Action.KEEP, "2 of 2"),
        (_view(T, _seen(I, age_s=5.0)), Action.ORDER_ALL, "i is dead"),
        (_view(T, I, ordered=ORDERED[:1]), Action.ORDER_ALL, "i is there"),
        (_view(T, ordered=ORDERED[:1]), Action.KEEP, "1 of 2 nodes as wanted"),
        (_view(T, _seen(I, port=9)), Action.ORDER_ALL, "i moved to 127.0.0.3:9"),
        (_view(T, I, wanted={"t": "inference", "i": "inference"}), Action.ORDER_ALL, "t becomes inference"),
        (_view(T, I, wanted={"t": "train"}), Action.ORDER_ALL, "i is not wanted any more"),
        (_view(T, I, wanted={"t": "train"}, ordered=ORDERED[:1]), Action.RELEASE, "i not wanted any more"),
        (_view(T, _seen(I, role="", epoch=0)), Action.ORDER_SOME, "i not in epoch 3 yet"),
        (_view(T, _seen(I, epoch=2)), Action.ORDER_SOME, "i not in epoch 3 yet"),
        (_view(T, _seen(I, epoch=2), node_retry_at_s={"i": 11.0}), Action.WAIT, "pause after a failed order: i"),
        (_view(T, _seen(I, epoch=2), busy=frozenset("i")), Action.WAIT, "i at work on the order of epoch 3"),
        (_view(_seen(T, epoch=2), _seen(I, epoch=2), busy=frozenset("i")), Action.ORDER_SOME, "t not in epoch 3 yet"),
        (_view(T, retry_at_s=11.0, node_retry_at_s={"t": 11.0}, busy=frozenset("t")), Action.ORDER_ALL, "i is dead"),
        (
            _view(T, I, ordered=ORDERED[:1], attempted=ORDERED, retry_at_s=11.0),
            Action.WAIT,
            "pause after a failed order: i is there",
        ),
        (_view(T, I, ordered=ORDERED[:1], attempted=ORDERED, retry_at_s=9.0), Action.ORDER_ALL, "again: i is there"),
        (_view(T, I, ordered=ORDERED[:1], attempted=ORDERED, busy=frozenset("t")), Action.WAIT, "t at work on the order"),
        (_view(T, I, drained=("i",)), Action.ORDER_ALL, "i is drained"),
        (_view(T, I, drained=("i",), ordered_drained=("i",)), Action.KEEP, "2 of 2"),
        (_view(T, I, ordered_drained=("i",)), Action.ORDER_ALL, "i works again"),
        (_view(T, drained=("i",), ordered=ORDERED[:1]), Action.KEEP, "1 of 2 nodes as wanted"),
        (_view(T, I, survivors=("i",), loss="majority lost: i forms anew"), Action.ORDER_ALL, "majority lost"),
        (_view(T, survivors=("i",), loss="majority lost"), Action.ORDER_ALL, "i is dead; majority lost"),
        (_view(T, I, wanted={}), Action.RELEASE, "i, t not wanted any more"),
        (_view(T, I, wanted={}, busy=frozenset({"i", "t"})), Action.WAIT, "no roles wanted yet"),
        (_view(T, I, retry_at_s=11.0), Action.KEEP, "2 of 2"),
        (_view(T, I, ordered=()), Action.ORDER_ALL, "i is there, t is there"),
    ],
)
def test_next_action_of_the_registry(view: View, action: Action, words: str) -> None:
    decided, reason = next_action(view, now_s=10.0)
    assert decided is action, reason
    assert words in reason


def test_a_dead_node_neither_lags_nor_is_released() -> None:
    view = _view(_seen(T, age_s=9.0, epoch=1), _seen(I, hostname="x", age_s=9.0))
    assert (lagging(view), unwanted(view)) == ((), ())
