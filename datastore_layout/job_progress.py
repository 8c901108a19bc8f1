"""What a job's workers keep beside its results: a desk for many chunks at once, halves of a cornered chunk, the end.

Owns `Preprocess/jobs/<id>/pieces/`, the mark `finished`, and `JobDesk`, which writes results and attempts as `jobs` does but looks
at the root and lists the folders once instead of once a chunk. Must never decide what a half is. Called by the inference role.
"""

from __future__ import annotations

from datastore_layout import files
from datastore_layout.envelope import seal, unseal
from datastore_layout.root import TaskFolder
from labelloop.errors import InvalidInputError, NotFoundError
from labelloop.ids import parse_token
from labelloop.messages import ChunkResult

_WHERE = ("Preprocess", "jobs")


def has_result(folder: TaskFolder, job_id: str, chunk: int) -> bool:
    """Return whether a chunk is answered: one look at one name."""
    return files.exists(folder.below(*_names(job_id), "results", str(int(chunk))))


def result_size(folder: TaskFolder, job_id: str, chunk: int) -> int:
    """Return the bytes of a chunk's answer, so that a page of answers stays within a frame. Raises NotFoundError."""
    path = folder.below(*_names(job_id), "results", str(int(chunk)))
    with files.reading(path):
        return path.stat().st_size


def discard_result(folder: TaskFolder, job_id: str, chunk: int) -> bool:
    """Remove an answer that cannot be read, so that its chunk is open again; False when it is gone."""
    return files.remove_file(folder.below(*_names(job_id), "results", str(int(chunk))))


def mark_finished(folder: TaskFolder, job_id: str) -> bool:
    """Note that every chunk is answered, so that no sweep looks at the job again; a power cut may forget it."""
    return files.create_mark(folder.ready(*_names(job_id)) / "finished")


def is_finished(folder: TaskFolder, job_id: str) -> bool:
    """Return whether `mark_finished` was called."""
    return files.exists(folder.below(*_names(job_id), "finished"))


class JobDesk:
    """One job as a worker sees it while it answers some of its chunks; opened anew for each order, used by one worker."""

    def __init__(self, folder: TaskFolder, job_id: str) -> None:
        """Check the root and list what is done and tried. Raises NotFoundError for a job that is gone, NotReadyError."""
        base = folder.below(*_names(job_id))
        if not files.exists(base / "job"):
            raise NotFoundError(f"job {job_id!r} of task {folder.task!r} does not exist (or was collected)")
        self.job_id = job_id
        self._results = folder.ready(*_names(job_id), "results")
        self._attempts = files.ensure_dir(base, base / "attempts")
        self._pieces = base / "pieces"
        self._base = base
        self._done = set(files.list_names(self._results))
        self._tried = set(files.list_names(self._attempts))

    def is_done(self, chunk: int) -> bool:
        """Return whether a chunk was answered when the desk was opened, or since then here."""
        return str(chunk) in self._done

    def write_result(self, result: ChunkResult) -> bool:
        """Answer a chunk; False when it was answered before, which holds. Raises StorageFullError.

        Complete in the eyes of every process, but not brought to disk: a result can be computed again, and its checksum tells
        one that a power cut tore (see `discard_result`). Measured: the fsync took half of a rescoring.
        """
        name = str(int(result.chunk))
        self._done.add(name)
        return files.create_rebuildable(self._results / name, *seal("result", result))

    def attempts_of(self, key: str) -> int:
        """Return how many tries of `key` began before the desk was opened, or since then here."""
        n = 0
        while f"{key}@{n + 1}" in self._tried:
            n += 1
        return n

    def record_attempt(self, key: str) -> int:
        """Mark, before the work, that the next try of `key` begins; returns its number, higher when others try it too."""
        parse_token(key, "chunk key")
        n = self.attempts_of(key) + 1
        while not files.create_mark(self._attempts / f"{key}@{n}"):
            n += 1
        self._tried.update(f"{key}@{i}" for i in range(1, n + 1))
        return n

    def write_piece(self, key: str, result: ChunkResult) -> bool:
        """Keep the answer of a part of a chunk; the first one stays. Raises StorageFullError."""
        if not key:
            raise InvalidInputError("a piece needs a name")
        files.ensure_dir(self._base, self._pieces)
        return files.create_exclusive(self._pieces / parse_token(key, "piece"), *seal("piece", result))

    def read_piece(self, key: str) -> ChunkResult | None:
        """Return the kept answer of a part, None while there is none. Raises IntegrityError."""
        path = self._pieces / parse_token(key, "piece")
        try:
            return unseal("piece", files.read_file(path), ChunkResult, path)
        except NotFoundError:
            return None


def _names(job_id: str) -> tuple[str, ...]:
    return (*_WHERE, parse_token(job_id, "job id"))
