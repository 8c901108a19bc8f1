"""What several people say of one item as one value: votes for labels, the median of numbers, marks matched by overlap.

Owns when opinions are clear. Must never read a database: values in, a verdict out. Called by `webapp.people.desk` and `.settling`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from webapp.kinds.catalogue import kind_of
from webapp.kinds.values import Mark, Relation, Value

if TYPE_CHECKING:
    from learning.crowd.regions import Consensus

CLOSE = 0.05  # numbers agree that differ by less than this share of the median
MATCHED = 0.5  # marks are one thing from this overlap on
POINT = 0.02  # half the side of the square in which points are one thing


class Verdict(msgspec.Struct, frozen=True):
    """`value` is what most say, `agreement` in [0, 1] how much of what was said it is; `is_clear` False = it is a tie."""

    value: Value
    agreement: float
    is_clear: bool


def same(first: Value, second: Value) -> bool:
    """Return whether two values say the same: equal labels, numbers close to each other, marks that match with their labels."""
    if first.marks or second.marks:
        verdict = _of_marks([first, second], _labels_of([first, second]))
        return verdict.agreement == 1.0 and verdict.is_clear
    if first.number is not None and second.number is not None:
        return _is_close(second.number, first.number)
    return _key(first) == _key(second)


def decide(kind: str, labels: tuple[str, ...], said: Sequence[Value]) -> Verdict:
    """Return what the majority says. `labels` are the project's, `said` one value a person, at least one."""
    found = kind_of(kind)
    if found.shape:
        return _of_marks(said, labels)
    if found.has_number:
        return _of_numbers(said)
    if kind == "multilabel":
        return _of_sets(said, labels)
    return _of_votes(said)


def _key(value: Value) -> tuple[object, ...]:
    return (frozenset(value.labels), value.number, (value.text or "").strip(), value.is_none)


def _of_votes(said: Sequence[Value]) -> Verdict:
    votes = Counter(_key(value) for value in said)
    ranked = votes.most_common(2)
    best = next(value for value in said if _key(value) == ranked[0][0])
    return Verdict(best, ranked[0][1] / len(said), len(ranked) == 1 or ranked[0][1] > ranked[1][1])


def _of_sets(said: Sequence[Value], labels: tuple[str, ...]) -> Verdict:
    """Each label by a majority of its own; the agreement is that of the label people differ on most."""
    shares = {label: sum(label in value.labels for value in said) / len(said) for label in labels}
    chosen = tuple(label for label in labels if shares[label] > 0.5)
    agreement = min((max(share, 1 - share) for share in shares.values()), default=1.0)
    is_none = not chosen and sum(value.is_none for value in said) * 2 > len(said)
    return Verdict(Value(chosen, is_none=is_none), agreement, all(share != 0.5 for share in shares.values()))


def _is_close(number: float, median: float) -> bool:
    return abs(number - median) <= CLOSE * max(abs(median), 1e-9)


def _of_numbers(said: Sequence[Value]) -> Verdict:
    numbers = [value.number for value in said if value.number is not None]
    if len(numbers) * 2 <= len(said):
        return _of_votes(said)
    median = float(np.median(numbers))
    share = sum(_is_close(number, median) for number in numbers) / len(said)
    return Verdict(Value(number=median), share, share > 0.5)


# ---------------------------------------------------------------- marks


def outline_of(mark: Mark) -> tuple[float, ...]:
    """Return a mark as a span (start, end) or a box (x0, y0, x1, y1): of a polygon the box around it, of a point a small square."""
    where = mark.where
    if mark.shape in ("span", "segment"):
        return (where[0], max(where[1], where[0] + 1e-9))
    if mark.shape == "box":
        return (where[0], where[1], where[0] + max(where[2], 1e-9), where[1] + max(where[3], 1e-9))
    if mark.shape == "point":
        return (where[0] - POINT, where[1] - POINT, where[0] + POINT, where[1] + POINT)
    x, y = where[::2], where[1::2]
    return (min(x), min(y), max(max(x), min(x) + 1e-9), max(max(y), min(y) + 1e-9))


def _labels_of(said: Sequence[Value]) -> tuple[str, ...]:
    return tuple(sorted({mark.label for value in said for mark in value.marks}))


def _of_marks(said: Sequence[Value], labels: tuple[str, ...]) -> Verdict:
    from learning.crowd.regions import aggregate_regions, crowd_regions  # SciPy: only where marks are compared

    drawn = [(person, mark) for person, value in enumerate(said) for mark in value.marks]
    if not drawn:
        return _of_votes(said)
    places = {label: at for at, label in enumerate(labels)}
    found = aggregate_regions(
        "majority",
        crowd_regions(
            [0] * len(drawn),
            [person for person, _ in drawn],
            [places[mark.label] for _, mark in drawn],
            [outline_of(mark) for _, mark in drawn],
            looked=[(0, person) for person in range(len(said))],
            n_classes=len(labels),
        ),
        min_overlap=MATCHED,
    )
    marks, names = _marks_of(found, [mark for _, mark in drawn], labels)
    relations = _relations_of(found, said, names)
    top = np.sort(found.posteriors, axis=1)
    is_clear = bool((top[:, -1] > top[:, -2] + 1e-9).all())
    kept = tuple(label for label in labels if any(mark.label == label for mark in marks))
    return Verdict(Value(kept, marks, relations), float(found.posteriors.max(axis=1).mean()), is_clear)


def _marks_of(found: Consensus, drawn: Sequence[Mark], labels: tuple[str, ...]) -> tuple[tuple[Mark, ...], dict[int, str]]:
    """Return the kept groups as marks, and their names by group: drawn as the member that is nearest to the median outline."""
    marks: list[Mark] = []
    names: dict[int, str] = {}
    for group in np.flatnonzero(found.is_kept):
        members = [drawn[i] for i in np.flatnonzero(found.groups == group).tolist()]
        label = labels[int(found.classes[group])]
        like = [mark for mark in members if mark.label == label] or members
        nearest = min(like, key=lambda mark: float(np.abs(np.subtract(outline_of(mark), found.outlines[group])).sum()))
        names[int(group)] = f"m{len(marks) + 1}"
        marks.append(Mark(names[int(group)], label, nearest.shape, _where(nearest, found.outlines[group])))
    return tuple(marks), names


def _where(nearest: Mark, outline: np.ndarray) -> tuple[float, ...]:
    if nearest.shape == "box":
        x0, y0, x1, y1 = (float(v) for v in outline)
        return (x0, y0, x1 - x0, y1 - y0)
    if nearest.shape == "segment":
        return (float(outline[0]), float(outline[1]))
    return nearest.where  # a polygon, a point, a span in whole characters: as somebody drew it


def _relations_of(found: Consensus, said: Sequence[Value], names: dict[int, str]) -> tuple[Relation, ...]:
    votes: Counter[tuple[str, int, int]] = Counter()
    at = 0
    for value in said:
        group = {mark.id: int(found.groups[at + i]) for i, mark in enumerate(value.marks)}
        at += len(value.marks)
        votes.update(
            {(r.label, group[r.source], group[r.target]) for r in value.relations if r.source in group and r.target in group}
        )
    most = [key for key, n in votes.items() if 2 * n > len(said) and key[1] in names and key[2] in names]
    return tuple(Relation(label, names[source], names[target]) for label, source, target in most)
