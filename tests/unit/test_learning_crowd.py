"""Crowd aggregation: likelihoods that rise, answers worked out the slow way, streams, calibration, and answers to bad input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import digamma, gammaln
from scipy.stats import dirichlet

from labelloop.errors import InvalidInputError
from learning.crowd import METHODS, CrowdLabels, aggregate, crowd_labels
from learning.crowd.calibration import calibrate
from learning.crowd.dawid_skene import DawidSkene
from learning.crowd.mace import dirichlet_posterior
from learning.crowd.stream import CrowdStream, full_scores
from learning.metrics import expected_calibration_error

CLIMBERS: list[tuple[str, dict[str, Any]]] = [
    ("one-coin", {}),
    ("dawid-skene", {}),
    ("dawid-skene", {"smoothing": 0.0}),
    ("glad", {}),
    ("mace", {"n_restarts": 2}),
    ("mace", {"n_restarts": 2, "inference": "em"}),
]


def simulate(
    n_items: int = 300, n_workers: int = 12, n_classes: int = 4, degree: int = 4, seed: int = 0, gap: float = 0.1
) -> tuple[CrowdLabels, NDArray[np.int64]]:
    """Labels of workers between good and random, with a share of holes so that items differ in their number of labels."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, n_classes, n_items)
    items = np.repeat(np.arange(n_items), min(degree, n_workers))
    workers = np.argsort(rng.random((n_items, n_workers)), axis=1)[:, :degree].ravel()
    skill = rng.uniform(0.3, 0.95, n_workers)
    classes = np.where(rng.random(len(items)) < skill[workers], truth[items], rng.integers(0, n_classes, len(items)))
    kept = rng.permutation(len(items))[: max(1, int(len(items) * (1 - gap)))]
    labels = crowd_labels(items[kept], workers[kept], classes[kept], n_items=n_items, n_workers=n_workers, n_classes=n_classes)
    return labels, truth


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(CLIMBERS),
    st.integers(1, 40),
    st.integers(1, 9),
    st.integers(2, 5),
    st.integers(1, 6),
    st.integers(0, 10**6),
    st.floats(0, 0.9),
)
def test_the_log_likelihood_never_falls(
    method: tuple[str, dict[str, Any]], n_items: int, n_workers: int, k: int, degree: int, seed: int, gap: float
) -> None:
    labels, _ = simulate(n_items, n_workers, k, degree, seed, gap)
    got = aggregate(method[0], labels, options={**method[1], "tol": 0.0, "n_iter": 30})
    assert (np.diff(got.log_likelihood) >= -1e-7 * labels.n_labels).all(), got.log_likelihood
    np.testing.assert_allclose(got.posteriors.sum(axis=1), 1, atol=1e-9)


def log_likelihood_by_hand(labels: CrowdLabels, model: DawidSkene) -> tuple[float, NDArray[np.float64]]:
    k, table = labels.n_classes, np.exp(model.log_table)
    total, posteriors = 0.0, np.empty((labels.n_items, k))
    for item in range(labels.n_items):
        joint = [math.exp(p) for p in model.log_prior]
        for place in range(labels.n_labels):
            if labels.items[place] == item:
                row = labels.workers[place] * k + labels.classes[place]
                joint = [p * float(table[row, true]) for true, p in enumerate(joint)]
        total += math.log(sum(joint))
        posteriors[item] = [p / sum(joint) for p in joint]
    return total, posteriors


def test_dawid_skene_equals_the_textbook_loops() -> None:
    labels, _ = simulate(60, 7, 3, seed=5)
    got = aggregate("dawid-skene", labels, options={"smoothing": 0.0})
    assert isinstance(got.parameters, DawidSkene)
    value, posteriors = log_likelihood_by_hand(labels, got.parameters)
    assert got.log_likelihood[-1] == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(got.posteriors, posteriors, atol=1e-12)
    for worker in range(7):  # one M step by loops gives the confusion matrices that are reported
        for true in range(3):
            counts = [0.0, 0.0, 0.0]
            for place in np.flatnonzero(labels.workers == worker):
                counts[labels.classes[place]] += posteriors[labels.items[place], true]
            np.testing.assert_allclose(got.confusion[worker, true], np.array(counts) / sum(counts), atol=1e-9)


