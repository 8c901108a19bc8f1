"""Labels and shards under any order of writes, joins, collections and crashes, against a model that is a plain dict."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datastore_layout import labels as labels_module
from datastore_layout.collect import collect_garbage
from datastore_layout.compaction import compact_labels, compact_shards
from datastore_layout.files import list_names
from datastore_layout.intake_files import list_intake, write_intake
from datastore_layout.labels import LabelLog, LabelRow, preferred, write_segment
from datastore_layout.ops import swapped_ops
from datastore_layout.root import TaskFolder
from datastore_layout.shards import ShardSet, rows_of
from tests.support_datastore import (
    CrashOps,
    QuickOps,
    SimulatedCrash,
    batch_of,
    features_of,
    new_folder,
    row_of,
    shard_args,
    without_waiting_for_the_disk,  # noqa: F401
)

PLAIN = settings(max_examples=60, deadline=None)


@contextlib.contextmanager
def temporary_folder() -> Iterator[TaskFolder]:
    path = Path(tempfile.mkdtemp())
    try:
        with swapped_ops(QuickOps()):
            yield new_folder(path)
    finally:
        shutil.rmtree(path)


rows = st.builds(
    lambda item, revision, label, gone, code: row_of(item, revision, label, is_deleted=gone, error_code=code),
    st.sampled_from(["i1", "i2", "i3", "i4", "i5"]),
    st.integers(1, 4),
    st.sampled_from(["cat", "dog"]),
    st.booleans(),
    st.sampled_from(["", "", "", "too_large"]),
)
steps = st.one_of(
    st.tuples(st.just("write"), st.lists(rows, min_size=1, max_size=3)),
    st.tuples(st.just("refresh"), st.none()),
    st.tuples(st.just("collect"), st.none()),
    st.tuples(st.just("join"), st.none()),
    st.tuples(st.just("crash"), st.integers(0, 30)),
)


def expected_views(written: list[LabelRow]) -> tuple[dict[str, LabelRow], dict[tuple[str, int], LabelRow]]:
    """Return (merged, all) by the definition: no increments, no order."""
    every: dict[tuple[str, int], LabelRow] = {}
    for row in written:
        key = (row.item_id, row.revision)
        every[key] = preferred(every[key], row) if key in every else row
    highest = {item: max(r for i, r in every if i == item) for item, _ in every}
    merged = {item: every[item, revision] for item, revision in highest.items()}
    return {item: row for item, row in merged.items() if not row.is_deleted and not row.error_code}, every


def check_log(log: LabelLog, written: list[LabelRow], batches: set[str]) -> None:
    merged, every = expected_views(written)
    assert dict(log.merged()) == merged
    assert log.segments == batches
    for (item, revision), row in every.items():
        assert log.state_of(item, revision) == row
    assert log.state_of("i1", 99) is None


@PLAIN
@given(st.lists(steps, max_size=25))
def test_the_merged_view_is_the_same_whatever_was_joined_collected_or_crashed_meanwhile(
    script: list[tuple[str, object]],
) -> None:
    with temporary_folder() as folder:
        log = LabelLog(folder, clock=iter(range(10**6)).__next__)
        written: list[LabelRow] = []
        batches: set[str] = set()
        for number, (what, value) in enumerate(script):
            if what == "write":
                assert isinstance(value, list)
                assert write_segment(folder, f"b{number}", value)
                written += value
                batches.add(f"b{number}")
            elif what == "refresh":
                log.refresh()
                check_log(log, written, batches)
            elif what == "collect":
                collect_garbage(folder, 3, 0.0)
            elif what == "join":
                compact_labels(folder, least=2, grace_s=-1.0)
            else:
                assert isinstance(value, int)
                with contextlib.suppress(SimulatedCrash), swapped_ops(CrashOps(value)):
                    compact_labels(folder, least=2, grace_s=-1.0)
        log.refresh()
        check_log(log, written, batches)
        fresh = LabelLog(folder)
        fresh.refresh()
        check_log(fresh, written, batches)
        assert fresh.position == log.position


def test_joining_ends_with_few_files_and_the_same_position() -> None:
    with temporary_folder() as folder:
        for i in range(600):
            write_segment(folder, f"b{i:04d}", [row_of(f"i{i}", 1)])
            if i % 8 == 7:
                compact_labels(folder, least=8, grace_s=-1.0)
        before = LabelLog(folder)
        before.refresh()
        for _ in range(3):
            compact_labels(folder, least=8, grace_s=-1.0)
        log = LabelLog(folder)
        log.refresh()
        assert len(log.merged()) == len(before.merged()) == 600
        assert log.position == before.position
        assert list(log.merged()) == [f"i{i}" for i in range(600)], "oldest first, also after joining"
        assert len(list_names(folder.below("Preprocess", "labels"))) < 32


def test_a_segment_is_not_joined_while_its_intake_batch_could_be_processed_again(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    for i in range(4):
        write_intake(folder, batch_of(f"b{i}"))
        write_segment(folder, f"b{i}", [row_of("i1")])
    assert compact_labels(folder, least=2, grace_s=-1.0) == 0
    assert not write_segment(folder, "b0", [row_of("i1")])
    collect_garbage(folder, 1, 0.0)
    assert list_intake(folder) == ()
    assert compact_labels(folder, least=2, grace_s=-1.0) == 4


def test_joined_files_stay_for_the_grace(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    for i in range(4):
        write_segment(folder, f"b{i}", [row_of(f"i{i}")])
    compact_labels(folder, least=2, grace_s=3600.0)
    compact_labels(folder, least=2, grace_s=3600.0)
    assert {f"b{i}" for i in range(4)} < set(list_names(folder.below("Preprocess", "labels")))
    for i in range(4, 6):
        write_segment(folder, f"b{i}", [row_of(f"i{i}")])
    assert compact_labels(folder, least=2, grace_s=3600.0) == 2, "what is joined is not joined again"
    compact_labels(folder, least=2, grace_s=-1.0)
    assert not {f"b{i}" for i in range(6)} & set(list_names(folder.below("Preprocess", "labels")))


def test_a_reader_that_listed_before_a_join_still_finds_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new_folder(tmp_path)
    for i in range(4):
        write_segment(folder, f"b{i}", [row_of(f"i{i}")])
    real, has_joined = labels_module.oldest_first, False

    def join_after_the_listing(folder: TaskFolder, names: Iterator[str]) -> list[str]:
        nonlocal has_joined
        found = real(folder, names)
        if not has_joined:
            has_joined = True
            compact_labels(folder, least=2, grace_s=-1.0)
            compact_labels(folder, least=2, grace_s=-1.0)
        return found

    monkeypatch.setattr(labels_module, "oldest_first", join_after_the_listing)
    log = LabelLog(folder)
    assert {row.item_id for row in log.refresh()} == {f"i{i}" for i in range(4)}
    assert log.segments == {f"b{i}" for i in range(4)}


def test_a_crash_anywhere_in_a_join_loses_no_row_however_often_it_is_repeated(tmp_path: Path) -> None:
    for k in itertools.count():
        folder = new_folder(tmp_path / f"{k}")
        shards = ShardSet(folder, "e")
        names = [shards.write(*shard_args(f"{i}-", 3, seed=i)) for i in range(4)]
        for i in range(4):
            write_segment(folder, f"b{i}", [row_of(f"i{i}")])
        is_over = False
        with contextlib.suppress(SimulatedCrash), swapped_ops(CrashOps(k)):
            compact_labels(folder, least=2, grace_s=-1.0)
            compact_shards(folder, "e", least=2, grace_s=-1.0)
            is_over = True
        for _ in range(3):
            log, fresh = LabelLog(folder), ShardSet(folder, "e")
            assert len(log.refresh()) == 4
            fresh.refresh()
            for i, name in enumerate(names):
                assert np.array_equal(fresh.features(name), features_of(3, seed=i))
            compact_labels(folder, least=2, grace_s=-1.0)
            compact_shards(folder, "e", least=2, grace_s=-1.0)
        if is_over:
            break
    assert k > 20


def test_a_reader_follows_a_name_through_several_joins(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    shards = ShardSet(folder, "e", clock=itertools.count().__next__)
    names = {}
    for i in range(6):
        names[ShardSet(folder, "e").write(*shard_args(f"{i}-", 2 + i, seed=i))] = i
        compact_shards(folder, "e", least=2, grace_s=-1.0)
        shards.refresh()
        for name, number in names.items():
            assert np.array_equal(shards.features(name), features_of(2 + number, seed=number)), f"after join {i}"
            assert shards.ids(name)[0] == f"{number}-0"


shard_steps = st.one_of(
    st.tuples(st.just("write"), st.integers(1, 6)),
    st.tuples(st.just("join"), st.integers(4, 24)),
    st.tuples(st.just("crash"), st.integers(0, 40)),
    st.tuples(st.just("collect"), st.just(0)),
)


@PLAIN
@given(st.lists(shard_steps, max_size=16))
def test_every_shard_name_stays_readable_whatever_was_joined_or_crashed(script: list[tuple[str, int]]) -> None:
    with temporary_folder() as folder:
        old = ShardSet(folder, "e", clock=iter(range(10**6)).__next__)
        known: dict[str, int] = {}
        for number, (what, value) in enumerate(script):
            if what == "write":
                known[ShardSet(folder, "e").write(*shard_args(f"{number}-", value, seed=number))] = number
            elif what == "join":
                compact_shards(folder, "e", rows=value, least=2, grace_s=-1.0)
            elif what == "collect":
                collect_garbage(folder, 1, 0.0)
            else:
                with contextlib.suppress(SimulatedCrash), swapped_ops(CrashOps(value)):
                    compact_shards(folder, "e", rows=12, least=2, grace_s=-1.0)
        fresh = ShardSet(folder, "e")
        for shards in (fresh, old):
            shards.refresh()
            for name, number in known.items():
                n = rows_of(name)
                ids, links, hashes, features = shard_args(f"{number}-", n, seed=number)
                assert np.array_equal(shards.features(name), features)
                assert shards.features(name).flags.c_contiguous
                assert shards.ids(name) == tuple(ids)
                place = shards.find(ids[-1], links[-1])
                assert place is not None
                assert np.array_equal(shards.rows([place, (name, 0)]), features[[n - 1, 0]])
                assert shards.find_content(hashes[0]) is not None
            seen = [item for name in shards.names() for item in shards.ids(name)]
            wanted = [f"{number}-{i}" for name, number in known.items() for i in range(rows_of(name))]
            assert sorted(seen) == sorted(wanted), "each row once in the shards that are listed"


def test_joining_shards_ends_with_few_full_files(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    with swapped_ops(QuickOps()):
        for i in range(130):
            ShardSet(folder, "e").write(*shard_args(f"{i}-", 10, 8, seed=i))
        assert compact_shards(folder, "e", rows=400, grace_s=-1.0) == 130
        compact_shards(folder, "e", rows=400, grace_s=-1.0)
    shards = ShardSet(folder, "e")
    shards.refresh()
    assert [rows_of(name) for name in sorted(shards.names())] == [100, 400, 400, 400]
    assert len(list_names(folder.below("Preprocess", "shards", "e"))) == 4
    assert shards.find("77-3", "http://77-3") is not None


def test_shards_of_different_width_are_never_joined(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    for i in range(4):
        ShardSet(folder, "e").write(*shard_args(f"{i}-", 2, 8 + i % 2))
    compact_shards(folder, "e", least=2)
    shards = ShardSet(folder, "e")
    shards.refresh()
    assert sorted(shards.features(name).shape for name in shards.names()) == [(4, 8), (4, 9)]


def test_a_mapped_shard_survives_the_removal_of_its_file(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    shards = ShardSet(folder, "e")
    names = [shards.write(*shard_args(f"{i}-", 100, 512, seed=i)) for i in range(2)]
    mapped = shards.features(names[0])
    for _ in range(2):
        compact_shards(folder, "e", least=2, grace_s=-1.0)
    assert not folder.below("Preprocess", "features-e", f"{names[0]}.f32").exists()
    assert np.array_equal(mapped, features_of(100, 512, 0))
    assert np.array_equal(shards.features(names[1]), features_of(100, 512, 1)), "asked for before any refresh"
