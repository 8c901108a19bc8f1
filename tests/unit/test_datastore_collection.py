"""What garbage collection takes away and what it leaves alone, after a crash and beside others too."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import msgspec

from datastore_layout.collect import choose_versions, collect_garbage
from datastore_layout.files import list_names
from datastore_layout.intake_files import list_intake, write_intake
from datastore_layout.jobs import (
    ChunkSpec,
    JobRecord,
    create_job,
    list_jobs,
    read_job,
    write_result,
)
from datastore_layout.labels import LabelLog, write_segment
from datastore_layout.models import (
    advance,
    current,
    list_versions,
    read_verdict,
    verified_model_dir,
    write_verdict,
)
from datastore_layout.ops import swapped_ops
from datastore_layout.root import TaskFolder, open_root, task_folder
from datastore_layout.runs import (
    Attempt,
    claim_attempt,
    create_run,
    finish,
    newest_checkpoint,
    read_finish,
    read_run_metrics,
)
from datastore_layout.shards import ShardSet
from tests.support_datastore import (
    SPEC,
    CrashOps,
    SimulatedCrash,
    batch_of,
    items_of,
    new_folder,
    published,
    result_of,
    row_of,
    sample_of,
    shard_args,
    without_waiting_for_the_disk,  # noqa: F401
)

# ---------------------------------------------------------------- collection


def test_versions_are_chosen_oldest_first_and_never_a_protected_one() -> None:
    versions = ("v1", "v2", "v3", "v4", "v5")
    assert choose_versions(versions, 2, ()) == ("v1", "v2", "v3")
    assert choose_versions(versions, 2, ("v1", "v4")) == ("v2",)
    assert choose_versions(versions, 9, ()) == ()
    assert choose_versions(versions, 0, versions) == ()


def test_collection_keeps_what_serves_what_runs_and_what_they_come_from(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    versions = [published(folder, number) for number in range(8)]
    advance(folder, 0, versions[0], "")
    advance(folder, 1, versions[1], "")
    live = create_run(folder, msgspec.structs.replace(SPEC, start_version=versions[2]))
    over = create_run(folder, msgspec.structs.replace(SPEC, start_version=versions[3]))
    finish(folder, over, "done", "")
    create_job(folder, JobRecord(job_id="j1", version=versions[4], chunks=(ChunkSpec(items=items_of("i1")),)))
    child = published(folder, 9, run=live)
    published(folder, 10)
    write_verdict(folder, versions[5], False, "worse")
    removed = collect_garbage(folder, keep_versions=1, keep_jobs_s=0.0).versions
    assert removed == (versions[3], versions[5], versions[6], versions[7])
    assert set(list_versions(folder)) == {*versions[:3], versions[4], child, published(folder, 10)}
    assert read_verdict(folder, versions[5]) is not None, "it may still come back"
    for version in list_versions(folder):
        verified_model_dir(folder, version)


def _busy_task(folder: TaskFolder) -> tuple[str, str]:
    """Fill a folder with something of each kind to collect and to keep; return the serving and the running run's version."""
    versions = [published(folder, number) for number in range(4)]
    advance(folder, 0, versions[0], "")
    for number, start in ((1, versions[1]), (2, "")):
        create_run(folder, msgspec.structs.replace(SPEC, start_version=start))
        attempt = claim_attempt(folder, number, 1)
        assert attempt is not None
        attempt.write_metrics(1, 0.5)
        attempt.write_metrics(2, 0.25)
        attempt.append_log("log\n")
        attempt.save_checkpoint(2, {"w": b"w"})
    finish(folder, 2, "done", "over")
    for job in ("done", "running"):
        create_job(folder, JobRecord(job_id=job, version="", chunks=(ChunkSpec(items=items_of("i1")),)))
    write_result(folder, "done", 0, result_of(0))
    for batch in ("b1", "b2"):
        write_intake(folder, batch_of(batch, sample_of(batch)))
    write_segment(folder, "b1", [row_of("b1")])
    for number in range(3):
        old = folder.below("Preprocess", "labels") / f".beside-{number}"
        old.touch()
        os.utime(old, (0, 0))
    return versions[0], versions[1]


def _check_kept(folder: TaskFolder, serving: str, parent: str) -> None:
    pointer = current(folder)
    assert pointer is not None and pointer.version == serving
    for version in list_versions(folder):
        verified_model_dir(folder, version)
    assert {serving, parent} < set(list_versions(folder))
    assert [len(read_run_metrics(folder, run)) for run in (1, 2)] == [2, 2]
    assert [Attempt(folder, run, 1).read_log() for run in (1, 2)] == ["log\n"] * 2
    checkpoint = newest_checkpoint(folder, 1)
    assert checkpoint is not None and checkpoint.files() == {"w": b"w"}
    assert read_job(folder, "running").job_id == "running"
    assert [read_job(folder, job).job_id for job in list_jobs(folder)] == list(list_jobs(folder))
    assert "b2" in list_intake(folder)
    log = LabelLog(folder)
    log.refresh()
    assert log.segments == {"b1"}


