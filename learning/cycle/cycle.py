"""The automatic cycle: label, train, select, compare, query, and again until the budget is spent.

Owns the order of the steps and nothing of their rules. Must never decide what a part decides, or keep anything that `CycleFolder`
does not: after kill -9 a new `Cycle` on the same folder goes on with the very same rounds, given parts that depend on their
arguments alone. A round that was cut short is done again, but labels once given are kept. Called by `learning.cycle.simulation`
and by whoever runs a loop of their own; one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.cycle.asking import DataSelector, QuerySelector, Situation
from learning.cycle.comparison import Comparer
from learning.cycle.rules import Agreement
from learning.cycle.selection import ModelSelector
from learning.cycle.state import CycleFolder, Round
from learning.cycle.training import Batch, Predictor, Trainer
from learning.held_out import held_out_mask
from learning.metrics import correct

Oracle = Callable[[NDArray[np.int64]], NDArray[Any]]
Judge = Callable[[Predictor], float]


class CycleSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a cycle runs. `initial` items are asked first, then `batch` a round, until `budget` are labelled (0 = all).

    `held_out_share` of the labelled items, by a hash of their row, judges models and trains none. `name`: what else tells this
    cycle from others (data, algorithm, strategy); a folder is refused to a cycle of another name.
    """

    n_labels: int
    batch: int = 20
    initial: int = 20
    budget: int = 0
    held_out_share: float = 0.0
    is_multilabel: bool = False
    seed: int = 0
    name: str = ""
    schema: int = 1


class Parts(NamedTuple):
    """What a cycle is made of; each part is replaced alone."""

    trainer: Trainer
    data_selector: DataSelector = QuerySelector()
    model_selector: ModelSelector = ModelSelector()
    comparer: Comparer = Comparer()


