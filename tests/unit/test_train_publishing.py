"""Promotion, rollback and the gate's moves of the pointer, on a real folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from datastore_layout.models import Manifest, Pointer, advance, current, publish_model
from datastore_layout.root import TaskFolder, create_root, task_folder
from labelloop.errors import ConflictError, NotFoundError
from roles.train.gate import Gate
from roles.train.publishing import promote, rollback, served_before, settle


@pytest.fixture
def folder(tmp_path: Path) -> TaskFolder:
    return task_folder(create_root(tmp_path / "store", "c1"), "digits")


def make_version(folder: TaskFolder, tmp_path: Path, n: int) -> str:
    source = tmp_path / f"model{n}"
    source.mkdir()
    (source / "weights").write_bytes(b"w" * n)
    manifest = Manifest(task="digits", category="image-classification", labels=("a", "b"), algorithm="x", encoder="y", run=n)
    return publish_model(folder, manifest, source)


def serve(folder: TaskFolder, version: str) -> None:
    pointer = current(folder)
    assert advance(folder, pointer.number if pointer else 0, version, "served by the gate")


def serves(_: Pointer | None, __: bool) -> tuple[Gate, str]:
    return Gate.SERVE, "not worse"


def test_each_rollback_goes_one_served_version_further_back(folder: TaskFolder, tmp_path: Path) -> None:
    first, second, third = (make_version(folder, tmp_path, n) for n in (1, 2, 3))
    for version in (first, second, third):
        serve(folder, version)
    assert rollback(folder).version == second
    assert rollback(folder).version == first
    with pytest.raises(ConflictError, match="no earlier served version"):
        rollback(folder)
    found = current(folder)
    assert found is not None
    assert (found.number, found.version) == (5, first)


def test_a_rollback_after_new_versions_goes_back_to_what_served_before_them(folder: TaskFolder, tmp_path: Path) -> None:
    first, second, third = (make_version(folder, tmp_path, n) for n in (1, 2, 3))
    serve(folder, first)
    serve(folder, second)
    rollback(folder)
    serve(folder, third)
    assert rollback(folder).version == first


def test_served_before_reads_a_history_as_a_stack() -> None:
    history = [
        Pointer(number=1, version="a", reason="first"),
        Pointer(number=2, version="b", reason="better"),
        Pointer(number=3, version="a", reason="rolled back: b was bad"),
        Pointer(number=4, version="c", reason="better"),
        Pointer(number=5, version="b", reason="promoted: I like it"),
    ]
    assert served_before(history) == ["a", "c", "b"]
    assert served_before(history[:3]) == ["a"]
    assert served_before([]) == []


def test_a_promoted_version_must_exist(folder: TaskFolder, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        promote(folder, "model-none", "why not")
    version = make_version(folder, tmp_path, 1)
    assert promote(folder, version, "I like it").reason == "promoted: I like it"


def test_a_run_that_began_before_a_rollback_is_told_so_and_one_after_it_is_not(folder: TaskFolder, tmp_path: Path) -> None:
    first, second, third = (make_version(folder, tmp_path, n) for n in (1, 2, 3))
    serve(folder, first)
    serve(folder, second)
    seen: list[tuple[int, bool]] = []

    def ask(pointer: Pointer | None, moved_by_person: bool) -> tuple[Gate, str]:
        assert pointer is not None
        seen.append((pointer.number, moved_by_person))
        return (Gate.KEEP, "a person chose") if moved_by_person else (Gate.SERVE, "not worse")

    rollback(folder)
    settled = settle(folder, third, ask, began_at=2)
    assert (settled.is_served, settled.reason, settled.number) == (False, "a person chose", 3)
    settled = settle(folder, third, ask, began_at=3)
    assert (settled.is_served, settled.number) == (True, 4)
    assert seen == [(3, True), (3, False)]


def test_a_lost_race_asks_the_gate_again_about_who_serves_now(folder: TaskFolder, tmp_path: Path) -> None:
    first, second, third = (make_version(folder, tmp_path, n) for n in (1, 2, 3))
    serve(folder, first)
    asked: list[str] = []

    def ask(pointer: Pointer | None, moved_by_person: bool) -> tuple[Gate, str]:
        assert pointer is not None
        asked.append(pointer.version)
        if len(asked) == 1:
            serve(folder, second)
        return Gate.SERVE, "not worse"

    assert settle(folder, third, ask, began_at=1).number == 3
    assert asked == [first, second]


def test_settling_again_after_a_crash_moves_nothing(folder: TaskFolder, tmp_path: Path) -> None:
    version = make_version(folder, tmp_path, 1)
    assert settle(folder, version, serves, began_at=0).number == 1
    assert settle(folder, version, serves, began_at=0).number == 1
