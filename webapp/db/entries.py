"""Who asks and for which project, in one statement: the account behind an API token or a session, the project of the address and
the account's role there.

Owns that statement, which nearly every call of the API begins with. Must never decide: what was found says neither that the account
is active nor that it may enter. Called by `webapp.accounts.service`.
"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from webapp.db import projects, users
from webapp.db import tables as t
from webapp.db.engine import Tx
from webapp.db.projects import Project
from webapp.db.users import User


class Entry(msgspec.Struct, frozen=True):
    """An account at the door of a project; `project` None = there is none of this name, `role` None = no member of it."""

    user: User
    project: Project | None
    role: str | None


def _entry(source: sa.FromClause, mine: sa.ColumnElement[bool]) -> sa.Select[Any]:
    is_meant = sa.and_(t.projects.c.slug == sa.bindparam("slug"), projects.IS_KEPT)
    is_member = sa.and_(t.members.c.project_id == t.projects.c.id, t.members.c.user_id == t.users.c.id)
    joined = source.outerjoin(t.projects, is_meant).outerjoin(t.members, is_member)
    return sa.select(*users.COLUMNS, t.members.c.role, *projects.COLUMNS).select_from(joined).where(mine)


_BY_TOKEN = _entry(t.users.join(t.tokens, t.tokens.c.user_id == t.users.c.id), t.tokens.c.hash == sa.bindparam("key"))
_BY_SESSION = _entry(t.users, t.users.c.session_key == sa.bindparam("key"))
_N_USER = len(users.COLUMNS)


def find_by_token(tx: Tx, token_hash: str, slug: str) -> Entry | None:
    """Return the owner of the token with this hash at the project `slug`; None = no such token."""
    return _read(tx.execute(_BY_TOKEN, {"key": token_hash, "slug": slug}).first())


def find_by_session(tx: Tx, session_key: str, slug: str) -> Entry | None:
    """Return the account whose sessions carry `session_key` at the project `slug`; None = no such account."""
    return _read(tx.execute(_BY_SESSION, {"key": session_key, "slug": slug}).first())


def _read(row: Any) -> Entry | None:
    if row is None:
        return None
    role, *project = row[_N_USER:]
    return Entry(User(*row[:_N_USER]), projects.read_project(project) if project[0] is not None else None, role)
