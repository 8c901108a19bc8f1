"""A race of several nodes for the same names, which shows whether the mount lets exactly one of them win.

Owns a hidden scratch folder of the root while a race lasts. Must never touch a task. Called by managers, when `doctor` asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from datastore_layout import files, ops
from datastore_layout.ops import writing
from datastore_layout.root import Root
from labelloop.errors import DeadlineError, InvalidInputError, LabelloopError
from labelloop.ids import parse_node, parse_token

MOST_ROUNDS = 10_000
PATIENCE_S = 20.0
_STRIDE = 50  # names between two meetings, so that nobody runs ahead of the others and wins without a rival
_POLL_S = 0.002
_MEETING = "meeting"


class RaceResult(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of the names that this contestant won by mkdir and by O_EXCL; `trouble` '' = the race was run to its end."""

    claimed: tuple[int, ...] = ()
    created: tuple[int, ...] = ()
    trouble: str = ""


def run_race(
    root: Root, race: str, me: str, contestants: Sequence[str], rounds: int, patience_s: float | None = None
) -> RaceResult:
    """Go for `rounds` names by mkdir and as many by O_EXCL against the other `contestants`, who run the race of the same name.

    `patience_s`: how long to wait for the others at each meeting (None = 20). Raises InvalidInputError on malformed arguments,
    NotReadyError or ConflictError when the root is not ours.
    """
    _check(race, me, contestants, rounds)
    patience_s = PATIENCE_S if patience_s is None else patience_s
    root.check()
    scratch, is_cleaner = root.path / f".race-{race}", me == min(contestants)
    claimed: list[int] = []
    created: list[int] = []
    trouble = ""
    try:
        for folder in (scratch, scratch / _MEETING):
            _claim(folder)
        for n in range(rounds):
            if n % _STRIDE == 0:
                _meet(scratch, f"at{n}", me, contestants, patience_s)
            if _claim(scratch / f"d{n}"):
                claimed.append(n)
            if files.create_mark(scratch / f"f{n}"):
                created.append(n)
        _arrive(scratch, "end", me)
        if is_cleaner:
            _await(scratch, "end", contestants, patience_s)
    except (LabelloopError, OSError) as exc:
        trouble = str(exc)
    if trouble or is_cleaner:
        files.discard_tree(scratch)
    return RaceResult(claimed=tuple(claimed), created=tuple(created), trouble=trouble)


def judge_race(rounds: int, wins: Sequence[Sequence[int]], how: str) -> str:
    """Return '' when each of the `rounds` names has one winner in `wins` (one sequence a contestant), or what is wrong; pure."""
    counts = [0] * rounds
    for won in wins:
        for n in won:
            counts[n] += 1
    doubled, lost = sum(count > 1 for count in counts), sum(count == 0 for count in counts)
    if doubled:
        return f"{how} gave {doubled} of {rounds} names to more than one node"
    return f"{how} gave {lost} of {rounds} names to nobody" if lost else ""


def _claim(path: Path) -> bool:
    """Create a folder like `files.claim_dir`, but leave it to the cache: a thousand fsyncs would measure the disk."""
    with writing(path):
        try:
            ops.active.mkdir(path)
        except FileExistsError:
            return False
        return True


def _check(race: str, me: str, contestants: Sequence[str], rounds: int) -> None:
    parse_token(race, "race")
    for name in contestants:
        parse_node(name)
    if me not in contestants or len(set(contestants)) != len(contestants) or len(contestants) < 2:
        raise InvalidInputError(
            f"{me} cannot race among {', '.join(contestants) or 'nobody'}: name two or more nodes, {me} one of them"
        )
    if not 1 <= rounds <= MOST_ROUNDS:
        raise InvalidInputError(f"rounds is {rounds}: use 1 to {MOST_ROUNDS}")


def _meet(scratch: Path, where: str, me: str, contestants: Sequence[str], patience_s: float) -> None:
    """Return once every contestant has come to the same point. Raises DeadlineError naming who never did."""
    _arrive(scratch, where, me)
    _await(scratch, where, contestants, patience_s)


def _arrive(scratch: Path, where: str, me: str) -> None:
    files.create_mark(scratch / _MEETING / f"{where}-{me}")


def _await(scratch: Path, where: str, contestants: Sequence[str], patience_s: float) -> None:
    wanted = {f"{where}-{name}" for name in contestants}
    missing = _wait(lambda: wanted - set(files.list_names(scratch / _MEETING)), patience_s)
    if missing:
        names = ", ".join(sorted(name.removeprefix(f"{where}-") for name in missing))
        raise DeadlineError(f"{names} did not appear in {scratch.parent} within {patience_s:.0f} s")


def _wait(missing: Callable[[], set[str]], patience_s: float) -> set[str]:
    deadline_s = time.monotonic() + patience_s
    while (left := missing()) and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)
    return left
