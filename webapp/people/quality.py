"""How well people agree, and how well each of them does: the figures of the page of quality.

Owns which coefficient is used for which kind of label. Must never decide on a label. Called by the quality endpoint; figures are
made of the newest 200,000 opinions and 50,000 labels, so that a page of a big project stays quick.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np

from learning.crowd.agreement import Agreement, class_agreement, interval_alpha
from webapp.db import quality, reviews, users
from webapp.db.engine import Database, Tx
from webapp.db.projects import Project
from webapp.db.quality import Said
from webapp.kinds.catalogue import kind_of
from webapp.people import consensus
from webapp.people.consensus import outline_of

DAY_S = 86400.0
GLANCED, GLANCED_ROWS = 2000, 2000  # opinions that the one figure on the status page is made of, and their marks or labels
NONE = ""  # the class of items that none of the project's labels fits


class Pair(msgspec.Struct, frozen=True):
    """Two people on the items they have in common. None = not defined, or not of this kind."""

    a: str
    b: str
    items: int
    share: float | None
    cohen: float | None
    iou: float | None = None
    f1: float | None = None


class Class(msgspec.Struct, frozen=True):
    """Agreement on one label against all others; label '' = none of the project's."""

    label: str
    alpha: float | None
    f1: float | None = None


class Together(msgspec.Struct, frozen=True):
    """Agreement in all. `items` have two opinions or more; `share` of the pairs of opinions are equal. None = not defined."""

    items: int
    share: float | None
    fleiss: float | None
    alpha: float | None
    iou: float | None
    f1: float | None
    exact_f1: float | None
    by_class: tuple[Class, ...]
    pairs: tuple[Pair, ...]


class Person(msgspec.Struct, frozen=True):
    """One person: labels and opinions counted in `labels`, on `days` days, `seconds` the median an item; on `gold` known answers
    `gold_right` were right, `agreed` of `decided` opinions are what the item's label became; what reviewers did with labels."""

    name: str
    labels: int
    days: int
    per_day: float
    seconds: float | None
    gold: int
    gold_right: int
    decided: int
    agreed: int
    accepted: int
    corrected: int
    returned: int


class Quality(msgspec.Struct, frozen=True):
    """The page of quality. `waiting`: labels that wait for a reviewer, by reason."""

    agreement: Together
    people: tuple[Person, ...]
    waiting: dict[str, int]


def read_quality(database: Database, project: Project) -> Quality:
    """Return the figures of a project."""
    with database.read() as tx:
        said = quality.opinions_given(tx, project)
        people = _people(tx, project, said)
        names = users.names_of(tx, sorted({one.user_id for one in said}))
        return Quality(agreement_of(project, said, names), people, reviews.counts(tx, project.id))


def read_agreement(database: Database, project: Project) -> float | None:
    """Return how far people agree in one figure, of the newest opinions: Krippendorff's alpha, of marks the F1.

    Of so many opinions that they make no more than `GLANCED_ROWS` marks or labels together. None = not defined yet.
    """
    with database.read() as tx:
        said = _glance(project, quality.opinions_given(tx, project, GLANCED))
        names = users.names_of(tx, sorted({one.user_id for one in said}))
    if not said:
        return None
    if project.kind == "multilabel":
        items, workers, classes, labels = _rows(project, said)
        return _known(class_agreement(items, workers, classes, len(labels)).alpha)
    found = agreement_of(project, said, names)
    return found.f1 if kind_of(project.kind).shape else found.alpha


def _glance(project: Project, said: Sequence[Said]) -> Sequence[Said]:
    """Return the first of some opinions, up to `GLANCED_ROWS` rows of a figure."""
    each = len(project.labels) if project.kind == "multilabel" else 1
    ends = np.cumsum([max(len(one.said.marks), each) for one in said])
    return said[: max(int(np.searchsorted(ends, GLANCED_ROWS, "right")), 2)]


# ---------------------------------------------------------------- agreement


def agreement_of(project: Project, said: Sequence[Said], names: dict[int, str]) -> Together:
    """Return how far people agree, by the coefficient that fits the kind of the project's labels."""
    kind = kind_of(project.kind)
    if kind.shape:
        return _of_marks(project, said, names)
    if kind.has_number:
        return _of_numbers(said, names)
    return _of_classes(project, said, names)


def _known(x: float) -> float | None:
    return None if math.isnan(x) else round(float(x), 4)


def _of_classes(project: Project, said: Sequence[Said], names: dict[int, str]) -> Together:
    items, workers, classes, labels = _rows(project, said)
    found = class_agreement(items, workers, classes, max(len(labels), 2))
    by_class = tuple(Class(label, _known(found.alpha_by_class[at])) for at, label in enumerate(labels) if (classes == at).any())
    if project.kind == "multilabel":
        by_class = tuple(_of_label(project, said, at) for at in range(len(project.labels)))
    pairs = _pairs(found, names)
    n_items = len({item for item, n in Counter(one.item for one in said).items() if n > 1})
    shown = (_known(found.share), _known(found.fleiss), _known(found.alpha))
    return Together(n_items, *shown, None, None, None, by_class, pairs)


