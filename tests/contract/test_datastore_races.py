"""Several real processes race for one name on a real file system: exactly one wins, each time, and no reader sees half."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from datastore_layout.files import claim_dir, create_mark
from datastore_layout.jobs import ChunkSpec, JobRecord, create_job, read_result, write_result
from datastore_layout.labels import LabelLog, write_segment
from datastore_layout.models import Manifest, advance, current, list_versions, pointer_history, publish_model, verified_model_dir
from datastore_layout.ops import FileOps, swapped_ops
from datastore_layout.root import TaskFolder, open_root, task_folder
from datastore_layout.runs import RunSpec, claim_attempt, create_run, finish, list_runs, read_finish, read_run
from datastore_layout.shards import ShardSet
from labelloop.messages import ChunkResult
from tests.support_datastore import items_of, new_folder, row_of, shard_args

RACERS = 3
ROUNDS = 40


class _Linkless(FileOps):
    def link(self, source: Path, target: Path) -> None:
        raise PermissionError(1, "no links here")


@pytest.fixture(scope="module")
def racers() -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(RACERS)
    with ProcessPoolExecutor(RACERS, mp_context=context, initializer=_share, initargs=(start,)) as pool:
        yield pool


_shared: list[Barrier] = []


def _share(start: Barrier) -> None:
    _shared.append(start)


def _open(path: str) -> TaskFolder:
    return task_folder(open_root(Path(path)), "digits")


def _race(path: str, me: int, kind: str) -> list[object]:
    """Go for one name after the other, as fast as possible, and say which of them were won."""
    folder = _open(path)
    _shared[0].wait(60)
    won: list[object] = []
    version = list_versions(folder)[0]
    with swapped_ops(_Linkless() if kind.startswith("linkless ") else FileOps()):
        for n in range(ROUNDS):
            if _goes_for(folder, kind.removeprefix("linkless "), n, me, version):
                won.append(n)
    return won


def _goes_for(folder: TaskFolder, kind: str, n: int, me: int, version: str) -> bool:
    match kind:
        case "advance":
            return advance(folder, n, version, f"{me}")
        case "segment":
            return write_segment(folder, f"b{n}", [row_of("i1", annotator=f"{me}")])
        case "mkdir":
            return claim_dir(folder.below(f"claim-{n}"))
        case "mark":
            return create_mark(folder.below(f"mark-{n}"))
        case "attempt":
            return claim_attempt(folder, 1, n + 1) is not None
        case "result":
            return write_result(folder, "j1", n, ChunkResult(chunk=n, shard="", version=f"{me}", item_ids=(), n_items=0))
        case _:
            raise AssertionError(kind)


KINDS = ["advance", "segment", "mkdir", "mark", "attempt", "result", "linkless advance", "linkless segment", "linkless result"]


def _prepare(tmp_path: Path) -> TaskFolder:
    folder = new_folder(tmp_path)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "weights").write_bytes(b"w" * 10_000)
    manifest = Manifest(task="digits", category="tables", labels=("a",), algorithm="a", encoder="e", created="2026-01-02T03:04:05Z")
    publish_model(folder, manifest, tmp_path / "source")
    create_run(folder, RunSpec(algorithm="a", encoder="e"))
    create_job(folder, JobRecord(job_id="j1", version="v", chunks=(ChunkSpec(items=items_of("i")),) * ROUNDS))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_each_name_has_exactly_one_winner(tmp_path: Path, racers: ProcessPoolExecutor, kind: str) -> None:
    folder = _prepare(tmp_path)
    root = str(folder.root.path)
    won = [result.result() for result in [racers.submit(_race, root, me, kind) for me in range(RACERS)]]
    everything = sorted(n for names in won for n in names)  # type: ignore[type-var]
    assert everything == list(range(ROUNDS)), "a name without or with two winners"
    owner = {n: me for me, names in enumerate(won) for n in names}
    if kind.endswith("advance"):
        assert [int(p.reason) for p in pointer_history(folder)] == [owner[n] for n in range(ROUNDS)]
    if kind.endswith("result"):
        assert [int(read_result(folder, "j1", n).version) for n in range(ROUNDS)] == [owner[n] for n in range(ROUNDS)]
    if kind.endswith("segment"):
        log = LabelLog(folder)
        log.refresh()
        assert log.segments == {f"b{n}" for n in range(ROUNDS)}


def _write_all(path: str, me: int) -> list[int]:
    folder = _open(path)
    source = Path(path).parent / "source"
    runs = []
    for n in range(15):
        shard = ShardSet(folder, "e").write(*shard_args(f"{me}-{n}-", 300, 128, seed=n))
        write_segment(folder, f"{me}-{n}", [row_of(f"{me}-{n}-0", shard=shard, row=0)])
        manifest = Manifest(task="digits", category="tables", labels=("a",), algorithm=f"{me}-{n}", encoder="e")
        version = publish_model(folder, manifest, source)
        pointer = current(folder)
        while not advance(folder, pointer.number if pointer else 0, version, ""):
            pointer = current(folder)
        runs.append(create_run(folder, RunSpec(algorithm=f"{me}-{n}", encoder="e")))
        finish(folder, runs[0], "done", f"{me}")
    return runs


def test_a_reader_beside_three_writers_sees_only_whole_things_and_never_goes_back(
    tmp_path: Path, racers: ProcessPoolExecutor
) -> None:
    folder = _prepare(tmp_path)
    writers = [racers.submit(_write_all, str(folder.root.path), me) for me in range(RACERS)]
    log, shards, highest = LabelLog(folder), ShardSet(folder, "e"), 0
    while True:
        is_last = all(writer.done() for writer in writers)
        for row in log.refresh():
            assert shards.features(row.shard).shape == (300, 128), "a row in the log has its features"
        pointer = current(folder)
        if pointer is not None:
            assert pointer.number >= highest
            highest = pointer.number
            assert (verified_model_dir(folder, pointer.version) / "weights").read_bytes() == b"w" * 10_000
        for run in list_runs(folder):
            assert read_run(folder, run).run == run
        if is_last and len(log.segments) == 15 * RACERS:
            break
    runs = [run for writer in writers for run in writer.result()]
    assert len(set(runs)) == 15 * RACERS, "each run has one owner"
    assert highest == 15 * RACERS and len(log.merged()) == 15 * RACERS
    ends = [end for run in runs if (end := read_finish(folder, run)) is not None]
    assert len(ends) == RACERS
