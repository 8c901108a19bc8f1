"""Durable prediction jobs: `Preprocess/jobs/<id>/` with what is asked, what was answered and how often it was tried.

Owns the rule that a chunk's first result holds. Must never change a job. A job exists once its file `job` does; the items of
a big one lie in a file of their own, so that a worker reads its chunk alone. Called by the inference role.
"""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import msgspec

from datastore_layout import files
from datastore_layout.envelope import seal, unseal
from datastore_layout.root import TaskFolder
from labelloop.decoding import decode_msgpack
from labelloop.errors import ConflictError, IntegrityError, InvalidInputError, NotFoundError
from labelloop.ids import JobId, parse_item, parse_token
from labelloop.messages import ChunkResult, Item, Message

_WHERE = ("Preprocess", "jobs")
_INLINE_BYTES = 64 * 1024


class ChunkSpec(Message, frozen=True, kw_only=True):
    """What one chunk asks for: explicit items, or every row of one feature shard."""

    items: tuple[Item, ...] = ()
    shard: str = ""


class JobRecord(Message, frozen=True, kw_only=True):
    """A whole job; `version` is pinned at acceptance, '' = embed only. `encoder` names whose shards they are, '' = the task's."""

    job_id: str
    version: str
    chunks: tuple[ChunkSpec, ...]
    encoder: str = ""
    reason: str = ""


class JobHead(Message, frozen=True, kw_only=True):
    """A job without its items. `ends` and `crc32s` are the byte ends and checksums of the chunks in `chunks_file` or `inline`."""

    job_id: str
    version: str
    n_chunks: int
    n_items: int
    content: str
    ends: tuple[int, ...]
    crc32s: tuple[int, ...]
    encoder: str = ""
    reason: str = ""
    chunks_file: str = ""
    inline: bytes = b""


def create_job(folder: TaskFolder, record: JobRecord) -> bool:
    """Make a job durable; False when the id has its job already (pinned to whatever version it found then).

    Raises ConflictError when that job asks for other items, InvalidInputError on malformed ids, StorageFullError.
    """
    names = _names(record.job_id)
    for chunk in record.chunks:
        _check_chunk(chunk)
    blobs = [msgspec.msgpack.encode(chunk) for chunk in record.chunks]
    content = _content_of(record)
    where = folder.ready(*names)
    if _has_same_job(folder, record.job_id, content):
        return False
    data = b"".join(blobs)
    chunks_file = "" if len(data) <= _INLINE_BYTES else f"chunks-{hashlib.sha256(data).hexdigest()[:24]}"
    if chunks_file:
        files.publish_file(where / chunks_file, data)
    head = JobHead(
        job_id=record.job_id,
        version=record.version,
        n_chunks=len(blobs),
        n_items=sum(len(chunk.items) for chunk in record.chunks),
        content=content,
        ends=_ends(blobs),
        crc32s=tuple(zlib.crc32(blob) for blob in blobs),
        encoder=record.encoder,
        reason=record.reason,
        chunks_file=chunks_file,
        inline=b"" if chunks_file else data,
    )
    if files.create_exclusive(where / "job", *seal("job", head)):
        return True
    return not _has_same_job(folder, record.job_id, content)


def _has_same_job(folder: TaskFolder, job_id: str, content: str) -> bool:
    try:
        head = read_job_head(folder, job_id)
    except NotFoundError:
        return False
    if head.content != content:
        raise ConflictError(f"job {job_id!r} was created before for other items: use a new job id")
    return True


def _check_chunk(chunk: ChunkSpec) -> None:
    if bool(chunk.items) == bool(chunk.shard):
        raise InvalidInputError("a chunk names either items or one shard")
    if chunk.shard:
        parse_token(chunk.shard, "shard")
    for item in chunk.items:
        parse_item(item.item_id)


def _content_of(record: JobRecord) -> str:
    digest = hashlib.sha256()
    for chunk in record.chunks:
        digest.update(msgspec.msgpack.encode(chunk.shard) if chunk.shard else b"")
        for item in chunk.items:
            digest.update(msgspec.msgpack.encode((item.item_id, item.link)))
    return digest.hexdigest()


def _ends(blobs: list[bytes]) -> tuple[int, ...]:
    ends, at = [], 0
    for blob in blobs:
        at += len(blob)
        ends.append(at)
    return tuple(ends)


def read_job_head(folder: TaskFolder, job_id: str) -> JobHead:
    """Return a job without its items. Raises NotFoundError, IntegrityError."""
    path = folder.below(*_names(job_id), "job")
    return unseal("job", files.read_file(path), JobHead, path)