def _rows(project: Project, said: Sequence[Said]) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return one row an opinion: item, person, class; of several labels an item one row a label: named or not."""
    if project.kind == "multilabel":
        k = len(project.labels)
        named = np.array([[label in one.said.labels for label in project.labels] for one in said], dtype=np.int64).reshape(-1)
        items = np.repeat([one.item for one in said], k).astype(np.int64) * k + np.tile(np.arange(k), len(said))
        return items, np.repeat([one.user_id for one in said], k).astype(np.int64), named, ("-", "+")
    words = [one.said.text.strip() if one.said.text is not None else next(iter(one.said.labels), NONE) for one in said]
    labels = (*project.labels, NONE) if kind_of(project.kind).least_labels else tuple(sorted(set(words)))
    place = {label: at for at, label in enumerate(labels)}
    items = np.array([one.item for one in said], dtype=np.int64)
    return (
        items,
        np.array([one.user_id for one in said], dtype=np.int64),
        np.array([place[w] for w in words], dtype=np.int64),
        labels,
    )


def _of_label(project: Project, said: Sequence[Said], at: int) -> Class:
    label = project.labels[at]
    classes = np.array([label in one.said.labels for one in said], dtype=np.int64)
    items, workers = ([getattr(one, name) for one in said] for name in ("item", "user_id"))
    given = (np.array(items, dtype=np.int64), np.array(workers, dtype=np.int64), classes)
    return Class(label, _known(class_agreement(*given, 2).alpha))


def _pairs(found: Agreement, names: dict[int, str]) -> tuple[Pair, ...]:
    rows = zip(found.pairs.tolist(), found.pair_items.tolist(), found.pair_share, found.cohen, strict=True)
    return tuple(Pair(names[a], names[b], n, _known(share), _known(cohen)) for (a, b), n, share, cohen in rows)


def _of_numbers(said: Sequence[Said], names: dict[int, str]) -> Together:
    known = [one for one in said if one.said.number is not None]
    alpha = interval_alpha(np.array([one.item for one in known], dtype=np.int64), [one.said.number or 0.0 for one in known])
    by_item: dict[int, list[Said]] = {}
    for one in known:
        by_item.setdefault(one.item, []).append(one)
    close: dict[tuple[int, int], list[bool]] = {}
    for group in by_item.values():
        for at, one in enumerate(group):
            for other in group[at + 1 :]:
                key = (min(one.user_id, other.user_id), max(one.user_id, other.user_id))
                close.setdefault(key, []).append(consensus.same(one.said, other.said))
    pairs = tuple(Pair(names[a], names[b], len(hits), round(sum(hits) / len(hits), 4), None) for (a, b), hits in close.items())
    everything = [hit for hits in close.values() for hit in hits]
    share = round(sum(everything) / len(everything), 4) if everything else None
    return Together(sum(len(g) > 1 for g in by_item.values()), share, None, _known(alpha), None, None, None, (), pairs)


def _of_marks(project: Project, said: Sequence[Said], names: dict[int, str]) -> Together:
    from learning.crowd.agreement import mark_agreement

    place = {label: at for at, label in enumerate(project.labels)}
    drawn = [(one, mark) for one in said for mark in one.said.marks if mark.label in place]
    given = (
        np.array([one.item for one, _ in drawn], dtype=np.int64),
        np.array([one.user_id for one, _ in drawn], dtype=np.int64),
        np.array([place[mark.label] for _, mark in drawn], dtype=np.int64),
        np.array([outline_of(mark) for _, mark in drawn], dtype=np.float64),
        np.array([(one.item, one.user_id) for one in said], dtype=np.int64),
        len(project.labels),
    )
    found = mark_agreement(*given)
    exact = mark_agreement(*given, 0.999) if kind_of(project.kind).shape == "span" else None
    by_class = tuple(Class(label, None, _known(found.f1_by_class[at])) for at, label in enumerate(project.labels))
    rows = zip(found.pairs.tolist(), found.pair_items.tolist(), found.pair_iou, found.pair_f1, strict=True)
    pairs = tuple(Pair(names[a], names[b], n, None, None, _known(iou), _known(f1)) for (a, b), n, iou, f1 in rows)
    shown = (_known(found.iou), _known(found.f1), _known(exact.f1) if exact else None)
    return Together(found.n_items, None, None, None, *shown, by_class, pairs)


# ---------------------------------------------------------------- people


def _people(tx: Tx, project: Project, said: Sequence[Said]) -> tuple[Person, ...]:
    spent: dict[int, list[float]] = {}
    days: dict[int, Counter[int]] = {}
    for user, seconds, at in quality.times(tx, project.id):
        days.setdefault(user, Counter())[int(at // DAY_S)] += 1
        if seconds is not None:
            spent.setdefault(user, []).append(seconds)
    right, judged = quality.gold_scores(tx, project.id), reviews.judged_by_author(tx, project.id)
    agreed, decided = _with_consensus(tx, project, said)
    everybody = {*days, *right, *judged, *decided}
    names = users.names_of(tx, sorted(everybody))
    return tuple(
        Person(
            name=names[user],
            labels=(n := sum(days.get(user, Counter()).values())),
            days=(d := len(days.get(user, ()))),
            per_day=round(n / d, 1) if d else 0.0,
            seconds=round(statistics.median(spent[user]), 2) if user in spent else None,
            gold=right.get(user, (0, 0))[1],
            gold_right=right.get(user, (0, 0))[0],
            decided=decided[user],
            agreed=agreed[user],
            **dict(zip(("accepted", "corrected", "returned"), judged.get(user, (0, 0, 0)), strict=True)),
        )
        for user in sorted(everybody, key=lambda one: names[one])
    )


def _with_consensus(tx: Tx, project: Project, said: Sequence[Said]) -> tuple[Counter[int], Counter[int]]:
    became = quality.decided_labels(tx, project)
    agreed, decided = Counter[int](), Counter[int]()
    for one in said:
        if one.item in became:
            decided[one.user_id] += 1
            agreed[one.user_id] += consensus.same(became[one.item], one.said)
    return agreed, decided
