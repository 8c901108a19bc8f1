"""Accounts as functions: sign up, log in, change a password, API tokens.

Owns hashing (argon2id for passwords, SHA-256 for tokens, which are 256 random bits) and the rules for names and passwords. Must
never store or log a secret. Called by the API, the pages and the command line.
"""

from __future__ import annotations

import functools
import hashlib
import re
import secrets
import time
from collections.abc import Iterable

import argon2
import msgspec

from labelloop.errors import ConflictError, ForbiddenError, InvalidInputError, NotFoundError, UnauthenticatedError
from webapp.db import entries, operations, users
from webapp.db.engine import Database
from webapp.db.entries import Entry
from webapp.db.users import Token, User

_NAME = re.compile(r"[\w.@+-]{1,64}")
LEAST_PASSWORD_CHARS = 10
TOKEN_PREFIX = "llp_"
_hasher = argon2.PasswordHasher(memory_cost=19456, time_cost=2, parallelism=1)


@functools.cache
def _nobody_hash() -> str:
    return _hasher.hash(secrets.token_urlsafe())


def sign_up(database: Database, name: str, password: str, by: User | None, is_admin: bool = False) -> User:
    """Create an account. The very first becomes admin and needs nobody; every later one is made by an admin.

    Raises InvalidInputError (name or password), ForbiddenError (not an admin), ConflictError (the name is taken).
    """
    password_hash = hash_password(name, password)
    with database.write() as tx:
        users.hold_first_user_lock(tx)
        is_first = not users.has_users(tx)
        if not is_first and (by is None or not by.is_admin):
            raise ForbiddenError("only an admin may add people: ask the admin of this installation")
        operations.add_operation(tx, "account", f"account {name} is made" + (", as admin" if is_first or is_admin else ""))
        return users.add_user(tx, name, password_hash, is_first or is_admin, secrets.token_urlsafe(24), time.time())


def hash_password(name: str, password: str) -> str:
    """Return the hash to keep of a password; `name` '' = of an account that has its name. Raises InvalidInputError."""
    if name:
        check_name(name)
    check_password(password)
    return _hasher.hash(password)


def check_name(name: str) -> None:
    """Raise InvalidInputError unless `name` may be an account's."""
    if not _NAME.fullmatch(name):
        raise InvalidInputError(f"name {name[:80]!r} is not allowed: use 1 to 64 letters, digits and . _ @ + -")


def check_password(password: str) -> None:
    """Raise InvalidInputError for a password that is too short or too long."""
    if not LEAST_PASSWORD_CHARS <= len(password) <= 256:
        raise InvalidInputError(f"the password must have {LEAST_PASSWORD_CHARS} to 256 characters")


def log_in(database: Database, name: str, password: str) -> User:
    """Return the account behind name and password. Raises UnauthenticatedError, in the same time for a name that does not exist."""
    with database.read() as tx:
        stored, user = users.password_hash_of(tx, name), users.find_user(tx, name)
    try:
        _hasher.verify(stored or _nobody_hash(), password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError) as exc:
        raise UnauthenticatedError("name or password is wrong: check both, or ask an admin for a new password") from exc
    if user is None or not user.is_active:
        raise UnauthenticatedError("this account is switched off: ask an admin")
    return user


def enter(database: Database, name: str, password: str, address: str, what: str = "logged in") -> User:
    """Return the account behind name and password, and note who came in, or who tried in vain. Raises UnauthenticatedError.

    A name that nobody has is not noted: people type passwords there.
    """
    try:
        user = log_in(database, name, password)
    except UnauthenticatedError as exc:
        with database.write() as tx:
            known = users.find_user(tx, name)
            who = operations.Actor(known.id if known else None, known.name if known else "", address)
            whose = "" if known else " (no such account)"
            operations.add_operation(tx, "login", f"a login failed{whose}: {str(exc).partition(':')[0]}", by=who)
        raise
    with database.write() as tx:
        operations.add_operation(tx, "login", what, by=operations.Actor(user.id, user.name, address))
    return user


def has_users(database: Database) -> bool:
    """Return whether any account exists (the first one is made without an admin)."""
    with database.read() as tx:
        return users.has_users(tx)


def list_people(database: Database) -> tuple[User, ...]:
    """Return all accounts by name."""
    with database.read() as tx:
        return users.list_users(tx)


