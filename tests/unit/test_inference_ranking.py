"""The order of `rank` on pools in memory, and the swap's decision table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from datastore_layout.labels import LabelRow, write_segment
from datastore_layout.models import Pointer
from datastore_layout.shards import ShardSet
from labelloop.errors import InvalidInputError
from labelloop.messages import RankRequest, Region
from learning.query import ALL, STRATEGIES
from learning.token_rows import VECTOR, WIDTH
from roles.inference import ordering
from roles.inference.labelled import Labelled, LabelReader, hard_rows, label_numbers, read_labelled, sample_labelled
from roles.inference.ordering import Candidates, Known, order
from roles.inference.ranking import Ranking
from roles.inference.swap import next_swap
from tests.support_datastore import new_folder, row_of, spec_of
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
    monkeypatch.setattr(ordering, "MOST_FEATURE_BYTES", 1)
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


def known_of(labels: np.ndarray, dim: int = 4) -> Known:
    """Labelled items whose features lie at their class's number."""
    x = (np.random.default_rng(3).standard_normal((len(labels), dim)) / 4).astype(np.float32)
    x[:, 0] += labels if labels.ndim == 1 else labels @ np.arange(labels.shape[1])
    ids = tuple(f"known{row}" for row in range(len(labels)))
    return Known(lambda: labels, lambda most: Labelled(ids[:most], x[:most], labels[:most]))


THREE = np.array([0, 1, 2] * 10)


OTHERS = ("alipy_qbc", "alipy_audi", "alipy_bmdr", "skactiveml_falcun")  # the rest have the same needs, and are slow to load


@pytest.mark.parametrize("strategy", [name for name, row in ALL.items() if "parts" not in row.needs and not row.extra] + [*OTHERS])
def test_every_strategy_can_be_asked_by_name_once_there_are_labels(strategy: str) -> None:
    row = ALL[strategy]
    is_multilabel = not row.has_multiclass
    pool = make_pool(60)
    known = known_of(np.eye(3, dtype=np.int64)[THREE] if is_multilabel else THREE)
    if row.n_classes == 2:
        p = np.random.default_rng(1).random(60, dtype=np.float32)
        pool, known = replace(pool, proba=np.stack([p, 1 - p], axis=1)), known_of(THREE % 2)
    reply = order(RankRequest(task="t", strategy=strategy, n=8, exclude=("i0",)), pool, is_multilabel, known)
    assert len(set(reply.item_ids)) == 8
    assert "i0" not in reply.item_ids
    assert reply.strategy == strategy


@pytest.mark.parametrize(
    ("strategy", "fields", "labels", "said"),
    [
        ("bald", {}, [], "needs labels of two classes for its committee"),
        ("committee_vote", {}, [1, 1, 1], "needs labels of two classes for its committee"),
        ("bald", {"dim": 0}, [0, 1], "needs features for its committee"),
        ("bald", {"dim": 3000}, [0, 1], "takes up to 2048 features, these are 3000"),
        ("expected_error_reduction", {}, [], "needs labelled features with their labels: label first"),
        ("alipy_qbc", {}, [], "needs labelled features with their labels: label first"),
        ("alipy_quire", {}, [0, 1], "defined for two classes"),
        ("alipy_ceal", {}, [0, 1], "needs annotator_labels"),
        ("region_uncertainty", {}, [], "needs the probabilities of each item's regions"),
        ("margin", {"has_proba": False}, [], "no model serves yet"),
        ("core_set", {"dim": 0}, [], "needs features"),
    ],
)
def test_what_a_strategy_lacks_is_said_by_name(strategy: str, fields: dict[str, Any], labels: list[int], said: str) -> None:
    pool, known = make_pool(30, **fields), known_of(np.array(labels, dtype=np.int64), fields.get("dim", 4) or 4)
    with pytest.raises(InvalidInputError, match=said):
        order(RankRequest(task="t", strategy=strategy, n=5), pool, False, known)


def test_auto_without_model_and_features_is_a_random_order() -> None:
    reply = order(RankRequest(task="t"), make_pool(30, has_proba=False, dim=0), False)
    assert (reply.strategy, len(reply.item_ids)) == ("random", 30)