def test_the_patients_of_dawid_and_skene_get_the_published_answer() -> None:
    """Table 1 of the paper: 45 patients, 5 anaesthetists, the first seeing each three times; the estimates they print."""
    sheet = """111 1 1 1 1|333 4 3 3 4|112 2 1 2 2|222 3 1 2 1|222 3 2 2 2|222 3 3 2 2|122 2 1 1 1|333 3 4 3 3|222 2 2 2 3
232 2 2 2 3|444 4 4 4 4|222 3 3 4 3|111 1 1 1 1|222 3 2 1 2|121 1 1 1 1|111 2 1 1 1|111 1 1 1 1|111 1 1 1 1
222 2 2 2 1|222 1 3 2 2|222 2 2 2 2|222 2 2 2 1|222 3 2 2 2|221 2 2 2 2|111 1 1 1 1|111 1 1 1 1|232 2 2 2 2
111 1 1 1 1|111 1 1 1 1|112 1 1 2 1|111 1 1 1 1|333 3 2 3 3|111 1 1 1 1|222 2 2 2 2|222 3 2 3 2|433 4 3 4 3
221 2 2 3 2|232 3 2 3 3|333 3 4 3 2|111 1 1 1 1|111 1 1 1 1|121 2 1 1 1|232 2 2 2 2|121 1 1 1 1|222 2 2 2 2"""
    items, workers, classes = [], [], []
    for patient, row in enumerate(sheet.replace("\n", "|").split("|")):
        for worker, seen in enumerate(row.split()):
            for one in seen:
                items.append(patient)
                workers.append(worker)
                classes.append(int(one) - 1)
    got = aggregate("dawid-skene", crowd_labels(items, workers, classes), options={"smoothing": 0.0, "tol": 0.0, "n_iter": 500})
    assert isinstance(got.parameters, DawidSkene)
    np.testing.assert_allclose(np.exp(got.parameters.log_prior), [0.40, 0.42, 0.11, 0.07], atol=0.005)
    first = [[0.89, 0.11, 0, 0], [0.07, 0.88, 0.05, 0], [0, 0.34, 0.66, 0], [0, 0, 0.56, 0.44]]
    np.testing.assert_allclose(got.confusion[0], first, atol=0.005)


def test_the_divergence_in_the_bound_of_mace_is_that_of_two_dirichlets() -> None:
    counts, prior = np.array([[3.0, 0.5, 2.0], [0.0, 0.0, 7.5]]), 0.7
    means, divergence = dirichlet_posterior(counts, prior)
    by_hand = 0.0
    for row, mean in zip(counts + prior, means, strict=True):
        log_density = gammaln(3 * prior) - 3 * gammaln(prior) + ((prior - 1) * np.log(mean)).sum()
        by_hand += -dirichlet(row).entropy() - log_density
    assert divergence == pytest.approx(float(by_hand), rel=1e-9)
    np.testing.assert_allclose(means, np.exp(digamma(counts + prior) - digamma((counts + prior).sum(axis=1))[:, None]))


@pytest.mark.parametrize(("method", "options"), [("majority", {}), ("weighted-majority", {}), *CLIMBERS])
def test_every_method_beats_chance_and_finds_the_better_workers(method: str, options: dict[str, Any]) -> None:
    labels, truth = simulate(800, 10, 4, 5, seed=3)
    got = aggregate(method, labels, options=options)
    seen = labels.labelled
    assert (got.labels[seen] == truth[seen]).mean() > 0.8
    right = labels.classes == truth[labels.items]
    real = [right[labels.workers == w].mean() for w in range(10)]
    assert np.corrcoef(real, got.quality)[0, 1] > 0.9
    assert (got.quality_low <= got.quality).all()
    np.testing.assert_allclose(got.confusion.sum(axis=2), 1, atol=1e-9)


def test_weighted_votes_and_confusions_beat_the_majority_where_workers_differ() -> None:
    labels, truth = simulate(2000, 10, 4, 5, seed=3, gap=0.0)
    accuracy = {name: (aggregate(name, labels).labels == truth).mean() for name in METHODS}
    assert min(v for name, v in accuracy.items() if name != "majority") > accuracy["majority"] + 0.003