def change_password(database: Database, user: User, old: str, new: str) -> User:
    """Set a new password and end all sessions of the account. Raises UnauthenticatedError, InvalidInputError."""
    try:
        log_in(database, user.name, old)
    except UnauthenticatedError as exc:
        raise UnauthenticatedError("the password of now is wrong: type the one that you log in with") from exc
    return set_password(database, user, new)


def set_password(database: Database, user: User, new: str) -> User:
    """Set a password without asking for the old one (an admin, the command line)."""
    password_hash = hash_password("", new)
    with database.write() as tx:
        users.change_user(tx, user.id, password_hash=password_hash, session_key=secrets.token_urlsafe(24))
        operations.add_operation(tx, "account", f"a new password for {user.name}")
        changed = users.find_user_by_id(tx, user.id)
    if changed is None:
        raise NotFoundError(f"no account is called {user.name!r}")
    return changed


def set_theme(database: Database, user: User, theme: str) -> None:
    """Keep the colours an account wants: light, dark, or '' = as the device has it."""
    with database.write() as tx:
        users.change_user(tx, user.id, theme=theme)


def set_locale(database: Database, user: User, locale: str) -> None:
    """Remember the language a person chose."""
    with database.write() as tx:
        users.change_user(tx, user.id, locale=locale)


def change_account(database: Database, name: str, is_active: bool | None = None, is_admin: bool | None = None) -> User:
    """Let an account in or lock it out, make it admin or not; None = as it is.

    Raises NotFoundError, ConflictError (the last admin).
    """
    with database.write() as tx:
        users.hold_first_user_lock(tx)
        user = users.find_user(tx, name)
        if user is None:
            raise NotFoundError(f"no account is called {name!r}")
        changed = msgspec.structs.replace(
            user,
            is_active=user.is_active if is_active is None else is_active,
            is_admin=user.is_admin if is_admin is None else is_admin,
        )
        is_lost = user.is_admin and user.is_active and not (changed.is_admin and changed.is_active)
        if is_lost and users.count_admins(tx) == 1:
            raise ConflictError(f"{name!r} is the last admin: make somebody else admin first")
        users.change_user(tx, user.id, is_active=changed.is_active, is_admin=changed.is_admin)
        words = f"{name} is {'an admin' if changed.is_admin else 'no admin'} and {'let in' if changed.is_active else 'locked out'}"
        operations.add_operation(tx, "account", words)
        return changed


def entry_of_session(database: Database, session_key: str, slug: str = "") -> Entry | None:
    """Return the active account whose sessions carry this key, at the project `slug`."""
    with database.read() as tx:
        entry = entries.find_by_session(tx, session_key, slug)
    return entry if entry is not None and entry.user.is_active else None


def entry_of_token(database: Database, token: str, slug: str = "") -> Entry | None:
    """Return the active account that owns an API token, at the project `slug`."""
    with database.read() as tx:
        entry = entries.find_by_token(tx, secret_hash(token), slug)
    return entry if entry is not None and entry.user.is_active else None


def make_token(database: Database, user: User, name: str) -> tuple[Token, str]:
    """Create an API token; the secret is returned once and never again."""
    if not 1 <= len(name) <= 64:
        raise InvalidInputError(f"token name {name[:80]!r} is not allowed: use 1 to 64 characters")
    secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
    with database.write() as tx:
        by = operations.Actor(user.id, user.name, operations.address_of(user.id))
        operations.add_operation(tx, "account", f"made an API token called {name}", by=by)
        return users.add_token(tx, user.id, name, secret_hash(secret), time.time()), secret


def names_of(database: Database, user_ids: Iterable[int]) -> dict[int, str]:
    """Return the names of accounts by number, also of those that are locked out."""
    with database.read() as tx:
        found = [users.find_user_by_id(tx, user_id) for user_id in user_ids]
    return {user.id: user.name for user in found if user is not None}


def list_tokens(database: Database, user: User) -> tuple[Token, ...]:
    """Return the API tokens of an account."""
    with database.read() as tx:
        return users.list_tokens(tx, user.id)


def drop_token(database: Database, user: User, token_id: int) -> None:
    """Revoke one API token. Raises NotFoundError."""
    with database.write() as tx:
        if not users.drop_token(tx, user.id, token_id):
            raise NotFoundError(f"you have no token number {token_id}")
        operations.add_operation(tx, "account", f"revoked API token {token_id}")


def secret_hash(secret: str) -> str:
    """Return what is kept of a token or a code: both are 256 random bits, so a plain hash is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()