def test_parameters_reach_the_strategy_and_unknown_ones_are_refused() -> None:
    pool = make_pool(100)
    orders = {
        beta: order(RankRequest(task="t", strategy="density_weighted", parameters={"beta": beta}, exploration=0.0), pool, False)
        for beta in (0, 50)
    }
    assert orders[0].item_ids == order(RankRequest(task="t", strategy="entropy", exploration=0.0), pool, False).item_ids
    assert orders[50].item_ids != orders[0].item_ids
    with pytest.raises(InvalidInputError, match="beta"):
        order(RankRequest(task="t", strategy="density_weighted", parameters={"beta": -1}), pool, False)
    with pytest.raises(InvalidInputError, match="it has none"):
        order(RankRequest(task="t", parameters={"beta": 1}), pool, False)


def test_costs_divide_the_scores_and_items_not_named_cost_1() -> None:
    pool = make_pool(50)
    plain = order(RankRequest(task="t", strategy="margin", exploration=0.0), pool, False)
    dear = plain.item_ids[0]
    paid = order(RankRequest(task="t", strategy="margin", exploration=0.0, costs={dear: 1000.0, "other": 5.0}), pool, False)
    assert paid.item_ids == (*plain.item_ids[1:], dear)
    assert matrix(paid.scores)[-1] == pytest.approx(matrix(plain.scores)[0] / 1000)
    for cost in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidInputError, match=f"cost of item '{dear}' is"):
            order(RankRequest(task="t", strategy="margin", costs={dear: cost}), pool, False)
    with pytest.raises(InvalidInputError, match="n must be 0"):
        order(RankRequest(task="t", n=-1), pool, False)
    with pytest.raises(InvalidInputError, match="takes no costs"):
        order(RankRequest(task="t", strategy="core_set", costs={dear: 2.0}), pool, False)


def test_labels_that_the_version_cannot_name_are_left_out() -> None:
    known = known_of(np.array([0, 1, 2, 3, 4] * 4))
    reply = order(RankRequest(task="t", strategy="expected_error_reduction", n=3), make_pool(40), False, known)
    assert len(reply.item_ids) == 3


def test_the_class_with_fewest_labels_comes_first_when_balance_is_asked() -> None:
    pool, known = make_pool(200), known_of(np.array([0] * 50 + [1] * 50))
    assert pool.proba is not None
    request = RankRequest(task="t", strategy="class_balanced", parameters={"weight": 100}, n=10, exploration=0.0)
    likely = {item: row.argmax() for item, row in zip(pool.ids, pool.proba, strict=True)}
    assert {likely[item] for item in order(request, pool, False, known).item_ids} == {2}


def test_a_pool_above_the_bound_of_a_strategy_is_judged_on_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALL, "margin", replace(ALL["margin"], pool_limit=300))
    pool = make_pool(900)
    reply = order(RankRequest(task="t", strategy="margin", exploration=0.0), pool, False)
    assert sorted(reply.item_ids) == sorted(pool.ids)
    assert "judged on 300 of 900 items" in reply.reason


def test_a_committee_is_asked_of_as_many_items_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering, "MOST_COMMITTEE_BYTES", 1)
    reply = order(RankRequest(task="t", strategy="bald"), make_pool(1100), False, known_of(THREE))
    assert "judged on 1024 of 1100 items" in reply.reason


def test_items_with_uncertain_regions_come_first_by_name_and_by_auto() -> None:
    sure, unsure = Region("a", (0.0, 0.0, 1.0, 1.0), 0.99), Region("a", (0.0, 0.0, 1.0, 1.0), 0.5)
    surest = np.array([[0.99, 0, 0], [0, 0, 0], [0.5, 0, 0], [0.5, 0, 0]], dtype=np.float32)
    pool = replace(make_pool(4), proba=surest, regions=[(sure,), (), (unsure, unsure), (unsure,)])
    for strategy in ("auto", "region_uncertainty"):
        reply = order(RankRequest(task="t", strategy=strategy, exploration=0.0), pool, True)
        assert reply.item_ids == ("i2", "i3", "i0", "i1")
        assert reply.strategy == "region_uncertainty"


