"""How a project's people work, as functions: read and change the settings, mark items of known answer.

Owns what follows from a change of the settings. Must never know a request. Called by the API and the pages.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from labelloop.errors import InvalidInputError
from webapp.db import events, gold, opinions, projects, reviews
from webapp.db.engine import Database, Tx
from webapp.db.gold import GoldItem
from webapp.db.projects import Project
from webapp.db.users import User
from webapp.people import shares
from webapp.people.work import Work, read_work
from webapp.projects.service import Access

MOST_ITEMS = 10_000


def save_work(database: Database, access: Access, user: User, given: Mapping[str, Any]) -> Work:
    """Change settings of how people work; those not named stay. Raises InvalidInputError."""
    before = access.project.work
    known = msgspec.to_builtins(before) | {k: v for k, v in given.items() if k != "slots"}
    work = read_work(known)
    if work.least_agreement < 0 or (work.consensus != "majority" and access.project.kind != "multiclass"):
        raise InvalidInputError(f"consensus {work.consensus!r} is for items with one label: this project takes majority")
    with database.write() as tx:
        work = shares.dealt(tx, access.project, work)
        _store(tx, access.project, work)
        if work != before:
            changed = [f.name for f in msgspec.structs.fields(Work) if getattr(work, f.name) != getattr(before, f.name)]
            text = f"{user.name} changed {', '.join(name for name in changed if name != 'slots') or 'the shares'}"
            events.add_event(tx, access.project.id, "settings", text, user.id, time.time())
    return work


def _store(tx: Tx, project: Project, work: Work) -> None:
    projects.change_project(tx, project.id, {"work": work}, False)
    reviews.mark_errands(tx, project.id, opinions.has_errands(tx, project.id))


def mark_gold(database: Database, access: Access, user: User, item_ids: Sequence[str], is_gold: bool) -> tuple[int, int]:
    """Make labelled items ones of known answer, by the label they have now, or ordinary ones again.

    Returns how many of the named items that was done to, and how many the project has. Items without a label are left out.
    """
    with database.write() as tx:
        if is_gold:
            n = gold.mark(tx, access.project.id, user.id, item_ids, time.time())
        else:
            n = gold.unmark(tx, access.project.id, item_ids)
        return n, gold.count(tx, access.project.id)


def page_gold(database: Database, access: Access, after: int, n: int) -> tuple[list[GoldItem], int]:
    """Return up to `n` items of known answer behind a number, and how many there are."""
    with database.read() as tx:
        return gold.page(tx, access.project, after, n), gold.count(tx, access.project.id)
