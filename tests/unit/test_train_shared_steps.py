"""A global batch gives the same step to one process and to three, with real gloo groups; ranks share an epoch without overlap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labelloop.errors import InvalidInputError
from learning.algorithms import Training, find_algorithm
from learning.algorithms.batches import Batches
from learning.algorithms.collective import part_of
from roles.train.board import join_board, open_board
from roles.train.group import Group, RankLostError, interface_of, make_group
from roles.train.rendezvous import meet
from tests.support_ranks import OWNER_IP, SECRET, errors_in, forked, ip_of

SIZE = 3
N = 70  # with batches of 23 the last one has a single sample: two ranks have none of it
CASES: dict[str, dict[str, Any]] = {
    "linear-head": {"batch": 23},
    "small-cnn": {"batch": 23, "width": 8, "dropout": 0.5, "shift_px": 2},
    "fine-tune": {"batch": 6, "blocks": 0},
}


def start(name: str, n: int = N) -> Training:
    chance = np.random.default_rng(7)
    x = (chance.random((n, 8, 8, 1)) * 255).astype(np.uint8)
    y = np.arange(n) % 3
    return find_algorithm(name).start(x.reshape(n, -1) if name == "linear-head" else x, y, 3, False, CASES[name], 2, 11)


def n_of(name: str) -> int:
    return 13 if name == "fine-tune" else N


def arrays_of(training: Training, prefix: str) -> list[np.ndarray[Any, Any]]:
    from learning.algorithms.tensors import unpack

    arrays, _ = unpack(training.state()["state.safetensors"])
    return [value for name, value in sorted(arrays.items()) if name.startswith(prefix)]


def weights(training: Training) -> list[np.ndarray[Any, Any]]:
    return arrays_of(training, "weight.")


def gradients(training: Training) -> list[np.ndarray[Any, Any]]:
    """Return the gradients of the one step taken so far: the optimizer's first moments are a tenth of them."""
    assert training.step == 1
    return [10 * value for value in arrays_of(training, "first.")]


def seat(port: int, rank: int) -> Group:
    board = join_board(OWNER_IP, port, SECRET, 20.0)
    place = meet(board, 1, SIZE, ip_of(rank), is_owner=False)
    return make_group(place.store, place.rank, place.size, ip_of(rank), 20.0)


@pytest.mark.parametrize("name", CASES)
def test_three_ranks_take_the_steps_of_one_with_its_gradients(name: str, tmp_path: Path) -> None:
    alone = start(name, n_of(name))
    losses = [alone.advance()]
    wanted = gradients(alone)
    losses += [alone.advance() for _ in range(alone.steps - 1)]
    board = open_board(OWNER_IP, SECRET, 20.0)

    def work(rank: int) -> None:
        group = seat(board.port, rank)
        training = start(name, n_of(name))
        training.share(group)
        for _ in range(training.steps):
            training.advance()
        (tmp_path / f"seen-{group.rank}").write_text(json.dumps(training.n_seen))

    with forked(SIZE - 1, work, tmp_path):
        place = meet(board, 1, SIZE, OWNER_IP, is_owner=True)
        group = make_group(place.store, place.rank, place.size, OWNER_IP, 20.0)
        training = start(name, n_of(name))
        training.share(group)
        shared = [training.advance()]
        found = gradients(training)
        shared += [training.advance() for _ in range(training.steps - 1)]
    assert not errors_in(tmp_path)
    assert (place.rank, place.size) == (0, SIZE)
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(shared, losses, rtol=1e-2)  # later gradients differ as the rounding of earlier steps does
    seen = [training.n_seen, *(json.loads((tmp_path / f"seen-{rank}").read_text()) for rank in range(1, SIZE))]
    assert sum(seen) == alone.n_seen == 2 * n_of(name)
    assert min(seen) > 0


def test_the_parts_of_an_epoch_are_disjoint_and_their_union_is_the_epoch() -> None:
    batches = Batches(N, 23, seed=3)
    for size in (1, 2, 3, 5):
        parts = [
            [row for step in range(batches.per_epoch) for row in batches.rows(step)[part_of(rank, size)]] for rank in range(size)
        ]
        assert sorted(row for part in parts for row in part) == list(range(N))


def test_a_lost_rank_is_noticed_and_the_step_it_broke_has_not_happened(tmp_path: Path) -> None:
    board = open_board(OWNER_IP, SECRET, 20.0)

    def work(rank: int) -> None:
        group = seat(board.port, rank)
        training = start("linear-head")
        training.share(group)
        for _ in range(2 if group.rank == 2 else 3):
            training.advance()

    with forked(SIZE - 1, work, tmp_path):
        place = meet(board, 1, SIZE, OWNER_IP, is_owner=True)
        training = start("linear-head")
        training.share(make_group(place.store, place.rank, place.size, OWNER_IP, 20.0))
        losses = [training.advance(), training.advance()]
        before = weights(training)
        with pytest.raises(RankLostError):
            training.advance()
    assert training.step == 2
    for now, then in zip(weights(training), before, strict=True):
        np.testing.assert_array_equal(now, then)
    training.share(None)
    alone = start("linear-head")
    np.testing.assert_allclose([*losses, training.advance()], [alone.advance() for _ in range(3)], rtol=1e-4)


def test_the_rank_with_the_highest_step_gives_its_state_to_the_others(tmp_path: Path) -> None:
    board = open_board(OWNER_IP, SECRET, 20.0)

    def work(rank: int) -> None:
        group = seat(board.port, rank)
        step = 5 if group.rank == 2 else 4
        (tmp_path / f"got-{group.rank}").write_text(repr(group.newest_state(step, lambda: b"state of %d" % step)))

    with forked(SIZE - 1, work, tmp_path):
        place = meet(board, 1, SIZE, OWNER_IP, is_owner=True)
        group = make_group(place.store, place.rank, place.size, OWNER_IP, 20.0)
        assert group.newest_state(4, lambda: b"never sent") == b"state of 5"
    assert not errors_in(tmp_path)
    assert [(tmp_path / f"got-{rank}").read_text() for rank in (1, 2)] == [repr(b"state of 5"), "None"]


def test_an_algorithm_of_one_process_refuses_to_be_shared() -> None:
    training = find_algorithm("logistic-regression").start(np.eye(6), np.arange(6) % 2, 2)
    with pytest.raises(InvalidInputError, match="cannot be shared"):
        training.share(Group(None, 0, 2, None))  # type: ignore[arg-type]


def test_nccl_is_told_the_interface_of_the_cluster_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.77") == ""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_served_by_nccl() -> None:
    board = open_board(OWNER_IP, SECRET, 20.0)
    place = meet(board, 1, 1, OWNER_IP, is_owner=True)
    group = make_group(place.store, place.rank, place.size, OWNER_IP, 20.0)
    values = torch.ones(4, device="cuda")
    group.sum_([values], 4)
    assert (values.tolist(), group.counts) == ([1.0] * 4, (4,))
    group.close()
