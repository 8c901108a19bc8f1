"""Label models against slow readings of the papers, and their documented answers to bad input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.weak import METHODS, LabelModel, dawid_skene, fit, summarise
from learning.weak import votes as votes_module
from learning.weak.majority import soft_votes
from learning.weak.matrix_completion import agreement
from learning.weak.votes import find_patterns

LEARNED = ("dawid-skene", "matrix-completion")


def draw(
    n: int, k: int, accuracies: list[float], coverage: float = 0.5, seed: int = 0, balance: list[float] | None = None
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """Return votes of independent rules of known accuracy, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(k, n, p=balance)
    columns = []
    for accuracy in accuracies:
        wrong = (truth + rng.integers(1, k, n)) % k
        said = np.where(rng.random(n) < accuracy, truth, wrong)
        columns.append(np.where(rng.random(n) < coverage, said, -1))
    return np.stack(columns, axis=1).astype(np.int16), truth


def draw_keywords(n: int, k: int, m: int, seed: int = 0) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """Return votes of rules that each know one label only, firing in 40 % of its class and 5 % of the others."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, n)
    votes = np.full((n, m), -1, dtype=np.int16)
    for rule in range(m):
        votes[rng.random(n) < np.where(truth == rule % k, 0.4, 0.05), rule] = rule % k
    return votes, truth


def right(model: LabelModel, votes: NDArray[np.int16], truth: NDArray[np.int64]) -> float:
    found = model.predict(votes)
    return float((found.proba.argmax(axis=1) == truth)[found.is_covered].mean())


@st.composite
def vote_matrices(draw_one: st.DrawFn) -> tuple[NDArray[np.int16], int]:
    """Votes of 3 to 5 rules with at least two labels and one item that two rules vote for."""
    k, m, n = draw_one(st.integers(2, 4)), draw_one(st.integers(3, 5)), draw_one(st.integers(1, 25))
    rows = draw_one(st.lists(st.lists(st.integers(-1, k - 1), min_size=m, max_size=m), min_size=n, max_size=n))
    return np.array([*rows, [0, 1, 0, *[-1] * (m - 3)]], dtype=np.int16), k


def posterior_by_hand(model: LabelModel, row: NDArray[np.int16]) -> NDArray[np.float64]:
    found = model.balance.copy()
    if (row < 0).all():
        return found
    for rule, vote in enumerate(row):
        for y in range(len(found)):
            found[y] *= model.abstains[rule, y] if vote < 0 else model.rates[rule, vote, y]
    return found / found.sum()


@settings(max_examples=30, deadline=None)
@given(vote_matrices(), st.sampled_from(METHODS))
def test_a_posterior_is_bayes_rule_over_the_rates_item_by_item(case: tuple[NDArray[np.int16], int], method: str) -> None:
    votes, k = case
    model = fit(votes, k, method=method, max_iter=5)
    found = model.predict(votes)
    np.testing.assert_allclose(found.proba, [posterior_by_hand(model, row) for row in votes], atol=1e-6)
    np.testing.assert_allclose(found.proba.sum(axis=1), 1, atol=1e-5)
    assert found.is_covered.tolist() == [bool((row >= 0).any()) for row in votes]
    np.testing.assert_allclose(model.rates.sum(axis=1) + model.abstains, 1, atol=1e-9)


def dawid_skene_by_hand(votes: NDArray[np.int16], k: int, rounds: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (rates, balance) after some rounds of EM with the documented start and prior, in loops."""
    votes = votes[(votes >= 0).any(axis=1)]
    n, m = votes.shape
    belief = np.array([[0.1 + (row == y).sum() for y in range(k)] for row in votes], dtype=np.float64)
    belief /= belief.sum(axis=1, keepdims=True)
    for _ in range(rounds):
        rates, abstains = np.empty((m, k, k)), np.empty((m, k))
        for j in range(m):
            for y in range(k):
                said = [0.1 + (v == y) + sum(belief[i, y] for i in range(n) if votes[i, j] == v) for v in range(k)]
                silent = 1 + sum(belief[i, y] for i in range(n) if votes[i, j] < 0)
                rates[j, :, y], abstains[j, y] = np.array(said) / (sum(said) + silent), silent / (sum(said) + silent)
        balance = (belief.sum(axis=0) + 1) / (n + k)
        for i in range(n):
            for y in range(k):
                chances = [abstains[j, y] if votes[i, j] < 0 else rates[j, votes[i, j], y] for j in range(m)]
                belief[i, y] = balance[y] * np.prod(chances)
            belief[i] /= belief[i].sum()
    return rates, balance


