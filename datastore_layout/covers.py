"""Which files a merged file replaces, until they are gone: the notes `_covers-<merged file>` beside it.

Owns the order of a compaction: note what the merged file will cover, publish it, and remove the old files only once every
reader has had `grace_s` to see it. A note whose merged file never came is dropped alone, and the old files are joined again by
a later call. Must never remove a file whose content is not readable elsewhere. Called by `compaction`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from datastore_layout.envelope import seal, unseal
from datastore_layout.files import clock_s, create_exclusive, exists, list_names, modified_s, read_file, remove_file
from labelloop.errors import NotFoundError
from labelloop.messages import Message

COVERS = "_covers-"


class Covers(Message, frozen=True, kw_only=True):
    """The files whose content lies in `merged` too."""

    merged: str
    names: tuple[str, ...]


def note_covered(where: Path, merged: str, names: Iterable[str]) -> None:
    """Note that `merged`, about to be published, replaces `names`. Raises StorageFullError."""
    create_exclusive(where / f"{COVERS}{merged}", *seal("covers", Covers(merged=merged, names=tuple(names)), is_text=True))


def covered_names(where: Path) -> frozenset[str]:
    """Return the files that are being replaced. Raises IntegrityError."""
    return frozenset(name for covers in _read_all(where) for name in covers.names)


def drop_covered(where: Path, grace_s: float, drop: Callable[[str], None]) -> int:
    """Call `drop` for each file that has been covered for `grace_s` by the file system's own clock; return how many.

    Raises IntegrityError, UnreachableError.
    """
    notes = _read_all(where)
    now = clock_s(where) if notes else 0.0
    ripe = [c for c in notes if _is_older(where / f"{COVERS}{c.merged}", now - grace_s)]
    is_readable = {covers.merged: exists(where / covers.merged) for covers in ripe}
    dropped = 0
    for covers in ripe:
        for name in covers.names if is_readable[covers.merged] else ():
            drop(name)
            dropped += 1
        remove_file(where / f"{COVERS}{covers.merged}")
    return dropped


def _is_older(path: Path, than_s: float) -> bool:
    when = modified_s(path)
    return when is not None and when <= than_s


def _read_all(where: Path) -> list[Covers]:
    found = []
    for name in list_names(where):
        if name.startswith(COVERS):
            try:
                found.append(unseal("covers", read_file(where / name), Covers, where / name))
            except NotFoundError:  # another compaction was faster
                continue
    return found
