"""Models, pointers, runs and jobs; and a flipped byte in every kind of file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from datastore_layout.files import list_names
from datastore_layout.intake_files import read_intake, write_intake
from datastore_layout.jobs import (
    ChunkSpec,
    JobRecord,
    attempts_of,
    create_job,
    done_chunks,
    list_jobs,
    read_chunk,
    read_job,
    read_job_head,
    read_result,
    record_attempt,
    write_result,
)
from datastore_layout.labels import LabelLog, write_segment
from datastore_layout.models import (
    advance,
    current,
    list_versions,
    pointer_history,
    read_manifest,
    read_verdict,
    verified_model_dir,
    write_verdict,
)
from datastore_layout.runs import (
    Attempt,
    cancel_reason,
    claim_attempt,
    create_run,
    finish,
    latest_attempt,
    list_checkpoints,
    list_runs,
    newest_checkpoint,
    read_finish,
    read_run,
    read_run_metrics,
    request_cancel,
)
from datastore_layout.shards import ShardSet
from datastore_layout.tasks import read_spec, save_spec
from labelloop.errors import ConflictError, IntegrityError, InvalidInputError, NotFoundError
from tests.support_datastore import (
    SPEC,
    batch_of,
    items_of,
    new_folder,
    published,
    result_of,
    row_of,
    shard_args,
    spec_of,
    without_waiting_for_the_disk,  # noqa: F401
)

# ---------------------------------------------------------------- models


def test_a_model_is_published_with_its_hashes_and_read_back(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    version = published(folder, 1, metrics={"accuracy": 0.5})
    assert version.startswith("model-20260102T030401Z-")
    manifest = read_manifest(folder, version)
    assert manifest.version == version and manifest.metrics == {"accuracy": 0.5} and set(manifest.files) == {"weights"}
    assert (verified_model_dir(folder, version) / "weights").read_bytes() == b"w1"
    assert published(folder, 1, metrics={"accuracy": 0.5}) == version, "the same again is the same version"
    newer = published(folder, 2)
    assert list_versions(folder) == (version, newer)


def test_a_model_that_was_changed_is_refused_with_the_file_that_changed(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    changes: list[tuple[Callable[[Path], object], str]] = [
        (lambda p: (p / "weights").write_bytes(b"x1"), "weights does not match its SHA-256"),
        (lambda p: (p / "weights").unlink(), "differ in weights"),
        (lambda p: (p / "extra.pkl").write_bytes(b"x"), "differ in extra.pkl"),
        (
            lambda p: (p / "model.json").write_text((p / "model.json").read_text().replace('"cat"', '"dog"')),
            "hash in its folder's name",
        ),
        (lambda p: (p / "model.json").write_text("{"), "no manifest"),
    ]
    for number, (change, reason) in enumerate(changes):
        version = published(folder, number)
        change(folder.below("Inference", version))
        with pytest.raises(IntegrityError, match=reason):
            verified_model_dir(folder, version)


def test_a_folder_without_manifest_is_no_version(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    (folder.ready("Inference") / "model-20260102T030405Z-0123456789ab").mkdir()
    assert list_versions(folder) == ()
    with pytest.raises(NotFoundError):
        advance(folder, 0, "model-20260102T030405Z-0123456789ab", "")


def test_the_pointer_moves_by_compare_and_set(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    one, two = published(folder, 1), published(folder, 2)
    assert current(folder) is None
    assert advance(folder, 0, one, "first")
    assert not advance(folder, 0, two, "late"), "somebody else was faster"
    assert advance(folder, 1, two, "better") and advance(folder, 2, one, "rollback")
    assert not advance(folder, 1, two, "begun before the rollback")
    assert not advance(folder, 7, two, "from nowhere")
    pointer = current(folder)
    assert pointer is not None and (pointer.number, pointer.version, pointer.reason) == (3, one, "rollback")
    assert [p.version for p in pointer_history(folder)] == [one, two, one]
    with pytest.raises(NotFoundError):
        advance(folder, 3, "model-none", "")


def test_pointers_are_ordered_as_numbers(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    one, two = published(folder, 1), published(folder, 2)
    for number in range(12):
        assert advance(folder, number, two if number == 11 else one, "")
    pointer = current(folder)
    assert pointer is not None and (pointer.number, pointer.version) == (12, two)


def test_the_first_verdict_stays(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    assert read_verdict(folder, "model-1") is None
    assert write_verdict(folder, "model-1", False, "worse") and not write_verdict(folder, "model-1", True, "better")
    verdict = read_verdict(folder, "model-1")
    assert verdict is not None and (verdict.is_served, verdict.reason) == (False, "worse")


# ---------------------------------------------------------------- runs


def test_runs_are_numbered_and_end_once(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    assert [create_run(folder, SPEC) for _ in range(11)] == list(range(1, 12))
    (folder.below("Snapshot") / "run-12").mkdir()
    assert create_run(folder, SPEC) == 13, "a number burned by a crash is passed over"
    assert list_runs(folder) == (*range(1, 12), 13)
    assert read_run(folder, 11).run == 11 and read_run(folder, 11).parameters == {"c": 1.0}
    assert read_finish(folder, 1) is None and cancel_reason(folder, 1) is None
    assert request_cancel(folder, 1, "enough") and not request_cancel(folder, 1, "again") and cancel_reason(folder, 1) == "enough"
    assert finish(folder, 1, "cancelled", "enough", seconds=2.5) and not finish(folder, 1, "done", "late")
    end = read_finish(folder, 1)
    assert end is not None and (end.state, end.reason, end.seconds) == ("cancelled", "enough", 2.5)
    for call in (
        read_run,
        lambda f, r: finish(f, r, "done", ""),
        lambda f, r: request_cancel(f, r, ""),
        lambda f, r: claim_attempt(f, r, 1),
    ):
        with pytest.raises(NotFoundError):
            call(folder, 12)
        with pytest.raises(InvalidInputError):
            call(folder, 0)


def test_an_attempt_is_claimed_once_and_ends_when_a_higher_one_is(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    create_run(folder, SPEC)
    assert latest_attempt(folder, 1) == 0
    first = claim_attempt(folder, 1, 1)
    assert first is not None and claim_attempt(folder, 1, 1) is None
    assert first.lease_counter() == 0
    for count in range(1, 13):
        assert first.renew_lease() and first.lease_counter() == count
    assert len(list_names(first.path / "leases")) <= 4, "old leases are pruned"
    assert Attempt(folder, 1, 1).renew_lease() and first.lease_counter() == 13
    checkpoint = first.save_checkpoint(5, {"w": b"5"})
    second = claim_attempt(folder, 1, 2, checkpoint)
    assert second is not None and latest_attempt(folder, 1) == 2
    assert not first.renew_lease() and not first.is_latest() and second.is_latest()
    assert first.lease_counter() == 13, "nothing was written"
    assert first.start_checkpoint() is None
    start = Attempt(folder, 1, 2).start_checkpoint()
    assert start == checkpoint and start.files() == {"w": b"5"}


def test_the_newest_whole_checkpoint_of_any_attempt_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = new_folder(tmp_path)
    create_run(folder, SPEC)
    first, second = claim_attempt(folder, 1, 1), claim_attempt(folder, 1, 2)
    assert first is not None and second is not None
    assert newest_checkpoint(folder, 1) is None
    for step in (1, 2, 10):
        first.save_checkpoint(step, {"w": b"first"})
    second.save_checkpoint(10, {"w": b"second"})
    second.save_checkpoint(10, {"w": b"other"})
    newest = newest_checkpoint(folder, 1)
    assert newest is not None and (newest.attempt, newest.step, newest.files()) == (2, 10, {"w": b"second"})
    (newest.path / "w").write_bytes(b"flipped")
    newest = newest_checkpoint(folder, 1)
    assert newest is not None and (newest.attempt, newest.step) == (1, 10)
    assert "does not match its SHA-256" in caplog.text
    first.prune_checkpoints({2})
    assert [(c.attempt, c.step) for c in list_checkpoints(folder, 1)] == [(1, 2), (1, 10), (2, 10)]
    with pytest.raises(InvalidInputError):
        first.save_checkpoint(11, {"checksums": b""})


def test_metrics_and_log_are_appended_by_new_files_and_merge_over_attempts(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    create_run(folder, SPEC)
    first = claim_attempt(folder, 1, 1)
    assert first is not None and first.read_metrics() == () and first.read_log() == ""
    reader = Attempt(folder, 1, 1)
    for step in range(1, 13):
        first.write_metrics(step, 1.0 / step, {"accuracy": step / 100})
        first.append_log(f"step {step}\n")
        assert len(reader.read_metrics()) == step
    first.append_log("")
    assert [p.step for p in reader.read_metrics()] == list(range(1, 13))
    assert reader.read_log() == "".join(f"step {i}\n" for i in range(1, 13))
    Attempt(folder, 1, 1).write_metrics(13, None)
    second = claim_attempt(folder, 1, 2)
    assert second is not None
    second.write_metrics(12, 0.5)
    assert [(p.step, p.loss) for p in read_run_metrics(folder, 1)][-2:] == [(12, 0.5), (13, None)]


# ---------------------------------------------------------------- jobs


def test_a_job_is_created_once_whatever_version_its_repeat_found(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    chunks = (ChunkSpec(items=items_of("i1", "i2")), ChunkSpec(shard="s1-abc"))
    job = JobRecord(job_id="j1", version="v1", chunks=chunks)
    assert create_job(folder, job)
    assert not create_job(folder, msgspec.structs.replace(job, version="v2"))
    assert read_job(folder, "j1") == job and list_jobs(folder) == ("j1",)
    rechunked = (ChunkSpec(items=items_of("i1")), ChunkSpec(items=items_of("i2")), ChunkSpec(shard="s1-abc"))
    assert not create_job(folder, msgspec.structs.replace(job, chunks=rechunked)), "the same items, cut otherwise"
    with pytest.raises(ConflictError, match="use a new job id"):
        create_job(folder, msgspec.structs.replace(job, chunks=chunks[:1]))
    with pytest.raises(InvalidInputError, match="either items or one shard"):
        create_job(folder, JobRecord(job_id="j2", version="", chunks=(ChunkSpec(),)))


def test_a_chunk_of_a_big_job_is_read_alone(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    chunks = tuple(ChunkSpec(items=items_of(*(f"i{c}-{i}" for i in range(200)))) for c in range(20))
    create_job(folder, JobRecord(job_id="j1", version="v", chunks=chunks))
    head = read_job_head(folder, "j1")
    assert (head.n_chunks, head.n_items, bool(head.chunks_file)) == (20, 4000, True)
    for number in (0, 7, 19):
        assert read_chunk(folder, "j1", number) == read_chunk(folder, "j1", number, head) == chunks[number]
    with pytest.raises(NotFoundError, match="chunks 0 to 19"):
        read_chunk(folder, "j1", 20)


def test_the_first_answer_of_a_chunk_holds_and_tries_are_counted(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    create_job(folder, JobRecord(job_id="j1", version="v", chunks=(ChunkSpec(items=items_of("i1")),)))
    assert done_chunks(folder, "j1") == frozenset() and attempts_of(folder, "j1", "0") == 0
    assert (
        record_attempt(folder, "j1", "0", 1) and not record_attempt(folder, "j1", "0", 1) and record_attempt(folder, "j1", "0", 2)
    )
    assert record_attempt(folder, "j1", "0.a", 1)
    assert (attempts_of(folder, "j1", "0"), attempts_of(folder, "j1", "0.a")) == (2, 1)
    assert write_result(folder, "j1", 0, result_of(0))
    assert not write_result(folder, "j1", 0, msgspec.structs.replace(result_of(0), version="other"))
    assert read_result(folder, "j1", 0) == result_of(0) and done_chunks(folder, "j1") == {0}
    with pytest.raises(NotFoundError):
        read_result(folder, "j1", 1)
    with pytest.raises(InvalidInputError):
        write_result(folder, "j1", 1, result_of(0))
    for call in (lambda: write_result(folder, "gone", 0, result_of(0)), lambda: record_attempt(folder, "gone", "0", 1)):
        with pytest.raises(NotFoundError, match="was collected"):
            call()
    assert list_jobs(folder) == ("j1",)


# ---------------------------------------------------------------- a flipped byte


def _flip_each(path: Path, read: Callable[[], object]) -> None:
    good = path.read_bytes()
    for at in sorted({0, min(5, len(good) - 1), len(good) // 3, len(good) // 2, len(good) - 1}):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(IntegrityError, match=path.name):
            read()
    path.write_bytes(good[:-1])
    with pytest.raises(IntegrityError, match=path.name):
        read()
    path.write_bytes(good)
    read()


def test_a_flipped_or_missing_byte_in_any_file_is_found_and_the_file_is_named(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    save_spec(folder, spec_of())
    _flip_each(folder.below("Preprocess", "spec", "1"), lambda: read_spec(folder))
    write_intake(folder, batch_of("batch"))
    _flip_each(folder.below("Preprocess", "intake", "batch"), lambda: read_intake(folder, "batch"))
    write_segment(folder, "batch", [row_of("i1")])
    _flip_each(folder.below("Preprocess", "labels", "batch"), lambda: LabelLog(folder).refresh())
    small, big = ShardSet(folder, "e").write(*shard_args("i", 2)), ShardSet(folder, "e").write(*shard_args("j", 300, 128))
    for name in (small, big):
        _flip_each(folder.below("Preprocess", "shards", "e", name), lambda name=name: ShardSet(folder, "e").features(name))  # type: ignore[misc]
    _flip_each(folder.below("Preprocess", "features-e", f"{big}.f32"), lambda: ShardSet(folder, "e").features(big))
    version = published(folder, 1)
    _flip_each(folder.below("Inference", version, "weights"), lambda: verified_model_dir(folder, version))
    advance(folder, 0, version, "x")
    _flip_each(folder.below("Inference", "current", "1"), lambda: current(folder))
    write_verdict(folder, version, True, "x")
    _flip_each(folder.below("Inference", "verdicts", version), lambda: read_verdict(folder, version))
    create_run(folder, SPEC)
    attempt = claim_attempt(folder, 1, 1)
    assert attempt is not None
    _flip_each(folder.below("Snapshot", "run-1", "run"), lambda: read_run(folder, 1))
    attempt.write_metrics(1, 0.5)
    _flip_each(attempt.path / "metrics" / "1", lambda: Attempt(folder, 1, 1).read_metrics())
    checkpoint = attempt.save_checkpoint(1, {"weights": b"weights"})
    _flip_each(checkpoint.path / "weights", checkpoint.files)
    finish(folder, 1, "done", "x")
    _flip_each(folder.below("Snapshot", "run-1", "finish"), lambda: read_finish(folder, 1))
    create_job(folder, JobRecord(job_id="job-1", version="v", chunks=(ChunkSpec(items=items_of("i1")),)))
    _flip_each(folder.below("Preprocess", "jobs", "job-1", "job"), lambda: read_job(folder, "job-1"))
    write_result(folder, "job-1", 0, result_of(0))
    _flip_each(folder.below("Preprocess", "jobs", "job-1", "results", "0"), lambda: read_result(folder, "job-1", 0))
    create_job(folder, JobRecord(job_id="job-2", version="v", chunks=(ChunkSpec(items=items_of(*(f"i{i}" for i in range(3000)))),)))
    chunks = folder.below("Preprocess", "jobs", "job-2", read_job_head(folder, "job-2").chunks_file)
    _flip_each(chunks, lambda: read_chunk(folder, "job-2", 0))


def test_a_file_of_one_kind_is_not_read_as_another(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    write_intake(folder, batch_of("b1"))
    folder.below("Preprocess", "intake", "b1").rename(folder.ready("Preprocess", "labels") / "b1")
    with pytest.raises(IntegrityError, match="no labels file"):
        LabelLog(folder).refresh()


def test_an_empty_file_is_not_visible_yet(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    (folder.ready("Preprocess", "labels") / "b1").touch()
    (folder.ready("Inference", "current") / "7").touch()
    log = LabelLog(folder)
    assert log.refresh() == () and log.segments == frozenset()
    assert current(folder) is None
    folder.below("Preprocess", "labels", "b1").unlink()
    write_segment(folder, "b1", [row_of("i1")])
    assert len(log.refresh()) == 1
