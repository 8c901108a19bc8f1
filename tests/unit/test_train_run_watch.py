"""When a run is hinted again, taken over, failed or left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from datastore_layout.root import create_root, task_folder
from datastore_layout.runs import Attempt, RunSpec, claim_attempt, create_run
from roles.train.run_watch import RunLook, RunWatch, Step, attempts_allowed, next_step

FRESH = RunLook(attempt=0, lease_age_s=0.0, hinted=1, hint_age_s=0.1)
ALIVE = RunLook(attempt=1, lease_age_s=1.0, hinted=1, hint_age_s=60.0)
DEAD = RunLook(attempt=1, lease_age_s=3.5, hinted=1, hint_age_s=60.0)


def but(look: RunLook, **changes: Any) -> RunLook:
    return msgspec.structs.replace(look, **changes)


@pytest.mark.parametrize(
    ("look", "step", "reason"),
    [
        (FRESH, Step.LEAVE, "attempt 1 was hinted and is not claimed yet"),
        (but(FRESH, hint_age_s=3.1, lease_age_s=3.1), Step.HINT, "no worker has claimed it yet"),
        (but(FRESH, hinted=0), Step.HINT, "no worker has claimed it yet"),
        (but(FRESH, cancel="no need"), Step.CANCEL, "no need"),
        (ALIVE, Step.LEAVE, "attempt 1 is alive"),
        (but(ALIVE, cancel="no need"), Step.LEAVE, "attempt 1 is alive"),
        (DEAD, Step.HINT, "attempt 1 gave no sign for 3 s: attempt 2 takes over"),
        (but(DEAD, hinted=2, hint_age_s=1.0), Step.LEAVE, "attempt 2 was hinted and is not claimed yet"),
        (but(DEAD, hinted=2, hint_age_s=4.0), Step.HINT, "attempt 1 gave no sign for 3 s: attempt 2 takes over"),
        (but(DEAD, cancel="no need"), Step.CANCEL, "no need"),
        (but(DEAD, attempt=5, hinted=5), Step.FAIL, "5 attempts died, the last without a sign for 3 s: see its log"),
    ],
)
def test_a_run_is_judged_by_its_lease(look: RunLook, step: Step, reason: str) -> None:
    assert next_step(look) == (step, reason)


def test_an_attempt_that_got_on_gives_the_run_as_many_more(tmp_path: Path) -> None:
    folder = task_folder(create_root(tmp_path / "store", "c1"), "t")
    run = create_run(folder, RunSpec(algorithm="x", encoder="y"))
    assert attempts_allowed(folder, run, 5) == 5
    first = claim_attempt(folder, run, 1, None)
    assert first is not None
    first.save_checkpoint(40, {"state": b"1"})
    for k in (2, 3):
        assert claim_attempt(folder, run, k, None) is not None
    assert attempts_allowed(folder, run, 5) == 6
    third = Attempt(folder, run, 3)
    third.save_checkpoint(70, {"state": b"2"})
    assert attempts_allowed(folder, run, 5) == 8


def test_a_lease_counter_that_stands_still_ages_by_the_observers_clock() -> None:
    watch = RunWatch(7, now_s=100.0, is_hinted=True)
    watch.see(1, 0, 101.0)
    watch.see(1, 1, 102.0)
    watch.see(1, 1, 109.0)
    assert watch.look(109.0, None, 5, 3.0, 3.0).lease_age_s == 7.0
    assert watch.claimed_s == 101.0
    watch.see(2, 1, 110.0)
    assert watch.look(110.0, None, 5, 3.0, 3.0).lease_age_s == 0.0


def test_hints_of_one_attempt_come_ever_more_rarely_and_a_new_attempt_begins_anew() -> None:
    watch, hinted = RunWatch(7, now_s=0.0, is_hinted=False), []
    for now in range(60):
        step, _ = next_step(watch.look(float(now), None, 5, 3.0, 3.0))
        if step is Step.HINT:
            watch.note_hint(float(now))
            hinted.append(now)
    assert hinted == [0, 3, 9, 21, 36, 51]
    watch.see(1, 0, 60.0)
    watch.note_hint(60.0)
    assert watch.look(60.0, None, 5, 3.0, 3.0).requeue_after_s == 3.0