@pytest.mark.parametrize(("method", "options"), CLIMBERS)
def test_a_run_that_starts_from_the_end_of_another_stays_there(method: str, options: dict[str, Any]) -> None:
    labels, _ = simulate(seed=8)
    first = aggregate(method, labels, options=options)
    again = aggregate(method, labels, options=options, start=first.parameters)
    assert len(again.log_likelihood) < len(first.log_likelihood)
    assert again.log_likelihood[-1] >= first.log_likelihood[-1] - 1e-6
    assert (again.labels == first.labels).mean() > 0.99


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_arrival_changes_no_answer(method: str) -> None:
    labels, _ = simulate(seed=4)
    shuffle = np.random.default_rng(1).permutation(labels.n_labels)
    other = crowd_labels(
        labels.items[shuffle], labels.workers[shuffle], labels.classes[shuffle], n_items=300, n_workers=12, n_classes=4
    )
    np.testing.assert_allclose(aggregate(method, labels).posteriors, aggregate(method, other).posteriors, atol=1e-3)


def test_hundreds_of_labels_on_one_item_neither_overflow_nor_vanish() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 40)
    items, workers = (a.ravel() for a in np.meshgrid(np.arange(40), np.arange(300)))
    classes = np.where(rng.random(len(items)) < 0.5, truth[items], rng.integers(0, 3, len(items)))
    labels = crowd_labels(items, workers, classes, n_items=41)
    for name in METHODS:
        got = aggregate(name, labels, options={"smoothing": 0.0} if name == "dawid-skene" else {})
        assert np.isfinite(got.posteriors).all()
        assert (got.labels[:40] == truth).all(), name


def test_a_product_of_more_factors_than_a_double_can_hold_gives_the_same_as_its_logarithms() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(9) % 3
    items, workers = (a.ravel() for a in np.meshgrid(np.arange(9), np.arange(1500)))
    classes = np.where(rng.random(len(items)) < 0.3, truth[items], rng.integers(0, 3, len(items)))
    labels = crowd_labels(items, workers, classes)
    got = aggregate("dawid-skene", labels, options={"smoothing": 0.0, "n_iter": 1})
    scores = full_scores(got.parameters, labels)
    assert scores.max() < -800, "the product itself would be zero"
    assert got.log_likelihood[-1] == pytest.approx(float(np.logaddexp.reduce(scores, axis=1).sum()), rel=1e-12)
    np.testing.assert_allclose(got.posteriors, got.parameters.normalise(scores), atol=1e-9)


def test_items_and_workers_without_a_label_get_their_documented_answer() -> None:
    labels = crowd_labels([0, 0, 1, 1, 2], [0, 1, 0, 1, 0], [1, 1, 0, 0, 1], n_items=5, n_workers=4, n_classes=3)
    for name in METHODS:
        got = aggregate(name, labels)
        assert got.labels[3:].tolist() == [-1, -1], name
        assert got.labels[:3].tolist() == [1, 0, 1], name
        np.testing.assert_allclose(got.posteriors[3], got.parameters.normalise(got.parameters.base[None])[0], atol=1e-9)
        assert np.isnan(got.quality[2:]).all()
        np.testing.assert_allclose(got.confusion[3], 1 / 3)


def test_one_label_is_no_mastery() -> None:
    labels = crowd_labels([0, 0, 0, *range(1, 21), *range(1, 21)], [0, 1, 2, *[1] * 20, *[2] * 20], [0] * 3 + [0, 1] * 20)
    got = aggregate("majority", labels)
    assert got.quality[0] == pytest.approx(1.0)
    assert got.quality_low[0] < 0.25
    assert got.quality_low[1] > 0.8


@pytest.mark.parametrize("method", METHODS)
def test_no_label_one_class_and_single_votes_have_documented_answers(method: str) -> None:
    nothing = aggregate(method, crowd_labels([], [], [], n_items=3, n_workers=2, n_classes=4))
    np.testing.assert_allclose(nothing.posteriors, 0.25)
    assert nothing.labels.tolist() == [-1] * 3
    assert aggregate(method, crowd_labels([], [], [])).posteriors.shape == (0, 1)
    one = aggregate(method, crowd_labels([0, 1, 1], [0, 0, 1], [2, 2, 2], n_classes=3))
    assert one.labels.tolist() == [2, 2]
    assert "only one class" in one.reason
    single = aggregate(method, crowd_labels([0, 1, 2], [0, 1, 0], [0, 1, 1]))
    assert "no item has two labels" in single.reason
    assert single.labels.tolist() == [0, 1, 1]
    alone = aggregate(method, crowd_labels([0, 1], [0, 0], [0, 0]))
    assert alone.posteriors.tolist() == [[1.0], [1.0]]


