"""A crash or a power cut after every single file operation: nothing acknowledged is lost, nothing is ever half there."""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from datastore_layout.intake_files import list_intake, read_intake, write_intake
from datastore_layout.jobs import ChunkSpec, JobRecord, create_job, done_chunks, list_jobs, read_job, read_result, write_result
from datastore_layout.labels import LabelLog, write_segment
from datastore_layout.models import (
    Manifest,
    advance,
    current,
    list_versions,
    publish_model,
    read_verdict,
    verified_model_dir,
    write_verdict,
)
from datastore_layout.ops import swapped_ops
from datastore_layout.root import TaskFolder, create_root, list_tasks, open_root, task_folder
from datastore_layout.runs import (
    Attempt,
    RunSpec,
    cancel_reason,
    claim_attempt,
    create_run,
    finish,
    latest_attempt,
    list_runs,
    newest_checkpoint,
    read_finish,
    read_run,
    request_cancel,
)
from datastore_layout.shards import ShardSet
from datastore_layout.tasks import read_spec, save_spec
from labelloop.errors import NotFoundError, NotReadyError, StorageFullError
from labelloop.messages import ChunkResult
from tests.support_datastore import (
    CrashOps,
    FullOps,
    LinklessOps,
    SimulatedCrash,
    batch_of,
    everything_below,
    items_of,
    new_folder,
    row_of,
    shard_args,
    spec_of,
    without_waiting_for_the_disk,  # noqa: F401
)

BATCH = batch_of("b1")
ROWS = [row_of("i1", shard="s1", row=0), row_of("i2")]
SMALL = shard_args("small", 3)
BIG = shard_args("big", 300, 128)
CREATED = "2026-01-02T03:04:05Z"
MANIFEST = Manifest(task="digits", category="image-classification", labels=("cat",), algorithm="a", encoder="e", created=CREATED)
JOB = JobRecord(job_id="j1", version="v", chunks=(ChunkSpec(items=items_of("i1", "i2")), ChunkSpec(items=items_of("i3"))))
BIG_JOB = JobRecord(job_id="j2", version="v", chunks=(ChunkSpec(items=items_of(*(f"i{i}" for i in range(1200)))),))
RESULT = ChunkResult(chunk=0, shard="", version="v", item_ids=("i1", "i2"), n_items=2)
CHECKPOINT = {"weights": b"w" * 5000, "optimizer": b"o" * 100}


class Step(NamedTuple):
    """What is done, whether it is there (raising when it is there by half), and what must have been done before."""

    name: str
    do: Callable[[TaskFolder, Path], object]
    is_there: Callable[[TaskFolder], bool]
    before: Callable[[TaskFolder, Path], object] = lambda folder, source: None


def _has_spec(folder: TaskFolder) -> bool:
    if "digits" not in list_tasks(folder.root):
        return False
    return read_spec(folder) == spec_of()


def _has_intake(folder: TaskFolder) -> bool:
    return any(read_intake(folder, batch) == BATCH for batch in list_intake(folder))


def _has_segment(folder: TaskFolder) -> bool:
    log = LabelLog(folder)
    rows = log.refresh()
    assert rows in ((), tuple(ROWS))
    assert log.segments == (frozenset({"b1"}) if rows else frozenset())
    return bool(rows)


def _has_shard(ids: list[str], links: list[str], hashes: list[str], features: object) -> Callable[[TaskFolder], bool]:
    def check(folder: TaskFolder) -> bool:
        shards = ShardSet(folder, "e")
        shards.refresh()
        if not shards.names():
            return False
        (name,) = shards.names()
        assert (shards.features(name) == features).all()
        assert shards.ids(name) == tuple(ids)
        assert shards.find(ids[-1], links[-1]) == (name, len(ids) - 1)
        return shards.find_content(hashes[0]) == (name, 0)

    return check


def _model(folder: TaskFolder, source: Path) -> str:
    return publish_model(folder, MANIFEST, source)


def _has_model(folder: TaskFolder) -> bool:
    for version in list_versions(folder):
        path = verified_model_dir(folder, version)
        assert (path / "weights.bin").read_bytes() == b"w" * 3000
        assert (path / "inner" / "vocabulary.txt").read_bytes() == b"words"
    return bool(list_versions(folder))


