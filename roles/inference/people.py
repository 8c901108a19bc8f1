"""What the people who label say of items, as one opinion: the crowd that a rule may ask.

Owns the posteriors of a task's label log, made anew when a batch came. Must never count a label that rules gave: a rule would learn
from itself. Called by `rule_desk` on a worker's main thread alone.

Each person's last word on an item counts once. Where no item has the words of two people yet, nobody can be compared: the
posterior is then that one label, and a rule of kind crowd says of labelled items what was said of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datastore_layout.labels import LabelLog
from datastore_layout.root import TaskFolder
from labelloop.messages import TaskSpec
from learning.crowd import aggregate, crowd_labels

METHOD = "dawid-skene"
_TASKS = 4
_MOST_CONFUSION = 20_000_000  # annotators x labels x labels; beyond, people are taken to be equally good


class _Task:
    """The log of one task and what its people say."""

    def __init__(self, folder: TaskFolder) -> None:
        self._log = LabelLog(folder)
        self._made_of = ("", 0)
        self._row_of: dict[str, int] = {}
        self._posteriors: NDArray[np.float32] = np.empty((0, 0), dtype=np.float32)

    def posteriors(self, spec: TaskSpec, item_ids: Sequence[str]) -> NDArray[np.float32]:
        self._log.refresh()
        now = (self._log.position, spec.revision)
        if now != self._made_of:
            self._make(spec)
            self._made_of = now
        out = np.full((len(item_ids), len(spec.extra.labels)), np.nan, dtype=np.float32)
        known = [(at, self._row_of[item_id]) for at, item_id in enumerate(item_ids) if item_id in self._row_of]
        if known:
            out[[at for at, _ in known]] = self._posteriors[[row for _, row in known]]
        return out

    def _make(self, spec: TaskSpec) -> None:
        number = {label: place for place, label in enumerate(spec.extra.labels)}
        items: dict[str, int] = {}
        people: dict[str, int] = {}
        said: list[tuple[int, int, int]] = []
        for item_id, rows in self._log.answers().items():
            for row in rows:
                if len(row.labels) == 1 and row.labels[0] in number:
                    item = items.setdefault(item_id, len(items))
                    said.append((item, people.setdefault(row.annotator, len(people)), number[row.labels[0]]))
        self._row_of = items
        if not said:
            return
        triples = np.array(said, dtype=np.int64)
        labels = crowd_labels(*triples.T, n_items=len(items), n_workers=len(people), n_classes=len(number))
        method = METHOD if len(people) * len(number) ** 2 <= _MOST_CONFUSION else "majority"
        self._posteriors = aggregate(method, labels).posteriors.astype(np.float32)


class People:
    """Opinions of the tasks asked for last."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[str, _Task] = OrderedDict()

    def posteriors(self, folder: TaskFolder, spec: TaskSpec, item_ids: Sequence[str]) -> NDArray[np.float32]:
        """Return how likely each label is, (n, k), by what people said; a row of NaN = nobody has said anything."""
        name = str(folder.path)
        if name not in self._tasks:
            self._tasks[name] = _Task(folder)
            if len(self._tasks) > _TASKS:
                self._tasks.popitem(last=False)
        self._tasks.move_to_end(name)
        return self._tasks[name].posteriors(spec, item_ids)
