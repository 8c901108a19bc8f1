"""A family of forks: killed members come back, all end with their parent, and seats are freed by death."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from roles.inference.forks import FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_AFTER_S, pause_after
from roles.inference.presence import Seat

CHECKOUT = Path(__file__).resolve().parents[2]
FAMILY = """
import os, sys, time
from pathlib import Path
from roles.inference.forks import Family
folder = Path(sys.argv[1])
def live(name):
    def main():
        (folder / f"{name}.{os.getpid()}").touch()
        time.sleep(600)
        return 0
    return main
sys.exit(Family([(name, live(name)) for name in ("a", "b")], grace_s=2.0).run())
"""


def await_true(check: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + 20
    while not check():
        assert time.monotonic() < end_s, f"{what} did not happen"
        time.sleep(0.01)


def pids(folder: Path, name: str) -> list[int]:
    return [int(path.suffix[1:]) for path in sorted(folder.glob(f"{name}.*"), key=lambda p: p.stat().st_mtime_ns)]


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.fixture
def family(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", FAMILY, str(tmp_path)], cwd=CHECKOUT)
    yield process
    process.kill()
    process.wait()


def test_a_killed_member_is_forked_again_and_the_other_is_left_alone(family: subprocess.Popen[bytes], tmp_path: Path) -> None:
    await_true(lambda: bool(pids(tmp_path, "a") and pids(tmp_path, "b")), "the first fork")
    os.kill(pids(tmp_path, "a")[0], signal.SIGKILL)
    await_true(lambda: len(pids(tmp_path, "a")) == 2, "the second fork of a")
    assert len(pids(tmp_path, "b")) == 1


def test_sigterm_ends_the_members_and_the_parent_says_success(family: subprocess.Popen[bytes], tmp_path: Path) -> None:
    await_true(lambda: bool(pids(tmp_path, "a") and pids(tmp_path, "b")), "the first fork")
    family.terminate()
    assert family.wait(20) == 0
    assert not any(is_alive(pid) for name in "ab" for pid in pids(tmp_path, name))


def test_members_die_with_a_parent_that_is_killed(family: subprocess.Popen[bytes], tmp_path: Path) -> None:
    await_true(lambda: bool(pids(tmp_path, "a") and pids(tmp_path, "b")), "the first fork")
    family.kill()
    family.wait()
    await_true(lambda: not any(is_alive(pid) for name in "ab" for pid in pids(tmp_path, name)), "the members' end")


@pytest.mark.parametrize(
    ("life_s", "last_pause_s", "pause_s"),
    [
        (0.1, 0.0, FIRST_PAUSE_S),
        (0.1, FIRST_PAUSE_S, 2 * FIRST_PAUSE_S),
        (0.1, LONGEST_PAUSE_S, LONGEST_PAUSE_S),
        (STEADY_AFTER_S + 1, LONGEST_PAUSE_S, FIRST_PAUSE_S),
    ],
)
def test_pauses_grow_while_a_member_keeps_falling(life_s: float, last_pause_s: float, pause_s: float) -> None:
    assert pause_after(life_s, last_pause_s) == pause_s


def _hold(folder: str, ready: object) -> None:
    assert Seat(folder, "seat").take()
    ready.set()  # type: ignore[attr-defined]
    time.sleep(600)


def test_a_seat_is_held_by_one_process_and_freed_by_its_death(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(str(tmp_path), ready))
    seat = Seat(str(tmp_path), "seat")
    assert not seat.is_taken()
    holder.start()
    try:
        assert ready.wait(20)
        assert seat.is_taken()
        assert not seat.take()
    finally:
        holder.kill()
        holder.join()
        holder.close()
    assert not seat.is_taken()
    assert seat.take()
    seat.leave()
