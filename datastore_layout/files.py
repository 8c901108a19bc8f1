"""The four habits by which this project touches a network file system, and the one seam to the operating system.

Owns every write below the datastore: publish by writing beside, fsync, rename; exclusive create as the one compare-and-set;
append by new immutable files; removal by hiding first. Must never lock a file, grow one in place, or leave a visible name
whose content is not complete and on disk. Called by every module of this room, by nobody else.

Names that begin with '.' are work in progress or rubbish: no reader sees them, `collect` removes them once they are old.

Exclusive create is `link(2)` of a complete file. A mount without hard links gets a folder of that name holding the file
`content`, renamed into place complete: rename onto a folder that is not empty fails, so one writer wins there too.
`habits.check_habits` proves whichever of the two the mount needs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

from datastore_layout import ops
from datastore_layout.ops import Buffer as Buffer
from datastore_layout.ops import reading as reading
from datastore_layout.ops import renamed, writing
from labelloop.errors import NotFoundError, NotReadyError

BESIDE = ".beside-"
RUBBISH = ".rubbish-"
CONTENT = "content"

_BLOCK = 2**20
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EACCES})


# ---------------------------------------------------------------- reading


def read_file(path: Path) -> bytes:
    """Return the content of a published file.

    Raises NotFoundError for a missing or an empty file: we publish none of 0 bytes, so a lagging mount shows it half.
    """
    with reading(path):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if stat.S_ISDIR(os.fstat(fd).st_mode):  # made by `_take_name_by_folder`
                data = (path / CONTENT).read_bytes()
            else:
                data = _read_all(fd)
        finally:
            os.close(fd)
    if not data:
        raise NotFoundError(f"{path} is not complete yet")
    return data


def _read_all(fd: int) -> bytes:
    blocks = []
    while block := os.read(fd, _BLOCK):
        blocks.append(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def exists(path: Path) -> bool:
    """Return whether `path` is there; a mount that is dead says neither yes nor no: it raises UnreachableError."""
    with reading(path):
        return path.exists()


def list_names(path: Path) -> list[str]:
    """Return the visible names in a folder, sorted; none when it does not exist."""
    try:
        return sorted(name for name in os.listdir(path) if not name.startswith("."))  # noqa: PTH208 - names, not paths
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        raise renamed(exc, path, NotFoundError) from exc


def list_all_names(path: Path) -> list[str]:
    """Return every name in a folder, hidden ones too; none when it does not exist. For `collect` alone."""
    try:
        return sorted(os.listdir(path))  # noqa: PTH208 - names, not paths
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        raise renamed(exc, path, NotFoundError) from exc


def list_numbers(path: Path, prefix: str = "") -> list[int]:
    """Return the numbers n of the visible names `<prefix><n>`, rising."""
    digits = (name.removeprefix(prefix) for name in list_names(path) if name.startswith(prefix))
    return sorted(int(text) for text in digits if text.isascii() and text.isdigit() and text == str(int(text)))


def modified_s(path: Path) -> float | None:
    """Return the file system's own time of the last change of `path`, seconds; None when it is gone."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise renamed(exc, path, NotFoundError) from exc


def clock_s(folder: Path) -> float:
    """Return the file system's own time, seconds, as it stamps a fresh file in `folder`.

    Ages of files are judged against it, so that the clocks of two machines are never compared.
    """
    with writing(folder):
        probe = beside_name(folder)
        ops.active.close(ops.active.create(probe))
        now = probe.lstat().st_mtime
        ops.active.unlink(probe)
        return now


# ---------------------------------------------------------------- writing


def _discard(path: Path) -> None:
    with contextlib.suppress(OSError):
        ops.active.unlink(path)


def _fill(path: Path, parts: Iterable[Buffer], is_synced: bool = True) -> None:
    fd = ops.active.create(path)
    try:
        try:
            for part in parts:
                ops.active.write(fd, part)
            if is_synced:
                ops.active.fsync(fd)
        finally:
            ops.active.close(fd)
    except OSError:
        _discard(path)
        raise


def beside_name(folder: Path) -> Path:
    """Return a fresh hidden name in `folder`."""
    return folder / f"{BESIDE}{secrets.token_hex(8)}"


def publish_file(path: Path, *parts: Buffer) -> None:
    """Make `parts`, joined, the content of `path`, replacing what was there: complete and on disk, or not visible at all.

    Raises StorageFullError, UnreachableError, NotReadyError.
    """
    with writing(path):
        beside = beside_name(path.parent)
        _fill(beside, parts)
        try:
            ops.active.rename(beside, path)
        except OSError:
            _discard(beside)
            raise
        ops.active.fsync_dir(path.parent)


def create_exclusive(path: Path, *parts: Buffer) -> bool:
    """Create `path` with `parts`, joined, unless the name is taken: the compare-and-set of this room.

    Returns True when this call created it, complete and on disk; False when somebody else had.
    Raises StorageFullError, UnreachableError, NotReadyError.
    """
    with writing(path):
        if os.path.lexists(path):
            return False
    return create_exclusive_unseen(path, *parts)


def create_exclusive_unseen(path: Path, *parts: Buffer) -> bool:
    """Do what `create_exclusive` does without the cheap look first, so that the mount itself has to refuse a taken name."""
    with writing(path):
        beside = beside_name(path.parent)
        _fill(beside, parts)
        try:
            is_mine = _take_name(beside, path)
        except OSError:
            _discard(beside)
            raise
        if is_mine:
            ops.active.fsync_dir(path.parent)
        return is_mine


