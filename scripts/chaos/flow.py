"""The flow: four clients of one task side by side, and what they noted together.

Owns nothing but them. Must never look into the datastore nor judge: `trial` reads the log, `oracle` judges. Called by
`scripts.chaos.trial`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from labelloop.clients import Cluster
from scripts.chaos.items import sample_of
from scripts.chaos.oracle import LabelSeen
from scripts.chaos.streams import CallStream, JobStream, OutboxStream, Pace, RawStream, Sizes, Stream


class Flow:
    """The four clients of one task. Use as a context manager: it ends them."""

    def __init__(self, cluster: Cluster, task: str, sizes: Sizes) -> None:
        self.sizes = sizes
        self.pace = Pace(sizes.span_s)
        self.outbox = OutboxStream(cluster, task, self.pace, sizes)
        self.raw = RawStream(cluster, task, self.pace, sizes)
        self.calls = CallStream(cluster, task, self.pace, sizes)
        self.jobs = JobStream(cluster, task, self.pace, sizes)
        self.streams: tuple[Stream, ...] = (self.outbox, self.raw, self.calls, self.jobs)

    def __enter__(self) -> Flow:
        for stream in self.streams:
            stream.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for stream in self.streams:
            stream.close()

    def is_under_way(self) -> bool:
        """Return whether every client has had answers, and none is through: the moment for a fault."""
        return all(0 < stream.n_done < len(stream.item_ids) for stream in self.streams)

    def n_answered(self) -> int:
        """Return how many items of all clients are acknowledged or answered."""
        return sum(stream.n_done for stream in self.streams)

    def is_over(self) -> bool:
        """Return whether every client is through, or has given up."""
        return all(stream.is_finished or not stream.is_running for stream in self.streams)

    def why_not_over(self) -> str:
        """Return who still waits for what."""
        late = [s for s in self.streams if not s.is_finished]
        return ", ".join(f"{s.name} {s.n_done} of {len(s.item_ids)} ({s.last_trouble or 'no error'})" for s in late)

    def acknowledged(self) -> tuple[LabelSeen, ...]:
        """Return the labels that the cluster said it has."""
        return _sent((*self.outbox.acknowledged(), *self.raw.acknowledged))

    def offered(self) -> tuple[LabelSeen, ...]:
        """Return the labels that were ever put on the wire."""
        return _sent((*self.outbox.offered(), *self.raw.offered))

    def unanswered_calls(self) -> tuple[str, ...]:
        """Return the ids of calls that never got their answer."""
        return self.calls.item_ids[self.calls.n_done :]

    def unanswered_labels(self) -> tuple[str, ...]:
        """Return the labels that no client got acknowledged."""
        known = set(self.outbox.acknowledged()) | set(self.raw.acknowledged)
        return tuple(i for i in (*self.outbox.item_ids, *self.raw.item_ids) if i not in known)

    def unaccepted_items(self) -> tuple[str, ...]:
        """Return the items of jobs that were never accepted."""
        known = {item for asked in self.jobs.asked.values() for item in asked}
        return tuple(i for i in self.jobs.item_ids if i not in known)

    def errors(self) -> tuple[str, ...]:
        """Return the permanent errors that clients got."""
        return tuple(error for stream in self.streams for error in stream.errors)

    def longest_silence_s(self) -> float:
        """Return the longest time that one client waited for an answer, however often it asked."""
        return max(stream.longest_silence_s for stream in self.streams)

    def troubles(self) -> Counter[str]:
        """Return the retryable errors of all clients by code."""
        return sum((stream.troubles for stream in self.streams), Counter())


def _sent(item_ids: Iterable[str]) -> tuple[LabelSeen, ...]:
    return tuple(LabelSeen(item, 1, sample_of(item).labels) for item in item_ids)
