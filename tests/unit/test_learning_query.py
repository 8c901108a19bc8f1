"""Query strategies against brute force, and their documented answers to bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.query import STRATEGIES, Selection, select
from learning.query.clustering import deal_rounds, dealt_groups, draw_far, nearest_centre
from learning.query.margin import top_two
from learning.query.typiclust import kmeans, typicality

UNCERTAINTY = ("least_confidence", "margin", "entropy")


def distributions(n: int, k: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).dirichlet(np.full(k, 0.7), n).astype(np.float32)


def score_by_hand(strategy: str, row: NDArray[np.float32]) -> float:
    ranked = sorted((float(p) for p in row), reverse=True)
    if strategy == "least_confidence":
        return 1 - ranked[0]
    if strategy == "margin":
        return 1 - (ranked[0] - (ranked[1] if len(ranked) > 1 else 0.0))
    return -sum(p * math.log(p) for p in ranked if p > 0) / math.log(max(len(ranked), 2))


def score_multilabel_by_hand(strategy: str, row: NDArray[np.float32]) -> float:
    return float(np.mean([score_by_hand(strategy, np.array([p, 1 - p])) for p in row.astype(np.float64)]))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(UNCERTAINTY), st.integers(1, 60), st.integers(1, 40), st.integers(0, 70), st.integers(0, 10**6))
def test_an_uncertainty_order_equals_brute_force(strategy: str, n_items: int, k: int, n: int, seed: int) -> None:
    proba = distributions(n_items, k, seed) if k > 1 else np.ones((n_items, 1), dtype=np.float32)
    got = select(strategy, proba=proba, features=None, n=n)
    by_hand = [score_by_hand(strategy, row) for row in proba]
    wanted = sorted(by_hand, reverse=True)[: n or n_items]
    np.testing.assert_allclose(got.scores, wanted, atol=2e-5)
    np.testing.assert_allclose(got.scores, np.array(by_hand)[got.indices], atol=2e-5)
    assert len(set(got.indices.tolist())) == len(got.indices)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(UNCERTAINTY), st.integers(1, 40), st.integers(1, 8), st.integers(0, 10**6))
def test_multilabel_uncertainty_is_the_mean_over_labels_of_the_binary_one(strategy: str, n: int, k: int, seed: int) -> None:
    proba = np.random.default_rng(seed).random((n, k), dtype=np.float32)
    got = select(strategy, proba=proba, features=None, is_multilabel=True)
    np.testing.assert_allclose(got.scores, [score_multilabel_by_hand(strategy, proba[i]) for i in got.indices], atol=2e-5)
    assert (np.diff(got.scores) <= 0).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(2, 70), st.integers(0, 10**6))
def test_the_two_largest_of_each_row_are_found_without_sorting(n: int, k: int, seed: int) -> None:
    proba = np.random.default_rng(seed).integers(0, 4, (n, k)).astype(np.float32)  # many ties
    first, second = top_two(proba)
    ranked = np.sort(proba, axis=1)
    assert np.array_equal(first, ranked[:, -1])
    assert np.array_equal(second, ranked[:, -2])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(0, 250), st.floats(0, 1), st.integers(0, 10**6))
def test_exploration_keeps_scores_falling_items_distinct_and_its_share_in_every_prefix(
    n_items: int, n: int, share: float, seed: int
) -> None:
    proba = distributions(n_items, 5, seed)
    plain = select("margin", proba=proba, features=None)
    got = select("margin", proba=proba, features=None, n=n, exploration=share, seed=seed)
    count = min(n or n_items, n_items)
    assert len(got.indices) == len(set(got.indices.tolist())) == count
    assert (np.diff(got.scores) <= 0).all()
    kept = [i for i in plain.indices.tolist() if i in set(got.indices.tolist())]
    place = {item: at for at, item in enumerate(got.indices.tolist())}
    best = plain.indices.tolist()[: count - int(count * share)]
    missed = [i for i in best if i not in place]
    assert not missed, "the best items only move down, they are never lost"
    assert len(kept) == count


def test_a_tenth_of_the_first_hundred_places_is_random_and_the_rest_is_the_plain_order() -> None:
    proba = distributions(5000, 6)
    plain = select("margin", proba=proba, features=None).indices.tolist()
    got = select("margin", proba=proba, features=None, n=100, exploration=0.1, seed=3).indices.tolist()
    strangers = [i for i in got if i not in plain[:100]]
    assert 8 <= len(strangers) <= 10
    assert [i for i in got if i not in strangers][:80] == [i for i in plain if i not in strangers][:80]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_seed_gives_the_same_order_and_another_seed_another_where_chance_plays(strategy: str) -> None:
    proba, features = distributions(300, 4), np.random.default_rng(1).standard_normal((300, 6)).astype(np.float32)

    def order(seed: int) -> list[int]:
        kind = None if strategy in ("typiclust", "auto") else proba
        return select(strategy, proba=kind, features=features, n=50, seed=seed, exploration=0.2).indices.tolist()

    assert order(7) == order(7)
    assert order(7) != order(8)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n", [0, 1, 5, 40, 400])
def test_every_strategy_answers_min_of_asked_and_pool_with_falling_scores(strategy: str, n: int) -> None:
    proba, features = distributions(40, 3), np.random.default_rng(2).standard_normal((40, 5)).astype(np.float32)
    got = select(strategy, proba=proba, features=features, n=n, seed=1)
    assert len(got.indices) == len(got.scores) == min(n or 40, 40)
    assert (np.diff(got.scores) <= 0).all()
    assert sorted(set(got.indices.tolist())) == sorted(got.indices.tolist())
    assert got.scores.dtype == np.float32
    assert got.indices.dtype == np.int64
    assert ("the pool has 40" in got.reason) == (n == 400)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_empty_pool_gives_an_empty_selection(strategy: str) -> None:
    got = select(strategy, proba=np.empty((0, 3), np.float32), features=np.empty((0, 4), np.float32), n=5)
    assert (len(got.indices), len(got.scores), got.reason) == (0, 0, "the pool is empty")


BAD = [
    ({"proba": [[0.5, 0.4], [0.5, 0.5]]}, "row 0 of proba sums to 0.9"),
    ({"proba": [[0.5, 0.5], [0.0, 0.0]]}, "row 1 of proba sums to 0"),
    ({"proba": [[0.5, np.nan]]}, "without NaN"),
    ({"proba": [[1.5, -0.5]]}, "must lie in"),
    ({"proba": [0.5, 0.5]}, "proba must be"),
    ({"proba": None}, "needs proba or features"),
    ({"proba": [[1.0]], "features": [[1.0], [2.0]]}, "same items"),
    ({"proba": [[1.0]], "features": [1.0]}, "features must be"),
    ({"proba": [[1.0]], "features": [[1.0, 2.0]], "labelled_features": [[1.0]]}, "one encoder"),
    ({"proba": [[1.0]], "n": -1}, "n must be 0 or more"),
    ({"proba": [[1.0]], "exploration": 1.5}, "exploration in"),
    ({"proba": None, "features": [[1.0]]}, "no model serves yet"),
    ({"proba": [[1.0]], "strategy": "typiclust"}, "needs features"),
    ({"proba": [[1.0]], "strategy": "guess"}, "'guess' is unknown"),
]


@pytest.mark.parametrize(("given", "message"), BAD)
def test_bad_input_is_refused_by_name(given: dict[str, object], message: str) -> None:
    arrays = ("proba", "features", "labelled_features")
    call = {name: np.array(v, dtype=np.float32) if name in arrays and v is not None else v for name, v in given.items()}
    strategy = str(call.pop("strategy", "margin"))
    with pytest.raises(InvalidInputError, match=message):
        select(strategy, **{"features": None, **call})  # type: ignore[arg-type]


def test_rows_of_half_precision_probabilities_are_accepted() -> None:
    proba = distributions(50, 20).astype(np.float16)
    assert len(select("margin", proba=proba, features=None).indices) == 50


def test_auto_asks_typical_items_without_a_model_and_margin_with_one() -> None:
    features = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    proba = distributions(60, 3)
    assert select("auto", proba=None, features=features).strategy == "typiclust"
    with_model = select("auto", proba=proba, features=features, n=9)
    assert with_model.strategy == "margin"
    assert with_model.indices.tolist() == select("margin", proba=proba, features=None, n=9).indices.tolist()
    assert select("auto", proba=np.tile(proba[:1], (60, 1)), features=features).strategy == "typiclust"


def clusters() -> NDArray[np.float32]:
    """Return three tight clusters of 60, 30 and 10 rows, far apart, each with its most typical row at its centre."""
    rng = np.random.default_rng(5)
    centres = np.array([[0, 0], [50, 0], [0, 50]], dtype=np.float32)
    parts = [np.concatenate([[c], c + rng.normal(0, 1, (size - 1, 2))]) for c, size in zip(centres, (60, 30, 10), strict=True)]
    return np.concatenate(parts).astype(np.float32)


def cluster_of(index: int) -> int:
    return 0 if index < 60 else 1 if index < 90 else 2


def test_typiclust_visits_the_clusters_by_size_before_it_visits_one_twice() -> None:
    got = select("typiclust", proba=None, features=clusters(), n=3, seed=1)
    assert [cluster_of(i) for i in got.indices] == [0, 1, 2]
    for index in got.indices:
        members = [i for i in range(100) if cluster_of(i) == cluster_of(index)]
        centre = clusters()[members].mean(axis=0)
        distance = np.linalg.norm(clusters()[members] - centre, axis=1)
        assert np.linalg.norm(clusters()[index] - centre) <= np.median(distance)


def test_typiclust_leaves_clusters_with_labels_to_the_end() -> None:
    labelled = clusters()[[1, 2]]
    got = select("typiclust", proba=None, features=clusters(), labelled_features=labelled, n=1, seed=1)
    assert cluster_of(int(got.indices[0])) != 0


def test_typicality_equals_the_textbook_for_a_small_cluster() -> None:
    z = np.random.default_rng(3).standard_normal((40, 7)).astype(np.float32)
    distances = np.sort(np.linalg.norm(z[:, None] - z[None], axis=2), axis=1)[:, 1:21]
    np.testing.assert_allclose(typicality(z), 1 / distances.mean(axis=1), rtol=1e-3)


def test_kmeans_finds_well_separated_clusters() -> None:
    _, place = kmeans(clusters(), 3, np.random.default_rng(0))
    groups = [set(place[begin:end].tolist()) for begin, end in ((0, 60), (60, 90), (90, 100))]
    assert all(len(group) == 1 for group in groups)
    assert len(set.union(*groups)) == 3


def test_a_pool_above_the_sample_is_placed_whole_at_the_nearest_centres() -> None:
    z = np.random.default_rng(0).standard_normal((5000, 3)).astype(np.float32)
    centres, place = kmeans(z, 40, np.random.default_rng(1))
    gaps = np.linalg.norm(z[:, None] - centres[None], axis=2)
    np.testing.assert_allclose(gaps[np.arange(5000), place], gaps.min(axis=1), rtol=1e-4)
    assert len(np.unique(place)) == 40
    assert np.array_equal(nearest_centre(z, centres), place)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=12), st.integers(1, 30))
def test_the_groups_that_may_be_dealt_from_give_the_same_deal_as_all(pairs: list[tuple[int, int]], n: int) -> None:
    sizes = np.array([size for size, _ in pairs])
    n_had = np.array([had for _, had in pairs])
    rows = np.split(np.random.default_rng(n).permutation(int(sizes.sum())), np.cumsum(sizes)[:-1])
    groups = [(rows[at], int(n_had[at])) for at in range(len(pairs))]
    kept = dealt_groups(sizes, n_had, n)
    dealt = deal_rounds([groups[at] for at in kept], n) if len(kept) else np.empty(0, dtype=np.int64)
    assert dealt.tolist() == deal_rounds(groups, n).tolist()
    assert len(dealt) == min(n, sizes.sum())


def test_rows_are_drawn_by_their_distance_to_all_picks_though_distances_are_stale() -> None:
    z = np.array([0.0, 1.0, 2.0, 4.0])
    first = z**2
    counts = np.zeros((4, 4))
    rng = np.random.default_rng(0)
    for _ in range(6000):
        picks = [0]
        draw_far(
            lambda row, rows: min(((z[row] - z[other]) ** 2 for other in rows), default=np.inf),
            first.astype(np.float32),
            np.cumsum(first),
            picks,
            3,
            1000,
            rng,
        )
        counts[picks[1], picks[2]] += 1
    for second in (1, 2, 3):
        left = np.minimum(first, (z - z[second]) ** 2)
        np.testing.assert_allclose(counts[second].sum() / 6000, first[second] / first.sum(), atol=0.03)
        np.testing.assert_allclose(counts[second] / counts[second].sum(), left / left.sum(), atol=0.1)


def test_typiclust_survives_equal_rows_and_missing_values() -> None:
    same = np.ones((30, 3), dtype=np.float32)
    assert len(select("typiclust", proba=None, features=same, n=5).indices) == 5
    holes = clusters()
    holes[3, 0] = np.nan
    assert len(set(select("typiclust", proba=None, features=holes).indices.tolist())) == 100


def test_only_the_head_of_a_big_pool_is_by_typicality_and_the_rest_is_random() -> None:
    features = np.random.default_rng(4).standard_normal((3000, 3)).astype(np.float32)
    got: Selection = select("typiclust", proba=None, features=features, seed=2)
    assert (got.scores > 1).sum() == 500
    assert got.scores[500] < 1
    assert sorted(got.indices.tolist()) == list(range(3000))
