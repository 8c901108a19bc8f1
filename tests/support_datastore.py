"""Stand-ins for the operating system that crash, lose power or run out of room after the k-th operation, and small data.

`CrashOps` is dead after its crash: whatever still calls it crashes again, as no `finally` of a killed process runs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from datastore_layout.labels import LabelRow
from datastore_layout.models import Manifest, publish_model
from datastore_layout.ops import Buffer, FileOps, swapped_ops
from datastore_layout.root import TaskFolder, create_root, task_folder
from datastore_layout.runs import RunSpec
from labelloop.messages import Array, ChunkResult, Item, Sample, SubmitRequest, TaskExtraInfo, TaskSpec


class SimulatedCrash(BaseException):
    """The process is gone; not an Exception, so nothing may catch it."""


class CrashOps(FileOps):
    """Does `k` steps (a write is two: half of it, then the rest), then crashes. `steps` counts them."""

    def __init__(self, k: int | None) -> None:
        self.k = k
        self.steps = 0
        self._undo: list[tuple[Path, Callable[[], object]]] = []
        self._unsynced: dict[int, Path] = {}

    def _step(self) -> None:
        if self.k is not None and self.steps >= self.k:
            raise SimulatedCrash
        self.steps += 1

    def create(self, path: Path) -> int:
        self._step()
        fd = super().create(path)
        self._undo.append((path.parent, path.unlink))
        self._unsynced[os.fstat(fd).st_ino] = path
        return fd

    def write(self, fd: int, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        self._step()
        super().write(fd, view[: len(view) // 2])
        self._step()
        super().write(fd, view[len(view) // 2 :])

    def fsync(self, fd: int) -> None:
        self._step()
        self._unsynced.pop(os.fstat(fd).st_ino, None)

    def close(self, fd: int) -> None:
        super().close(fd)

    def fsync_dir(self, path: Path) -> None:
        self._step()
        self._undo = [(folder, undo) for folder, undo in self._undo if folder != path]

    def mkdir(self, path: Path) -> None:
        self._step()
        super().mkdir(path)
        self._undo.append((path.parent, lambda: shutil.rmtree(path)))

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        before = target.read_bytes() if target.is_file() else None
        super().rename(source, target)

        def undo() -> None:
            target.rename(source)
            if before is not None:
                target.write_bytes(before)

        self._undo.append((target.parent, undo))

    def link(self, source: Path, target: Path) -> None:
        self._step()
        super().link(source, target)
        self._undo.append((target.parent, target.unlink))

    def unlink(self, path: Path) -> None:
        self._step()
        super().unlink(path)

    def rmdir(self, path: Path) -> None:
        self._step()
        super().rmdir(path)

    def lose_power(self, chance: random.Random) -> None:
        """Lose what was not brought to disk: unsynced content is cut in half, and names not brought to disk may vanish."""
        paths = [p for p in self._all_files() if p.stat().st_ino in self._unsynced]
        for path in paths:
            os.truncate(path, path.stat().st_size // 2)
        loses_all = chance.random() < 0.5
        for _, undo in reversed(self._undo):
            if loses_all or chance.random() < 0.5:
                with contextlib.suppress(OSError):
                    undo()

    def _all_files(self) -> Iterable[Path]:
        folders = {folder for folder, _ in self._undo} | {path.parent for path in self._unsynced.values()}
        return {path for folder in folders if folder.exists() for path in folder.rglob("*") if path.is_file()}


class FullOps(FileOps):
    """Has no room from the k-th operation on that needs room; `calls` counts those."""

    def __init__(self, k: int | None, code: int = errno.ENOSPC) -> None:
        self.k = k
        self.code = code
        self.calls = 0

    def _take_room(self) -> None:
        self.calls += 1
        if self.k is not None and self.calls > self.k:
            raise OSError(self.code, os.strerror(self.code))

    def create(self, path: Path) -> int:
        self._take_room()
        return super().create(path)

    def write(self, fd: int, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        super().write(fd, view[: len(view) // 2])
        self._take_room()
        super().write(fd, view[len(view) // 2 :])

    def fsync(self, fd: int) -> None:
        self._take_room()

    def fsync_dir(self, path: Path) -> None:
        self._take_room()

    def mkdir(self, path: Path) -> None:
        self._take_room()
        super().mkdir(path)

    def rename(self, source: Path, target: Path) -> None:
        self._take_room()
        super().rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        self._take_room()
        super().link(source, target)


class LinklessOps(CrashOps):
    """A mount without hard links."""

    def link(self, source: Path, target: Path) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))


class QuickOps(FileOps):
    """The real thing without waiting for the disk, for tests with thousands of writes."""

    def fsync(self, fd: int) -> None: ...

    def fsync_dir(self, path: Path) -> None: ...


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk() -> Iterator[None]:
    """Import this into a test module: its tests do not fsync unless they put in other operations."""
    with swapped_ops(QuickOps()):
        yield


def new_folder(path: Path, task: str = "digits") -> TaskFolder:
    return task_folder(create_root(path / "datastore", "cluster-1"), task)


def spec_of(task: str = "digits", revision: int = 1, **extra: object) -> TaskSpec:
    info = TaskExtraInfo(labels=("cat", "dog"), **extra)  # type: ignore[arg-type]
    return TaskSpec(task=task, category="image-classification", extra=info, revision=revision)


def sample_of(item: str, revision: int = 1, label: str = "cat") -> Sample:
    return Sample(item_id=item, link=f"http://host/{item}", labels=(label,), revision=revision)


def batch_of(batch: str, *samples: Sample, task: str = "digits") -> SubmitRequest:
    return SubmitRequest(task=task, batch_id=batch, samples=samples or (sample_of("i1"),))


def row_of(item: str, revision: int = 1, label: str = "cat", **fields: object) -> LabelRow:
    return LabelRow(item, revision, f"http://host/{item}", (label,), **fields)  # type: ignore[arg-type]


def items_of(*names: str) -> tuple[Item, ...]:
    return tuple(Item(item_id=name, link=f"http://host/{name}") for name in names)


def features_of(n: int, dim: int = 16, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, dim), np.float32)


def shard_args(
    prefix: str, n: int, dim: int = 16, seed: int = 0
) -> tuple[list[str], list[str], list[str], npt.NDArray[np.float32]]:
    """Arguments of `ShardSet.write` for items `<prefix><i>` behind `http://<prefix><i>` with content `hash-<prefix><i>`."""
    ids = [f"{prefix}{i}" for i in range(n)]
    return ids, [f"http://{i}" for i in ids], [f"hash-{i}" for i in ids], features_of(n, dim, seed)


def everything_below(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


SPEC = RunSpec(algorithm="a", encoder="e", parameters={"c": 1.0})


def manifest_of(**fields: object) -> Manifest:
    """Return a small model's manifest."""
    base = Manifest(task="digits", category="image-classification", labels=("cat",), algorithm="a", encoder="e")
    return msgspec.structs.replace(base, **fields)


def published(folder: TaskFolder, number: int, **fields: object) -> str:
    """Publish a model whose weights say `number`; return its version."""
    source = folder.root.path.parent / "source"
    source.mkdir(exist_ok=True)
    (source / "weights").write_bytes(b"w%d" % number)
    return publish_model(folder, manifest_of(created=f"2026-01-02T03:04:{number:02d}Z", **fields), source)


def result_of(chunk: int) -> ChunkResult:
    """Return a chunk's result of one item."""
    proba = Array(dtype="float32", shape=(1, 1), data=b"\0\0\0\0")
    return ChunkResult(chunk=chunk, shard="", version="v", item_ids=("i1",), n_items=1, proba=proba)
