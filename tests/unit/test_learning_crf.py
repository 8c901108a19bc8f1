"""Chains against the sum over all sequences written out, and tags that are always well formed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learning.algorithms.crf import best_sequences, loss_and_gradients, span_probability, sum_chains
from learning.algorithms.tags import Tagging, runs_of, tagging_of, tags_of
from learning.regions import Regions

LENGTHS = np.array([4, 1, 3])


def chance(seed: int, n_labels: int = 2) -> tuple[NDArray[np.float64], NDArray[np.float64], Tagging]:
    rng, t = np.random.default_rng(seed), 1 + 2 * n_labels
    return rng.standard_normal((4, 3, t)) * 2, rng.standard_normal((t, t)), tagging_of(np.ones(n_labels, bool))


def sequences(tagging: Tagging, length: int) -> list[tuple[int, ...]]:
    """Return all that are allowed."""
    every = itertools.product(range(len(tagging.is_used)), repeat=length)
    return [s for s in every if tagging.may_start[s[0]] and all(tagging.may_follow[a, b] for a, b in itertools.pairwise(s))]


def weight(tags: tuple[int, ...], scores: NDArray[np.float64], steps: NDArray[np.float64]) -> float:
    return float(sum(scores[i, t] for i, t in enumerate(tags)) + sum(steps[a, b] for a, b in itertools.pairwise(tags)))


def test_sums_marginals_and_the_best_sequence_equal_those_written_out() -> None:
    scores, steps, tagging = chance(1)
    chains = sum_chains(scores, LENGTHS, steps, tagging)
    best = best_sequences(scores, LENGTHS, steps, tagging)
    for chain, length in enumerate(LENGTHS):
        every = sequences(tagging, length)
        weights = np.array([weight(s, scores[:, chain], steps) for s in every])
        assert chains.log_sum[chain] == pytest.approx(np.log(np.exp(weights).sum()))
        proba = np.exp(weights - chains.log_sum[chain])
        for place in range(length):
            wanted = np.bincount([s[place] for s in every], proba, minlength=5)
            np.testing.assert_allclose(chains.marginals()[place, chain], wanted, atol=1e-9)
        assert tuple(best[:length, chain]) == every[int(weights.argmax())]


def test_a_spans_probability_is_the_sum_over_the_sequences_that_have_it() -> None:
    scores, steps, tagging = chance(2)
    chains = sum_chains(scores, LENGTHS, steps, tagging)
    for chain, length in ((0, 4), (2, 3)):
        every = sequences(tagging, length)
        proba = np.exp([weight(s, scores[:, chain], steps) - chains.log_sum[chain] for s in every])
        for first, last, label in itertools.product(range(length), range(length), range(2)):
            if first <= last:
                has = [(first, last, label) in runs_of(np.array(s)) for s in every]
                found = span_probability(chains, chain, length, first, last, 1 + 2 * label, 2 + 2 * label)
                assert found == pytest.approx(proba[has].sum(), abs=1e-9)


def test_the_gradients_are_those_of_the_loss() -> None:
    scores, steps, tagging = chance(3)
    tags = np.array([[1, 0, 3], [2, 0, 4], [0, 0, 1], [3, 0, 0]])
    loss, by_score, by_step = loss_and_gradients(scores, LENGTHS, steps, tagging, tags)
    for array, gradient in ((scores, by_score), (steps, by_step)):
        for place in [tuple(p) for p in np.argwhere(np.ones(array.shape))[::3]]:
            before = array[place]
            array[place] = before + 1e-5
            up = loss_and_gradients(scores, LENGTHS, steps, tagging, tags)[0]
            array[place] = before
            assert (up - loss) / 1e-5 == pytest.approx(gradient[place], abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([1.0, 30.0, 1e4]))
def test_no_decoding_is_malformed_however_wild_the_scores(seed: int, n_labels: int, spread: float) -> None:
    rng, t = np.random.default_rng(seed), 1 + 2 * n_labels
    tagging = tagging_of(rng.random(n_labels) < 0.7)
    lengths = rng.integers(0, 7, 5)
    scores, steps = rng.standard_normal((6, 5, t)) * spread, rng.standard_normal((t, t)) * spread
    tags = best_sequences(scores, lengths, steps, tagging)
    marginals = sum_chains(scores, lengths, steps, tagging).marginals()
    for chain, length in enumerate(lengths):
        said = tags[:length, chain]
        assert tagging.is_used[said].all()
        assert not length or tagging.may_start[said[0]]
        assert all(tagging.may_follow[a, b] for a, b in itertools.pairwise(said))
        np.testing.assert_allclose(marginals[:length, chain].sum(axis=1), 1, atol=1e-6)


WORDS = np.array([(0, 5), (6, 7), (8, 12), (12, 13)])
SPANS: list[tuple[str, list[tuple[float, float, int]], list[int]]] = [
    ("whole words", [(0, 7, 0), (8, 12, 1)], [1, 2, 3, 0]),
    ("neighbours of one label", [(0, 5, 0), (6, 7, 0)], [1, 1, 0, 0]),
    ("inside a word", [(1, 3, 1)], [3, 0, 0, 0]),
    ("between two words", [(5, 6, 0)], [0, 0, 0, 0]),
    ("beyond the text", [(13, 20, 0), (8, 12, 0)], [0, 0, 1, 0]),
    ("overlap: the longer", [(0, 5, 0), (0, 12, 1)], [3, 4, 4, 0]),
    ("overlap of equals: the earlier", [(8, 13, 1), (7, 12, 0)], [0, 0, 1, 0]),
    ("nothing", [], [0, 0, 0, 0]),
]


@pytest.mark.parametrize(("what", "spans", "tags"), SPANS, ids=[s[0] for s in SPANS])
def test_spans_become_tags_as_the_table_says(what: str, spans: list[tuple[float, float, int]], tags: list[int]) -> None:
    where = np.array([s[:2] for s in spans], np.float32).reshape(-1, 2)
    said = tags_of(Regions(where, np.array([s[2] for s in spans], np.int64), np.ones(len(spans), np.float32)), WORDS)
    assert said.tolist() == tags


def test_runs_of_tags_are_the_spans_again() -> None:
    assert runs_of(np.array([1, 2, 1, 0, 3, 4, 4])) == [(0, 1, 0), (2, 2, 0), (4, 6, 1)]
