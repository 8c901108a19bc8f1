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
    """What an operator wrote of a source: its URL, for S3 the keys and the address of the store, and the projects (by their slug)
    whose owners may import from it, none = those of all."""

    url: str
    key: str = ""
    secret: str = ""
    endpoint: str = ""
    projects: tuple[str, ...] = ()


_FORM = "write url = '...' (for S3 also key, secret, endpoint; projects = ['slug'] to close it to others) as TOML"


def read_source(folder: str, name: str, project: str) -> SourceFile:
    """Return the source NAME.toml of the operator's folder, which nobody else may read, for a project's import.

    Raises InvalidInputError saying what is wrong, never what is in it; one that is closed to the project is not there.
    """
    if not folder:
        raise InvalidInputError("sources are closed: an operator names a folder in web.sources_dir")
    path, missing = Path(folder) / f"{name}.toml", f"source {name[:80]!r}: there is no such file in web.sources_dir"
    if posixpath.basename(name) != name or name.startswith(".") or not path.is_file():
        raise InvalidInputError(missing)
    if stat.S_IMODE(path.stat().st_mode) & 0o077 or path.stat().st_size > MOST_SECRET_BYTES:
        raise InvalidInputError(f"source {name!r}: others may read its file: chmod 600")
    try:
        told = tomllib.loads(path.read_text("utf-8"))
        if not isinstance(projects := told.pop("projects", []), list):
            raise TypeError("projects is no list")
        found = SourceFile(**{key: str(value) for key, value in told.items()}, projects=tuple(map(str, projects)))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError) as exc:
        raise InvalidInputError(f"source {name!r}: {_FORM}") from exc
    if found.projects and project not in found.projects:
        raise InvalidInputError(missing)
    return found