def read_chunk(folder: TaskFolder, job_id: str, chunk: int, head: JobHead | None = None) -> ChunkSpec:
    """Return one chunk, reading no more than its own bytes; `head` saves reading that again.

    Raises NotFoundError (no such job or chunk), IntegrityError.
    """
    head = head or read_job_head(folder, job_id)
    if not 0 <= chunk < head.n_chunks:
        raise NotFoundError(f"job {job_id!r} has chunks 0 to {head.n_chunks - 1}, not {chunk}")
    start, end = (head.ends[chunk - 1] if chunk else 0), head.ends[chunk]
    path = folder.below(*_names(job_id), head.chunks_file or "job")
    blob = _read_slice(path, start, end) if head.chunks_file else head.inline[start:end]
    return _decode_chunk(blob, head.crc32s[chunk], path)


def read_job(folder: TaskFolder, job_id: str) -> JobRecord:
    """Return a whole job with all items (see `read_job_head`, `read_chunk`). Raises NotFoundError, IntegrityError."""
    head = read_job_head(folder, job_id)
    path = folder.below(*_names(job_id), head.chunks_file or "job")
    data = files.read_file(path) if head.chunks_file else head.inline
    spans = zip((0, *head.ends), head.ends, head.crc32s, strict=False)
    chunks = tuple(_decode_chunk(data[start:end], crc, path) for start, end, crc in spans)
    return JobRecord(job_id=head.job_id, version=head.version, chunks=chunks, encoder=head.encoder, reason=head.reason)


def _read_slice(path: Path, start: int, end: int) -> bytes:
    with files.reading(path), path.open("rb") as file:
        file.seek(start)
        return file.read(end - start)


def _decode_chunk(blob: bytes, crc32: int, path: Path) -> ChunkSpec:
    if zlib.crc32(blob) != crc32:
        raise IntegrityError(f"{path} does not match its checksum: send the job again under a new id")
    return decode_msgpack(ChunkSpec, blob)


def list_jobs(folder: TaskFolder) -> tuple[JobId, ...]:
    """Return the ids of all jobs, sorted."""
    where = folder.below(*_WHERE)
    return tuple(JobId(name) for name in files.list_names(where) if files.exists(where / name / "job"))


def write_result(folder: TaskFolder, job_id: str, chunk: int, result: ChunkResult) -> bool:
    """Answer a chunk; False when it was answered before, which holds. Raises NotFoundError, StorageFullError."""
    where = _answering(folder, job_id, "results")
    if chunk < 0 or result.chunk != chunk:
        raise InvalidInputError(f"result of chunk {result.chunk} cannot answer chunk {chunk} of job {job_id!r}")
    return files.create_exclusive(where / str(int(chunk)), *seal("result", result))


def read_result(folder: TaskFolder, job_id: str, chunk: int) -> ChunkResult:
    """Return a chunk's answer. Raises NotFoundError while there is none, IntegrityError."""
    path = folder.below(*_names(job_id), "results", str(int(chunk)))
    return unseal("result", files.read_file(path), ChunkResult, path)


def done_chunks(folder: TaskFolder, job_id: str) -> frozenset[int]:
    """Return the chunks that are answered."""
    return frozenset(files.list_numbers(folder.below(*_names(job_id), "results")))


def record_attempt(folder: TaskFolder, job_id: str, chunk_key: str, n: int) -> bool:
    """Record, before the work, that try `n` >= 1 of a chunk (or a half of it, any token) begins; False = somebody has it.

    Survives the death of the worker, not a power cut. Raises NotFoundError, StorageFullError.
    """
    if n < 1:
        raise InvalidInputError(f"try {n} of chunk {chunk_key!r}: tries start at 1")
    where = _answering(folder, job_id, "attempts")
    return files.create_mark(where / f"{parse_token(chunk_key, 'chunk key')}@{int(n)}")


def attempts_of(folder: TaskFolder, job_id: str, chunk_key: str) -> int:
    """Return how many tries of a chunk began, numbered 1, 2, ... without a gap."""
    where = folder.below(*_names(job_id), "attempts")
    n = 0
    while files.exists(where / f"{parse_token(chunk_key, 'chunk key')}@{n + 1}"):
        n += 1
    return n


def _answering(folder: TaskFolder, job_id: str, kind: str) -> Path:
    names = _names(job_id)
    if not files.exists(folder.below(*names, "job")):
        raise NotFoundError(f"job {job_id!r} of task {folder.task!r} does not exist (or was collected)")
    return folder.ready(*names, kind)


def _names(job_id: str) -> tuple[str, ...]:
    return (*_WHERE, parse_token(job_id, "job id"))
