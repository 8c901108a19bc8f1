"""Crowd aggregation beside crowd-kit, in the same run: seconds and accuracy, simulated and on real labels with gold.

`figures()` is what a benchmark of all of learning calls; `python -m scripts.bench_learning_crowd` prints it. Without crowd-kit the
rival's columns are left out and `rival` says so. Both sides are serial, so seconds are the processor's: what else the machine does
meanwhile does not count. Real labels are read from ../shared/data/crowd where it is there.
"""

from __future__ import annotations

import csv
import importlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learning.crowd import aggregate, crowd_labels

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "crowd"
_ROUNDS = 5
_GLAD_ITEMS = 10_000  # crowd-kit's GLAD needs more than five minutes for 100,000, and seconds for each of these three M steps


class Crowd(NamedTuple):
    """Labels as arrays (n_labels,), and the true class of each item (n_items,), -1 where unknown."""

    items: NDArray[np.int64]
    workers: NDArray[np.int64]
    classes: NDArray[np.int64]
    truth: NDArray[np.int64]


class Contest(NamedTuple):
    """One method against the rival's class with the same settings."""

    method: str
    options: dict[str, Any]
    rival: str
    rival_options: dict[str, Any]


CONTESTS = (
    Contest("majority", {}, "MajorityVote", {}),
    Contest("one-coin", {}, "OneCoinDawidSkene", {}),
    Contest("dawid-skene", {}, "DawidSkene", {}),
    Contest("mace", {"n_restarts": 1, "n_iter": 51, "tol": 0.0}, "MACE", {"n_restarts": 1, "n_iter": 50}),
    Contest("glad", {"n_iter": 4, "tol": 0.0}, "GLAD", {"n_iter": 3, "tol": -1e9}),
)
AS_THEY_COME = (*(Contest(c.method, {}, c.rival, {}) for c in CONTESTS), Contest("weighted-majority", {}, "", {}))


def simulate_crowd(n_items: int = 100_000, degree: int = 5, n_workers: int = 50, n_classes: int = 10, seed: int = 0) -> Crowd:
    """Return `degree` labels an item: 15 % of the workers spam a class of their own, 15 % guess, the rest confuse classes."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, n_classes, n_items)
    items = np.repeat(np.arange(n_items), degree)
    workers = np.argsort(rng.random((n_items, n_workers)), axis=1)[:, :degree].ravel()
    tables = np.stack([_confusion(w / n_workers, n_classes, rng) for w in range(n_workers)])
    below = tables[workers, truth[items]].cumsum(axis=1) < rng.random(len(items))[:, None]
    order = rng.permutation(len(items))
    return Crowd(items[order], workers[order], below.sum(axis=1).clip(0, n_classes - 1)[order], truth)


def _confusion(place: float, k: int, rng: np.random.Generator) -> NDArray[np.float64]:
    if place < 0.15:
        return np.tile(0.9 * np.eye(k)[rng.integers(k)] + 0.1 / k, (k, 1))
    if place < 0.3:
        return np.full((k, k), 1 / k)
    skill = rng.uniform(0.35, 0.85)
    return np.asarray(skill * np.eye(k) + (1 - skill) * rng.dirichlet(np.full(k, 0.3), k))


def load_crowd(path: Path) -> Crowd:
    """Return the labels of a file worker,item,label,gold without a header, items and workers numbered by name."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    names = [sorted({row[column] for row in rows}) for column in (0, 1)]
    number = [{name: i for i, name in enumerate(part)} for part in names]
    truth = np.full(len(names[1]), -1)
    for row in rows:
        truth[number[1][row[1]]] = int(row[3])
    items, workers = [number[1][row[1]] for row in rows], [number[0][row[0]] for row in rows]
    return Crowd(np.array(items), np.array(workers), np.array([int(row[2]) for row in rows]), truth)


def _rival() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("crowdkit.aggregation")
    except ImportError:
        return None


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begin_s = time.process_time()
    answer = work()
    return time.process_time() - begin_s, answer


def _ours(crowd: Crowd, contest: Contest) -> tuple[float, float]:
    """Return (seconds with laying out the labels, accuracy)."""
    seconds, found = _timed(
        lambda: aggregate(
            contest.method,
            crowd_labels(crowd.items, crowd.workers, crowd.classes, n_items=len(crowd.truth), n_classes=int(crowd.truth.max()) + 1),
            options=contest.options,
        )
    )
    return seconds, float((found.labels == crowd.truth).mean())


def _theirs(crowd: Crowd, contest: Contest, rival: Any) -> tuple[float, float]:
    """Return the same of the rival; its data frame is made before the clock starts."""
    pandas = importlib.import_module("pandas")
    frame = pandas.DataFrame({"task": crowd.items, "worker": crowd.workers, "label": crowd.classes})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds, found = _timed(lambda: getattr(rival, contest.rival)(**contest.rival_options).fit_predict(frame))
    return seconds, float((found.to_numpy() == crowd.truth[found.index.to_numpy()]).mean())


def _compare(crowd: Crowd, contest: Contest, rival: Any) -> dict[str, Any]:
    """Return seconds (median of five, the rival once in their middle), accuracies and the ratio of the seconds."""
    before = [_ours(crowd, contest) for _ in range(_ROUNDS // 2)]
    theirs = _theirs(crowd, contest, rival) if rival is not None else None
    runs = before + [_ours(crowd, contest) for _ in range(_ROUNDS - _ROUNDS // 2)]
    seconds = float(np.median([run[0] for run in runs]))
    out: dict[str, Any] = {"items": len(crowd.truth), "s": round(seconds, 4), "accuracy": round(runs[0][1], 4)}
    if theirs is not None:
        out |= {"crowdkit_s": round(theirs[0], 3), "crowdkit_accuracy": round(theirs[1], 4), "ratio": round(theirs[0] / seconds, 1)}
    return out


def _real(rival: Any) -> dict[str, Any]:
    if not DATA.is_dir():
        return {"skipped": f"{DATA.name} labels are not here"}
    out: dict[str, Any] = {}
    for path in sorted(DATA.glob("act_*.csv")):
        crowd = load_crowd(path)
        row = {c.method: {"accuracy": round(_ours(crowd, c)[1], 4)} for c in AS_THEY_COME}
        for contest in AS_THEY_COME:
            if rival is not None and contest.rival:
                row[contest.method]["crowdkit_accuracy"] = round(_theirs(crowd, contest, rival)[1], 4)
        out[path.stem.removeprefix("act_")] = row
    return out


def figures(n_items: int = 100_000) -> dict[str, Any]:
    """Return seconds and accuracies of every method beside crowd-kit: 5 labels x 50 workers x 10 classes, then real labels."""
    rival = _rival()
    crowd, small = simulate_crowd(n_items), simulate_crowd(min(n_items, _GLAD_ITEMS))
    out: dict[str, Any] = {"rival": importlib.import_module("crowdkit").__version__ if rival else "not installed"}
    for contest in CONTESTS:
        out[contest.method] = _compare(small if contest.method == "glad" else crowd, contest, rival)
    whole = _compare(crowd, Contest("glad", {}, "", {}), None)
    out["glad"] |= {"whole_items": whole["items"], "whole_s": whole["s"], "whole_accuracy": whole["accuracy"]}
    out["mace_10_restarts"] = _compare(crowd, Contest("mace", {}, "", {}), None)
    out["real"] = _real(rival)
    return out


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark and return its figures: the ratio is that of Dawid-Skene."""
    found = figures(int(argv[0]) if argv else 100_000)
    return {"ratio": found["dawid-skene"].get("ratio"), **found}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:]), indent=2))
