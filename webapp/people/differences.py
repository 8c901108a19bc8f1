"""Where the model and people differ, and where people differ: lists of items to look at again.

Owns which items are on the lists. Must never sort or count a whole project: it walks on from where the last page ended. Called by
the differences endpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labelloop.errors import InvalidInputError
from webapp.db import quality, users
from webapp.db.engine import Database, Tx
from webapp.db.projects import Project
from webapp.db.revisions import BULK
from webapp.kinds.values import decode_more, is_same

SCANNED = 20_000  # labelled items that one page looks at, at most


def read_differences(
    database: Database, project: Project, between: str, least: float, after: int, n: int
) -> tuple[list[dict[str, Any]], int | None]:
    """Return up to `n` items on which the model and people, or people among each other, differ, and where to go on.

    `least`: of the model's drafts only those that are at least this sure. Raises InvalidInputError.
    """
    if between not in ("model", "people"):
        raise InvalidInputError(f"between {between!r}: use model or people")
    with database.read() as tx:
        return _with_model(tx, project, least, after, n) if between == "model" else _among_people(tx, project, after, n)


def _with_model(tx: Tx, project: Project, least: float, after: int, n: int) -> tuple[list[dict[str, Any]], int | None]:
    found: list[quality.Labelled] = []
    seen = 0
    while len(found) < n and seen < SCANNED:
        page = quality.labelled_after(tx, project, after, 1000)
        for one in page:
            after = one.place
            found += [one] if _differs(one, least) else []
            if len(found) == n:
                break
        seen += len(page)
        if len(page) < 1000 and len(found) < n:
            return _lines(tx, found), None
    return _lines(tx, found), after


def _differs(one: quality.Labelled, least: float) -> bool:
    draft = one.item.draft
    if draft is None or one.source == BULK or draft.confidence < least:
        return False
    return not is_same(decode_more(draft.labels, draft.value), one.said)


def _lines(tx: Tx, found: Sequence[quality.Labelled]) -> list[dict[str, Any]]:
    names = users.names_of(tx, sorted({one.user_id for one in found}))
    return [
        {"item": one.item, "labels": one.said.labels, "by": names[one.user_id], "source": one.source, "draft": one.item.draft}
        for one in found
    ]


def _among_people(tx: Tx, project: Project, after: int, n: int) -> tuple[list[dict[str, Any]], int | None]:
    found = quality.disputed_after(tx, project, after, n)
    heard = quality.opinions_on(tx, project, [item.number for _, _, item in found])
    names = users.names_of(tx, sorted({one.user_id for one in heard}))
    lines = [
        {
            "item": item,
            "agreement": round(agreement, 4),
            "heard": [{"by": names[one.user_id], "labels": one.labels} for one in heard if one.item == item.number],
        }
        for _, agreement, item in found
    ]
    return lines, found[-1][0] if len(found) == n else None
