"""`bench transfer`, calibration: how true the probabilities of five algorithms are on digits, before and after their temperature.

Owns the figures, means over random draws: a model learns from n labels, its temperature from n / 4 more, the rest of the set
judges. Called by `bench_transfer` and by hand.
"""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from learning.algorithms import find_algorithm
from learning.algorithms.linear_model import log_loss
from learning.metrics import expected_calibration_error
from learning.transfer.calibration import calibrate

ALGORITHMS = ("logistic-regression", "svm", "random-forest", "gradient-boosting", "linear-head")
LABELS = (80, 160, 320, 800)


def figures(draws: int = 4) -> dict[str, dict[str, float]]:
    """Return errors and log losses before and after, by 'algorithm, labels'."""
    cells = {f"{name}, {n}": [_cell(name, n, draw) for draw in range(draws)] for name in ALGORITHMS for n in LABELS}
    return {cell: {key: round(float(np.mean([one[key] for one in found])), 4) for key in found[0]} for cell, found in cells.items()}


def _cell(name: str, n: int, draw: int) -> dict[str, float]:
    x, y = _digits(draw)
    held, test = slice(n, n + n // 4), slice(n + n // 4, None)
    training = find_algorithm(name).start(x[:n], y[:n], 10, seed=draw)
    while training.step < training.steps:
        training.advance()
    model = training.model()
    better, _ = calibrate(model, x[held], y[held])
    before, after = model.predict_proba(x[test]), better.predict_proba(x[test])
    return {
        "calibration_error": expected_calibration_error(y[test], before),
        "calibrated_error": expected_calibration_error(y[test], after),
        "log_loss": log_loss(before, y[test]),
        "calibrated_log_loss": log_loss(after, y[test]),
    }


def _digits(draw: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(draw).permutation(len(x))
    return x[order].astype(np.float32), y[order].astype(np.int64)


if __name__ == "__main__":
    print(json.dumps(figures(), indent=2))
