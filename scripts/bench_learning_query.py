"""The section `query` of `bench learning`: query strategies beside bare numpy, scikit-activeml and ALiPy.

Owns the pools, the baselines and the ratios; `scripts.learning_rivals` calls the other libraries. Own code and baseline run in
turns, the best of `ROUNDS`; a rival runs once, and only at a size at which it answers within a minute. Everybody starts from the
same given probabilities and features: no model is asked. Called by `scripts.bench_learning`.
"""

from __future__ import annotations

import itertools
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning.query import select
from scripts import learning_rivals as rivals

ROUNDS = 5
N_ASKED = 100
DIM, N_CLASSES = 128, 10
Matrix = NDArray[np.float32]
Lines = Iterator[tuple[str, dict[str, Any]]]


def figures() -> dict[str, Any]:
    """Return the figures by line: `ratio` = own seconds over the baseline's, `times` = a rival's seconds over own."""
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {"asked": N_ASKED, "rivals_missing": rivals.missing()}
    for name, line in itertools.chain(_uncertainty(rng), _greedy(rng), _small(rng)):
        print(f"{name}: {line}", file=sys.stderr, flush=True)
        found[name] = line
    return found


def _uncertainty(rng: np.random.Generator) -> Lines:
    proba = _distributions(rng, 1_000_000)
    few = proba[:100_000]
    bare = ("sum of p * log p, one bare pass", lambda: float((proba * np.log(proba)).sum()))
    few_bare = ("sum of p * log p, one bare pass", lambda: float((few * np.log(few)).sum()))
    for name in ("entropy", "margin", "least_confidence"):
        yield f"{name}_1m_x_10", _line(bare, _ask(name, None, proba), at_most=2.0)
        line = _line(few_bare, _ask(name, None, few))
        yield f"{name}_100k_x_10", _beside(line, rivals.uncertainty(name, few, N_ASKED))


def _greedy(rng: np.random.Generator) -> Lines:
    x, near = rng.standard_normal((100_000, DIM), dtype=np.float32), rng.standard_normal((1000, DIM), dtype=np.float32)
    proba, passes = _distributions(rng, len(x)), _passes(x)
    for n_labelled in (10, 1000):
        ask = _ask("core_set", x, None, labelled_features=near[:n_labelled])
        line = _line(passes, ask, at_most=1.0)
        wanted = _textbook_core_set(x, near[:n_labelled])
        line["picks_as_textbook"] = sum(a == b for a, b in zip(ask().indices.tolist(), wanted, strict=True))
        beside = rivals.core_set(x, near[:n_labelled], N_ASKED) if n_labelled == 10 else {}
        yield f"core_set_100k_x_128_{n_labelled}_labelled", _beside(line, beside)
    ask = _ask("badge", x, proba)
    sizes = {"peak_mb": _peak_mb(ask), "gradient_matrix_mb": round(x.nbytes * N_CLASSES / 2**20)}
    yield "badge_100k_x_128_x_10", {**_line(passes, ask), **sizes}
    ask = _ask("density_weighted", x, proba)
    sizes = {"peak_mb": _peak_mb(ask), "square_of_the_pool_mb": round(len(x) ** 2 * 8 / 2**20)}
    yield "density_weighted_100k_x_128", {**_line(("one bare matrix-vector pass", lambda: x @ near[0]), ask), **sizes}
    for name in ("expected_gradient_length", "class_balanced"):
        yield f"{name}_100k", _line(passes, _ask(name, x, proba))