class Cycle:
    """One cycle in one folder. `oracle(rows)` gives their labels, (m,) or (m, n_labels); `judge(model)` the score of each round."""

    def __init__(self, parts: Parts, oracle: Oracle, settings: CycleSettings, folder: Path, judge: Judge | None = None) -> None:
        self._n = _checked(settings, parts.trainer.loader.n_items)
        self._parts, self._oracle, self._settings, self._judge = parts, oracle, settings, judge
        self._files = CycleFolder(folder)
        self._files.begin(settings)
        self.rounds: list[Round] = self._files.rounds()
        self.model: Predictor | None = None
        self._serving = -1
        done = [(self._files.asked(number), self._files.labels(number)) for number in range(len(self.rounds))]
        self._rows = [rows for rows, _ in done if rows is not None]
        self._labels = [labels for _, labels in done if labels is not None]
        if self.rounds and (serving := self.rounds[-1].serving) >= 0:
            self.model, _, _ = self._train(serving)
            self._serving = serving

    def is_over(self) -> bool:
        """Return whether the budget is spent."""
        return bool(self.rounds) and self.rounds[-1].labels >= self._n

    def run(self, until: Callable[[], bool] = lambda: False) -> bool:
        """Do rounds until the budget is spent (True) or `until()` says stop between two rounds (False)."""
        while not self.is_over():
            if until():
                return False
            self.step()
        return True

    def step(self) -> Round:
        """Do one round and return it. Raises InvalidInputError when the budget is spent or the oracle's labels do not fit."""
        if self.is_over():
            raise InvalidInputError(f"the budget of {self._n} labels is spent")
        number, reasons = len(self.rounds), {}
        if (rows := self._files.asked(number)) is None:
            rows, _ = self._query()
            self._files.ask(number, rows)
        agreement = self._label(number, rows)
        is_needed, reasons["train"] = self._parts.comparer.is_needed(self._agreement(agreement), self._version())
        step = 0
        if is_needed:
            new, step, reasons["select"] = self._train(number)
            held_out = self._held_out(number)
            is_better, reasons["compare"] = self._parts.comparer.is_better(new, self.model, held_out)
            if is_better:
                self.model, self._serving = new, number
        done = Round(
            number=number,
            labels=sum(map(len, self._rows)),
            score=None if self._judge is None or self.model is None else self._judge(self.model),
            drafts=agreement.n,
            drafts_right=int(agreement.right),
            step=step,
            serving=self._serving,
            reasons=reasons,
        )
        if done.labels < self._n:
            asked, reasons["query"] = self._query()
            self._files.ask(number + 1, asked)
        self._files.end_round(done)
        self.rounds.append(done)
        return done

    # ------------------------------------------------------------ the steps

    def _label(self, number: int, rows: NDArray[np.int64]) -> Agreement:
        """Get the labels of `rows` and return how many the serving model had answered right before."""
        labels = self._files.labels(number)
        if labels is None:
            labels = _checked_labels(self._oracle(rows), len(rows), self._settings)
            self._files.label(number, labels)
        self._rows.append(rows)
        self._labels.append(labels)
        if self.model is None:
            return Agreement(0, 0)
        hits = correct(labels, self.model.predict_proba(self._parts.trainer.loader.load(rows)))
        return Agreement(int(hits.sum()), len(hits))

    def _agreement(self, newest: Agreement) -> Agreement:
        """Return the agreement of the serving version over its newest rounds, as many as fill the comparer's window."""
        right, n = newest.right, newest.n
        for past in reversed(self.rounds):
            if n >= self._parts.comparer.window or past.number <= self._serving:
                break
            right, n = right + past.drafts_right, n + past.drafts
        return Agreement(right, n)

    def _train(self, number: int) -> tuple[Predictor, int, str]:
        """Return the model of round `number`, its step and why that one: from the labels given up to that round."""
        rows, labels = np.concatenate(self._rows[: number + 1]), np.concatenate(self._labels[: number + 1])
        held = self._is_held_out(rows)
        offered = self._parts.trainer.train(rows[~held], labels[~held], self._settings.n_labels, self._settings.seed)
        chosen, reason = self._parts.model_selector.choose(offered, self._held_out(number))
        return chosen.model, chosen.step, reason

    def _is_held_out(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        held = held_out_mask((str(row) for row in rows), self._settings.held_out_share)
        return held if not held.all() else np.zeros(len(rows), dtype=np.bool_)

    def _held_out(self, number: int) -> Batch | None:
        rows, labels = np.concatenate(self._rows[: number + 1]), np.concatenate(self._labels[: number + 1])
        held = self._is_held_out(rows)
        return Batch(self._parts.trainer.loader.load(rows[held]), labels[held]) if held.any() else None

    def _query(self) -> tuple[NDArray[np.int64], str]:
        n_items = self._parts.trainer.loader.n_items
        rows = np.concatenate([np.empty(0, dtype=np.int64), *self._rows])
        is_free = np.ones(n_items, dtype=np.bool_)
        is_free[rows] = False
        shape = (0, self._settings.n_labels) if self._settings.is_multilabel else (0,)
        labels = np.concatenate([np.empty(shape, dtype=np.int64), *self._labels])
        seed = self._settings.seed * 100_003 + len(rows)
        pool = np.flatnonzero(is_free)
        situation = Situation(
            self._parts.trainer.loader, pool, rows, labels, self.model, self._settings.n_labels, self._settings.is_multilabel, seed
        )
        wanted = self._settings.batch if len(rows) else self._settings.initial
        found, reason = self._parts.data_selector.choose(situation, min(wanted, self._n - len(rows)))
        return _checked_rows(found, is_free), reason

    def _version(self) -> str:
        return f"the model of round {self._serving}" if self._serving >= 0 else ""


def _checked(settings: CycleSettings, n_items: int) -> int:
    """Return how many labels the cycle gives. Raises InvalidInputError naming the setting at fault."""
    if settings.n_labels < 2:
        raise InvalidInputError(f"a cycle needs 2 labels or more to tell apart, got n_labels={settings.n_labels}")
    for name in ("batch", "initial"):
        if getattr(settings, name) < 1:
            raise InvalidInputError(f"{name} must be 1 or more, got {getattr(settings, name)}")
    if not 0 <= settings.held_out_share < 1:
        raise InvalidInputError(f"held_out_share must be in [0, 1), got {settings.held_out_share}")
    budget = settings.budget or n_items
    if not 0 < settings.initial <= budget <= n_items:
        raise InvalidInputError(f"initial {settings.initial}, budget {budget} and the {n_items} items must rise in this order")
    return budget


def _checked_rows(rows: NDArray[np.int64], is_free: NDArray[np.bool_]) -> NDArray[np.int64]:
    if not len(rows) or len(np.unique(rows)) != len(rows) or not is_free[rows].all():
        raise InvalidInputError("a data selector must choose distinct rows of the pool, at least one")
    return np.asarray(rows, dtype=np.int64)


def _checked_labels(labels: NDArray[Any], n: int, settings: CycleSettings) -> NDArray[np.int64]:
    labels = np.asarray(labels)
    shape = (n, settings.n_labels) if settings.is_multilabel else (n,)
    top = 1 if settings.is_multilabel else settings.n_labels - 1
    if labels.shape != shape or labels.dtype.kind not in "biu":
        raise InvalidInputError(f"the oracle gave {labels.dtype} of shape {labels.shape}, expected integers of shape {shape}")
    if labels.min() < 0 or labels.max() > top:
        raise InvalidInputError(f"the oracle's labels lie in {labels.min()} to {labels.max()}: allowed is 0 to {top}")
    return labels.astype(np.int64)
