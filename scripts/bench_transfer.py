"""`bench transfer`: what a frozen encoder, each depth of fine-tuning, a student and a network from scratch give for few labels.

Owns the figures: accuracy, calibration error before and after, seconds, latency at batch 1 and 32, all in one run on the pictures
of Debian's tuxpaint-stamps-default (ten classes by folder), and what our training loop costs over a bare torch loop of the same
steps. Called by `scripts/bench transfer` and by hand.

    scripts/bench transfer [--labels 120] [--test 150] [--seeds 1] [--cache DIR] [--only ROW ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from intake.encoders import find_encoder
from intake.images import decode_image
from learning.algorithms import Model, find_algorithm
from learning.metrics import accuracy, expected_calibration_error
from learning.transfer.calibration import CalibratedModel, calibrate, temper
from learning.transfer.latency import batch_of, measure_ms
from scripts import bench_transfer_calibration
from scripts.samples import load_sample

SIDE = 224
MOST_PIXELS = 50_000_000
HELD_OUT = 0.2  # of the labels, as the train role does
STUDENT_MS = 20.0
OVERHEAD_STEPS = 60


class Row(NamedTuple):
    """One way to a model: an algorithm with parameters, on `pixels` or on the encoder's features."""

    algorithm: str
    parameters: dict[str, Any] = {}
    epoch: int = 0
    is_frozen: bool = False


ROWS: dict[str, Row] = {
    "frozen features + logistic-regression": Row("logistic-regression", is_frozen=True),
    "fine-tune head": Row("fine-tune", {"depth": "head"}),
    "fine-tune last block": Row("fine-tune"),
    "fine-tune last block, patience 3": Row("fine-tune", {"patience": 3}, epoch=30),
    "fine-tune last 3 blocks": Row("fine-tune", {"blocks": 3}),
    "fine-tune all, 4 passes": Row("fine-tune", {"depth": "all"}, epoch=4),
    "distilled (teacher: last block)": Row("distilled", {"latency_ms": STUDENT_MS}),
    "small-cnn from scratch": Row("small-cnn"),
}


class Pictures(NamedTuple):
    """`x` (n, 224, 224, 3) uint8 and classes `y` (n,)."""

    x: NDArray[np.uint8]
    y: NDArray[np.int64]


def read_pictures(cache: Path, n: int, seed: int) -> Pictures:
    """Return n stamps in an order drawn by `seed`."""
    sample = load_sample("stamps", cache)
    encoder = find_encoder(f"pixels-{SIDE}")
    order = np.random.default_rng(seed).permutation(len(sample.items))[:n]
    items = [sample.items[i] for i in order]
    x = np.stack([encoder.prepare(decode_image(item.content, MOST_PIXELS, SIDE)) for item in items])
    return Pictures(x.reshape(-1, SIDE, SIDE, 3), np.array([sample.labels.index(item.label) for item in items]))


def embed(x: NDArray[Any]) -> NDArray[np.float32]:
    """Return the frozen encoder's features (n, 1280)."""
    return find_encoder("efficientnet-lite0").embed(list(x))


def train(row: Row, x: NDArray[Any], y: NDArray[np.int64], seed: int) -> tuple[Model, int, str]:
    """Return the model, its steps and what the training chose."""
    training = find_algorithm(row.algorithm).start(x, y, int(y.max()) + 1, parameters=row.parameters, epoch=row.epoch, seed=seed)
    while training.step < training.steps:
        training.advance()
    return training.model(), training.step, training.note


def measure(row: Row, learned: Pictures, test: Pictures, seed: int) -> dict[str, Any]:
    """Return the figures of one way."""
    since_s = time.perf_counter()
    n_train = round(len(learned.y) * (1 - HELD_OUT))
    inputs = embed(learned.x) if row.is_frozen else learned.x
    model, steps, note = train(row, inputs[:n_train], learned.y[:n_train], seed)
    better, _ = calibrate(model, inputs[n_train:], learned.y[n_train:])
    seconds = time.perf_counter() - since_s
    shown = embed(test.x) if row.is_frozen else test.x
    before = model.predict_proba(shown)
    after = temper(before, better.calibration.temperature, False) if isinstance(better, CalibratedModel) else before
    answer: Callable[[NDArray[Any]], Any] = (lambda x: better.predict_proba(embed(x))) if row.is_frozen else better.predict_proba
    return {
        "accuracy": accuracy(test.y, after),
        "calibration_error": expected_calibration_error(test.y, before),
        "calibrated_error": expected_calibration_error(test.y, after),
        "seconds": seconds,
        "steps": steps,
        "latency_1_ms": measure_ms(answer, batch_of(test.x, 1)),
        "latency_32_ms": measure_ms(answer, batch_of(test.x, 32), repeats=3),
        "note": note,
    }


def overhead(learned: Pictures) -> dict[str, float]:
    """Return seconds of a small-cnn's steps in our loop and in a bare torch loop on the same batches, and their ratio."""
    import torch

    from learning.algorithms.batches import Batches
    from learning.algorithms.pixels import fit_pixels
    from learning.algorithms.small_cnn import _network, _to_tensor

    torch.set_num_threads(1)
    x, y = learned.x[:, ::7, ::7], torch.from_numpy(learned.y)
    parameters = {"shift_px": 0, "dropout": 0.0, "batch": 32}
    ours = find_algorithm("small-cnn").start(x, learned.y, int(y.max()) + 1, parameters=parameters, epoch=100)
    pixels, batches = fit_pixels(x), Batches(len(x), 32, 0)
    network = _network(pixels.shape, int(y.max()) + 1, 32, 64)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.003)
    images = _to_tensor(pixels.normalise(x), torch.device("cpu"))

    def bare(step: int) -> None:
        rows = torch.from_numpy(batches.rows(step))
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(network(images[rows]), y[rows]).backward()
        optimizer.step()

    took_s = {"ours": 0.0, "bare": 0.0}
    for step in range(OVERHEAD_STEPS):  # in turns, so that other work on the machine hits both
        for name, act in (("ours", lambda _: ours.advance()), ("bare", bare)):
            since_s = time.perf_counter()
            act(step)
            took_s[name] += time.perf_counter() - since_s
    return {"ours_s": took_s["ours"], "bare_s": took_s["bare"], "ratio": took_s["ours"] / took_s["bare"]}


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Measure all rows and return their figures, means over the seeds."""
    parser = argparse.ArgumentParser(prog="bench transfer")
    parser.add_argument("--labels", type=int, default=120)
    parser.add_argument("--test", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "labelloop-samples")
    parser.add_argument("--only", action="append", choices=list(ROWS))
    args = parser.parse_args(list(argv))
    args.cache.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in args.only or ROWS}
    for seed in range(args.seeds):
        pictures = read_pictures(args.cache, args.labels + args.test, seed)
        x, y = pictures
        learned, test = Pictures(x[: args.labels], y[: args.labels]), Pictures(x[args.labels :], y[args.labels :])
        for name, figures in found.items():
            figures.append(measure(ROWS[name], learned, test, seed))
            print(f"seed {seed}, {name}: {json.dumps(figures[-1])}", file=sys.stderr, flush=True)
    return {
        "labels": args.labels,
        "test": args.test,
        "rows": {name: _mean(figures) for name, figures in found.items()},
        "overhead": overhead(learned),
        "calibration": bench_transfer_calibration.figures(),
    }


def _mean(figures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first = figures[0]
    numbers = {name: round(float(np.mean([one[name] for one in figures])), 4) for name in first if name != "note"}
    return {**numbers, "note": first["note"]}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:]), indent=2))
