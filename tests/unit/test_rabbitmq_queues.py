"""Where replicas belong: the moves of `plan_balance` and `plan_leave` as tables, then clusters that change at random."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.broker import QueueSpec
from cluster.broker.rabbitmq_queues import Move, Replicas, declaration, plan_balance, plan_leave, wanted_replicas


def _queue(name: str, nodes: str, leader: str = "") -> Replicas:
    return Replicas(name, leader or nodes[0], tuple(nodes))


@pytest.mark.parametrize(("members", "replicas"), [(1, 1), (2, 2), (3, 3), (4, 3), (5, 5), (6, 5), (40, 5)])
def test_a_queue_has_as_many_replicas_as_members_up_to_three_and_five_from_five_on(members: int, replicas: int) -> None:
    assert wanted_replicas(members) == replicas


TABLE: list[tuple[str, Replicas, str, str, list[Move]]] = [
    ("declared when there was one member", _queue("q", "a"), "abc", "abc", [Move("grow", "q", "b"), Move("grow", "q", "c")]),
    ("all is well", _queue("q", "abc"), "abcd", "abcd", []),
    ("a dead member may come back", _queue("q", "abc"), "abc", "ab", []),
    (
        "a dead member was forgotten",
        _queue("q", "abc"),
        "abd",
        "abd",
        [Move("shrink", "q", "c"), Move("grow", "q", "d")],
    ),
    ("one too many: a dead one goes", _queue("q", "abcd"), "abcd", "abd", [Move("shrink", "q", "c")]),
    ("its leader is dead", _queue("q", "abc", "c"), "abc", "ab", [Move("lead", "q", "a")]),
    ("its majority is dead and may come back", _queue("q", "abc"), "abc", "a", []),
    ("its majority was forgotten", _queue("q", "bcd"), "ab", "ab", [Move("rescue", "q")]),
    ("all of it was forgotten", _queue("q", "cd"), "ab", "ab", [Move("renew", "q")]),
    ("its majority was forgotten, and one that is down may hold more", _queue("q", "bcd"), "abc", "ab", []),
]


@pytest.mark.parametrize(("queue", "members", "running", "moves"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_the_moves_of_one_queue(queue: Replicas, members: str, running: str, moves: list[Move]) -> None:
    assert plan_balance([queue], tuple(members), tuple(running)) == moves


def test_leads_are_spread_evenly() -> None:
    queues = [_queue(f"q{number}", "abc", "a") for number in range(6)]
    moves = plan_balance(queues, tuple("abc"), tuple("abc"))
    assert {move.action for move in moves} == {"lead"}
    assert sorted(move.node for move in moves) == ["b", "b", "c", "c"]


def test_who_leaves_hands_over_the_lead_and_the_only_replica_first() -> None:
    queues = [_queue("q1", "abc", "a"), _queue("q2", "a"), _queue("q3", "bc")]
    assert plan_leave(queues, "a", ("b", "c")) == [
        Move("lead", "q1", "b"),
        Move("shrink", "q1", "a"),
        Move("grow", "q2", "b"),
        Move("lead", "q2", "b"),
        Move("shrink", "q2", "a"),
    ]


def _made(queue: Replicas, moves: list[Move]) -> Replicas:
    """Return the queue after its moves, as RabbitMQ would make them."""
    nodes, leader = list(queue.nodes), queue.leader
    for move in moves:
        match move.action:
            case "grow":
                nodes.append(move.node)
            case "shrink":
                nodes.remove(move.node)
            case "lead":
                leader = move.node
            case "renew":
                nodes = ["new"]
            case "rescue":
                nodes = ["rescued"]
    return Replicas(queue.name, leader, tuple(nodes))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**9))
def test_after_the_moves_every_queue_is_on_running_members_and_nothing_is_left_to_do(seed: int) -> None:
    rng = random.Random(seed)
    everyone = "abcdefgh"
    members = tuple(rng.sample(everyone, rng.randint(1, 8)))
    running = tuple(rng.sample(members, rng.randint(len(members) // 2 + 1, len(members))))
    queues = []
    for number in range(rng.randint(1, 6)):
        nodes = rng.sample(everyone, rng.randint(1, 5))
        queues.append(Replicas(f"q{number}", rng.choice(nodes), tuple(nodes)))
    moves = plan_balance(queues, members, running)
    after = [_made(queue, [move for move in moves if move.queue == queue.name]) for queue in queues]
    for before, queue in zip(queues, after, strict=True):
        alive = [node for node in before.nodes if node in running]
        if 2 * len(alive) <= len(before.nodes):
            if any(node in members and node not in running for node in before.nodes) or set(before.nodes) <= set(members):
                assert queue == before, "who is down may come back"
            else:
                assert queue.nodes == (("rescued",) if alive else ("new",))
            continue
        assert set(alive) & set(queue.nodes), "what it holds is still somewhere"
        assert set(queue.nodes) <= set(members) and len(set(queue.nodes)) == len(queue.nodes)
        assert queue.leader in running and queue.leader in queue.nodes
        assert len(queue.nodes) <= max(wanted_replicas(len(members)), 1)
        assert len(queue.nodes) == wanted_replicas(len(members)) or set(running) <= set(queue.nodes)
    mended = [queue for queue in after if queue.nodes not in (("new",), ("rescued",))]
    assert [move for move in plan_balance(mended, members, running) if move.action != "lead"] == []


def test_every_replicated_queue_has_a_delivery_limit_and_dead_letters_where_it_should() -> None:
    said = declaration([QueueSpec(name="w", is_replicated=True, dead_letters="d"), QueueSpec(name="own", is_replicated=False)], 7)
    assert '{<<"x-delivery-limit">>, long, 7}' in said
    assert '{<<"x-dead-letter-routing-key">>, longstr, <<"d"/utf8>>}' in said
    assert '<<"reject-publish">>' in said and '[{<<"x-queue-type">>, longstr, <<"classic">>}]' in said
