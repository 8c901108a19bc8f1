"""How good found boxes and spans are: average precision, exact F1, and the corrections that a person would have to make.

Owns these figures. Must never train, predict or decide a threshold of its own. Called by the train role, tests and the bench.
`truth` and `found` are one `Regions` an item, in one order; the scores of `truth` are never read.

| given | answer |
| --- | --- |
| no item, lists of unequal length, boxes beside spans | refused, naming the lengths or widths |
| a label outside [0, n_labels) | refused |
| nothing true and nothing found, in an item or everywhere | 1: nothing would have to be corrected |
| nothing true, something found | 0 |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.regions import Regions

BOX = 4  # numbers in the `where` of a box; a span has 2
AGREEING_IOU = 0.5  # from this overlap up two boxes mean the same thing
MAX_FOUND = 100  # best-scored boxes of one label in one picture that count, as COCO has it

_SHOWN = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_RECALLS = np.linspace(0.0, 1.0, 101)


class Corrections(NamedTuple):
    """What a person does to turn drafts into the truth: change `wrong` regions, add `missing` ones, remove `extra` ones."""

    wrong: int
    missing: int
    extra: int
    n_true: int

    @property
    def total(self) -> int:
        return self.wrong + self.missing + self.extra

    @property
    def per_100(self) -> float:
        """Corrections per 100 true regions; without a true region, per 100 regions had there been one."""
        return 100.0 * self.total / max(self.n_true, 1)


def overlaps(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return intersection over union of each pair: boxes (r, 4) and (s, 4), or spans (r, 2) and (s, 2) -> (r, s) in [0, 1].

    Regions without size overlap nothing. Raises InvalidInputError on other or unequal widths.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or a.shape[1] not in (2, BOX):
        raise InvalidInputError(f"regions of shapes {a.shape} and {b.shape}: give boxes (r, 4) or spans (r, 2) on both sides")
    low_a, low_b = (a[:, :2], b[:, :2]) if a.shape[1] == BOX else (a[:, :1], b[:, :1])
    size_a, size_b = (a[:, 2:], b[:, 2:]) if a.shape[1] == BOX else (a[:, 1:] - low_a, b[:, 1:] - low_b)
    shared = np.minimum((low_a + size_a)[:, None], (low_b + size_b)[None]) - np.maximum(low_a[:, None], low_b[None])
    inner = np.maximum(shared, 0.0).prod(axis=2)
    union = size_a.prod(axis=1)[:, None] + size_b.prod(axis=1)[None] - inner
    return np.divide(inner, union, out=np.zeros_like(inner), where=union > 0)


def mean_average_precision(truth: Sequence[Regions], found: Sequence[Regions], n_labels: int, iou: float = AGREEING_IOU) -> float:
    """Return the mean over the labels that occur in `truth` of their average precision at overlap `iou`, in [0, 1].

    101-point interpolation as COCO's: precision made falling, read at recalls 0, 0.01 ... 1 (T.-Y. Lin et al., "Microsoft COCO:
    Common Objects in Context", ECCV 2014; the measure is that of M. Everingham et al., "The Pascal Visual Object Classes (VOC)
    Challenge", IJCV 2010, which read 11 points). From the best score down, each found box takes the free true box of its label
    that it overlaps most; the 100 best of a label in a picture count. Equal to pycocotools' AP at one IoU.

    Raises InvalidInputError as the table of this module says.
    """
    _check(truth, found)
    for said in (truth, found):
        _check_labels(said, n_labels)
    n_true = np.bincount(np.concatenate([one.labels for one in truth]).astype(np.int64), minlength=n_labels)
    if not n_true.any():
        return float(not any(len(one.labels) for one in found))
    scores, hits, labels = _judged(truth, found, iou)
    order = np.argsort(-scores, kind="stable")
    scores, hits, labels = scores[order], hits[order], labels[order]
    return float(np.mean([_average_precision(hits[labels == k], int(n_true[k])) for k in np.flatnonzero(n_true)]))


def _judged(
    truth: Sequence[Regions], found: Sequence[Regions], iou: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]:
    """Return score, whether right, and label of each found region that counts."""
    parts: list[tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]] = []
    for true, said in zip(truth, found, strict=True):
        for label in np.unique(said.labels):
            mine = np.flatnonzero(said.labels == label)
            mine = mine[np.argsort(-said.scores[mine], kind="stable")][:MAX_FOUND]
            pairs = overlaps(said.where[mine], true.where[true.labels == label])
            parts.append((said.scores[mine], take_best(pairs, iou) >= 0, said.labels[mine]))
    if not parts:
        return np.zeros(0, np.float32), np.zeros(0, np.bool_), np.zeros(0, np.int64)
    scores, hits, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return scores, hits, labels


def _average_precision(hits: NDArray[np.bool_], n_true: int) -> float:
    right = np.cumsum(hits)
    precision = np.maximum.accumulate((right / np.arange(1, len(hits) + 1))[::-1])[::-1]
    place = np.searchsorted(right / n_true, _RECALLS, side="left")
    return float(precision[place[place < len(hits)]].sum() / len(_RECALLS))


def take_best(pairs: NDArray[np.float64], iou: float) -> NDArray[np.int64]:
    """Return for each row, in order, the free column that it overlaps most and by `iou` or more; -1 = none. pairs: (r, s)."""
    taken = np.full(len(pairs), -1, dtype=np.int64)
    if not pairs.size:
        return taken
    free = pairs.copy()
    for row in range(len(pairs)):
        best = free.shape[1] - 1 - int(free[row, ::-1].argmax())  # of equals the last, as pycocotools has it
        if free[row, best] >= min(iou, 1 - 1e-10):
            taken[row] = best
            free[:, best] = -1.0
    return taken


def agree(true: Regions, said: Regions, iou: float = AGREEING_IOU) -> NDArray[np.int64]:
    """Return for each region of `said` the region of `true` with its label that it stands for: (r,), -1 = none.

    Boxes agree from overlap `iou` up, the most confident first; spans when both ends are the same. No true region is taken twice.
    """
    is_box = true.where.shape[1] == BOX
    order = np.argsort(-said.scores, kind="stable")
    pairs = overlaps(said.where[order], true.where)
    pairs[said.labels[order][:, None] != true.labels[None]] = -1.0
    out = np.full(len(order), -1, dtype=np.int64)
    out[order] = take_best(pairs, iou if is_box else 1.0)
    return out


def span_f1(truth: Sequence[Regions], found: Sequence[Regions]) -> float:
    """Return the micro-averaged F1 of spans in [0, 1]: right only with the same label, start and end.

    E. F. Tjong Kim Sang, F. De Meulder, "Introduction to the CoNLL-2003 Shared Task", CoNLL 2003. Raises InvalidInputError as the
    table of this module says.
    """
    return region_f1(truth, found)


def region_f1(truth: Sequence[Regions], found: Sequence[Regions], iou: float = AGREEING_IOU) -> float:
    """Return the micro-averaged F1 of boxes at overlap `iou`, or of exact spans, in [0, 1]: every region found counts, whatever its
    confidence."""
    counts = _counts(truth, found, iou).sum(axis=0)
    return 2 * int(counts[0]) / int(counts[1]) if counts[1] else 1.0


def item_f1(truth: Sequence[Regions], found: Sequence[Regions], iou: float = AGREEING_IOU) -> NDArray[np.float64]:
    """Return the F1 of each item alone: (n,) in [0, 1]; 1 where nothing is true and nothing found."""
    counts = _counts(truth, found, iou).astype(np.float64)
    return np.divide(2 * counts[:, 0], counts[:, 1], out=np.ones(len(counts)), where=counts[:, 1] > 0)


def _counts(truth: Sequence[Regions], found: Sequence[Regions], iou: float) -> NDArray[np.int64]:
    """Return (n, 2): regions that agree, and true plus found regions, of each item."""
    _check(truth, found)
    pairs = zip(truth, found, strict=True)
    return np.array([(int((agree(t, f, iou) >= 0).sum()), len(t.labels) + len(f.labels)) for t, f in pairs], dtype=np.int64)


def corrections(truth: Sequence[Regions], found: Sequence[Regions], iou: float = AGREEING_IOU) -> Corrections:
    """Return what turns `found` into `truth`: a region that agrees (`agree`) costs nothing.

    Of the others, a found one that overlaps a true one at all is changed into it (label or outline, one correction), what is left
    of the found is removed and what is left of the true is added. Raises InvalidInputError as the table of this module says.
    """
    _check(truth, found)
    done = np.array([_corrections_of(true, said, iou) for true, said in zip(truth, found, strict=True)])
    wrong, missing, extra = done.sum(axis=0).tolist()
    return Corrections(wrong, missing, extra, sum(len(one.labels) for one in truth))


def item_corrections(truth: Sequence[Regions], found: Sequence[Regions], iou: float = AGREEING_IOU) -> NDArray[np.int64]:
    """Return how many `corrections` each item needs: (n,)."""
    _check(truth, found)
    pairs = zip(truth, found, strict=True)
    return np.array([sum(_corrections_of(true, said, iou)) for true, said in pairs], dtype=np.int64)


def _corrections_of(true: Regions, said: Regions, iou: float) -> tuple[int, int, int]:
    stands_for = agree(true, said, iou)
    left = np.ones(len(true.labels), dtype=np.bool_)
    left[stands_for[stands_for >= 0]] = False
    changed = int((take_best(overlaps(said.where[stands_for < 0], true.where[left]), 1e-9) >= 0).sum())
    return changed, int(left.sum()) - changed, int((stands_for < 0).sum()) - changed


def surer_than(found: Sequence[Regions], least: float) -> list[Regions]:
    """Return the regions of each item whose score is `least` or more."""
    kept = [one.scores >= least for one in found]
    return [Regions(one.where[k], one.labels[k], one.scores[k]) for one, k in zip(found, kept, strict=True)]


def least_confidence(truth: Sequence[Regions], found: Sequence[Regions]) -> float:
    """Return from which score up found regions are worth showing: of `_SHOWN` the one that needs the fewest corrections.

    Of equals the one nearest to 0.5. Raises InvalidInputError as the table of this module says.
    """
    needed = {least: corrections(truth, surer_than(found, least)).total for least in _SHOWN}
    return min(_SHOWN, key=lambda least: (needed[least], abs(least - 0.5)))


def _check(truth: Sequence[Regions], found: Sequence[Regions]) -> None:
    if not len(truth) or len(truth) != len(found):
        raise InvalidInputError(
            f"{len(truth)} items are true and {len(found)} found: give the same items twice, and label held-out items first"
        )
    widths = {one.where.shape[1] for said in (truth, found) for one in said}
    if widths not in ({2}, {BOX}):
        raise InvalidInputError(f"regions of widths {sorted(widths)}: give boxes (r, 4) or spans (r, 2), not both")


def _check_labels(said: Sequence[Regions], n_labels: int) -> None:
    for i, one in enumerate(said):
        if len(one.labels) and (one.labels.min() < 0 or one.labels.max() >= n_labels):
            raise InvalidInputError(f"item {i} has label {int(one.labels.max())}, allowed is 0 to {n_labels - 1}")