def test_a_region_too_unsure_to_be_shown_makes_its_item_uncertain_too() -> None:
    sure = Region("a", (0.0, 0.0, 1.0, 1.0), float(np.float32(0.9)))
    surest = np.array([[0.9, 0, 0], [0.9, 0.4, 0], [0, 0, 0]], dtype=np.float32)
    pool = replace(make_pool(3), proba=surest, regions=[(sure,), (sure,), ()])
    reply = order(RankRequest(task="t", strategy="region_uncertainty", exploration=0.0), pool, True)
    assert reply.item_ids == ("i1", "i0", "i2")
    assert matrix(reply.scores) == pytest.approx([0.2 + 0.8, 0.2, 0.0], abs=1e-6)


def test_only_certain_labels_of_the_task_count_and_a_sample_keeps_every_class() -> None:
    spec = spec_of()
    rows = [
        row_of("hard"),
        row_of("soft", proba=(0.6, 0.4)),
        row_of("boxes", regions=(Region("cat", (0.0, 0.0, 1.0, 1.0)),)),
        row_of("old", label="bird"),
        LabelRow("none", 1, "http://host/none", ()),
        row_of("dog", label="dog"),
    ]
    kept = hard_rows(rows, spec)
    assert [row.item_id for row in kept] == ["hard", "dog"]
    assert label_numbers(kept, spec).tolist() == [0, 1]
    several = spec_of(kind="multilabel")
    both = [LabelRow("both", 1, "http://host/both", ("dog", "cat")), LabelRow("none", 1, "http://host/none", ())]
    assert label_numbers(hard_rows(both, several), several).tolist() == [[1, 1], [0, 0]]
    rare = np.array([0] * 999 + [1])
    assert 999 in sample_labelled(rare, 10, seed=0)
    assert len(sample_labelled(rare, 10, seed=0)) == 10
    assert len(sample_labelled(np.eye(5, dtype=np.int64)[THREE], 7, seed=0)) == 7


def test_labelled_features_are_found_by_item_and_by_the_place_in_the_log(tmp_path: Path) -> None:
    folder, spec = new_folder(tmp_path), spec_of()
    shards = ShardSet(folder, "numbers")
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    links = [f"http://host/{name}" for name in "abcd"]
    name = shards.write(list("abcd"), links, ["1", "2", "3", "4"], x)
    rows = [row_of("a"), row_of("twin", shard=name, row=2), row_of("gone"), row_of("d", label="dog", shard="s9-" + 28 * "0", row=7)]
    write_segment(folder, "batch-1", rows)
    kept = hard_rows(LabelReader().rows(folder), spec)
    found = read_labelled(kept, label_numbers(kept, spec), shards, True, 100, seed=0)
    assert dict(zip(found.ids, found.features.tolist(), strict=True)) == {"a": [0, 1], "twin": [4, 5], "d": [6, 7]}
    assert dict(zip(found.ids, found.labels.tolist(), strict=True)) == {"a": 0, "twin": 0, "d": 1}
    elsewhere = read_labelled(kept, label_numbers(kept, spec), shards, False, 100, seed=0)
    assert set(elsewhere.ids) == {"a", "d"}, "places in the shards of another encoder say nothing"
    assert read_labelled([], np.empty(0, dtype=np.int64), shards, True, 100, seed=0).ids == ()


def test_packed_rows_of_words_become_points_before_a_distance_is_measured(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    ranking = Ranking.__new__(Ranking)  # its pools come from jobs and workers; what it does with their rows needs neither
    rows = np.zeros((2, WIDTH), np.float32)
    spans = [msgspec.structs.replace(spec_of(encoder=name), category="token-classification") for name in ("minilm-tokens", "auto")]
    assert ranking._to_points(folder, spans[0], "")(rows).shape == (2, VECTOR)
    assert ranking._to_points(folder, spans[0], "")(rows[:0]).shape == (0, VECTOR)
    for undecided_or_of_classes in (spans[1], spec_of(encoder="efficientnet-lite0")):
        assert ranking._to_points(folder, undecided_or_of_classes, "")(rows) is rows
