"""One task as train_rpc knows it: what was accepted, what is processed, what the policy says.

Owns the memory of the task; its truth is the datastore, and a restart rebuilds all of it. Must never decide or hint. Called by the
handlers (many threads) and the sweep (one thread).

Locks: `_admission` guards what is being written right now and is held for memory work only, never while a file is written.
`refreshing` is held by whoever reads new log rows or makes a run, so that counts and rows belong together; handlers of
submit and progress never take it. `view` is frozen and replaced as a whole.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator

import msgspec

from datastore_layout.intake_files import IntakeIndex, write_intake
from datastore_layout.labels import LabelLog, LabelRow, conflict_of
from datastore_layout.models import Pointer
from datastore_layout.root import TaskFolder
from datastore_layout.tasks import read_spec
from labelloop.messages import (
    REGION_CATEGORIES,
    ItemError,
    ItemKey,
    ItemState,
    RunView,
    Sample,
    SubmitReply,
    SubmitRequest,
    TaskSpec,
)
from labelloop.settings import TrainSettings
from roles.train.run_watch import RunWatch
from roles.train.tally import Tally
from roles.train.validation import rejection, why_reject

logger = logging.getLogger(__name__)

Key = tuple[str, int]


class Waiting(msgspec.Struct):
    """A batch that no segment names yet: since when it waits, when it is hinted next and how long the pause after that is."""

    since_s: float
    due_s: float
    pause_s: float


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """What `progress` answers besides item states; made by the sweep."""

    labels_to_next: int = 0
    next_training: str = ""
    stop: str = ""
    comparer: str = ""
    agreement: float | None = None
    pointer: Pointer | None = None
    run: RunView | None = None


class TaskState:
    """See the module. Raises NotFoundError for a task that was never opened."""

    def __init__(self, folder: TaskFolder, settings: TrainSettings) -> None:
        self.folder = folder
        self.settings = settings
        self.log = LabelLog(folder)
        self.index = IntakeIndex(folder)
        self.refreshing = threading.RLock()
        self.waiting: dict[str, Waiting] = {}
        self.live: list[RunWatch] = []
        self.last_labels = 0
        self.newest_run = 0
        self.view = TaskView()
        self._admission = threading.Lock()
        self._writing: Counter[Key] = Counter()
        self._written: dict[Key, Sample] = {}
        self.reload_spec()
        has_regions = self.spec.category in REGION_CATEGORIES
        self.tally = Tally(settings.held_out_share, settings.comparer_labels, has_regions)

    def reload_spec(self) -> bool:
        """Read the task's settings again; True when they changed. Raises NotFoundError, IntegrityError."""
        spec = read_spec(self.folder)
        if getattr(self, "spec", None) == spec:
            return False
        self.spec: TaskSpec = spec
        self._known = frozenset(spec.extra.labels)
        return True

    # ------------------------------------------------------------ what is known of an item

    def find(self, item_id: str, revision: int) -> Sample | LabelRow | None:
        """Return what was accepted under that identity, None = nothing."""
        row = self.log.state_of(item_id, revision)
        return row if row is not None else self.index.find(item_id, revision)

    def state_of(self, key: ItemKey) -> ItemState:
        """Return where a submitted label is."""
        row = self.log.state_of(key.item_id, key.revision)
        if row is None:
            is_known = self.index.find(key.item_id, key.revision) is not None
            return ItemState(item_id=key.item_id, revision=key.revision, state="waiting" if is_known else "unknown")
        if row.error_code:
            reason = f"{row.error_code}: {row.error_reason}"
            return ItemState(item_id=key.item_id, revision=key.revision, state="failed", reason=reason)
        return ItemState(item_id=key.item_id, revision=key.revision, state="done")

    # ------------------------------------------------------------ taking a batch in

    def submit(self, request: SubmitRequest, now_s: float) -> tuple[SubmitReply, bool]:
        """Make the good samples of a batch durable; return the answer and whether a batch was written that needs a hint.

        Raises ConflictError when the batch id was used with other samples, StorageFullError.
        """
        good, rejected, is_known = self._admit(request)
        reply = SubmitReply(batch_id=request.batch_id, accepted=len(good), rejected=rejected)
        if is_known:
            return reply, False
        kept = request if len(good) == len(request.samples) else msgspec.structs.replace(request, samples=good)
        try:
            is_new = write_intake(self.folder, kept)
            self.index.add(kept)
        finally:
            self._release(good)
        if is_new and not self.log.has_segment(request.batch_id):
            self.waiting[request.batch_id] = Waiting(now_s, now_s + self.settings.requeue_after_s, self.settings.requeue_after_s)
        return reply, is_new

    def _admit(self, request: SubmitRequest) -> tuple[tuple[Sample, ...], tuple[ItemError, ...], bool]:
        """Return (good, rejected, whether all good ones are durable already) and note the good ones as being written."""
        if any(why_reject(sample, self.spec, self._known) for sample in request.samples):
            self.reload_spec()  # the label may have been added a moment ago
        good: dict[Key, Sample] = {}
        rejected: list[ItemError] = []
        is_known = True
        with self._admission:
            for sample in request.samples:
                key = (sample.item_id, sample.revision)
                durable = self.find(*key)
                seen = durable or good.get(key) or self._written.get(key)
                if reason := why_reject(sample, self.spec, self._known):
                    rejected.append(rejection(sample, reason))
                elif conflict := conflict_of(sample, seen) if seen is not None else self._why_keep(sample):
                    rejected.append(rejection(sample, conflict, "conflict"))
                elif key not in good:
                    good[key] = sample
                    is_known = is_known and durable is not None
            if not is_known:
                self._writing.update(good.keys())
                self._written.update(good)
        return tuple(good.values()), tuple(rejected), is_known

    def _why_keep(self, sample: Sample) -> str | None:
        """Return why a label by rules does not replace what is known: a person's label, which a later one would hide."""
        known = self.log.latest_of(sample.item_id) if sample.proba else None
        if known is None or known.is_deleted or known.error_code or known.proba or known.revision > sample.revision:
            return None
        return f"a person has labelled item {sample.item_id!r}: what rules say of it does not replace that"

    def _release(self, samples: tuple[Sample, ...]) -> None:
        with self._admission:
            for sample in samples:
                key = (sample.item_id, sample.revision)
                self._writing[key] -= 1
                if self._writing[key] <= 0:
                    del self._writing[key]
                    self._written.pop(key, None)

    # ------------------------------------------------------------ following the datastore

    def refresh(self) -> int:
        """Take in new log rows; return how many. Costs one stat when nothing changed. Raises IntegrityError."""
        with self.refreshing:
            rows = self.log.refresh()
            if rows:
                self.tally.take(rows, self.log.latest_of)
        for batch in [batch for batch in list(self.waiting) if self.log.has_segment(batch)]:
            self.waiting.pop(batch, None)
        return len(rows)

    def find_waiting(self, now_s: float) -> None:
        """Look for batches that somebody else accepted (an earlier process, an earlier master); they are due at once."""
        self.index.refresh()
        for batch in self.index.waiting(self.log.segments):
            if batch not in self.waiting:
                self.waiting[batch] = Waiting(now_s, now_s, self.settings.requeue_after_s)

    def hint_again(self, batch: str) -> None:
        """Make the hint of a waiting batch due at once: the last one is known to be lost."""
        one = self.waiting.get(batch)
        if one is not None:
            one.due_s, one.pause_s = float("-inf"), self.settings.requeue_after_s

    def due_batches(self, now_s: float, longest_pause_s: float) -> Iterator[str]:
        """Yield the batches whose hint is due (again); each time the pause doubles."""
        for batch, one in list(self.waiting.items()):
            if now_s >= one.due_s:
                one.due_s, one.pause_s = now_s + one.pause_s, min(2 * one.pause_s, longest_pause_s)
                yield batch

    def oldest_wait_s(self, now_s: float) -> float:
        """Return how long the oldest waiting batch has waited, 0 = none waits."""
        return max((now_s - one.since_s for one in list(self.waiting.values())), default=0.0)
