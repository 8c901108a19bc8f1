"""How good each annotator is, read from posteriors: chance to be right, its interval, the confusion matrix.

Owns what is said of people. Must never see a name of one. Called by `learning.crowd.result` and the bench.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learning.crowd.labels import CrowdLabels

_Z = 1.959964  # two-sided 95 %
FLOOR = 1e-10  # no probability of a label is below


def worker_quality(crowd: CrowdLabels, posteriors: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (quality, its lower 95 % bound), both (n_workers,) in [0, 1], NaN for a worker without a label.

    quality is the mean posterior of the classes the worker chose. The bound is E. B. Wilson's, "Probable Inference, the Law of
    Succession, and Statistical Inference", JASA 1927, on the worker's number of labels.
    """
    right = np.bincount(crowd.workers, posteriors[crowd.items, crowd.classes], minlength=crowd.n_workers)
    n = crowd.labels_per_worker.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        quality = right / n
        centre = quality + _Z**2 / (2 * n)
        spread = _Z * np.sqrt(quality * (1 - quality).clip(0) / n + _Z**2 / (4 * n**2))
        low = (centre - spread) / (1 + _Z**2 / n)
    return quality, low.clip(0, 1)


def confusion_matrices(crowd: CrowdLabels, posteriors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return P(label given | true class): (n_workers, true, given), rows sum to 1; a worker without a label is uniform."""
    table = confusion_table(crowd, crowd.by_item.T @ posteriors, 0.0)
    k = crowd.n_classes
    return np.ascontiguousarray(table.reshape(crowd.n_workers, k, k).transpose(0, 2, 1))


def confusion_table(crowd: CrowdLabels, counts: NDArray[np.float64], smoothing: float) -> NDArray[np.float64]:
    """Return expected counts (n_workers * given, true) as probabilities over given: the M step of Dawid and Skene.

    smoothing 0: the maximum of the likelihood, spread over the labels that the worker really used, none below `FLOOR`. Above 0:
    so many pseudo-labels on each true class of each worker, spread evenly, i.e. a symmetric Dirichlet prior.
    """
    k = crowd.n_classes
    if smoothing > 0:
        table = (counts + smoothing / k).reshape(crowd.n_workers, k, k)
    else:
        used = crowd.labels_per_code > 0
        used[~used.any(axis=1)] = True
        table = np.maximum(counts.reshape(crowd.n_workers, k, k), FLOOR) * used[:, :, None]
    table = table / table.sum(axis=1, keepdims=True)
    return np.maximum(table, FLOOR * 1e-3).reshape(-1, k)
