"""Accounts and API tokens in the database.

Owns the tables `users` and `tokens`. Must never see a password or a token in the clear: hashes come in, hashes are compared.
Called by `webapp.accounts`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from labelloop.errors import ConflictError
from webapp.db.engine import Tx
from webapp.db.tables import tokens, users


class User(msgspec.Struct, frozen=True):
    """One account. `session_key` changes when the password does, which ends its sessions."""

    id: int
    name: str
    is_admin: bool
    is_active: bool
    session_key: str
    locale: str
    theme: str
    created_at: float


class Token(msgspec.Struct, frozen=True):
    """One API token of a user; its secret was shown once and is not kept."""

    id: int
    name: str
    created_at: float


COLUMNS = [users.c[name] for name in User.__struct_fields__]
_FIRST_USER_LOCK = 0x6C6F6F71


def hold_first_user_lock(tx: Tx) -> None:
    """Let one transaction at a time decide whether a new account is the first (SQLite's write turn does it already)."""
    if tx.dialect.name == "postgresql":
        tx.execute(sa.select(sa.func.pg_advisory_xact_lock(_FIRST_USER_LOCK)))


def has_users(tx: Tx) -> bool:
    """Return whether any account exists."""
    return tx.execute(sa.select(users.c.id).limit(1)).first() is not None


def add_user(tx: Tx, name: str, password_hash: str, is_admin: bool, session_key: str, now: float) -> User:
    """Insert an account. Raises ConflictError when the name is taken."""
    if tx.execute(sa.select(users.c.id).where(users.c.name == name)).first() is not None:
        raise ConflictError(f"the name {name!r} is taken: choose another")
    row = {
        "name": name,
        "password_hash": password_hash,
        "is_admin": is_admin,
        "is_active": True,
        "session_key": session_key,
        "created_at": now,
    }
    try:
        tx.execute(users.insert().values(**row))
    except sa.exc.IntegrityError as exc:
        raise ConflictError(f"the name {name!r} is taken: choose another") from exc
    found = find_user(tx, name)
    assert found is not None
    return found


def find_user(tx: Tx, name: str) -> User | None:
    """Return the account called `name`."""
    row = tx.execute(sa.select(*COLUMNS).where(users.c.name == name)).first()
    return User(*row) if row else None


def find_user_by_id(tx: Tx, user_id: int) -> User | None:
    """Return the account with this number."""
    row = tx.execute(sa.select(*COLUMNS).where(users.c.id == user_id)).first()
    return User(*row) if row else None


def password_hash_of(tx: Tx, name: str) -> str | None:
    """Return the stored password hash of `name`, None when there is no such account."""
    return tx.execute(sa.select(users.c.password_hash).where(users.c.name == name)).scalar()


def list_users(tx: Tx) -> tuple[User, ...]:
    """Return all accounts by name."""
    return tuple(User(*row) for row in tx.execute(sa.select(*COLUMNS).order_by(users.c.name)))


def change_user(tx: Tx, user_id: int, **values: object) -> None:
    """Set columns of one account (password_hash, session_key, is_admin, is_active, locale)."""
    tx.execute(users.update().where(users.c.id == user_id).values(**values))


def add_token(tx: Tx, user_id: int, name: str, token_hash: str, now: float) -> Token:
    """Store the hash of a new token."""
    row = {"user_id": user_id, "name": name, "hash": token_hash, "created_at": now}
    number = tx.execute(tokens.insert().values(**row).returning(tokens.c.id)).scalar_one()
    return Token(number, name, now)


def list_tokens(tx: Tx, user_id: int) -> tuple[Token, ...]:
    """Return the tokens of one account, oldest first."""
    query = sa.select(tokens.c.id, tokens.c.name, tokens.c.created_at).where(tokens.c.user_id == user_id).order_by(tokens.c.id)
    return tuple(Token(*row) for row in tx.execute(query))


def drop_token(tx: Tx, user_id: int, token_id: int) -> bool:
    """Delete one token of one account; False when there is none."""
    gone = tx.execute(tokens.delete().where(tokens.c.user_id == user_id, tokens.c.id == token_id))
    return bool(gone.rowcount)


def count_admins(tx: Tx) -> int:
    """Return how many active admins there are."""
    return int(tx.execute(sa.select(sa.func.count()).where(users.c.is_admin, users.c.is_active)).scalar_one())


def names_of(tx: Tx, user_ids: Sequence[int]) -> dict[int, str]:
    """Return the names of accounts by their numbers."""
    if not user_ids:
        return {}
    return {row[0]: row[1] for row in tx.execute(sa.select(users.c.id, users.c.name).where(users.c.id.in_(list(user_ids))))}


def is_admin(tx: Tx, user_id: int) -> bool:
    """Return whether an account is an active admin's."""
    query = sa.select(users.c.id).where(users.c.id == user_id, users.c.is_admin, users.c.is_active)
    return tx.execute(query).first() is not None
