"""Whether a mount honours the four habits, tried out in a scratch folder of the datastore itself.

Owns the trials. Must never touch a task. Called by `doctor` and by roles at start.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path

from datastore_layout import files
from datastore_layout.root import Root
from labelloop.errors import LabelloopError


def check_habits(root: Root) -> tuple[str, ...]:
    """Return what the mount below `root` does wrong, one sentence each; empty = it can be used.

    Raises NotReadyError or ConflictError when the root is not ours.
    """
    root.check()
    scratch = files.beside_name(root.path)
    trials: tuple[tuple[str, Callable[[Path], str]], ...] = (
        ("publish", _try_publish),
        ("exclusive create", _try_exclusive),
        ("mkdir", _try_mkdir),
        ("rename of a folder", _try_rename_dir),
        ("fsync", _try_fsync),
        ("mapping", _try_mapping),
    )
    problems = []
    try:
        files.claim_dir(scratch)
        for name, trial in trials:
            try:
                problem = trial(scratch)
            except (LabelloopError, OSError) as exc:
                problem = str(exc)
            if problem:
                problems.append(f"{name}: {problem}")
    except LabelloopError as exc:
        problems.append(f"scratch folder: {exc}")
    finally:
        files.discard_tree(scratch)
    return tuple(problems)


def _try_publish(scratch: Path) -> str:
    path = scratch / "published"
    files.publish_file(path, b"first")
    files.publish_file(path, b"second")
    left = files.list_all_names(scratch)
    if files.read_file(path) != b"second" or left != ["published"]:
        return f"rename over a file left {left} and not its new content"
    return ""


def _try_exclusive(scratch: Path) -> str:
    path = scratch / "exclusive"
    if not files.create_exclusive(path, b"winner"):
        return "a free name was reported as taken"
    if files.create_exclusive_unseen(path, b"loser") or files.read_file(path) != b"winner":
        return "a taken name was given a second time: two nodes would both win"
    mark = scratch / "mark"
    return "" if files.create_mark(mark) and not files.create_mark(mark) else "O_EXCL gave a taken name a second time"


def _try_mkdir(scratch: Path) -> str:
    path = scratch / "claimed"
    return "" if files.claim_dir(path) and not files.claim_dir(path) else "mkdir gave a taken name a second time"


def _try_rename_dir(scratch: Path) -> str:
    target = scratch / "model"
    for content in (b"first", b"second"):
        source = files.beside_name(scratch)
        files.claim_dir(source)
        files.write_new(source / "weights", [content])
        files.publish_dir(source, target)
    if files.read_file(target / "weights") != b"first" or files.list_all_names(target) != ["weights"]:
        return "a finished folder was replaced or filled by another one of its name"
    return ""


def _try_fsync(scratch: Path) -> str:
    fd = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as exc:
        return f"a folder cannot be brought to disk ({exc.strerror}): a power cut may lose the newest names"
    finally:
        os.close(fd)
    return ""


def _try_mapping(scratch: Path) -> str:
    path = scratch / "mapped"
    files.publish_file(path, b"x" * 8192)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return "" if mapped[:] == b"x" * 8192 else "a mapped file reads differently"