@settings(max_examples=25, deadline=None)
@given(vote_matrices(), st.integers(1, 4))
def test_dawid_skene_is_the_papers_em_in_loops(case: tuple[NDArray[np.int16], int], rounds: int) -> None:
    votes, k = case
    model = fit(votes, k, method="dawid-skene", max_iter=rounds)
    if len(model.objective) == rounds:  # fewer when it settled before
        rates, balance = dawid_skene_by_hand(votes, k, rounds)
        np.testing.assert_allclose(model.rates, rates, atol=1e-9)
        np.testing.assert_allclose(model.balance, balance, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(vote_matrices(), st.booleans(), st.integers(0, 10**6))
def test_the_log_likelihood_never_falls(case: tuple[NDArray[np.int16], int], has_truth: bool, seed: int) -> None:
    votes, k = case
    truth = np.random.default_rng(seed).integers(-1, k, len(votes)) if has_truth else np.full(len(votes), -1)
    truth[-1] = -1  # an item that rules cover
    model = fit(votes, k, method="dawid-skene", truth=truth)
    assert (np.diff(model.objective) > -1e-12).all()


@settings(max_examples=30, deadline=None)
@given(vote_matrices())
def test_the_table_of_agreements_counts_pairs(case: tuple[NDArray[np.int16], int]) -> None:
    votes, k = case
    m = votes.shape[1]
    wanted = [
        [np.mean((votes[:, j] == v) & (votes[:, i] == w)) for i in range(m) for w in range(k)] for j in range(m) for v in range(k)
    ]
    np.testing.assert_allclose(agreement(find_patterns(votes, k)), wanted, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(vote_matrices(), st.randoms(use_true_random=False))
def test_equal_rows_are_computed_once_and_mean_the_same(case: tuple[NDArray[np.int16], int], random: Any) -> None:
    votes, k = case
    patterns = find_patterns(votes, k)
    rows = patterns.indicator.toarray()[patterns.row_of_item].reshape(len(votes), votes.shape[1], k)
    assert (rows == (votes[:, :, None] == np.arange(k))).all()
    assert patterns.counts.sum() == len(votes)
    assert len(patterns.counts) == len({tuple(row) for row in votes.tolist()})


def test_many_rows_that_nearly_all_differ_are_left_as_they_are_and_mean_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    votes = np.random.default_rng(0).integers(-1, 4, (5_000, 12)).astype(np.int16)
    votes[0] = votes[1]
    patterns = find_patterns(votes, 4)
    assert len(patterns.counts) == 5_000
    few = find_patterns(np.repeat(votes[:50], 100, axis=0), 4)
    assert len(few.counts) == 49
    found = fit(votes, 4, max_iter=10).predict(votes).proba
    monkeypatch.setattr(votes_module, "_TRIED_ROWS", 10_000)
    assert len(find_patterns(votes, 4).counts) == 4_999
    np.testing.assert_allclose(fit(votes, 4, max_iter=10).predict(votes).proba, found, atol=1e-6)


def test_rows_whose_hashes_collide_are_still_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    votes, _ = draw(200, 3, [0.7] * 4)
    wanted = fit(votes, 3).predict(votes).proba
    monkeypatch.setattr(votes_module, "_hash_weights", lambda n: np.zeros(n, dtype=np.uint64))
    np.testing.assert_allclose(fit(votes, 3).predict(votes).proba, wanted, atol=1e-6)


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(METHODS), st.integers(2, 4), st.integers(0, 10**6))
def test_a_permutation_of_rules_or_items_changes_nothing(method: str, k: int, seed: int) -> None:
    votes, _ = draw(300, k, [0.9, 0.8, 0.7, 0.6, 0.8], seed=seed)
    rng = np.random.default_rng(seed)
    rules, items = rng.permutation(5), rng.permutation(300)
    share = np.full(k, 1 / k)  # an estimated balance would pass rounding on to the solver's path
    plain = fit(votes, k, method=method, balance=share, max_iter=20)
    other = fit(votes[items][:, rules], k, method=method, balance=share, max_iter=20)
    tolerance = 0.02 if method == "matrix-completion" else 1e-6  # a solver's path bends with the order of its numbers
    np.testing.assert_allclose(other.rates, plain.rates[rules], atol=tolerance)
    np.testing.assert_allclose(other.predict(votes[:, rules]).proba, plain.predict(votes).proba, atol=10 * tolerance)


@pytest.mark.parametrize("method", LEARNED)
@pytest.mark.parametrize("k", [2, 4])
def test_it_finds_the_accuracies_that_the_votes_were_drawn_with(method: str, k: int) -> None:
    accuracies = [0.9, 0.85, 0.8, 0.7, 0.65, 0.6, 0.75, 0.55]
    votes, truth = draw(20_000, k, accuracies, balance=[0.4] + [0.6 / (k - 1)] * (k - 1))
    model = fit(votes, k, method=method, balance=[0.4] + [0.6 / (k - 1)] * (k - 1))
    np.testing.assert_allclose(model.accuracies(), accuracies, atol=0.03)
    assert right(model, votes, truth) > right(fit(votes, k, method="majority"), votes, truth)


@pytest.mark.parametrize("method", LEARNED)
def test_rules_that_know_one_label_only_teach_by_their_silence(method: str) -> None:
    votes, truth = draw_keywords(8_000, 3, 9)
    model = fit(votes, 3, method=method)
    silence_counts = right(model, votes, truth)
    assert silence_counts > right(fit(votes, 3, method="majority"), votes, truth) - 0.005
    covered = 1 - 0.6**3 * 0.95**6  # of each class
    np.testing.assert_allclose(model.rates[0, 0], np.array([0.4, 0.05, 0.05]) / covered, atol=0.04)


@pytest.mark.parametrize("method", METHODS)
def test_items_that_no_rule_covers_change_nothing_however_many(method: str) -> None:
    votes, _ = draw(500, 3, [0.9, 0.8, 0.7, 0.8])
    padded = np.concatenate([np.full((3_000, 4), -1, dtype=np.int16), votes])
    np.testing.assert_allclose(fit(padded, 3, method=method).rates, fit(votes, 3, method=method).rates, atol=1e-9)


def test_an_unknown_class_balance_is_estimated() -> None:
    votes, _ = draw(20_000, 3, [0.8] * 6, balance=[0.6, 0.3, 0.1])
    for method in LEARNED:
        np.testing.assert_allclose(fit(votes, 3, method=method).balance, [0.6, 0.3, 0.1], atol=0.03)


def test_fitting_a_spread_of_rows_first_leads_to_the_same_model(monkeypatch: pytest.MonkeyPatch) -> None:
    votes, _ = draw(4_000, 3, [0.9, 0.8, 0.7, 0.6, 0.8, 0.7], coverage=0.9)
    wanted = fit(votes, 3)
    monkeypatch.setattr(dawid_skene, "_FIRST_ROWS", 300)
    found = fit(votes, 3)
    np.testing.assert_allclose(found.rates, wanted.rates, atol=0.01)
    assert found.objective[-1] == pytest.approx(wanted.objective[-1], abs=1e-4)
    assert found.objective[0] > wanted.objective[0]  # it starts closer to the end


def test_a_few_known_labels_turn_a_rule_around_that_the_votes_alone_believe() -> None:
    votes, truth = draw(2_000, 2, [0.8, 0.75, 0.7])
    lies = np.where(votes < 0, votes, 1 - votes).astype(np.int16)  # every rule says the opposite
    known = np.where(np.arange(2_000) < 300, truth, -1)
    assert right(fit(lies, 2), lies, truth) < 0.4
    assert right(fit(lies, 2, truth=known), lies, truth) > 0.7


def test_an_item_that_no_rule_covers_carries_the_balance_and_is_marked() -> None:
    votes, _ = draw(500, 2, [0.9, 0.8, 0.7])
    votes[3] = -1
    found = fit(votes, 2, balance=[0.7, 0.3]).predict(votes)
    np.testing.assert_allclose(found.proba[3], [0.7, 0.3])
    assert not found.is_covered[3]


@pytest.mark.parametrize("method", METHODS)
def test_a_rule_that_never_fires_is_named_and_weighs_nothing(method: str) -> None:
    votes, _ = draw(2_000, 2, [0.9, 0.8, 0.7, 0.6])
    padded = np.insert(votes, 2, -1, axis=1)
    share = [0.5, 0.5]
    with_silent, without = fit(padded, 2, method=method, balance=share), fit(votes, 2, method=method, balance=share)
    assert with_silent.silent == (2,)
    assert without.silent == ()
    np.testing.assert_allclose(with_silent.predict(padded).proba, without.predict(votes).proba, atol=0.02)


@pytest.mark.parametrize("rows", [[[0, -1, -1], [-1, 1, -1], [-1, -1, 0]], [[0, 1, -1], [1, 0, -1], [0, 0, -1]]])
def test_too_little_to_learn_from_is_majority_with_a_reason_and_an_error_by_name(rows: list[list[int]]) -> None:
    votes = np.array(rows, dtype=np.int16)
    model = fit(votes, 2)
    assert model.method == "majority"
    assert "which one is right" in model.reason
    assert fit(votes, 2, method="majority").predict(votes).proba[0].argmax() == 0 or rows[0] == [0, 1, -1]
    for method in LEARNED:
        with pytest.raises(InvalidInputError, match="which one is right"):
            fit(votes, 2, method=method)


def test_majority_orders_classes_by_votes_and_ties_by_the_balance() -> None:
    votes = np.array([[0, 0, 1], [1, 1, 0], [0, 1, -1], [-1, -1, 2]], dtype=np.int16)
    found = fit(votes, 3, method="majority", balance=[0.2, 0.5, 0.3]).predict(votes)
    assert found.proba.argmax(axis=1).tolist() == [0, 1, 1, 2]


V = np.array([[0, 1, 1], [1, 1, 0], [0, 0, -1]], dtype=np.int16)
BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: fit(V, 1), "rule 1 says 1 of item 0: labels are 0 to 0"),
    (lambda: fit(V - 1, 2), "rule 2 says -2 of item 2"),
    (lambda: fit(V[:, 0], 2), r"got shape \(3,\)"),
    (lambda: fit(V[:, :0], 2), "at least one rule"),
    (lambda: fit(V.astype(float), 2), "dtype float64"),
    (lambda: fit(V, 0), "n_labels must be from 1"),
    (lambda: fit(np.empty((0, 3), np.int16), 2), "no rule votes for any of 0 items"),
    (lambda: fit(np.full((4, 3), -1), 2), "no rule votes for any of 4 items"),
    (lambda: fit(np.where(V > 0, 1, -1), 2), "every vote is for label 1"),
    (lambda: fit(V, 2, method="magic"), "use one of auto, majority"),
    (lambda: fit(V, 2, max_iter=0), "max_iter must be 1 or more"),
    (lambda: fit(V, 2, balance=[0.5, 0.4]), "sum to 1, got 0.9"),
    (lambda: fit(V, 2, balance=[1.0, 0.0]), "above 0"),
    (lambda: fit(V, 2, balance=[np.nan, 1.0]), "above 0"),
    (lambda: fit(V, 2, balance=[1.0]), "each of 2 labels"),
    (lambda: fit(V, 2, truth=[0, 2, 1]), "known labels are 0 to 1 or -1"),
    (lambda: fit(V, 2, truth=[0]), "one whole number an item"),
    (lambda: fit(V, 2, truth=[0.0, 1.0, 0.5]), "one whole number an item"),
    (lambda: fit(V, 2, truth=[0, 1, 0]), "nothing left to label"),
    (lambda: fit(V, 2, method="matrix-completion", truth=[0, 1, -1]), "cannot use known labels"),
    (lambda: fit(V, 2).predict(V[:, :2]), "knows 3 rules, the votes are of 2"),
    (lambda: summarise(("a",), V, 2), "1 names for the votes of 3 rules"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_votes_are_refused_by_name(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call()


@settings(max_examples=30, deadline=None)
@given(vote_matrices(), st.integers(0, 10**6))
def test_the_table_counts_coverage_overlap_conflict_and_accuracy(case: tuple[NDArray[np.int16], int], seed: int) -> None:
    votes, k = case
    n, m = votes.shape
    truth = np.random.default_rng(seed).integers(-1, k, n)
    found = summarise(tuple(f"r{j}" for j in range(m)), votes, k, truth)
    for j, report in enumerate(found.rules):
        others = [[v for i, v in enumerate(row) if i != j and v >= 0] for row in votes.tolist()]
        mine = votes[:, j].tolist()
        assert report.coverage == pytest.approx(sum(v >= 0 for v in mine) / n)
        assert report.overlap == pytest.approx(sum(v >= 0 and bool(o) for v, o in zip(mine, others, strict=True)) / n)
        fights = [v >= 0 and any(w != v for w in o) for v, o in zip(mine, others, strict=True)]
        assert report.conflict == pytest.approx(sum(fights) / n)
        checked = [v == t for v, t in zip(mine, truth, strict=True) if v >= 0 and t >= 0]
        assert (report.n_known, report.n_votes) == (len(checked), sum(v >= 0 for v in mine))
        assert report.accuracy == (pytest.approx(np.mean(checked)) if checked else None)
        assert report.labels == tuple(sorted({v for v in mine if v >= 0}))
        assert bool(report.note) == (report.n_votes == 0 or (len(checked) >= 10 and np.mean(checked) < 0.5))
    sets = [{v for v in row if v >= 0} for row in votes.tolist()]
    assert found.coverage == pytest.approx(np.mean([bool(s) for s in sets]))
    assert found.overlap == pytest.approx(np.mean([sum(v >= 0 for v in row) > 1 for row in votes.tolist()]))
    assert found.conflict == pytest.approx(np.mean([len(s) > 1 for s in sets]))


def test_the_table_of_no_items_is_zeros_and_says_that_no_rule_fires() -> None:
    found = summarise(("a", "b"), np.empty((0, 2), np.int16), 2)
    assert (found.n_items, found.coverage, found.rules[0].coverage) == (0, 0.0, 0.0)
    assert "never fires" in found.rules[0].note


def test_soft_votes_are_shares() -> None:
    np.testing.assert_allclose(soft_votes(find_patterns(V, 2)).sum(axis=1), 1, atol=1e-6)
