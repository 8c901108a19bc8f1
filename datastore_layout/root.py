"""The root of the datastore and the folder of one task: the only two ways to a path.

Owns the marker `.labelloop-root` (one line: the cluster id) and the names of the folders of a task. Must never create a root by
itself where a mount is missing, nor hand out a path outside a task's folder. Called by every role at start and, through
`TaskFolder.ready`, before every write.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from datastore_layout.files import create_exclusive, ensure_dir, is_real_dir, list_names, read_file
from datastore_layout.ops import reading
from labelloop.errors import ConflictError, InvalidInputError, NotFoundError, NotReadyError
from labelloop.ids import TaskName, parse_task, parse_token

MARKER = ".labelloop-root"
T = TypeVar("T")


class Root:
    """An opened datastore. Immutable, so threads may share it."""

    def __init__(self, path: Path, cluster_id: str) -> None:
        self.path = path
        self.cluster_id = cluster_id

    def surely(self, call: Callable[[], T]) -> T:
        """Return what `call` returns; when it misses something, look whether the mount is there and call once more.

        A folder without its mount is empty: nothing that is missing there is missing for good. The second call is for a mount
        that came back in between. Raises NotReadyError, UnreachableError while it is away; what `call` raises otherwise.
        """
        try:
            return call()
        except NotFoundError:
            self.check()
        return call()

    def check(self) -> None:
        """Raise NotReadyError when the mount is not there, ConflictError when it is another cluster's. Costs one small read."""
        found = _read_marker(self.path)
        if found != self.cluster_id:
            raise ConflictError(f"datastore {self.path} belongs to cluster {found!r}, not {self.cluster_id!r}: check the mount")


def _read_marker(path: Path) -> str:
    try:
        return read_file(path / MARKER).decode("utf-8", "replace").strip()
    except NotFoundError as exc:
        raise NotReadyError(f"{path} has no {MARKER}: mount the datastore there, or create it with create_root") from exc


def create_root(path: Path, cluster_id: str) -> Root:
    """Make the existing or new folder `path` the datastore of `cluster_id`; repeating it is harmless.

    Raises ConflictError when it is another cluster's, InvalidInputError on a malformed id.
    """
    parse_token(cluster_id, "cluster id")
    path = Path(path).absolute()
    base = next(p for p in (path, *path.parents) if p.exists())
    ensure_dir(base, path)
    create_exclusive(path / MARKER, f"{cluster_id}\n".encode())
    return open_root(path, cluster_id)


def open_root(path: Path, cluster_id: str | None = None) -> Root:
    """Return the datastore at `path`, never creating it; `cluster_id` None = whatever its marker says.

    Raises NotReadyError when there is no marker (the mount is missing), ConflictError when it is another cluster's.
    """
    path = Path(path).absolute().resolve()
    root = Root(path, _read_marker(path) if cluster_id is None else cluster_id)
    root.check()
    return root


class TaskFolder:
    """The folder of one task. `path` may not exist before the first write. Immutable, so threads may share it."""

    def __init__(self, root: Root, task: TaskName) -> None:
        self.root = root
        self.task = task
        self.path = root.path / task

    def below(self, *names: str) -> Path:
        """Return a path below the task; `names` are this room's own constants or tokens that were validated."""
        return self.path.joinpath(*names)

    def ready(self, *names: str) -> Path:
        """Return the folder `names` below the task for a write, creating it; checks the root first.

        Raises NotReadyError, ConflictError (see `Root.check`), StorageFullError.
        """
        self.root.check()
        return ensure_dir(self.root.path, self.below(*names))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskFolder) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)

    def __repr__(self) -> str:
        return f"TaskFolder({str(self.path)!r})"


def task_folder(root: Root, task: str) -> TaskFolder:
    """Return the folder of `task`, which need not exist yet.

    Raises InvalidInputError when the name is malformed, or when it or a folder in it is a symbolic link to elsewhere,
    UnreachableError when the mount is dead.
    """
    folder = TaskFolder(root, parse_task(task))
    for path in (folder.path, *_standard_folders(folder.path)):
        with reading(path):
            is_inside = not path.is_symlink() and path.resolve().is_relative_to(folder.path)
        if not is_inside:
            raise InvalidInputError(f"{path} leads out of the folder of task {task!r}: remove the symbolic link")
    return folder


def _standard_folders(path: Path) -> list[Path]:
    tops = [path / name for name in ("Inference", "Preprocess", "Snapshot")]
    inner = [path / "Inference" / name for name in ("current", "verdicts")]
    inner += [path / "Preprocess" / name for name in ("spec", "intake", "labels", "shards", "jobs")]
    return tops + inner


def list_tasks(root: Root) -> tuple[TaskName, ...]:
    """Return the tasks that have a saved spec, sorted; what is not a task's folder is left out."""
    root.check()
    found: list[TaskName] = []
    for name in list_names(root.path):
        try:
            task = parse_task(name)
        except InvalidInputError:
            continue
        if is_real_dir(root.path / name) and list_names(root.path / name / "Preprocess" / "spec"):
            found.append(task)
    return tuple(found)
