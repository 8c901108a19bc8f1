"""What lies ahead of a project and how sure its figures are: pace and time left, spread of labels, bounds of a measured share.

Owns what is remembered between two looks, because every open page asks several times a second. Called by `webapp.projects.status`.
"""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from labelloop.messages import VersionView
from webapp.db import pace
from webapp.db.engine import Database
from webapp.db.projects import Project
from webapp.db.tallies import Tally
from webapp.people.quality import read_agreement

WINDOW_S = 1800.0
FEWEST = 5
PACE_KEPT_S = 5.0
SPREAD_KEPT_S = 10.0
AGREEMENT_KEPT_S = 30.0
SPREAD_SHARE = 20.0  # a spread that took long is kept this many times longer
Z = 1.959964  # of the 95 % interval
_lock = threading.Lock()
_kept: weakref.WeakKeyDictionary[Database, dict[tuple[str, int], tuple[float, Any]]] = weakref.WeakKeyDictionary()


class Outlook(msgspec.Struct, frozen=True):
    """`labels_per_hour` of the last half hour, None = too few; `left_s` until the items or the budget are used up at that pace.

    `spread`: (label, items that people gave it) in the project's order. `people_agreement`: how far people agree on what several
    of them looked at, 1 = always, None = nothing to tell from.
    """

    labels_per_hour: float | None
    left_s: float | None
    spread: list[tuple[str, int]]
    people_agreement: float | None


def wilson(share: float, n: float) -> tuple[float, float]:
    """Return the bounds of the 95 % score interval of a share that was measured on `n` items.

    E. B. Wilson: Probable inference, the law of succession, and statistical inference. JASA 22 (1927).
    """
    if n <= 0:
        return 0.0, 1.0
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return round(max(0.0, middle - half), 4), round(min(1.0, middle + half), 4)


def bounds_of(views: Sequence[VersionView]) -> list[tuple[float, float] | None]:
    """Return the bounds of the accuracy of every version that has one, by labels as the curve has them; None = not known."""
    measured = sorted((v for v in views if v.metrics.get("accuracy") is not None), key=lambda v: (v.labels, v.version))
    return [wilson(v.metrics["accuracy"], v.metrics["held_out"]) if v.metrics.get("held_out") else None for v in measured]


def chance_of(project: Project) -> float | None:
    """Return how often guessing a label at random is right, None where an item takes other than one label."""
    return round(1 / len(project.labels), 4) if project.kind == "multiclass" and project.labels else None


def look_ahead(database: Database, project: Project, total: Tally) -> Outlook:
    """Return the outlook of a project, some of it some seconds old."""
    per_hour = _remember(database, ("pace", project.id), PACE_KEPT_S, lambda: _pace(database, project))
    most = min(total.items, project.budget) if project.budget else total.items
    left = max(most - total.labels, 0)
    spread: Counter[str] = _remember(database, ("spread", project.id), SPREAD_KEPT_S, lambda: _spread(database, project))
    return Outlook(
        labels_per_hour=per_hour,
        left_s=round(3600 * left / per_hour) if per_hour else None,
        spread=[(label, spread[label]) for label in project.labels],
        people_agreement=_remember(database, ("people", project.id), AGREEMENT_KEPT_S, lambda: read_agreement(database, project)),
    )


def _pace(database: Database, project: Project) -> float | None:
    now = time.time()
    with database.read() as tx:
        n, first = pace.recent_labels(tx, project.id, now - WINDOW_S)
    return round(3600 * n / max(now - first, 1.0), 1) if first is not None and n >= FEWEST else None


def _spread(database: Database, project: Project) -> Counter[str]:
    with database.read() as tx:
        written = pace.spread_of_labels(tx, project.id)
    now: Counter[str] = Counter()
    for label, n in written.items():
        now[project.label_set.name_now(label)] += n
    return now


def _remember(database: Database, key: tuple[str, int], kept_s: float, find: Callable[[], Any]) -> Any:
    """Return what was found last, anew when that is too old."""
    began_s = time.monotonic()
    with _lock:
        until_s, value = _kept.setdefault(database, {}).get(key, (float("-inf"), None))
    if began_s < until_s:
        return value
    value = find()
    now_s = time.monotonic()
    with _lock:
        _kept.setdefault(database, {})[key] = (now_s + max(kept_s, SPREAD_SHARE * (now_s - began_s)), value)
    return value
