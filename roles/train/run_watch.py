"""Watching a run from outside: is somebody on it, and what must the train master do?

Owns the judgement of leases, by the observer's own monotonic clock alone. Must never compare stamps of two machines, nor write.
Called by the sweep, once a cycle for each run without an end.
"""

from __future__ import annotations

import enum

import msgspec

from datastore_layout.root import TaskFolder
from datastore_layout.runs import list_checkpoints

LONGEST_PAUSES = 5  # of `requeue_after_s` between two hints of one attempt


class Step(enum.Enum):
    """What the train master does about a run."""

    LEAVE = "leave"
    HINT = "hint"
    CANCEL = "cancel"
    FAIL = "fail"


class RunLook(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a run. `attempt` 0 = unclaimed; `lease_age_s` since its lease was last seen to change; `hint_age_s` since
    attempt `hinted` was last hinted. `attempts`, `lease_s` and `requeue_after_s` are the settings."""

    attempt: int
    lease_age_s: float
    hinted: int
    hint_age_s: float
    cancel: str | None = None
    attempts: int = 5
    lease_s: float = 3.0
    requeue_after_s: float = 3.0


def next_step(look: RunLook) -> tuple[Step, str]:
    """Return what to do about the run, and why."""
    if look.attempt and look.lease_age_s < look.lease_s:
        return Step.LEAVE, f"attempt {look.attempt} is alive"
    if look.cancel is not None:
        return Step.CANCEL, look.cancel
    if look.attempt >= look.attempts:
        return Step.FAIL, f"{look.attempt} attempts died, the last without a sign for {look.lease_s:g} s: see its log"
    wanted = look.attempt + 1
    if look.hinted >= wanted and look.hint_age_s < look.requeue_after_s:
        return Step.LEAVE, f"attempt {wanted} was hinted and is not claimed yet"
    if look.attempt:
        return Step.HINT, f"attempt {look.attempt} gave no sign for {look.lease_s:g} s: attempt {wanted} takes over"
    return Step.HINT, "no worker has claimed it yet"


def attempts_allowed(folder: TaskFolder, run: int, attempts: int) -> int:
    """Return after which attempt's death a run is failed: the `attempts`-th since the last one that left a checkpoint.

    A run that restarts move from node to node gets on with each attempt; one that breaks at the same place each time does not.
    """
    checkpoints = list_checkpoints(folder, run)
    return attempts + (checkpoints[-1].attempt if checkpoints else 0)


class RunWatch:
    """What the observer remembers of one run between two looks. Not thread-safe: its owner is the sweep."""

    def __init__(self, run: int, now_s: float, is_hinted: bool) -> None:
        self.run = run
        self.since_s = now_s
        self.attempt = 0
        self.claimed_s: float | None = None
        self.hinted = 1 if is_hinted else 0
        self._hinted_s = now_s if is_hinted else float("-inf")
        self._pauses = 1
        self._lease = -1
        self._lease_s = now_s

    def see(self, attempt: int, lease: int, now_s: float) -> None:
        """Take in the newest attempt and its lease counter; any change of either is a sign of life."""
        if (attempt, lease) != (self.attempt, self._lease):
            if attempt and self.claimed_s is None:
                self.claimed_s = now_s
            self.attempt, self._lease, self._lease_s = attempt, lease, now_s

    def note_hint(self, now_s: float) -> None:
        """Remember that the next attempt was hinted; each time again the pause that follows is longer."""
        is_again = self.hinted == self.attempt + 1
        self._pauses = min(2 * self._pauses, LONGEST_PAUSES) if is_again else 1
        self.hinted, self._hinted_s = self.attempt + 1, now_s

    def look(self, now_s: float, cancel: str | None, attempts: int, lease_s: float, requeue_after_s: float) -> RunLook:
        """Return the frozen view for `next_step`."""
        return RunLook(
            attempt=self.attempt,
            lease_age_s=now_s - self._lease_s,
            hinted=self.hinted,
            hint_age_s=now_s - self._hinted_s,
            cancel=cancel,
            attempts=attempts,
            lease_s=lease_s,
            requeue_after_s=self._pauses * requeue_after_s,
        )
