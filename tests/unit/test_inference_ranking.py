"""The order of `rank` on pools in memory, and the swap's decision table."""

from __future__ import annotations

import numpy as np
import pytest

from datastore_layout.models import Pointer
from labelloop.messages import RankRequest
from learning.query import STRATEGIES
from roles.inference import ranking
from roles.inference.ranking import Candidates, order
from roles.inference.swap import next_swap
from tests.support_inference import matrix


def make_pool(n: int, *, has_proba: bool = True, dim: int = 4) -> Candidates:
    rng = np.random.default_rng(7)
    proba = rng.dirichlet(np.ones(3), n).astype(np.float32) if has_proba else None
    features = rng.standard_normal((n, max(dim, 1))).astype(np.float32)
    ids = np.array([f"i{row}" for row in range(n)], dtype=object)
    return Candidates("v1" if has_proba else "", ids, proba, dim, lambda rows: features[rows])


def test_margin_scores_are_those_the_order_was_made_from() -> None:
    pool = make_pool(200)
    reply = order(RankRequest(task="t", strategy="margin", exploration=0.0), pool, False)
    assert pool.proba is not None
    best = np.sort(pool.proba, axis=1)
    expected = 1 - (best[:, -1] - best[:, -2])
    by_id = dict(zip(pool.ids, expected, strict=True))
    np.testing.assert_allclose(matrix(reply.scores), [by_id[item] for item in reply.item_ids], atol=1e-6)
    assert (np.diff(matrix(reply.scores)) <= 0).all()
    assert reply.version == "v1"


def test_excluded_items_never_come_back_and_n_bounds_the_answer() -> None:
    excluded = tuple(f"i{row}" for row in range(0, 200, 2))
    reply = order(RankRequest(task="t", n=30, exclude=excluded), make_pool(200), False)
    assert len(reply.item_ids) == 30
    assert not set(reply.item_ids) & set(excluded)


def test_auto_is_typical_without_a_model_and_margin_with_one() -> None:
    assert order(RankRequest(task="t", n=5), make_pool(100, has_proba=False), False).strategy == "typiclust"
    assert order(RankRequest(task="t", n=5), make_pool(100), False).strategy == "margin"


def test_a_pool_with_neither_model_nor_features_is_ordered_at_random() -> None:
    reply = order(RankRequest(task="t", strategy="random"), make_pool(50, has_proba=False, dim=0), False)
    assert sorted(reply.item_ids) == sorted(f"i{row}" for row in range(50))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_that_scores_and_features_suffice_for_can_be_asked_by_name(strategy: str) -> None:
    reply = order(RankRequest(task="t", strategy=strategy, n=12, exclude=("i0", "i5")), make_pool(80), False)
    assert len(set(reply.item_ids)) == 12
    assert not {"i0", "i5"} & set(reply.item_ids)
    assert (np.diff(matrix(reply.scores)) <= 0).all()


def test_an_empty_pool_gives_an_empty_order() -> None:
    pool = make_pool(3)
    assert order(RankRequest(task="t", exclude=("i0", "i1", "i2")), pool, False).item_ids == ()


def test_a_pool_beyond_memory_is_judged_on_a_sample_and_still_answered_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "MOST_FEATURE_BYTES", 1)
    pool = make_pool(3000, has_proba=False)
    reply = order(RankRequest(task="t", strategy="typiclust"), pool, False)
    assert sorted(reply.item_ids) == sorted(pool.ids)
    assert (np.diff(matrix(reply.scores)) <= 0).all()
    assert "judged on 1024 of 3000" in reply.reason


def test_a_million_items_are_ordered() -> None:
    rng = np.random.default_rng(0)
    proba = rng.random((1_000_000, 3), dtype=np.float32)
    proba /= proba.sum(axis=1, keepdims=True)
    ids = np.arange(1_000_000).astype(str).astype(object)
    reply = order(RankRequest(task="t", n=100), Candidates("v", ids, proba, 0, lambda rows: proba[rows]), False)
    assert len(set(reply.item_ids)) == 100


@pytest.mark.parametrize(
    ("number", "refused", "pointer", "is_taken", "reason"),
    [
        (0, frozenset(), None, False, "no version serves yet"),
        (0, frozenset(), 1, True, "pointer 1 is new"),
        (3, frozenset(), 3, False, "pointer 3 is not above 3"),
        (3, frozenset(), 2, False, "pointer 2 is not above 3"),
        (3, frozenset({4}), 4, False, "pointer 4 names a version that was refused"),
        (3, frozenset({4}), 5, True, "pointer 5 is new"),
    ],
)
def test_a_swap_goes_up_only_and_never_to_a_refused_version(
    number: int, refused: frozenset[int], pointer: int | None, is_taken: bool, reason: str
) -> None:
    seen = None if pointer is None else Pointer(number=pointer, version="v", reason="r")
    target, why = next_swap(number, refused, seen)
    assert (target is not None) == is_taken
    assert reason in why
