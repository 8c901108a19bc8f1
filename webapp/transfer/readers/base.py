"""What all readers share: a row read with the place behind it, lines of a file with byte offsets, the reason of a refused row.

Must never know a format. Called by the readers beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

from labelloop.errors import LabelloopError
from webapp.db.imports import ImportJob, RowError
from webapp.db.items import NewItem
from webapp.db.projects import Project
from webapp.media import MediaStore
from webapp.transfer.pictures import Size

MOST_LINE_BYTES = 8 * 2**20


class Found(NamedTuple):
    """An item that a file told, with its picture's size where the format says it."""

    item: NewItem
    size: Size | None = None


class Read(NamedTuple):
    """One row read: the item or why not, where the next row begins, and how many rows (in CSV: lines) came so far.

    `size` is its picture's. `total` is what the places run up to, where only the reader can tell (0 = it was told when the file
    came)."""

    row: NewItem | RowError
    offset: int
    line: int
    size: Size | None = None
    total: int = 0


class Reach(NamedTuple):
    """How far an import may reach beyond the uploaded file, as an operator's settings say.

    `allowed_folders` on the server; `sources_dir` has files with the secrets of SQL and S3 sources ('' = none); `allowed_hosts` are
    'host:port' of private addresses that may be reached all the same.
    """

    allowed_folders: tuple[str, ...] = ()
    sources_dir: str = ""
    allowed_hosts: tuple[str, ...] = ()


class Source(NamedTuple):
    """What a reader reads from."""

    job: ImportJob
    project: Project
    media: MediaStore
    max_item_bytes: int
    reach: Reach = Reach()


def attempt(line: int, name: str, offset: int, make: Callable[..., NewItem | Found], *given: Any) -> Read:
    """Return what `make` makes of a row, or the row's error."""
    try:
        made = make(*given)
    except LabelloopError as exc:
        return refused(line, name, offset, str(exc))
    found = made if isinstance(made, Found) else Found(made)
    return Read(found.item, offset, line, found.size)


def refused(line: int, name: str, offset: int, reason: str) -> Read:
    """Return a row that is not taken."""
    return Read(RowError(line, shown(name), shown(reason, 1000)), offset, line)


def shown(text: str, most: int = 200) -> str:
    """Return text that any database stores: no broken characters, no NUL, not too long."""
    return text[:most].encode("utf-8", "replace").decode().replace("\0", "?")


class Lines:
    """Lines of a file as text, with the byte offset behind the last one handed out and `n`, how many came; a byte that is no UTF-8
    becomes a surrogate."""

    def __init__(self, file: IO[bytes], offset: int, n: int = 0) -> None:
        file.seek(offset)
        self._file = file
        self.offset = offset
        self.n = n

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = self._file.readline(MOST_LINE_BYTES)
        if not raw:
            raise StopIteration
        text = raw.decode("utf-8", "surrogateescape")
        if not self.offset:
            text = text.removeprefix("\ufeff")
        self.offset += len(raw)
        self.n += 1
        return text
