"""What a job's workers keep beside its results: cheap looks at what is answered, halves of a cornered chunk, the end.

Owns `Preprocess/jobs/<id>/pieces/` and the mark `finished`. Must never decide what a half is. Called by the inference role.
"""

from __future__ import annotations

from datastore_layout import files
from datastore_layout.envelope import seal, unseal
from datastore_layout.root import TaskFolder
from labelloop.errors import NotFoundError
from labelloop.ids import parse_token
from labelloop.messages import ChunkResult

_WHERE = ("Preprocess", "jobs")


def has_result(folder: TaskFolder, job_id: str, chunk: int) -> bool:
    """Return whether a chunk is answered: one look at one name."""
    return folder.below(*_WHERE, parse_token(job_id, "job id"), "results", str(int(chunk))).exists()


def result_size(folder: TaskFolder, job_id: str, chunk: int) -> int:
    """Return the bytes of a chunk's answer, so that a page of answers stays within a frame. Raises NotFoundError."""
    path = folder.below(*_WHERE, parse_token(job_id, "job id"), "results", str(int(chunk)))
    with files.reading(path):
        return path.stat().st_size


def write_piece(folder: TaskFolder, job_id: str, key: str, result: ChunkResult) -> bool:
    """Keep the answer of a part of a chunk; the first one stays. Raises StorageFullError."""
    where = folder.ready(*_WHERE, parse_token(job_id, "job id"), "pieces")
    return files.create_exclusive(where / parse_token(key, "piece"), *seal("piece", result))


def read_piece(folder: TaskFolder, job_id: str, key: str) -> ChunkResult | None:
    """Return the kept answer of a part, None while there is none. Raises IntegrityError."""
    path = folder.below(*_WHERE, parse_token(job_id, "job id"), "pieces", parse_token(key, "piece"))
    try:
        return unseal("piece", files.read_file(path), ChunkResult, path)
    except NotFoundError:
        return None


def mark_finished(folder: TaskFolder, job_id: str) -> bool:
    """Note that every chunk is answered, so that no sweep looks at the job again; a power cut may forget it."""
    return files.create_mark(folder.ready(*_WHERE, parse_token(job_id, "job id")) / "finished")


def is_finished(folder: TaskFolder, job_id: str) -> bool:
    """Return whether `mark_finished` was called."""
    return folder.below(*_WHERE, parse_token(job_id, "job id"), "finished").exists()
