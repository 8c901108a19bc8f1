"""One order and what came of it: who was asked, who answered, what they disagree about; and pauses after failures.

Must never call anybody. Used by `cluster.steward` under its lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cluster.orders import agreed_good, why_not_agreed
from labelloop.errors import LabelloopError
from labelloop.messages import InitialReply, MachineInfo

_RETRY_FIRST_S = 1.0
_RETRY_MOST_S = 15.0


class Round:
    """The order of one epoch to the machines `alive`; later repeats to some of them belong to it."""

    def __init__(self, epoch: int, alive: Sequence[MachineInfo]) -> None:
        self.epoch = epoch
        self.alive = tuple(alive)
        self.pending: set[str] = set()
        self.replies: dict[str, InitialReply] = {}
        self.failures: dict[str, str] = {}

    def ask(self, names: Iterable[str]) -> None:
        """Note that these were asked."""
        for name in names:
            self.pending.add(name)
            self.failures.pop(name, None)

    def answer(self, name: str, answer: InitialReply | LabelloopError) -> bool:
        """Take in an answer; return whether it was the last one that was waited for."""
        self.pending.discard(name)
        if isinstance(answer, LabelloopError):
            self.failures[name] = f"{answer.code}: {answer}"
        else:
            self.replies[name] = answer
        return not self.pending

    @property
    def quarrel(self) -> str:
        """Return who found others good than those that heartbeat, '' = nobody."""
        return why_not_agreed(self.replies, self.alive)

    @property
    def agreed(self) -> tuple[MachineInfo, ...]:
        """Return the machines that every answer names as good."""
        return agreed_good(self.replies, self.alive)

    @property
    def trouble(self) -> str:
        """Return in one sentence what went wrong, '' = nothing."""
        words = [f"{name}: {why}" for name, why in sorted(self.failures.items())]
        return "; ".join(filter(None, [*words, self.quarrel]))


class Pauses:
    """When each key may be tried again: after 1, 2, 4 ... 15 s while it keeps failing."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}
        self.until_s: dict[str, float] = {}

    def fail(self, key: str, now_s: float) -> None:
        """Note a failure at `now_s`."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        self.until_s[key] = now_s + min(_RETRY_MOST_S, _RETRY_FIRST_S * 2.0 ** min(count - 1, 10))

    def clear(self, key: str = "") -> None:
        """Forget the failures of a key; '' = of all."""
        for known in [key] if key else list(self._failures):
            self._failures.pop(known, None)
            self.until_s.pop(known, None)

    def hurry(self) -> None:
        """Let everything be tried now; who keeps failing waits as long as before."""
        self.until_s.clear()

    def is_over(self, key: str, now_s: float) -> bool:
        """Return whether `key` may be tried."""
        return now_s >= self.until_s.get(key, 0.0)
