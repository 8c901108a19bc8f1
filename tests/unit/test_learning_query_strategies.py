"""Each query strategy against a slow and obvious version of its paper's rule."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.query import Selection, select
from learning.query import class_balanced as class_balanced_module
from learning.query import core_set as core_set_module
from learning.query.badge import Gradients, draw_picks
from learning.query.bagging import bagged_committee
from learning.query.error_reduction import Ridge, posterior
from learning.query.mixture import deal
from learning.scaling import fit_scaling

Matrix = NDArray[np.float32]


def distributions(*shape: int, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).dirichlet(np.full(shape[-1], 0.7), shape[:-1]).astype(np.float32)


def gauss(*shape: int, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def scores_of(got: Selection) -> Matrix:
    """Return the scores in pool order of a selection of the whole pool."""
    out = np.empty(len(got.indices), dtype=np.float32)
    out[got.indices] = got.scores
    return out


def entropy(row: Any) -> float:
    return -sum(float(p) * math.log(p) for p in row if p > 0)


def textbook_core_set(x: Matrix, near: Matrix, n: int, first: int | None = None) -> list[int]:
    """Greedy k-center as it is written down: look at every row again for every pick, in double precision."""
    x, near = x.astype(np.float64), near.astype(np.float64)
    least = np.full(len(x), np.inf)
    for centre in near:
        least = np.minimum(least, ((x - centre) ** 2).sum(axis=1))
    picks: list[int] = []
    while len(picks) < n:
        pick = first if first is not None and not picks else int(least.argmax())
        picks.append(pick)
        least = np.minimum(least, ((x - x[pick]) ** 2).sum(axis=1))
    return picks


@pytest.mark.parametrize(("n_labelled", "rows"), [(1, 5000), (40, 5000), (300, 3000), (7, 50)])
def test_core_set_picks_are_the_textbooks(n_labelled: int, rows: int) -> None:
    x, near = gauss(rows, 12, seed=rows), gauss(n_labelled, 12, seed=9)
    n = min(60, rows)
    got = select("core_set", proba=None, features=x, labelled_features=near, n=n)
    assert got.indices.tolist() == textbook_core_set(x, near, n)


def test_core_set_picks_are_the_textbooks_when_tight_clusters_make_bounds_fall_fast() -> None:
    rng = np.random.default_rng(4)
    x = (rng.normal(0, 30, (50, 8))[rng.integers(0, 50, 9000)] + rng.normal(0, 0.5, (9000, 8))).astype(np.float32)
    got = select("core_set", proba=None, features=x, n=120, seed=3)
    assert got.indices.tolist() == textbook_core_set(x, x[:0], 120, first=int(got.indices[0]))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(0, 60), st.integers(1, 60), st.integers(1, 40), st.integers(0, 10**6))
def test_core_set_is_exact_with_blocks_of_any_size(n_items: int, n_labelled: int, n: int, block: int, seed: int) -> None:
    x, near = gauss(n_items, 5, seed=seed), gauss(n_labelled, 5, seed=seed + 1)
    before = core_set_module._BLOCK_ROWS
    core_set_module._BLOCK_ROWS = block
    try:
        got = select("core_set", proba=None, features=x, labelled_features=near if n_labelled else None, n=n, seed=seed)
    finally:
        core_set_module._BLOCK_ROWS = before
    first = None if n_labelled else int(got.indices[0])
    assert got.indices.tolist() == textbook_core_set(x, near, min(n, n_items), first)


def test_core_set_scores_are_the_distances_at_the_time_of_the_pick_and_what_is_left_for_the_rest() -> None:
    x, near = gauss(700, 6), gauss(3, 6, seed=1)
    got = select("core_set", proba=None, features=x, labelled_features=near)
    centres = near.astype(np.float64)
    for row, score in zip(got.indices[:100], got.scores[:100], strict=True):
        assert score == pytest.approx(np.sqrt(((centres - x[row]) ** 2).sum(axis=1).min()), rel=1e-4)
        centres = np.concatenate([centres, x[row : row + 1]])
    picked = np.concatenate([near, x[got.indices[:500]]]).astype(np.float64)
    left = [np.sqrt(((picked - x[row]) ** 2).sum(axis=1).min()) for row in got.indices[500:]]
    np.testing.assert_allclose(got.scores[500:], left, rtol=1e-3, atol=1e-3)


def test_core_set_asks_distinct_rows_before_copies_and_survives_missing_values_and_a_far_origin() -> None:
    distinct = gauss(20, 4) + 1000
    x = np.concatenate([distinct, distinct, distinct])
    got = select("core_set", proba=None, features=x, n=60, seed=1)
    assert len({i % 20 for i in got.indices[:20].tolist()}) == 20
    assert sorted(got.indices.tolist()) == list(range(60))
    x[5, 2] = np.nan
    assert len(set(select("core_set", proba=None, features=x).indices.tolist())) == 60
    same = np.ones((5000, 3), dtype=np.float32)
    assert len(set(select("core_set", proba=None, features=same, n=7).indices.tolist())) == 7


def dense_gradients(proba: Matrix, h: Matrix, is_multilabel: bool) -> NDArray[np.float64]:
    """Return the gradient embeddings as written down: (n, k * d)."""
    out = []
    for p, row in zip(proba.astype(np.float64), h.astype(np.float64), strict=True):
        y = (p >= 0.5).astype(float) if is_multilabel else np.eye(len(p))[p.argmax()]
        out.append(np.outer(p - y, row).ravel())
    return np.array(out)


@pytest.mark.parametrize("is_multilabel", [False, True])
def test_badge_knows_the_distances_between_gradients_without_building_them(is_multilabel: bool) -> None:
    proba, h = distributions(30, 4, seed=6), gauss(30, 5, seed=7)
    g = dense_gradients(proba, h, is_multilabel)
    gap = ((g[:, None] - g[None]) ** 2).sum(axis=2)
    gradients = Gradients(proba, h, is_multilabel)
    np.testing.assert_allclose(gradients.squares, (g**2).sum(axis=1), rtol=1e-4)
    first = gradients.nearest(None, [3, 8])
    np.testing.assert_allclose(first, gap[:, [3, 8]].min(axis=1), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(gradients.nearest(first, [11]), gap[:, [3, 8, 11]].min(axis=1), rtol=1e-3, atol=1e-3)
    assert gradients.least(5, [3, 8]) == pytest.approx(gap[5, [3, 8]].min(), rel=1e-3)
    assert gradients.least(5, []) == np.inf


@pytest.mark.parametrize("is_multilabel", [False, True])
def test_badge_draws_as_kmeans_plus_plus_over_the_dense_gradients_does(is_multilabel: bool) -> None:
    """The second and third pick of 2,000 seeded draws against their exact chances (chi-square, six standard deviations)."""
    proba, h = distributions(9, 3, seed=2), gauss(9, 4, seed=3)
    if is_multilabel:
        proba = np.random.default_rng(5).random((9, 3), dtype=np.float32)
    g = dense_gradients(proba, h, is_multilabel)
    first = int((g**2).sum(axis=1).argmax())
    gap = ((g[:, None] - g[None]) ** 2).sum(axis=2)
    second = gap[first] / gap[first].sum()
    chance = np.zeros((9, 9))
    for row in range(9):
        if row != first:
            least = np.minimum(gap[first], gap[row])
            chance[row] = second[row] * least / least.sum()
    seen = np.zeros((9, 9))
    n_draws = 2000
    for seed in range(n_draws):
        picks = draw_picks(proba, h, 3, is_multilabel, np.random.default_rng(seed))
        assert picks[0] == first
        seen[picks[1], picks[2]] += 1
    likely = chance > 0
    assert seen[~likely].sum() == 0
    statistic = ((seen - n_draws * chance)[likely] ** 2 / (n_draws * chance[likely])).sum()
    freedom = likely.sum() - 1
    assert statistic < freedom + 6 * math.sqrt(2 * freedom)


def test_badge_never_picks_an_item_twice_and_at_most_one_of_those_without_a_gradient() -> None:
    proba, h = distributions(400, 4), gauss(400, 6)
    proba[:100] = np.eye(4, dtype=np.float32)[0]
    got = select("badge", proba=proba, features=h, n=350, seed=1)
    assert len(set(got.indices.tolist())) == 350
    assert (got.indices[:300] < 100).sum() <= 1
    assert len(select("badge", proba=np.ones((6, 1), np.float32), features=h[:6], n=3).indices) == 3


def divergence(members: NDArray[np.float64]) -> float:
    """Return the mean Kullback-Leibler divergence of each member (row) to their mean."""
    mean = members.mean(axis=0)
    return float(np.mean([sum(p * math.log(p / q) for p, q in zip(row, mean, strict=True) if p > 0) for row in members]))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 6), st.integers(1, 30), st.integers(2, 6), st.booleans(), st.integers(0, 10**6))
def test_committee_strategies_equal_their_definitions(m: int, n: int, k: int, is_multilabel: bool, seed: int) -> None:
    committee = distributions(m, n, k, seed=seed)
    if is_multilabel:
        committee = np.random.default_rng(seed).random((m, n, k), dtype=np.float32)

    def got(name: str) -> Matrix:
        return scores_of(select(name, proba=None, features=None, committee=committee, is_multilabel=is_multilabel))

    kl, vote = [], []
    for item in range(n):
        members = committee[:, item].astype(np.float64)
        columns = [np.stack([members[:, y], 1 - members[:, y]], axis=1) for y in range(k)] if is_multilabel else [members]
        kl.append(sum(divergence(column) for column in columns))
        if is_multilabel:
            shares = [(members[:, y] >= 0.5).mean() for y in range(k)]
            vote.append(np.mean([entropy([s, 1 - s]) / math.log(2) for s in shares]))
        else:
            shares = np.bincount(members.argmax(axis=1), minlength=k) / m
            vote.append(entropy(shares) / math.log(min(k, m)))
    np.testing.assert_allclose(got("bald"), kl, atol=3e-5)
    np.testing.assert_allclose(got("committee_kl"), kl, atol=3e-5)
    np.testing.assert_allclose(got("committee_vote"), vote, atol=3e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.floats(0, 3), st.integers(0, 10**6))
def test_density_weighted_equals_all_pairs(n: int, k: int, beta: float, seed: int) -> None:
    proba = distributions(n, k, seed=seed) if k > 1 else np.ones((n, 1), np.float32)
    x = gauss(n, 5, seed=seed)
    got = select("density_weighted", proba=proba, features=x, parameters={"beta": beta, "measure": "margin"})
    margin = scores_of(select("margin", proba=proba, features=None))
    for i in range(n):
        cosines = [float(x[i] @ y / np.linalg.norm(x[i]) / np.linalg.norm(y)) for y in x]
        assert scores_of(got)[i] == pytest.approx(margin[i] * ((1 + np.mean(cosines)) / 2) ** beta, abs=1e-4)


def test_density_of_a_row_of_zeros_or_of_missing_values_is_one_half() -> None:
    x = np.ones((3, 2), dtype=np.float32)
    x[1], x[2] = 0, np.nan
    half = np.full((3, 2), 0.5, dtype=np.float32)
    assert scores_of(select("density_weighted", proba=half, features=x))[1:].tolist() == [0.5, 0.5]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(1, 4), st.booleans(), st.integers(0, 10**6))
def test_expected_gradient_length_equals_gradients_built_one_by_one(n: int, k: int, is_multilabel: bool, seed: int) -> None:
    proba = np.random.default_rng(seed).random((n, k), dtype=np.float32)
    if not is_multilabel:
        proba /= proba.sum(axis=1, keepdims=True)
    x = gauss(n, 3, seed=seed)
    got = scores_of(select("expected_gradient_length", proba=proba, features=x, is_multilabel=is_multilabel))
    for p, row, score in zip(proba.astype(np.float64), x, got, strict=True):
        h = np.append(row, 1.0)
        if is_multilabel:
            answers = [np.array(bits, dtype=float) for bits in itertools.product((0, 1), repeat=k)]
            chances = [float(np.prod(np.where(y == 1, p, 1 - p))) for y in answers]
            squares = [np.linalg.norm(np.outer(p - y, h)) ** 2 for y in answers]
            wanted = math.sqrt(np.dot(chances, squares))
        else:
            wanted = sum(p[y] * np.linalg.norm(np.outer(p - np.eye(k)[y], h)) for y in range(k))
        assert score == pytest.approx(wanted, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("loss", ["log", "error"])
def test_expected_error_reduction_equals_training_anew_for_every_item_and_label(loss: str) -> None:
    x, near, labels, proba = gauss(30, 4), gauss(12, 4, seed=1), np.arange(12) % 3, distributions(30, 3)
    scaling = fit_scaling(near)

    def fit(z: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        z = np.concatenate([z, np.ones((len(z), 1))], axis=1).astype(np.float64)
        return np.linalg.solve(z.T @ z + 2.0 * np.eye(5), z.T @ np.eye(3)[y])

    zn, zx = scaling.apply(near), scaling.apply(x)
    losses = []
    for i in range(30):
        expected = 0.0
        for y in range(3):
            weights = fit(np.concatenate([zn, zx[i : i + 1]]), np.append(labels, y))
            q = np.maximum(np.concatenate([zx, np.ones((30, 1))], axis=1) @ weights, 1e-3)
            q /= q.sum(axis=1, keepdims=True)
            expected += proba[i, y] * np.mean([entropy(row) if loss == "log" else 1 - row.max() for row in q])
        losses.append(expected)
    got = select(
        "expected_error_reduction",
        proba=proba,
        features=x,
        labelled_features=near,
        labels=labels,
        n=10,
        parameters={"loss": loss, "penalty": 2.0},
    )
    assert got.indices.tolist() == np.argsort(losses)[:10].tolist()


def test_expected_error_reduction_weighs_only_the_least_sure_and_works_without_a_model() -> None:
    x, near, labels, proba = gauss(90, 4), gauss(12, 4, seed=1), np.arange(12) % 3, distributions(90, 3)
    call = {"features": x, "labelled_features": near, "labels": labels, "n": 20, "parameters": {"candidates": 20, "references": 9}}
    margin = select("margin", proba=proba, features=None, n=20).indices
    assert set(select("expected_error_reduction", proba=proba, **call).indices.tolist()) == set(margin.tolist())
    assert len(set(select("expected_error_reduction", proba=None, **call).indices.tolist())) == 20
    ridge = Ridge(near, labels, 3, 1.0)
    np.testing.assert_allclose(ridge.proba(near).sum(axis=1), 1)
    np.testing.assert_allclose(posterior(np.array([[-1.0, 0.5]])), [[0.001 / 0.501, 0.5 / 0.501]])


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 60), st.integers(1, 60), st.integers(2, 5), st.floats(0, 4), st.integers(0, 10**6), st.sampled_from([1, 3, 2048])
)
def test_class_balanced_equals_the_greedy_rule_over_all_items(
    n_items: int, n: int, k: int, weight: float, seed: int, block: int
) -> None:
    proba = distributions(n_items, k, seed=seed)
    labels = np.random.default_rng(seed).integers(0, k, 13)
    before = class_balanced_module._BLOCK_ROWS
    class_balanced_module._BLOCK_ROWS = block
    try:
        got = select("class_balanced", proba=proba, features=None, labels=labels, n=n, parameters={"weight": weight})
    finally:
        class_balanced_module._BLOCK_ROWS = before
    margin = scores_of(select("margin", proba=proba, features=None)).astype(np.float64)
    n = min(n, n_items)
    lack = np.maximum((13 + n) / k - np.bincount(labels, minlength=k), 0)
    is_open = np.ones(n_items, dtype=bool)
    for item, score in zip(got.indices, got.scores, strict=True):
        gains = np.where(is_open, margin + weight * np.minimum(proba, lack).sum(axis=1), -1)
        assert score == pytest.approx(gains.max(), abs=1e-3)
        assert gains[item] == pytest.approx(gains.max(), abs=1e-3)
        is_open[item] = False
        lack = np.maximum(lack - proba[item], 0)


def test_class_balanced_asks_for_the_class_without_labels() -> None:
    proba = np.array([[0.9, 0.1]] * 30 + [[0.1, 0.9]] * 5, dtype=np.float32)
    got = select("class_balanced", proba=proba, features=None, labels=np.zeros(20, dtype=np.int64), n=5)
    assert sorted(got.indices.tolist()) == [30, 31, 32, 33, 34]


def boxes(seed: int = 0) -> tuple[Matrix, NDArray[np.int64], list[list[int]]]:
    sizes = np.random.default_rng(seed).integers(0, 5, 25)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return distributions(int(starts[-1]), 4, seed=seed), starts, [list(range(a, b)) for a, b in itertools.pairwise(starts)]


@pytest.mark.parametrize("strategy", ["region_uncertainty", "span_uncertainty"])
@pytest.mark.parametrize("gather", ["sum", "mean", "max"])
@pytest.mark.parametrize("measure", ["margin", "entropy", "least_confidence"])
def test_parts_are_gathered_item_by_item(strategy: str, gather: str, measure: str) -> None:
    parts, starts, rows = boxes()
    each = scores_of(select(measure, proba=parts, features=None))
    fold = {"sum": np.sum, "mean": np.mean, "max": np.max}[gather]
    wanted = [fold(each[mine]) if mine else 0.25 for mine in rows]
    parameters = {"gather": gather, "measure": measure, "empty": 0.25}
    got = select(strategy, proba=None, features=None, parts=parts, part_starts=starts, parameters=parameters)
    np.testing.assert_allclose(scores_of(got), wanted, rtol=1e-5)


@pytest.mark.parametrize("gather", ["sequence", "normalized"])
def test_a_span_is_as_uncertain_as_its_likeliest_labels_are_unlikely(gather: str) -> None:
    parts, starts, rows = boxes(3)
    wanted = []
    for mine in rows:
        log = sum(math.log(float(parts[row].max())) for row in mine)
        wanted.append(-log / (len(mine) if gather == "normalized" and mine else 1))
    got = select("span_uncertainty", proba=None, features=None, parts=parts, part_starts=starts, parameters={"gather": gather})
    np.testing.assert_allclose(scores_of(got), wanted, atol=1e-5)


def test_pictures_without_any_box_are_asked_last_or_first_as_told() -> None:
    parts, starts, rows = boxes()
    without = [item for item, mine in enumerate(rows) if not mine]
    assert without
    call: dict[str, Any] = {"proba": None, "features": None, "parts": parts, "part_starts": starts, "n": 0}
    last = select("region_uncertainty", **call).indices.tolist()[-len(without) :]
    first = select("region_uncertainty", **call, parameters={"empty": 99}).indices.tolist()[: len(without)]
    assert sorted(last) == sorted(first) == without
    nothing = {**call, "parts": np.empty((0, 4), np.float32), "part_starts": np.zeros(6, dtype=np.int64)}
    assert select("region_uncertainty", **nothing).scores.tolist() == [0] * 5


def test_kmeans_asks_the_middle_of_each_cluster_larger_clusters_first() -> None:
    rng = np.random.default_rng(5)
    x = np.concatenate([rng.normal((0, 0), 1, (60, 2)), rng.normal((50, 0), 1, (30, 2)), rng.normal((0, 50), 1, (10, 2))])
    x = x.astype(np.float32)
    got = select("kmeans", proba=None, features=x, n=3)
    for item, (begin, end) in zip(got.indices, ((0, 60), (60, 90), (90, 100)), strict=True):
        gaps = np.linalg.norm(x[begin:end] - x[begin:end].mean(axis=0), axis=1)
        assert item == begin + gaps.argmin()


def test_kmeans_with_a_prefilter_asks_only_among_the_most_uncertain() -> None:
    proba = distributions(500, 3)
    best = set(select("margin", proba=proba, features=None, n=40).indices.tolist())
    got = select("kmeans", proba=proba, features=gauss(500, 4), n=10, parameters={"prefilter": 4})
    assert set(got.indices.tolist()) <= best


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.05, 5), min_size=1, max_size=4), st.integers(1, 40), st.integers(0, 10**6))
def test_each_strategy_of_a_mixture_gets_its_share_of_every_prefix(shares: list[float], n: int, seed: int) -> None:
    orders = [np.random.default_rng(seed + at).permutation(40) for at in range(len(shares))]
    got = deal(orders, shares, n).tolist()
    assert len(set(got)) == len(got) == n
    for length in range(1, n + 1):
        for order, share in zip(orders, shares, strict=True):
            wanted = int(share / sum(shares) * length) - 1
            assert set(order[: max(wanted, 0)].tolist()) <= set(got[:length]), "the best of each order are among the first"


def test_a_mixture_takes_turns() -> None:
    proba, x = distributions(200, 4), gauss(200, 5)
    got = select("mixture", proba=proba, features=x, n=10, parameters={"shares": {"margin": 1, "core_set": 1}}).indices.tolist()
    for name in ("margin", "core_set"):
        assert set(select(name, proba=proba, features=x, n=5).indices.tolist()) <= set(got)


def test_a_cost_divides_the_score() -> None:
    proba, costs = distributions(60, 4), np.random.default_rng(1).uniform(0.1, 9, 60)
    plain = scores_of(select("entropy", proba=proba, features=None))
    got = select("entropy", proba=proba, features=None, costs=costs)
    np.testing.assert_allclose(scores_of(got), plain / costs, rtol=1e-5)
    assert "per unit of cost" in got.reason
    typical = select("auto", proba=None, features=gauss(60, 3), costs=costs)
    assert (typical.strategy, "costs do not count yet" in typical.reason) == ("typiclust", True)


def test_a_bagged_committee_disagrees_between_classes_and_agrees_where_labels_are() -> None:
    rng = np.random.default_rng(0)
    near = np.concatenate([rng.normal((-3, 0), 0.5, (20, 2)), rng.normal((3, 0), 0.5, (20, 2))]).astype(np.float32)
    labels = np.repeat([0, 1], 20)
    between = rng.normal((0, 0), 0.1, (10, 2)).astype(np.float32)
    x = np.concatenate([near, between])
    committee = bagged_committee(near, labels, x, 2, n_members=12, seed=1)
    assert committee.shape == (12, 50, 2)
    np.testing.assert_allclose(committee.sum(axis=2), 1, rtol=1e-5)
    np.testing.assert_array_equal(committee[:, :40].mean(axis=0).argmax(axis=1), labels)
    votes = scores_of(select("committee_vote", proba=None, features=None, committee=committee))
    assert votes[40:].max() > 0.5
    assert votes[:40].max() == 0
    assert np.array_equal(committee, bagged_committee(near, labels, x, 2, n_members=12, seed=1))
    both = np.stack([labels, np.ones_like(labels)], axis=1)
    several = bagged_committee(near, both, x, 2, n_members=3, seed=1)
    assert several.shape == (3, len(x), 2)
    assert (several[:, :, 1] > 0.9).all(), "a label that all items have"
    assert ((several[:, :, 0] > 0.5) == (bagged_committee(near, labels, x, 2, 3, 1)[:, :, 1] > 0.5)).mean() > 0.95
    sure = bagged_committee(near, np.zeros(40, dtype=np.int64), x, 2)
    assert (sure.argmax(axis=2) == 0).all()
    for bad in ({"n_members": 1}, {"labels": labels[:3]}, {"labels": labels + 1}):
        with pytest.raises(InvalidInputError):
            bagged_committee(**{"labelled_features": near, "labels": labels, "features": x, "n_labels": 2, **bad})
