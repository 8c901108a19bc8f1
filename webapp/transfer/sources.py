"""Sources that an operator wrote down: addresses with their secrets, each in a file of mode 0600.

Owns the files' form. Must never tell what is in one. Called by the readers of listings and of SQL tables.
"""

from __future__ import annotations

import posixpath
import stat
import tomllib
from pathlib import Path
from typing import NamedTuple

from labelloop.errors import InvalidInputError

MOST_SECRET_BYTES = 16 * 2**10


class SourceFile(NamedTuple):
    """What an operator wrote of a source: its URL, and for S3 the keys and the address of the store."""

    url: str
    key: str = ""
    secret: str = ""
    endpoint: str = ""


def read_source(folder: str, name: str) -> SourceFile:
    """Return the source NAME.toml of the operator's folder, which nobody else may read.

    Raises InvalidInputError saying what is wrong, never what is in it.
    """
    if not folder:
        raise InvalidInputError("sources are closed: an operator names a folder in web.sources_dir")
    path = Path(folder) / f"{name}.toml"
    if posixpath.basename(name) != name or name.startswith(".") or not path.is_file():
        raise InvalidInputError(f"source {name[:80]!r}: there is no such file in web.sources_dir")
    if stat.S_IMODE(path.stat().st_mode) & 0o077 or path.stat().st_size > MOST_SECRET_BYTES:
        raise InvalidInputError(f"source {name!r}: others may read its file: chmod 600")
    try:
        told = tomllib.loads(path.read_text("utf-8"))
        return SourceFile(**{key: str(value) for key, value in told.items()})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError) as exc:
        raise InvalidInputError(f"source {name!r}: write url = '...' (for S3 also key, secret, endpoint) as TOML") from exc