def _advance(folder: TaskFolder, source: Path) -> None:
    pointer = current(folder)
    if pointer is None:
        assert advance(folder, 0, list_versions(folder)[0], "first")


def _points(folder: TaskFolder) -> bool:
    pointer = current(folder)
    return pointer is not None and pointer.number == 1 and verified_model_dir(folder, pointer.version).is_dir()


def _has_verdict(folder: TaskFolder) -> bool:
    verdict = read_verdict(folder, "model-1")
    return verdict is not None and verdict.is_served and verdict.reason == "better"


def _run(folder: TaskFolder, source: Path) -> None:
    create_run(folder, RunSpec(algorithm="a", encoder="e"))


def _has_run(folder: TaskFolder) -> bool:
    return bool([read_run(folder, run) for run in list_runs(folder)])


def _claimed(folder: TaskFolder, source: Path) -> None:
    _run(folder, source)
    claim_attempt(folder, 1, 1)


def _has_attempt(folder: TaskFolder) -> bool:
    if not latest_attempt(folder, 1):
        return False
    assert Attempt(folder, 1, 1).start_checkpoint() is None
    return True


def _save(folder: TaskFolder, source: Path) -> None:
    Attempt(folder, 1, 1).save_checkpoint(7, CHECKPOINT)


def _has_checkpoint(folder: TaskFolder) -> bool:
    checkpoint = newest_checkpoint(folder, 1)
    if checkpoint is None:
        return False
    assert checkpoint.step == 7
    return checkpoint.files() == CHECKPOINT


def _has_metrics(folder: TaskFolder) -> bool:
    return any(p.step == 3 and p.loss == 0.5 and p.metrics == {"a": 1.0} for p in Attempt(folder, 1, 1).read_metrics())


def _ends(folder: TaskFolder) -> bool:
    end = read_finish(folder, 1)
    return end is not None and (end.state, end.reason, end.version) == ("done", "it is over", "v")


def _has_job(record: JobRecord) -> Callable[[TaskFolder], bool]:
    return lambda folder: record.job_id in list_jobs(folder) and read_job(folder, record.job_id) == record


def _has_result(folder: TaskFolder) -> bool:
    if 0 not in done_chunks(folder, "j1"):
        return False
    return read_result(folder, "j1", 0) == RESULT


def _is_cancelled(folder: TaskFolder) -> bool:
    reason = cancel_reason(folder, 1)
    assert reason in (None, "enough")
    return reason is not None


STEPS = [
    Step("spec", lambda f, s: save_spec(f, spec_of()), _has_spec),
    Step("intake", lambda f, s: write_intake(f, BATCH), _has_intake),
    Step("segment", lambda f, s: write_segment(f, "b1", ROWS), _has_segment),
    Step("small shard", lambda f, s: ShardSet(f, "e").write(*SMALL), _has_shard(*SMALL)),
    Step("big shard", lambda f, s: ShardSet(f, "e").write(*BIG), _has_shard(*BIG)),
    Step("model", _model, _has_model),
    Step("pointer", _advance, _points, _model),
    Step("verdict", lambda f, s: write_verdict(f, "model-1", True, "better"), _has_verdict),
    Step("run", _run, _has_run),
    Step("attempt", lambda f, s: claim_attempt(f, 1, 1), _has_attempt, _run),
    Step("checkpoint", _save, _has_checkpoint, _claimed),
    Step("metrics", lambda f, s: Attempt(f, 1, 1).write_metrics(3, 0.5, {"a": 1.0}), _has_metrics, _claimed),
    Step("finish", lambda f, s: finish(f, 1, "done", "it is over", "v"), _ends, _run),
    Step("cancel", lambda f, s: request_cancel(f, 1, "enough"), _is_cancelled, _run),
    Step("job", lambda f, s: create_job(f, JOB), _has_job(JOB)),
    Step("big job", lambda f, s: create_job(f, BIG_JOB), _has_job(BIG_JOB)),
    Step("result", lambda f, s: write_result(f, "j1", 0, RESULT), _has_result, lambda f, s: create_job(f, JOB)),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "inner").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"w" * 3000)
    (folder / "inner" / "vocabulary.txt").write_bytes(b"words")
    return folder


