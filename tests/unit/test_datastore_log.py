"""The label log, the intake index and the shards as their callers see them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datastore_layout.files import list_names
from datastore_layout.intake_files import IntakeIndex, list_intake, read_intake, write_intake
from datastore_layout.labels import LabelLog, conflict_of, preferred, write_segment
from datastore_layout.shard_index import KeyTable, item_key
from datastore_layout.shards import ShardSet
from datastore_layout.watch import RELIST_S, SETTLE_S, DirectoryWatch
from labelloop.errors import ConflictError, InvalidInputError, NotFoundError
from labelloop.messages import Draft
from tests.support_datastore import batch_of, features_of, new_folder, row_of, sample_of, shard_args, without_waiting_for_the_disk  # noqa: F401


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


# ---------------------------------------------------------------- watch


def test_an_idle_folder_is_listed_once_a_second_and_not_more(tmp_path: Path) -> None:
    clock = Clock()
    watch = DirectoryWatch(tmp_path, clock)
    listings = 0
    for _ in range(100):
        listings += watch.names() is not None
        clock.now_s += 0.1
    assert 10 <= listings <= 13


def test_a_change_within_one_tick_of_the_file_systems_clock_is_still_seen(tmp_path: Path) -> None:
    clock = Clock()
    watch = DirectoryWatch(tmp_path, clock)
    (tmp_path / "a").touch()
    stamp = tmp_path.stat().st_mtime_ns
    assert watch.names() == ["a"]
    (tmp_path / "b").touch()
    os.utime(tmp_path, ns=(stamp, stamp))
    clock.now_s += SETTLE_S
    assert watch.names() == ["a", "b"], "the first listing was made in the tick of the change, so it does not count"


def test_a_mount_that_lies_about_the_time_of_change_costs_a_second(tmp_path: Path) -> None:
    clock = Clock()
    watch = DirectoryWatch(tmp_path, clock)
    for _ in range(3):
        watch.names()
        clock.now_s += SETTLE_S
    stamp = tmp_path.stat().st_mtime_ns
    (tmp_path / "a").touch()
    os.utime(tmp_path, ns=(stamp, stamp))
    assert watch.names() is None
    clock.now_s += RELIST_S
    assert watch.names() == ["a"]


def test_a_folder_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    watch = DirectoryWatch(tmp_path / "later", Clock())
    assert watch.names() == []
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "a").touch()
    assert watch.names() == ["a"]


# ---------------------------------------------------------------- labels


def test_the_log_tells_new_rows_once_and_merges_by_revision(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    log = LabelLog(folder)
    assert log.refresh() == () and dict(log.merged()) == {} and log.position == "0-0000000000000000"
    first, second = row_of("i1", 1, "cat"), row_of("i1", 2, "dog", draft=Draft(labels=("cat",), version="v"))
    assert write_segment(folder, "b1", [first, row_of("i2", error_code="unsafe_link", error_reason="a private address")])
    assert [row.item_id for row in log.refresh()] == ["i1", "i2"]
    assert log.refresh() == ()
    assert write_segment(folder, "b2", [second])
    assert log.refresh() == (second,)
    assert log.merged() == {"i1": second}
    assert log.failed()["i2"].error_reason == "a private address"
    assert log.state_of("i1", 1) == first and log.state_of("i1", 2) == second and log.state_of("i1", 3) is None
    assert log.latest_of("i1") == second
    assert write_segment(folder, "b3", [row_of("i1", 3, is_deleted=True)])
    log.refresh()
    assert "i1" not in log.merged() and log.state_of("i1", 3) is not None
    assert log.segments == {"b1", "b2", "b3"} and log.has_segment("b2") and not log.has_segment("b4")
    assert log.position.startswith("3-")


def test_a_snapshot_does_not_change_under_its_reader(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    log = LabelLog(folder)
    write_segment(folder, "b1", [row_of("i1")])
    log.refresh()
    before = log.merged()
    write_segment(folder, "b2", [row_of("i2")])
    log.refresh()
    assert set(before) == {"i1"} and set(log.merged()) == {"i1", "i2"}
    assert log.merged() is log.merged(), "no copy while nothing changes"


def test_a_batch_has_one_segment(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    assert write_segment(folder, "b1", [row_of("i1", label="cat")])
    assert not write_segment(folder, "b1", [row_of("i1", label="dog")])
    log = LabelLog(folder)
    assert log.refresh() == (row_of("i1", label="cat"),)


def test_a_batch_may_have_no_rows(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    assert write_segment(folder, "b1", [])
    log = LabelLog(folder)
    assert log.refresh() == () and log.segments == {"b1"}


@settings(max_examples=30, deadline=None)
@given(
    st.permutations(
        [row_of("i", label="cat"), row_of("i", label="dog"), row_of("i", error_code="too_large"), row_of("i", shard="s")]
    )
)
def test_which_of_two_rows_of_one_identity_holds_does_not_depend_on_their_order(rows: list) -> None:  # type: ignore[type-arg]
    held = rows[0]
    for row in rows[1:]:
        held = preferred(held, row)
    assert held == row_of("i", label="cat"), "a good row before a failed one"


def test_a_repeat_with_other_content_is_told_apart_from_a_repeat() -> None:
    assert conflict_of(sample_of("i1"), row_of("i1")) is None
    assert conflict_of(sample_of("i1"), sample_of("i1")) is None
    reason = conflict_of(sample_of("i1", label="dog"), row_of("i1"))
    assert reason is not None and "labels ('cat',), now ('dog',)" in reason and "higher revision" in reason


# ---------------------------------------------------------------- intake


def test_a_batch_is_durable_once_and_its_repeat_is_harmless(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    batch = batch_of("b1", sample_of("i1"), sample_of("i2"))
    assert write_intake(folder, batch) and not write_intake(folder, batch)
    with pytest.raises(ConflictError, match="use a new batch id"):
        write_intake(folder, batch_of("b1", sample_of("i1", label="dog")))
    assert list_intake(folder) == ("b1",) and read_intake(folder, "b1") == batch
    with pytest.raises(NotFoundError):
        read_intake(folder, "b2")


def test_the_intake_index_follows_batches_as_they_come_and_go(tmp_path: Path) -> None:
    folder, clock = new_folder(tmp_path), Clock()
    index = IntakeIndex(folder, clock)
    index.refresh()
    write_intake(folder, batch_of("b1", sample_of("i1")))
    own = batch_of("b2", sample_of("i2"))
    write_intake(folder, own)
    index.add(own)
    assert index.find("i2", 1) == sample_of("i2") and index.find("i1", 1) is None
    clock.now_s += RELIST_S
    index.refresh()
    assert index.find("i1", 1) == sample_of("i1") and index.find("i1", 2) is None
    assert index.waiting({"b1"}) == ("b2",) and index.waiting_items(()) == {"i1", "i2"}
    folder.below("Preprocess", "intake", "b1").unlink()
    clock.now_s += RELIST_S
    index.refresh()
    assert index.find("i1", 1) is None and index.waiting(()) == ("b2",)


# ---------------------------------------------------------------- shards


def test_a_shard_is_found_by_item_and_link_and_by_content(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    reader, writer = ShardSet(folder, "e"), ShardSet(folder, "e")
    reader.refresh()
    ids, links, hashes, features = shard_args("i", 5)
    name = writer.write(ids, links, hashes, features)
    assert writer.find("i3", "http://i3") == (name, 3), "the writer knows at once"
    reader.refresh()
    assert reader.find("i3", "http://i3") == (name, 3)
    assert reader.find("i3", "http://other") is None and reader.find("i9", "http://i9") is None
    assert reader.find_content("hash-i4") == (name, 4) and reader.find_content("hash") is None
    assert reader.find_many([("i0", "http://i0"), ("x", "y"), ("i4", "http://i4")]) == [(name, 0), None, (name, 4)]
    assert reader.names() == (name,) and reader.ids(name) == tuple(ids)


@pytest.mark.parametrize(("n", "dim"), [(3, 7), (300, 128), (4096, 64)])
def test_features_come_back_bit_equal_aligned_and_read_only(tmp_path: Path, n: int, dim: int) -> None:
    folder = new_folder(tmp_path)
    features = features_of(n, dim)
    name = ShardSet(folder, "e").write([f"i{i}" for i in range(n)], ["l"] * n, ["h"] * n, features)
    found = ShardSet(folder, "e").features(name)
    assert found.tobytes() == features.tobytes() and found.dtype == np.float32 and found.flags.c_contiguous
    assert n < 100 or isinstance(found, np.memmap)
    assert found.ctypes.data % (64 if isinstance(found, np.memmap) else 4) == 0
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1


def test_the_same_rows_make_the_same_shard(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    names = {ShardSet(folder, "e").write(*shard_args("i", 5)) for _ in range(3)}
    assert len(names) == 1 and len(list_names(folder.below("Preprocess", "shards", "e"))) == 1


def test_float64_and_strided_features_are_kept_as_float32_rows(tmp_path: Path) -> None:
    shards = ShardSet(new_folder(tmp_path), "e")
    wide = np.arange(24, dtype=np.float64).reshape(3, 8)[:, ::2]
    name = shards.write(["a", "b", "c"], ["l"] * 3, ["h"] * 3, wide)
    assert np.array_equal(shards.features(name), wide.astype(np.float32))


@pytest.mark.parametrize(
    "features", [np.zeros((2, 3)), np.zeros(3), np.zeros((3, 0)), np.full((3, 2), np.nan), np.full((3, 2), np.inf)]
)
def test_features_that_cannot_be_right_are_refused(tmp_path: Path, features: np.ndarray) -> None:  # type: ignore[type-arg]
    folder = new_folder(tmp_path)
    with pytest.raises(InvalidInputError):
        ShardSet(folder, "e").write(["a", "b", "c"], ["l"] * 3, ["h"] * 3, features)
    with pytest.raises(InvalidInputError):
        ShardSet(folder, "e").write([], [], [], np.zeros((0, 3)))
    assert not folder.path.exists()


def test_rows_are_gathered_in_the_order_asked_for(tmp_path: Path) -> None:
    shards = ShardSet(new_folder(tmp_path), "e")
    one, two = shards.write(*shard_args("a", 300, 128, seed=1)), shards.write(*shard_args("b", 4, 128, seed=2))
    places = [(one, 299), (two, 0), (one, 0), (one, 299)]
    first, second = features_of(300, 128, 1), features_of(4, 128, 2)
    assert np.array_equal(shards.rows(places), np.stack([first[299], second[0], first[0], first[299]]))
    assert shards.rows([]).shape[0] == 0
    with pytest.raises(InvalidInputError, match="has 4 rows"):
        shards.rows([(two, 4)])
    with pytest.raises(InvalidInputError):
        shards.rows([(two, -1)])
    with pytest.raises(NotFoundError):
        shards.rows([("s1-" + "0" * 28, 0)])


def test_encoders_share_no_shards(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    name = ShardSet(folder, "one").write(*shard_args("i", 2))
    other = ShardSet(folder, "two")
    other.refresh()
    assert other.names() == () and other.find("i0", "http://i0") is None
    with pytest.raises(NotFoundError):
        other.features(name)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9000), max_size=6), st.integers(0, 10**6))
def test_the_key_table_answers_like_a_dict(sizes: list[int], asked: int) -> None:
    table, known = KeyTable(), {}
    place = 0
    for number, size in enumerate(sizes):
        keys = [item_key(f"{number}-{i}", "") for i in range(size)]
        table.add(b"".join(keys), place)
        known.update({key: place + i for i, key in enumerate(keys)})
        place += size
        probe = [*keys[:2], keys[-1], item_key(f"{asked}", "x"), *list(known)[:2]]
        assert table.find_many(probe) == [known.get(key) for key in probe]
        assert [table.find(key) for key in probe] == [known.get(key) for key in probe]


def test_keys_that_share_their_upper_half_are_told_apart() -> None:
    table = KeyTable()
    keys = [b"12345678" + i.to_bytes(8, "little") for i in range(40000)]
    table.add(b"".join(keys), 0)
    probe = [keys[0], keys[20000], keys[39999], b"12345678" + b"\xff" * 8, b"\xff" * 16, b"\x00" * 16]
    assert table.find_many(probe) == [0, 20000, 39999, None, None, None]
    assert [table.find(key) for key in probe] == [0, 20000, 39999, None, None, None]
