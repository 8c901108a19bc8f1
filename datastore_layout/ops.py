"""The one seam to the operating system: every call that changes the file system, and the names of what goes wrong.

Owns `FileOps`, one method a call, so that tests can crash after any of them, and the renaming of OSErrors. Must never decide
anything. Called by `files` alone; `swapped_ops` by tests.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from labelloop.errors import IntegrityError, LabelloopError, NotFoundError, NotReadyError, StorageFullError, UnreachableError

Buffer: TypeAlias = bytes | bytearray | memoryview

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_GONE = frozenset({errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ECONNABORTED})
_NO_DIR_FSYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS})


class FileOps:
    """Every call that changes the file system, one method each; tests put in one that crashes after the k-th."""

    def create(self, path: Path) -> int:
        """Create `path` exclusively and return its descriptor."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def write(self, fd: int, data: Buffer) -> None:
        """Write all of `data`."""
        view = memoryview(data).cast("B")
        while view:
            view = view[os.write(fd, view) :]

    def fsync(self, fd: int) -> None:
        """Bring the content of an open file to disk."""
        os.fsync(fd)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def fsync_dir(self, path: Path) -> None:
        """Bring the names in a folder to disk, where the mount can."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as exc:
            if exc.errno not in _NO_DIR_FSYNC:
                raise
        finally:
            os.close(fd)

    def mkdir(self, path: Path) -> None:
        """Create one folder exclusively."""
        path.mkdir()

    def rename(self, source: Path, target: Path) -> None:
        """Move `source` over `target`."""
        source.rename(target)

    def link(self, source: Path, target: Path) -> None:
        """Give the file `source` the second name `target`, which must be free."""
        os.link(source, target, follow_symlinks=False)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def rmdir(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()


active = FileOps()


@contextlib.contextmanager
def swapped_ops(ops: FileOps) -> Iterator[FileOps]:
    """Use `ops` inside the block, in the whole process; for tests and `check_habits` only."""
    global active
    before, active = active, ops
    try:
        yield ops
    finally:
        active = before


def renamed(exc: OSError, path: Path, missing: type[LabelloopError]) -> LabelloopError:
    """Return the error of this project for `exc` at `path`; `missing` is the one for a path that is not there."""
    if exc.errno in _FULL:
        return StorageFullError(f"no room for {path}: free some space or raise the quota, then repeat; nothing was half written")
    if exc.errno in _GONE:
        return UnreachableError(f"the datastore does not answer at {path} ({exc.strerror}): check the mount")
    if exc.errno in (errno.ENOENT, errno.ENOTDIR):
        return missing(f"{path} does not exist")
    if exc.errno == errno.ELOOP:
        return IntegrityError(f"{path} is a symbolic link, which the datastore never holds: remove it")
    return NotReadyError(f"the datastore refuses {path} ({exc.strerror}): check its owner, mode and mount options")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Rename the OSErrors of a read: NotFoundError for what is not there, else as for writing."""
    try:
        yield
    except OSError as exc:
        raise renamed(exc, path, NotFoundError) from exc


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Rename the OSErrors of a write: StorageFullError, UnreachableError, NotReadyError or IntegrityError."""
    try:
        yield
    except OSError as exc:
        raise renamed(exc, path, NotReadyError) from exc
