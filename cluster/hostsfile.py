"""The block of names that the cluster keeps in a hosts file.

Owns the lines between its two marks and nothing else in the file. Must never rename over the file (/etc/hosts is
bind-mounted in a docker) and never touch a file that it was not given: on one machine that is a file in the manager's own
folder. Called by the manager: in `initial` and at each start.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path

from labelloop.errors import IntegrityError, StorageFullError

BEGIN = "# labelloop begin (kept by manager_rpc, do not edit)"
END = "# labelloop end"
_lock = threading.Lock()  # one executor: managers in one process, as in tests, take turns


def with_block(text: str, hosts: Iterable[tuple[str, str]]) -> str:
    """Return `text` with the block replaced by one line per (ip, hostname), or put first; pure. All other lines stay as they are.

    First, because a name means its first line: Debian gives a machine's own name to 127.0.1.1, where its broker is for nobody.
    """
    lines = text.splitlines(keepends=True)
    marks = [line.rstrip("\r\n") for line in lines]
    block = [f"{BEGIN}\n", *(f"{ip}\t{hostname}\n" for ip, hostname in hosts), f"{END}\n"]
    if BEGIN not in marks:
        return "".join([*block, *lines])
    first = marks.index(BEGIN)
    after = marks.index(END, first) + 1 if END in marks[first:] else first + 1  # a torn block: only its first mark is ours
    return "".join([*lines[:first], *block, *lines[after:]])


def read_block(path: Path) -> tuple[tuple[str, str], ...]:
    """Return the (ip, hostname) pairs of the block in `path`; none when there is no file or no block."""
    try:
        marks = path.read_text().splitlines()
    except FileNotFoundError:
        return ()
    if BEGIN not in marks or END not in marks[marks.index(BEGIN) :]:
        return ()
    first = marks.index(BEGIN)
    pairs = (line.split() for line in marks[first + 1 : marks.index(END, first)])
    return tuple((pair[0], pair[1]) for pair in pairs if len(pair) == 2)


def write_hosts(path: Path, hosts: Iterable[tuple[str, str]]) -> bool:
    """Put the block into `path` in place and read it back; return whether anything changed.

    Raises StorageFullError when it cannot be written, IntegrityError when it reads back otherwise.
    """
    with _lock:
        before = path.read_text() if path.exists() else ""
        after = with_block(before, hosts)
        if after == before:
            return False
        try:
            _write_in_place(path, after.encode())
        except OSError as exc:
            raise StorageFullError(f"cannot write {path}: {exc}") from exc
        if path.read_text() != after:
            raise IntegrityError(f"{path} reads back other than it was written: another program writes it too")
        return True


def _write_in_place(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    with os.fdopen(descriptor, "r+b") as file:
        file.write(data)  # the longer text first, the cut afterwards: a crash leaves old lines, never an empty file
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
