"""One batch in one process: who counts as dead, what an exception costs, what is saved."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from datastore_layout.files import list_names
from datastore_layout.intake_files import write_intake
from datastore_layout.intake_progress import BatchProgress
from datastore_layout.labels import LabelLog, LabelRow, read_segment
from datastore_layout.root import Root, TaskFolder, create_root, task_folder
from datastore_layout.tasks import save_spec
from intake.pipeline import Pipeline
from labelloop.errors import StorageFullError
from labelloop.messages import Sample, SubmitRequest, TaskExtraInfo, TaskSpec
from labelloop.settings import Settings, TrainSettings
from roles.data.batches import BatchProcessor, Result, is_lost, worker_token


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return create_root(tmp_path / "root", "c1")


@pytest.fixture
def folder(root: Root) -> TaskFolder:
    made = task_folder(root, "t1")
    extra = TaskExtraInfo(labels=("a", "b"), encoder="hash-ngram")
    save_spec(made, TaskSpec(task="t1", category="text-classification", extra=extra))
    return made


def submit(folder: TaskFolder, batch: str, *texts: str) -> None:
    samples = tuple(Sample(item_id=f"i{n}", link=f"data:,{text}", labels=("a",)) for n, text in enumerate(texts))
    write_intake(folder, SubmitRequest(task="t1", batch_id=batch, samples=samples))


def failing(error: BaseException, on: Callable[[str], bool]) -> Callable[..., object]:
    real = Pipeline.features

    def features(self: Pipeline, items: object, **more: object) -> object:
        if any(on(item.link) for item in items):  # type: ignore[attr-defined]
            raise error
        return real(self, items, **more)  # type: ignore[arg-type]

    return features


def test_a_process_is_lost_when_it_is_gone_or_another_took_its_number() -> None:
    me = worker_token("n1")
    gone = subprocess.Popen(["true"])
    gone.wait()
    node, pid, start = me.rsplit(".", 2)
    assert is_lost(me, me), "an attempt of mine that goes on is not asked about"
    assert is_lost(f"n1.{gone.pid}.1", me)
    assert is_lost(f"n1.{os.getppid()}.{int(start) + 10**9}", me)
    assert not is_lost(f"n2.{gone.pid}.1", me), "another node's processes cannot be seen"
    assert (node, int(pid)) == ("n1", os.getpid())


def test_a_living_neighbour_is_not_lost() -> None:
    neighbour = subprocess.Popen(["sleep", "60"])
    try:
        start = Path(f"/proc/{neighbour.pid}/stat").read_text().rpartition(")")[2].split()[19]
        assert not is_lost(f"n1.{neighbour.pid}.{start}", worker_token("n1"))
        neighbour.kill()
        neighbour.wait()
        assert is_lost(f"n1.{neighbour.pid}.{start}", worker_token("n1"))
    finally:
        neighbour.kill()
        neighbour.wait()


def test_a_batch_is_written_once_and_known_afterwards(root: Root, folder: TaskFolder) -> None:
    submit(folder, "b1", "one", "two")
    processor = BatchProcessor(root, Settings(), "n1")
    assert [processor.process("t1", "b1") for _ in range(2)] == [Result.WRITTEN, Result.KNOWN]
    assert processor.process("t1", "b9") is Result.GONE
    log = LabelLog(folder)
    assert [row.item_id for row in log.refresh()] == ["i0", "i1"]
    processor.close()


def test_a_full_disk_is_not_the_samples_fault(root: Root, folder: TaskFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(folder, "b1", "one", "two")
    processor = BatchProcessor(root, Settings(), "n1")
    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "features", failing(StorageFullError("no room"), lambda _: True))
        for _ in range(5):
            with pytest.raises(StorageFullError):
                processor.process("t1", "b1")
    assert processor.process("t1", "b1") is Result.WRITTEN
    assert all(not row.error_code for row in LabelLog(folder).refresh())


def test_an_item_that_breaks_the_code_is_cornered_and_the_others_live(
    root: Root, folder: TaskFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(folder, "b1", *(f"text{n}" for n in range(9)))
    monkeypatch.setattr(Pipeline, "features", failing(ZeroDivisionError("a defect"), lambda link: link.endswith("text6")))
    processor = BatchProcessor(root, Settings(), "n1")
    results: list[object] = []
    while not results or results[-1] is ZeroDivisionError:
        assert len(results) < 20
        try:
            results.append(processor.process("t1", "b1"))
        except ZeroDivisionError:
            results.append(ZeroDivisionError)
    assert results[-1] is Result.WRITTEN
    rows = LabelLog(folder).refresh()
    assert [row.item_id for row in rows] == [f"i{n}" for n in range(9)]
    assert [row.item_id for row in rows if row.error_code] == ["i6"]


def test_an_attempt_of_another_node_counts_as_lost_once_it_is_too_old(folder: TaskFolder) -> None:
    progress = BatchProgress(folder, "b1")
    progress.record_attempt("0-4", "n2.1.1")
    seen = BatchProgress(folder, "b1")
    assert seen.lost_attempts("0-4", lambda _: False, task_limit_s=60.0) == 0
    assert seen.lost_attempts("0-4", lambda _: False, task_limit_s=-1.0) == 1
    assert seen.lost_attempts("0-2", lambda _: True, task_limit_s=60.0) == 0
    seen.clear()
    assert BatchProgress(folder, "b1").lost_attempts("0-4", lambda _: True, 60.0) == 0


def sharing(n: int) -> Settings:
    return Settings(train=TrainSettings(part_samples=n))


def test_the_workers_of_two_nodes_share_a_large_batch_and_the_last_one_writes_its_segment(root: Root, folder: TaskFolder) -> None:
    submit(folder, "b1", *(f"text{n}" for n in range(8)))
    one, other = (BatchProcessor(root, sharing(3), node) for node in ("n1", "n2"))
    assert one.plan("t1", "b1") == ((0, 3), (3, 6), (6, 8))
    assert one.process("t1", "b1", 0, 3) is Result.PART
    assert other.process("t1", "b1", 6, 8) is Result.PART
    assert other.plan("t1", "b1") == ((3, 6),)
    assert other.process("t1", "b1", 0, 3) is Result.PART  # a hint that came twice
    assert other.process("t1", "b1", 3, 6) is Result.WRITTEN
    assert one.process("t1", "b1", 3, 6) is Result.KNOWN
    assert [row.item_id for row in LabelLog(folder).refresh()] == [f"i{n}" for n in range(8)]
    assert read_segment(folder, "b1").handled == {"n1": 3, "n2": 5}
    assert list_names(folder.below("Preprocess", "progress")) == []
    for processor in (one, other):
        processor.close()


def test_a_batch_whose_parts_are_all_done_is_written_by_whoever_is_hinted_next(root: Root, folder: TaskFolder) -> None:
    submit(folder, "b1", *(f"text{n}" for n in range(4)))
    processor = BatchProcessor(root, sharing(2), "n1")
    work = [LabelRow(f"i{n}", 1, f"data:,text{n}", ("a",)) for n in range(4)]
    BatchProgress(folder, "b1").save_rows(work, "n9")  # by a worker that died before it wrote the segment
    assert processor.plan("t1", "b1") is None
    assert processor.process("t1", "b1") is Result.WRITTEN
    assert read_segment(folder, "b1").handled == {"n9": 4}
    processor.close()


def test_a_part_that_a_living_worker_has_begun_is_not_hinted_again(root: Root, folder: TaskFolder) -> None:
    submit(folder, "b1", *(f"text{n}" for n in range(4)))
    processor = BatchProcessor(root, sharing(2), "n1")
    BatchProgress(folder, "b1").record_attempt("2-4", "n2.77.1")
    assert processor.plan("t1", "b1") == ((0, 2),)
    BatchProgress(folder, "b1").record_attempt("0-2", "n1.1.1")  # a process of this node that is gone
    assert processor.plan("t1", "b1") == ((0, 2),)
    processor.close()


def test_a_small_batch_is_one_workers_work(root: Root, folder: TaskFolder) -> None:
    submit(folder, "b1", "one", "two")
    processor = BatchProcessor(root, sharing(2), "n1")
    assert processor.plan("t1", "b1") is None
    assert processor.plan("t1", "b9") is None
    assert processor.process("t1", "b1") is Result.WRITTEN
    assert read_segment(folder, "b1").handled == {"n1": 2}
    processor.close()