BAD_LABELS = [
    (([0, 1], [0], [0]), {}, "2, 1, 1 entries"),
    (([0.5], [0], [0]), {}, "whole numbers from 0, got 0.5"),
    (([float("nan")], [0], [0]), {}, "got nan"),
    (([-1], [0], [0]), {}, "items holds -1"),
    (([0], [3], [0]), {"n_workers": 3}, "workers holds 3, outside 0 to 2"),
    (([0], [0], [5]), {"n_classes": 5}, "classes holds 5, outside 0 to 4"),
    ((["a"], [0], [0]), {}, "map names to indices"),
    (([[0]], [0], [0]), {}, "one-dimensional"),
    (([0], [0], [0]), {"n_items": -1}, "n_items must be"),
    (([0], [2**20], [2**12]), {}, "exceed"),
]


@pytest.mark.parametrize(("arrays", "counts", "message"), BAD_LABELS)
def test_labels_out_of_range_are_refused_by_name(arrays: tuple[Any, Any, Any], counts: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        crowd_labels(*arrays, **counts)


BAD_CALLS = [
    ("guess", {}, "'guess' is unknown"),
    ("dawid-skene", {"smoothing": -1}, "smoothing"),
    ("glad", {"smoothing": 1}, "unknown field"),
    ("mace", {"n_restarts": 0}, "n_restarts"),
    ("one-coin", {"n_iter": "many"}, "n_iter"),
]


@pytest.mark.parametrize(("method", "options", "message"), BAD_CALLS)
def test_unknown_methods_and_options_out_of_range_are_refused_by_name(method: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        aggregate(method, simulate(10)[0], options=options)


def test_a_start_that_does_not_fit_and_too_many_confusions_are_refused() -> None:
    labels, _ = simulate(20)
    fitted = aggregate("one-coin", labels).parameters
    with pytest.raises(InvalidInputError, match="pass parameters of 'dawid-skene'"):
        aggregate("dawid-skene", labels, start=fitted)
    with pytest.raises(InvalidInputError, match=r"use start.grown"):
        aggregate("one-coin", simulate(20, n_workers=13)[0], start=fitted)
    with pytest.raises(InvalidInputError, match="use 'one-coin'"):
        aggregate("dawid-skene", crowd_labels([0, 0], [0, 1], [0, 1], n_workers=3000, n_classes=300))


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_streamed_label_leaves_what_a_full_pass_from_the_same_parameters_gives(method: str, seed: int) -> None:
    labels, _ = simulate(30, 6, 3, seed=seed)
    options = {"n_restarts": 1} if method == "mace" else {}
    stream = CrowdStream(method, labels, options=options)
    model = aggregate(method, labels, options=options).parameters
    rng = np.random.default_rng(seed)
    for _ in range(25):
        item, worker, class_ = int(rng.integers(0, 40)), int(rng.integers(0, 9)), int(rng.integers(0, 3))
        before = stream.posterior(item)
        after = stream.add(item, worker, class_)
        assert method != "one-coin" or not np.array_equal(before, after) or before.max() > 1 - 1e-9
    now = stream.labels()
    whole = model.grown(now.n_items, now.n_workers)
    np.testing.assert_allclose(stream.posteriors, whole.normalise(full_scores(whole, now)), atol=1e-9)
    assert stream.n_new == 25


@pytest.mark.parametrize("method", METHODS)
def test_refreshing_a_stream_reaches_the_likelihood_of_a_fit_to_all_labels(method: str) -> None:
    labels, truth = simulate(500, 8, 3, 5, seed=2, gap=0.0)
    early = np.arange(labels.n_labels) % 5 != 0
    stream = CrowdStream(
        method, crowd_labels(labels.items[early], labels.workers[early], labels.classes[early], n_items=500, n_workers=8)
    )
    for place in np.flatnonzero(~early):
        stream.add(labels.items[place], labels.workers[place], labels.classes[place])
    streamed = (stream.posteriors.argmax(axis=1) == truth).mean()
    refreshed, whole = stream.refresh(), aggregate(method, labels)
    assert stream.n_new == 0
    assert streamed > (whole.labels == truth).mean() - 0.01
    assert (refreshed.labels == whole.labels).mean() > 0.99
    if len(whole.log_likelihood):
        assert refreshed.log_likelihood[-1] == pytest.approx(whole.log_likelihood[-1], rel=1e-3)


def test_a_stream_refuses_what_it_cannot_take_and_stays_as_it_was() -> None:
    stream = CrowdStream("one-coin", simulate(20, 5, 3)[0])
    before = stream.posteriors
    for call, message in (((0, 0, 3), "outside 0 to 2"), ((-1, 0, 0), "item must be"), ((0, 0.5, 0), "worker must be")):
        with pytest.raises(InvalidInputError, match=message):
            stream.add(*call)
    assert np.array_equal(before, stream.posteriors)
    assert stream.n_new == 0
    np.testing.assert_allclose(stream.posterior(10**6).sum(), 1)


def copycats(seed: int = 0) -> tuple[CrowdLabels, NDArray[np.int64]]:
    """Five workers of whom three share their errors: a model that thinks them independent is too sure."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, 1500)
    shared = np.where(rng.random(1500) < 0.65, truth, rng.integers(0, 3, 1500))
    own = [np.where(rng.random(1500) < 0.65, truth, rng.integers(0, 3, 1500)) for _ in range(4)]
    copies = [np.where(rng.random(1500) < 0.6, shared, own[i]) for i in range(3)]
    classes = np.stack([*copies, own[3]], axis=1)
    items, workers = np.repeat(np.arange(1500), 4), np.tile(np.arange(4), 1500)
    return crowd_labels(items, workers, classes.ravel()), truth


def log_loss(posteriors: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    return float(-np.log(np.maximum(posteriors[np.arange(len(truth)), truth], 1e-10)).mean())


@pytest.mark.parametrize("method", METHODS)
def test_gold_items_calibrate_the_others_without_changing_an_answer(method: str) -> None:
    labels, truth = copycats()
    got = aggregate(method, labels)
    gold = np.where(np.arange(1500) < 300, truth, -1)
    better = calibrate(got, gold=gold)
    assert log_loss(better.posteriors[300:], truth[300:]) <= log_loss(got.posteriors[300:], truth[300:])
    assert np.array_equal(better.posteriors.argmax(axis=1), got.posteriors.argmax(axis=1))
    np.testing.assert_allclose(better.posteriors.sum(axis=1), 1)
    assert better.source == "gold"


@pytest.mark.parametrize("method", ["one-coin", "glad", "mace"])
def test_without_gold_the_labels_themselves_show_that_a_model_is_too_sure(method: str) -> None:
    labels, truth = copycats()
    got = aggregate(method, labels)
    better = calibrate(got)
    assert better.temperature > 1.05
    assert log_loss(better.posteriors, truth) < log_loss(got.posteriors, truth)
    before, after = (expected_calibration_error(truth, p) for p in (got.posteriors, better.posteriors))
    assert after <= before + 1e-9


def test_the_temperature_without_gold_is_the_one_under_which_labels_foretell_each_other_best() -> None:
    labels, _ = copycats()
    got = aggregate("one-coin", labels)
    model, scores = got.parameters, full_scores(got.parameters, labels)

    def loss(temperature: float) -> float:
        total = 0.0
        for place in range(0, labels.n_labels, 7):
            at = slice(place, place + 1)
            own = model.contributions(labels.items[at], labels.workers[at], labels.classes[at])
            others = model.normalise((scores[labels.items[at]] - own) / temperature)
            total -= math.log(float((others * np.exp(own)).sum()))
        return total

    found = calibrate(got).temperature
    assert found == pytest.approx(min(np.arange(1.0, 4.0, 0.05), key=loss), rel=0.1)


def test_calibration_refuses_gold_that_does_not_fit() -> None:
    got = aggregate("majority", copycats()[0])
    with pytest.raises(InvalidInputError, match="models no label"):
        calibrate(got)
    with pytest.raises(InvalidInputError, match="one an item"):
        calibrate(got, gold=[0, 1])
    with pytest.raises(InvalidInputError, match="outside 0 to 2"):
        calibrate(got, gold=np.full(1500, 3))
    with pytest.raises(InvalidInputError, match="too few"):
        calibrate(got, gold=np.where(np.arange(1500) < 9, 0, -1))
