"""What the label log of one task amounts to, kept up to date row by row.

Labels that rules or a crowd gave (`proba`) are counted apart: they teach, and nothing is judged or budgeted by them. Owns the
counts that policy and comparer look at. Must never read a file: rows come from `LabelLog.refresh`. Called by the state of a task;
not thread-safe, its owner is the sweep.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from datastore_layout.labels import LabelRow
from learning.held_out import is_held_out
from roles.train.comparer import DraftedLabel

NO_LABEL = ("",)  # a multilabel item without any label counts as a class of its own


class Tally:
    """Counts over the merged log. `held_out_share` as in the settings, `window` the comparer's number of labels; `has_regions`:
    the classes are those of boxes or spans, and an item without any is of none."""

    def __init__(self, held_out_share: float, window: int, has_regions: bool = False) -> None:
        self._has_regions = has_regions
        self._share = held_out_share
        self._keep_drafted = 8 * window
        self._counted: dict[str, LabelRow] = {}
        self._trained: Mapping[str, int] = {}
        self._changed: set[str] = set()
        self._changed_weak: set[str] = set()
        self._classes: Counter[str] = Counter()
        self._drafted: dict[str, DraftedLabel] = {}
        self.held_out = 0
        self.weak_labels = 0

    def take(self, rows: Iterable[LabelRow], latest_of: Callable[[str], LabelRow | None]) -> None:
        """Take in `rows` that are new in the log; `latest_of` is the log's."""
        for item_id in dict.fromkeys(row.item_id for row in rows):
            row = latest_of(item_id)
            is_good = row is not None and not (row.is_deleted or row.error_code)
            self._replace(item_id, row if is_good else None)

    def _replace(self, item_id: str, row: LabelRow | None) -> None:
        before = self._counted.pop(item_id, None)
        if before is not None:
            self._count(before, -1)
            self._drafted.pop(item_id, None)
        if row is not None:
            self._counted[item_id] = row
            self._count(row, 1)
            self._remember_draft(row)
        self._mark(item_id, row)

    def _count(self, row: LabelRow, by: int) -> None:
        is_weak = bool(row.proba)
        self.weak_labels += by * is_weak
        if is_held_out(row.item_id, self._share):
            self.held_out += by * (not is_weak)  # nothing is judged on what rules say, and nothing learns from held-out items
            return
        for label in {one.label for one in row.regions} if self._has_regions else row.labels or NO_LABEL:
            self._classes[label] += by
            if not self._classes[label]:
                del self._classes[label]

    def _remember_draft(self, row: LabelRow) -> None:
        if row.draft is None or row.proba:
            return
        self._drafted[row.item_id] = DraftedLabel(
            version=row.draft.version,
            draft=row.draft.labels,
            labels=row.labels,
            draft_regions=row.draft.regions,
            regions=row.regions,
        )
        if len(self._drafted) > self._keep_drafted:
            del self._drafted[next(iter(self._drafted))]

    def _mark(self, item_id: str, row: LabelRow | None) -> None:
        now = row.revision if row is not None else None
        self._changed.discard(item_id)
        self._changed_weak.discard(item_id)
        if self._trained.get(item_id) != now:
            (self._changed_weak if row is not None and row.proba else self._changed).add(item_id)

    def begin_run(self, trained: Mapping[str, int]) -> None:
        """Count what is new from here on: a run began on `trained`, the revision of each item it learns from."""
        self._trained = trained
        gone = {item_id for item_id in trained if item_id not in self._counted}
        changed = {i for i, row in self._counted.items() if trained.get(i) != row.revision}
        self._changed_weak = {i for i in changed if self._counted[i].proba}
        self._changed = gone | (changed - self._changed_weak)

    @property
    def labels(self) -> int:
        """Items with a usable label that people gave."""
        return len(self._counted) - self.weak_labels

    @property
    def classes(self) -> int:
        """Different labels among those that a run would learn from."""
        return len(self._classes)

    @property
    def new_labels(self) -> int:
        """Items whose label by people came or changed, or whose label went, since the last run began."""
        return len(self._changed)

    @property
    def new_weak(self) -> int:
        """Items whose label by rules or a crowd came or changed since the last run began."""
        return len(self._changed_weak)

    @property
    def drafted(self) -> tuple[DraftedLabel, ...]:
        """The newest labels given to items that showed a draft, newest last."""
        return tuple(self._drafted.values())

    @property
    def rows(self) -> tuple[LabelRow, ...]:
        """The rows a run would use, oldest first."""
        return tuple(self._counted.values())
