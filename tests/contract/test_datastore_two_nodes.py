"""The race by which `doctor` sees whether two nodes share one datastore that lets one of them win: on real mounts."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from datastore_layout import ops
from datastore_layout.habits import check_habits
from datastore_layout.ops import FileOps
from datastore_layout.race import RaceResult, judge_race, run_race
from datastore_layout.root import create_root, open_root
from labelloop.errors import InvalidInputError

ROUNDS = 1000


class _SloppyMkdir(FileOps):
    """A mount whose mkdir says yes to a name that is taken."""

    def mkdir(self, path: Path) -> None:
        path.mkdir(exist_ok=path.name.startswith("d"))


class _SloppyCreate(FileOps):
    """A mount that does not know O_EXCL."""

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)


OPS = {"sound": FileOps, "mkdir": _SloppyMkdir, "O_EXCL": _SloppyCreate}


def _enter(path: str, me: str, contestants: tuple[str, ...], rounds: int, kind: str, patience_s: float) -> RaceResult:
    with ops.swapped_ops(OPS[kind]()):
        return run_race(open_root(Path(path)), "r1", me, contestants, rounds, patience_s)


@pytest.fixture(scope="module")
def nodes() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """One folder seen through two FUSE mounts, as two nodes see it."""
    create_root(tmp_path / "store", "c1")
    found = []
    try:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            subprocess.run(["bindfs", tmp_path / "store", tmp_path / name], check=True)
            found.append(tmp_path / name)
        yield found[0], found[1]
    finally:
        for path in found:
            subprocess.run(["umount", path], check=True)


def _race(
    nodes: ProcessPoolExecutor, paths: tuple[Path, Path], kind: str = "sound", rounds: int = ROUNDS, patience_s: float = 60.0
) -> list[RaceResult]:
    names = ("gpu-1", "gpu-2")
    running = [
        nodes.submit(_enter, str(path), name, names, rounds, kind, patience_s) for path, name in zip(paths, names, strict=True)
    ]
    return [future.result() for future in running]


def _names(path: Path) -> list[str]:
    return sorted(found.name for found in path.iterdir())


def test_a_thousand_names_have_one_winner_each_between_two_mounts_and_nothing_is_left(
    nodes: ProcessPoolExecutor, mounts: tuple[Path, Path], tmp_path: Path
) -> None:
    results = _race(nodes, mounts)
    assert [result.trouble for result in results] == ["", ""]
    assert judge_race(ROUNDS, [result.claimed for result in results], "mkdir") == ""
    assert judge_race(ROUNDS, [result.created for result in results], "O_EXCL") == ""
    assert all(result.claimed or result.created for result in results)  # both took part
    assert _names(tmp_path / "store") == [".labelloop-root"]


@pytest.mark.parametrize(("kind", "field"), [("mkdir", "claimed"), ("O_EXCL", "created")])
def test_a_mount_that_lets_both_win_is_found(nodes: ProcessPoolExecutor, mounts: tuple[Path, Path], kind: str, field: str) -> None:
    results = _race(nodes, mounts, kind, rounds=100)
    assert "to more than one node" in judge_race(100, [getattr(result, field) for result in results], kind)


def test_nodes_that_each_see_a_folder_of_their_own_never_meet(nodes: ProcessPoolExecutor, tmp_path: Path) -> None:
    for name in ("a", "b"):
        create_root(tmp_path / name, "c1")
    results = _race(nodes, (tmp_path / "a", tmp_path / "b"), patience_s=0.3)
    assert f"gpu-2 did not appear in {tmp_path / 'a'}" in results[0].trouble
    assert f"gpu-1 did not appear in {tmp_path / 'b'}" in results[1].trouble
    assert _names(tmp_path / "a") == [".labelloop-root"]


def test_a_mount_that_refuses_to_rename_or_remove_fails_the_habits(tmp_path: Path) -> None:
    create_root(tmp_path / "store", "c1")
    (tmp_path / "mount").mkdir()
    subprocess.run(["bindfs", "--rename-deny", tmp_path / "store", tmp_path / "mount"], check=True)
    try:
        problems = check_habits(open_root(tmp_path / "mount"))
    finally:
        subprocess.run(["umount", tmp_path / "mount"], check=True)
    assert any(problem.startswith("publish: ") for problem in problems)
    assert any(problem.startswith("rename of a folder: ") for problem in problems)


def test_who_races_where_is_checked(tmp_path: Path) -> None:
    root = create_root(tmp_path, "c1")
    for race, me, contestants, rounds, words in (
        ("../out", "a", ("a", "b"), 1, "race '../out'"),
        ("r", "a", ("a",), 1, "cannot race"),
        ("r", "a", ("b", "c"), 1, "cannot race"),
        ("r", "a", ("a", "b", "b"), 1, "cannot race"),
        ("r", "a", ("a", "B/.."), 1, "hostname"),
        ("r", "a", ("a", "b"), 0, "rounds is 0"),
        ("r", "a", ("a", "b"), 10_001, "rounds is 10001"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            run_race(root, race, me, contestants, rounds)
    assert _names(tmp_path) == [".labelloop-root"]


@pytest.mark.parametrize(
    ("wins", "verdict"),
    [
        ([(0, 2), (1,)], ""),
        ([(0, 1), (1, 2)], "mkdir gave 1 of 3 names to more than one node"),
        ([(0,), (2,)], "mkdir gave 1 of 3 names to nobody"),
    ],
)
def test_each_name_has_exactly_one_winner_or_the_verdict_counts(wins: list[tuple[int, ...]], verdict: str) -> None:
    assert judge_race(3, wins, "mkdir") == verdict