def test_a_crash_after_any_operation_of_a_collection_keeps_what_must_be_kept(tmp_path: Path) -> None:
    template = new_folder(tmp_path / "template")
    serving, parent = _busy_task(template)
    for k in itertools.count():
        path = tmp_path / f"{k}"
        shutil.copytree(template.root.path, path)
        folder = task_folder(open_root(path), "digits")
        try:
            with swapped_ops(CrashOps(k)):
                collect_garbage(folder, 1, 0.0)
            break
        except SimulatedCrash:
            _check_kept(folder, serving, parent)
            collect_garbage(folder, 1, 0.0)
            _check_kept(folder, serving, parent)
            assert list_jobs(folder) == ("running",) and list_intake(folder) == ("b2",)
            assert newest_checkpoint(folder, 2) is None and len(list_versions(folder)) == 3
        shutil.rmtree(path)
    assert k > 30


def test_a_version_promoted_while_it_is_collected_comes_back(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    versions = [published(folder, number) for number in range(4)]
    assert collect_garbage(folder, 1, 0.0).versions == tuple(versions[:3])
    pointer = folder.below("Inference", "current")
    pointer.mkdir()
    hidden = folder.below("Inference", f".rubbish-{versions[0]}")
    hidden.rename(folder.below("Inference", versions[0]))
    advance(folder, 0, versions[0], "promoted")
    folder.below("Inference", versions[0]).rename(hidden)
    collect_garbage(folder, 1, 0.0)
    assert (verified_model_dir(folder, versions[0]) / "weights").read_bytes() == b"w0"


def test_hidden_rubbish_goes_after_an_hour_of_the_file_systems_time(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    for number in range(3):
        write_verdict(folder, published(folder, number), True, "")
    collect_garbage(folder, 1, 0.0)
    beside = folder.ready("Preprocess", "labels") / ".beside-0123"
    beside.write_bytes(b"left by a crash")
    orphan = folder.ready("Preprocess", "features-e") / "s3-00.f32"
    orphan.write_bytes(b"left by a crash")
    done, waiting = (folder.ready("Preprocess", "progress") / f"{batch}~try~0" for batch in ("done", "waiting"))
    for path in (done, waiting):
        path.touch()
        os.utime(path, (0, 0))
    write_intake(folder, batch_of("waiting"))
    assert collect_garbage(folder, 1, 0.0).rubbish == 1 and waiting.exists() and not done.exists()
    ShardSet(folder, "e").write(*shard_args("i", 2))
    hidden = list(folder.below("Inference").glob(".rubbish-*"))
    assert len(hidden) == 2 and collect_garbage(folder, 1, 0.0).rubbish == 0
    for path in (*hidden, beside, orphan):
        os.utime(path, (0, 0))
    assert collect_garbage(folder, 1, 0.0).rubbish == 4
    collect_garbage(folder, 1, 0.0)
    assert tuple(list_names(folder.below("Inference", "verdicts"))) == list_versions(folder)
    assert not any(path.exists() for path in (*hidden, beside, orphan))


def test_a_job_is_kept_while_it_runs_and_for_its_time_after(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    for job in ("done", "running"):
        create_job(
            folder, JobRecord(job_id=job, version="", chunks=(ChunkSpec(items=items_of("i1")), ChunkSpec(items=items_of("i2"))))
        )
        write_result(folder, job, 0, result_of(0))
    write_result(folder, "done", 1, result_of(1))
    assert collect_garbage(folder, 1, keep_jobs_s=3600.0).jobs == ()
    assert collect_garbage(folder, 1, keep_jobs_s=0.0).jobs == ("done",)
    assert list_jobs(folder) == ("running",)


def test_a_batch_goes_once_the_log_has_it_and_not_before(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    for batch in ("b1", "b2"):
        write_intake(folder, batch_of(batch, sample_of(batch)))
    write_segment(folder, "b1", [row_of("b1")])
    assert collect_garbage(folder, 1, 0.0, segments=frozenset()).intake == 0
    assert collect_garbage(folder, 1, 0.0).intake == 1
    assert list_intake(folder) == ("b2",)


def test_a_finished_run_keeps_its_story_in_few_files_and_a_live_one_everything(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    stories = []
    for number in (1, 2):
        create_run(folder, SPEC)
        attempt = claim_attempt(folder, number, 1)
        assert attempt is not None
        for step in range(12):
            attempt.write_metrics(step, float(step))
            attempt.append_log(f"{step}\n")
        attempt.renew_lease()
        attempt.save_checkpoint(11, {"w": b"w"})
        stories.append((attempt.read_metrics(), attempt.read_log()))
    finish(folder, 1, "done", "over", "v")
    before = Attempt(folder, 1, 1)
    before.read_metrics()
    assert collect_garbage(folder, 1, 0.0).runs == (1,)
    assert collect_garbage(folder, 1, 0.0).runs == ()
    assert newest_checkpoint(folder, 1) is None and newest_checkpoint(folder, 2) is not None
    for number, (metrics, log) in enumerate(stories, 1):
        attempt = Attempt(folder, number, 1)
        assert attempt.read_metrics() == metrics and attempt.read_log() == log
    assert before.read_metrics() == stories[0][0], "a reader that was there before"
    assert len([p for p in folder.below("Snapshot", "run-1").rglob("*") if p.is_file()]) <= 6
    end = read_finish(folder, 1)
    assert end is not None and end.version == "v"


def test_collecting_an_empty_task_is_harmless(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    assert collect_garbage(folder, 1, 0.0) == type(collect_garbage(folder, 1, 0.0))()
    assert not folder.path.exists()