def create_rebuildable(path: Path, *parts: Buffer) -> bool:
    """Do what `create_exclusive` does without bringing anything to disk: no process sees half of it, a power cut may leave half.

    Only for records that carry a checksum and can be computed again.
    """
    with writing(path):
        if os.path.lexists(path):
            return False
        beside = beside_name(path.parent)
        _fill(beside, parts, is_synced=False)
        try:
            return _take_name(beside, path)
        except OSError:
            _discard(beside)
            raise


def _take_name(beside: Path, path: Path) -> bool:
    try:
        ops.active.link(beside, path)
        is_mine = True
    except FileExistsError:
        is_mine = _is_same_file(beside, path)  # an answer lost on the network makes link(2) repeat itself
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
        return _take_name_by_folder(beside, path)
    ops.active.unlink(beside)
    return is_mine


def _is_same_file(beside: Path, path: Path) -> bool:
    mine, theirs = beside.lstat(), path.lstat()
    return mine.st_nlink > 1 and (mine.st_dev, mine.st_ino) == (theirs.st_dev, theirs.st_ino)


def _take_name_by_folder(beside: Path, path: Path) -> bool:
    wrapped = beside_name(path.parent)
    ops.active.mkdir(wrapped)
    ops.active.rename(beside, wrapped / CONTENT)
    ops.active.fsync_dir(wrapped)
    return _rename_exclusive(wrapped, path)


def _rename_exclusive(source: Path, target: Path) -> bool:
    try:
        ops.active.rename(source, target)
    except OSError as exc:
        if exc.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        remove_tree(source)
        return False
    return True


def create_mark(path: Path) -> bool:
    """Create the empty file `path` unless it is there; False when it is. Its name is all it says; not brought to disk.

    For leases and attempt counts, which a power cut may forget.
    """
    with writing(path):
        try:
            ops.active.close(ops.active.create(path))
        except FileExistsError:
            return False
        return True


def claim_dir(path: Path) -> bool:
    """Create the folder `path`; False when somebody else had (mkdir as compare-and-set)."""
    with writing(path):
        try:
            ops.active.mkdir(path)
        except FileExistsError:
            return False
        ops.active.fsync_dir(path.parent)
        return True


def publish_dir(source: Path, target: Path) -> bool:
    """Give the finished folder `source` (same file system) the name `target`; False and `source` removed when it is taken.

    Brings every file and folder below `source` to disk first. Two different folders never race for one name in this room
    (names carry a hash of the content, or lie in a folder with one writer).
    """
    with writing(target):
        for folder, _, names in os.walk(source):
            for name in names:
                fd = os.open(Path(folder) / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    ops.active.fsync(fd)
                finally:
                    os.close(fd)
            ops.active.fsync_dir(Path(folder))
        is_mine = _rename_exclusive(source, target)
        ops.active.fsync_dir(target.parent)
        return is_mine


def write_new(path: Path, parts: Iterable[Buffer]) -> None:
    """Write a file, piece by piece, into a folder that is not visible yet (see `publish_dir`)."""
    with writing(path):
        _fill(path, parts)


def ensure_dir(base: Path, path: Path) -> Path:
    """Create the folders from `base` (which must exist) down to `path` where they are missing; return `path`."""
    with writing(path):
        if path.is_dir():
            return path
        missing = [path, *path.parents]
        for folder in reversed(missing[: missing.index(base)]):
            try:
                ops.active.mkdir(folder)
            except FileExistsError:
                continue
            ops.active.fsync_dir(folder.parent)
    return path


# ---------------------------------------------------------------- removing


def remove_file(path: Path) -> bool:
    """Remove a file; False when it is gone already."""
    with writing(path):
        try:
            ops.active.unlink(path)
        except FileNotFoundError:
            return False
        except (IsADirectoryError, PermissionError):
            if not path.is_dir():
                raise
            remove_tree(path)
        return True


def remove_dir(path: Path) -> bool:
    """Hide the folder `path` under another name, so that no reader sees half of it, then remove it; False when it is gone."""
    with writing(path):
        hidden = path.parent / f"{RUBBISH}{secrets.token_hex(8)}"
        try:
            ops.active.rename(path, hidden)
        except FileNotFoundError:
            return False
        remove_tree(hidden)
        return True


def remove_hidden(path: Path) -> None:
    """Remove a hidden file, or a hidden folder with all below it."""
    with writing(path):
        if is_real_dir(path):
            remove_tree(path)
        else:
            with contextlib.suppress(FileNotFoundError):
                ops.active.unlink(path)


def hide_dir(path: Path, hidden: Path) -> bool:
    """Give the folder `path` the hidden name `hidden`, its time of change being now; False when it is gone."""
    with writing(path):
        try:
            clock_s(path)
            ops.active.rename(path, hidden)
        except (FileNotFoundError, NotReadyError):
            if path.exists():
                raise
            return False
        return True


def discard_tree(path: Path) -> None:
    """Remove a folder of ours that never became visible, as far as that works."""
    with contextlib.suppress(OSError):
        remove_tree(path)


def remove_tree(path: Path) -> None:
    """Remove a folder and all below it, following no link; what is gone already is fine. Raises OSError."""
    try:
        entries = list(os.scandir(path))
    except FileNotFoundError:
        return
    for entry in entries:
        with contextlib.suppress(FileNotFoundError):
            if entry.is_dir(follow_symlinks=False):
                remove_tree(Path(entry.path))
            else:
                ops.active.unlink(Path(entry.path))
    with contextlib.suppress(FileNotFoundError):
        ops.active.rmdir(path)


def is_real_dir(path: Path) -> bool:
    """Return whether `path` is a folder and no symbolic link."""
    with reading(path):
        try:
            return stat.S_ISDIR(path.lstat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
