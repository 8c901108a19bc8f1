"""The secrets of one RabbitMQ: its Erlang cookie, the passwords made of it, and its copy of the node's certificate and key.

Owns the cookie's two files: `cookie` in the node's state folder is the truth, `.erlang.cookie` in the broker's folder the copy
that Erlang reads. Passwords are HMACs under the cookie, so all members of a cluster know the same ones and none must travel or
be stored. Must never put a secret into argv, environment, log or error. Called by `rabbitmq`.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import pwd
import re
import secrets
import shutil
from pathlib import Path

from cluster.broker.rabbitmq_config import USER, Paths
from labelloop.errors import InvalidInputError, SettingsError
from labelloop.tls import Identity, write_file

_COOKIE = re.compile(r"[0-9a-f]{64}")
_IDENTITY_FILES = ("certificate.pem", "key.pem", "ca.pem")


def owner() -> tuple[int, int] | None:
    """Return (uid, gid) of the broker's user; None when this process is not root and runs the broker as itself.

    Raises SettingsError when the user is missing.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(USER)
    except KeyError as exc:
        raise SettingsError(f"there is no user {USER!r}: install rabbitmq-server (`./start.sh node` does)") from exc
    return entry.pw_uid, entry.pw_gid


def write_owned(path: Path, data: bytes, mode: int) -> None:
    """Put `data` at `path` for the broker's user alone, complete or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if (ids := owner()) is not None:
                os.fchown(file.fileno(), *ids)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def make_folder(path: Path, mode: int = 0o700) -> None:
    """Make a folder that belongs to the broker's user."""
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    if (ids := owner()) is not None and (path.stat().st_uid, path.stat().st_gid) != ids:
        os.chown(path, *ids)


class Cookie:
    """The cookie of one node. Not thread-safe: the broker's own lock guards it."""

    def __init__(self, state: Path, paths: Paths) -> None:
        self._truth = state / "cookie"
        self._copy = paths.cookie

    def read(self) -> str:
        """Return the cookie; '' while there is none."""
        try:
            return self._truth.read_text()
        except FileNotFoundError:
            return ""

    def ensure(self) -> bool:
        """Make both files agree and return whether the broker's copy changed.

        Without a truth, a cookie of our form is taken over from the broker's folder (the state folder was lost), and any other,
        such as the one of Debian's package, is replaced by a new one.
        """
        if not self.read():
            found = self._read_copy()
            self._write_truth(found if _COOKIE.fullmatch(found) else secrets.token_hex(32))
        if self._read_copy() == self.read():
            return False
        write_owned(self._copy, self.read().encode(), 0o400)
        return True

    def replace(self, cookie: str = "") -> None:
        """Take `cookie`, or a new one, as the node's own. Raises InvalidInputError without repeating it."""
        if cookie and not _COOKIE.fullmatch(cookie):
            raise InvalidInputError("the cookie of the invitation is not 64 hex digits: ask the inviting manager's log")
        self._write_truth(cookie or secrets.token_hex(32))
        self.ensure()

    def _write_truth(self, cookie: str) -> None:
        write_file(self._truth, cookie.encode(), 0o400)

    def _read_copy(self) -> str:
        try:
            return self._copy.read_text().strip()
        except FileNotFoundError:
            return ""


def password_of(cookie: str, account: str) -> str:
    """Return the password of a role's account, 64 hex digits; the cookie cannot be computed from it."""
    return hmac.new(cookie.encode(), f"account:{account}".encode(), hashlib.sha256).hexdigest()


def hash_of(cookie: str, cluster_id: str) -> str:
    """Return 16 hex digits by which two nodes compare cookies; '' without a cookie."""
    return hmac.new(cookie.encode(), cluster_id.encode(), hashlib.sha256).hexdigest()[:16] if cookie else ""


def copy_identity(identity: Identity, paths: Paths) -> bool:
    """Give the broker's user a copy of certificate, key and CA; return whether anything was new."""
    is_new = False
    sources = (identity.certificate_file, identity.key_file, identity.ca_file)
    for name, source in zip(_IDENTITY_FILES, sources, strict=True):
        data, target = source.read_bytes(), paths.mine / name
        if not target.exists() or target.read_bytes() != data:
            write_owned(target, data, 0o400)
            is_new = True
    return is_new


def wipe_database(paths: Paths, node: str) -> None:
    """Remove everything that the broker named `node` keeps on disk."""
    for path in paths.database.glob(f"{node}*"):
        if path.name != node and not path.name.startswith((f"{node}-", f"{node}.")):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