def _fresh(tmp_path: Path, step: Step, source: Path) -> TaskFolder:
    shutil.rmtree(tmp_path / "datastore", ignore_errors=True)
    folder = new_folder(tmp_path)
    step.before(folder, source)
    assert not step.is_there(folder)
    return folder


@pytest.mark.parametrize("ops_kind", [CrashOps, LinklessOps])
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_crash_after_any_operation_leaves_all_or_nothing_and_a_repeat_heals(
    tmp_path: Path, source: Path, step: Step, ops_kind: type[CrashOps]
) -> None:
    for k in itertools.count():
        folder = _fresh(tmp_path, step, source)
        with swapped_ops(ops_kind(k)) as ops:
            try:
                step.do(folder, source)
                is_over = True
            except SimulatedCrash:
                is_over = False
        was_there = step.is_there(folder)
        if is_over:
            assert was_there
            assert ops.steps <= k
            break
        step.do(folder, source)
        assert step.is_there(folder), f"not healed after a crash at operation {k}"
    assert k > 3


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_power_cut_loses_nothing_acknowledged_and_leaves_nothing_half(tmp_path: Path, source: Path, step: Step) -> None:
    for k in itertools.count():
        chance = random.Random(k)
        for _ in range(2):
            folder = _fresh(tmp_path, step, source)
            with swapped_ops(CrashOps(k)) as ops:
                try:
                    step.do(folder, source)
                    is_over = True
                except SimulatedCrash:
                    is_over = False
            assert isinstance(ops, CrashOps)
            ops.lose_power(chance)
            was_there = step.is_there(folder)
            assert was_there or not is_over, "acknowledged, then lost"
            step.do(folder, source)
            assert step.is_there(folder)
        if is_over:
            break


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_full_disk_is_named_and_leaves_all_or_nothing(tmp_path: Path, source: Path, step: Step) -> None:
    for k in itertools.count():
        folder = _fresh(tmp_path, step, source)
        try:
            with swapped_ops(FullOps(k)):
                step.do(folder, source)
        except StorageFullError as exc:
            assert "no room" in str(exc)
        else:
            break
        step.is_there(folder)
        assert not [p for p in folder.path.rglob(".beside-*") if p.is_file()], "rubbish takes the room that is missing"
        step.do(folder, source)
        assert step.is_there(folder)
    assert k > 3


def test_a_root_is_created_whole_or_not_at_all(tmp_path: Path) -> None:
    for k in itertools.count():
        path = tmp_path / f"root-{k}" / "datastore"
        try:
            with swapped_ops(CrashOps(k)):
                create_root(path, "cluster-1")
        except SimulatedCrash:
            with contextlib.suppress(NotReadyError):
                assert open_root(path).cluster_id == "cluster-1"
            create_root(path, "cluster-1")
            assert open_root(path, "cluster-1").cluster_id == "cluster-1"
        else:
            break
    assert k > 3


def test_what_is_published_is_on_disk_before_the_call_returns(tmp_path: Path) -> None:
    """The seam sees an fsync of each file and of each folder that got a name: drop one and a power cut shows it."""
    folder = new_folder(tmp_path)
    with swapped_ops(CrashOps(None)) as ops:
        write_intake(folder, BATCH)
    before = everything_below(folder.path)
    assert isinstance(ops, CrashOps)
    ops.lose_power(random.Random(0))
    assert everything_below(folder.path) == before


def test_a_missing_mount_is_never_written_to(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    shutil.rmtree(tmp_path / "datastore")
    (tmp_path / "datastore").mkdir()
    for write in (
        lambda: write_intake(folder, BATCH),
        lambda: write_segment(folder, "b1", ROWS),
        lambda: save_spec(folder, spec_of()),
    ):
        with pytest.raises(NotReadyError, match="mount the datastore"):
            write()
    assert list((tmp_path / "datastore").iterdir()) == []
    assert task_folder(folder.root, "digits").path == folder.path
    with pytest.raises(NotFoundError):
        read_spec(folder)