def _small(rng: np.random.Generator) -> Lines:
    """Yield lines at sizes at which the rivals still answer."""
    x, near = rng.standard_normal((20_000, DIM), dtype=np.float32), rng.standard_normal((100, DIM), dtype=np.float32)
    proba, labels = _distributions(rng, len(x)), rng.integers(0, N_CLASSES, len(near))
    yield "badge_20k_x_128_x_10", _beside(_line(_passes(x), _ask("badge", x, proba)), rivals.badge(x, proba, N_ASKED))
    x, proba = x[:10_000], proba[:10_000]
    line = _line(_passes(x), _ask("density_weighted", x, proba))
    yield "density_weighted_10k_x_128", _beside(line, rivals.density_weighted(x, proba, N_ASKED))
    line = _line(_passes(x), _ask("typiclust", x, None, labelled_features=near))
    yield "typiclust_10k_x_128", _beside(line, rivals.typiclust(x, near, N_ASKED))
    yield "kmeans_10k_x_128", _line(_passes(x), _ask("kmeans", x, None))
    known = {"labelled_features": near, "labels": labels}
    yield "expected_error_reduction_10k_x_128", _line(_passes(x), _ask("expected_error_reduction", x, proba, **known))
    committee = rng.dirichlet(np.full(N_CLASSES, 0.7), (5, 20_000)).astype(np.float32)
    mean = ("mean over the members, one bare pass", lambda: committee.mean(axis=0))
    for name in ("committee_kl", "committee_vote"):
        line = _line(mean, _ask(name, None, None, committee=committee))
        yield f"{name}_5_x_20k_x_10", _beside(line, rivals.committee(name, committee, N_ASKED))


def _distributions(rng: np.random.Generator, n: int) -> Matrix:
    return rng.dirichlet(np.full(N_CLASSES, 0.7), n).astype(np.float32)


def _passes(x: Matrix) -> tuple[str, Callable[[], Any]]:
    return f"{N_ASKED} bare matrix-vector passes", lambda: [x @ x[row] for row in range(N_ASKED)]


def _ask(name: str, x: Matrix | None, proba: Matrix | None, **known: Any) -> Callable[[], Any]:
    return lambda: select(name, proba=proba, features=x, n=N_ASKED, **known)


def _line(baseline: tuple[str, Callable[[], Any]], own: Callable[[], Any], at_most: float | None = None) -> dict[str, Any]:
    """Measure own code and the baseline in turns, after one turn each that does not count."""
    told, bare = baseline
    own_took, bare_took = [], []
    for number in range(ROUNDS + 1):
        took = [_took(bare), _took(own)]
        if number:
            bare_took.append(took[0])
            own_took.append(took[1])
    own_s, own_cpu_s = (min(seconds) for seconds in zip(*own_took, strict=True))
    bare_s, bare_cpu_s = (min(seconds) for seconds in zip(*bare_took, strict=True))
    line = {"own_s": round(own_s, 5), "own_cpu_s": round(own_cpu_s, 5), "baseline": told, "baseline_s": round(bare_s, 5)}
    line |= {"ratio": round(own_s / bare_s, 3), "ratio_cpu": round(own_cpu_s / bare_cpu_s, 3)}
    return line if at_most is None else {**line, "ratio_wanted_at_most": at_most}


def _took(call: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds that a call takes: by the clock, and of processor time over all threads."""
    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - begin_s, time.process_time() - begin_cpu_s


def _beside(line: dict[str, Any], calls: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """Add each rival's seconds and how many times own's that is, by clock or processor, whichever is less.

    On a machine with other work the clock wrongs whoever runs once. One that raises is named with its error.
    """
    for name, call in calls.items():
        try:
            seconds, cpu_s = _took(call)
        except (ArithmeticError, AttributeError, MemoryError, TypeError, ValueError) as exc:
            line[name] = {"fails": f"{type(exc).__name__}: {str(exc)[:80]}"}
            continue
        times = min(seconds / line["own_s"], cpu_s / line["own_cpu_s"])
        line[name] = {"s": round(seconds, 4), "cpu_s": round(cpu_s, 4), "times": round(times, 1)}
    return line


def _peak_mb(call: Callable[[], Any]) -> float:
    """Return the most memory that a call holds beside what it is given, by tracemalloc, to which numpy reports."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return round(peak / 2**20, 1)


def _textbook_core_set(x: Matrix, near: Matrix) -> list[int]:
    """Greedy k-center as it is written down, in double precision, a whole pass for each pick."""
    wide = x.astype(np.float64)
    norms = np.einsum("ij,ij->i", wide, wide)
    least = np.full(len(x), np.inf)
    picks: list[int] = []
    for centre in near.astype(np.float64):
        np.minimum(least, norms - 2 * (wide @ centre) + centre @ centre, out=least)
    while len(picks) < N_ASKED:
        picks.append(int(least.argmax()))
        np.minimum(least, norms - 2 * (wide @ wide[picks[-1]]) + norms[picks[-1]], out=least)
    return picks
