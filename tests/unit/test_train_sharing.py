"""The rules of a shared run: how many nodes it gets, who waits to be taken in, who a hint is passed on to."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from datastore_layout.ranks import read_generations
from datastore_layout.root import create_root, task_folder
from datastore_layout.runs import Attempt
from labelloop.settings import TrainSettings
from roles.hints import RankHint, RunHint
from roles.train.child import gpu_of
from roles.train.crew import Crew
from roles.train.sharing import Here, Ready, Seated, ShareView, how_many_ranks, who_waits
from roles.train.worker import next_taker

VIEW = ShareView(is_shared=True, others=2, step=10, steps=110, spent_s=5.0, distribute_from_s=30.0)


def but(**changes: object) -> ShareView:
    return msgspec.structs.replace(VIEW, **changes)


@pytest.mark.parametrize(
    ("view", "ranks", "reason"),
    [
        (VIEW, 3, "all train nodes: 50.0 s of steps are left"),
        (but(distribute_from_s=60.0), 1, "one node: 50.0 s of steps are left, sharing pays from 60 s"),
        (but(step=100), 1, "one node: 0.5 s of steps are left, sharing pays from 30 s"),
        (but(step=1), 1, "one node: how long a step takes is not known yet"),
        (but(step=0, spent_s=0.0, distribute_from_s=0.0), 3, "all train nodes: train.distribute_from_s is 0"),
        (but(step=0, steps=1, distribute_from_s=0.0), 1, "one node: there is no second step to share"),
        (but(others=0), 1, "one node: no other train node is good"),
        (but(is_shared=False), 1, "one node: the algorithm's steps cannot be shared"),
    ],
)
def test_a_run_is_spread_when_what_is_left_of_it_is_worth_the_change(view: ShareView, ranks: int, reason: str) -> None:
    assert how_many_ranks(view) == (ranks, reason)


def ready(node: str, pid: int, after: int) -> Ready:
    return Ready(node=node, hostname=node, pid=pid, after=after, fingerprint="f")


@pytest.mark.parametrize(
    ("one", "members", "losses", "waits"),
    [
        (ready("b", 7, 0), {}, {}, True),  # a newcomer
        (ready("b", 7, 1), {"b": 7}, {}, False),  # a member that said so before the generation it is in
        (ready("b", 7, 2), {"b": 7}, {}, True),  # a member whose generation broke
        (ready("b", 8, 0), {"b": 7}, {}, True),  # its docker died and came back
        (ready("b", 7, 1), {"c": 9}, {}, True),  # frozen, thawed, its generation has gone on without it
        (ready("b", 8, 0), {}, {"b": 2}, True),
        (ready("b", 8, 0), {}, {"b": 3}, False),  # lost three times: it would only stop the others again
    ],
)
def test_who_waits_for_the_generation_after_the_second(
    one: Ready, members: dict[str, int], losses: dict[str, int], waits: bool
) -> None:
    assert who_waits({"b": one}, members, 2, losses) == ({"b": one} if waits else {})


@pytest.mark.parametrize(
    ("slot", "visible", "count", "gpu"),
    [
        (1, "", 0, ""),  # no GPU: nothing to choose
        (1, "", 1, ""),
        (0, "", 2, "0"),
        (1, "", 2, "1"),
        (2, "", 2, "0"),  # a rank beside as many trainings as there are GPUs
        (1, "4, GPU-8e1f", 8, "GPU-8e1f"),  # ops have chosen two of eight
        (3, "4", 8, ""),
    ],
)
def test_trainings_of_one_node_are_spread_over_its_gpus(slot: int, visible: str, count: int, gpu: str) -> None:
    assert gpu_of(slot, visible, count) == gpu


def test_a_generation_that_does_not_come_about_leaves_no_record_and_no_step_twice(tmp_path: Path) -> None:
    attempt = Attempt(task_folder(create_root(tmp_path / "store", "c1"), "t"), 1, 1)
    crew = Crew(attempt, Here(node="a"), TrainSettings(), "f", 0, lambda: None)
    for step in range(1, 4):
        crew.count((8,))
        crew.record(step)
    crew.number += 1  # the second did not come about
    crew.record(3)
    crew.begin_generation((crew.me, Seated(node="b", hostname="b", pid=2)), "other nodes came: b", 3)
    crew.count((4, 4))
    crew.record(4)
    found = [one for _, one in read_generations(attempt.folder, 1)]
    assert [(one.number, one.begin, one.step, sum(rank.items for rank in one.ranks)) for one in found] == [
        (1, 0, 3, 24),
        (3, 3, 4, 8),
    ]


def test_a_hint_that_finds_no_room_goes_round_the_good_nodes_and_stays_with_the_last() -> None:
    good = ("a", "b", "c")
    hint = RunHint(task="t", run=1)
    assert next_taker(hint, "b", good) == "a"
    assert next_taker(msgspec.structs.replace(hint, passed=("b",)), "a", good) == "c"
    assert next_taker(msgspec.structs.replace(hint, passed=("b", "a")), "c", good) == ""
    assert next_taker(hint, "a", ()) == ""


def test_a_call_for_a_rank_never_shows_its_secret() -> None:
    hint = RankHint(task="t", run=1, attempt=1, host="10.0.0.1", port=1, secret="hush-hush")
    assert "hush" not in f"{hint!r} {hint}"
