"""What a role process is at is written by a thread, and a new process begins with a clean slate."""

from __future__ import annotations

import time
from pathlib import Path

from labelloop.nodefiles import read_activity, say_activity
from roles.activity import Activity


def until_said(state: Path, text: str) -> None:
    deadline = time.monotonic() + 30
    while read_activity(state, "train-worker") != text:
        assert time.monotonic() < deadline, f"never said {text!r}"
        time.sleep(0.02)


def test_what_a_killed_process_left_behind_is_cleared_by_the_next_one(tmp_path: Path) -> None:
    say_activity(tmp_path, "train-worker", "digits: run 1 attempt 1, 7 of 60 steps")
    activity = Activity(str(tmp_path), "train-worker")
    assert read_activity(tmp_path, "train-worker") == ""
    activity.say("digits: run 1 attempt 2, 8 of 60 steps")
    until_said(tmp_path, "digits: run 1 attempt 2, 8 of 60 steps")
    activity.say("")
    until_said(tmp_path, "")


def test_a_state_folder_that_cannot_be_written_stops_no_process(tmp_path: Path) -> None:
    Activity(str(tmp_path / "gone"), "train-worker")
    assert not (tmp_path / "gone").exists()
