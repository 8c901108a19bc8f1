"""The training of best-of: members learn one after another from the same items, and the best of them is trained on all.

Owns the split, the comparison, its record and the model that carries it. Must never see the held-out part of a run: gate and model
selector need it unseen, so members are compared on rows kept aside from what the run trains on (M. Stone, "Cross-Validatory Choice
and Assessment of Statistical Predictions", Journal of the Royal Statistical Society B, 1974). Called by `best_of`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import IntegrityError, InvalidInputError
from learning.algorithms import constant
from learning.algorithms.base import Algorithm, Files, Model, Training, is_soft, need
from learning.algorithms.early_stop import keep_aside
from learning.algorithms.linear_model import log_loss
from learning.metrics import accuracy
from learning.metrics_regions import BOX, mean_average_precision, region_f1, span_f1
from learning.regions import RegionModel, Regions

RECORD, STATE = "best-of.json", "contest.json"
_AT_WORK, _BEST = "at-work.", "best."


class Score(msgspec.Struct, frozen=True):
    """On the rows kept aside: `score` in [0, 1], high is good (accuracy, mAP50 or span F1), `loss`, low is good (log loss; of
    regions 1 - F1)."""

    member: str
    score: float
    loss: float

    @property
    def rank(self) -> tuple[float, float]:
        """What to take the largest of."""
        return self.score, -self.loss if math.isfinite(self.loss) else -math.inf

    def __str__(self) -> str:
        return f"{self.member} {self.score:.1%} (loss {self.loss:.3g})"


class Record(msgspec.Struct, frozen=True):
    """What lies beside the winner's files; `note` is the sentence for people."""

    winner: str
    parameters: dict[str, Any]
    scores: tuple[Score, ...]
    left_out: dict[str, str]
    note: str
    schema: int = 1


class Progress(msgspec.Struct, frozen=True):
    """How far a contest is; `at` is the member at work, the number of members once the winner is known."""

    members: tuple[str, ...]
    rows: int
    step: int
    at: int
    winner: int
    scores: tuple[Score, ...]
    left_out: dict[str, str]
    note: str


class Member(NamedTuple):
    """One algorithm with its parameters."""

    algorithm: Algorithm
    parameters: dict[str, Any]

    @property
    def label(self) -> str:
        """The name, with the parameters that were given."""
        given = ", ".join(f"{name}={value}" for name, value in self.parameters.items())
        return f"{self.algorithm.name} ({given})" if given else self.algorithm.name

    def read(self, files: Files) -> Model:
        """Return the model in `files`. Raises IntegrityError."""
        return constant.load(files[constant.FILE]) if constant.FILE in files else self.algorithm._load(files)


class BestOfModel(Model):
    """The winner's model; `record` says how it won."""

    def __init__(self, winner: Model, record: Record) -> None:
        self.winner, self.record, self.n_labels = winner, record, winner.n_labels

    def predict_proba(self, x: NDArray[Any]) -> NDArray[np.float32]:
        return self.winner.predict_proba(x)

    def files(self) -> dict[str, bytes]:
        return {**self.winner.files(), RECORD: msgspec.json.encode(self.record)}


class BestOfRegionModel(BestOfModel, RegionModel):
    """The same of boxes or spans."""

    winner: RegionModel

    def predict_regions(self, x: NDArray[Any]) -> list[Regions]:
        return self.winner.predict_regions(x)


def wrap(winner: Model, record: Record) -> Model:
    """Return the winner with its record; a constant model stays what it is."""
    if isinstance(winner, constant.ConstantModel):
        return winner
    return BestOfRegionModel(winner, record) if isinstance(winner, RegionModel) else BestOfModel(winner, record)


class Data(NamedTuple):
    """What is learned from; x and y as checked by `Algorithm.start`."""

    x: NDArray[Any]
    y: Any
    n_labels: int
    is_multilabel: bool

    def rows(self, rows: NDArray[np.int64]) -> Data:
        """Return some of the items."""
        y = [self.y[row] for row in rows] if isinstance(self.y, list) else self.y[rows]
        return self._replace(x=self.x[rows], y=y)


class Contest(Training):
    """First the steps of each member on what is not kept aside, then the winner's on everything. `steps` is exact for the part at
    work and falls when a later one turns out shorter. The checkpoint holds the training at work and the best model so far."""

    def __init__(self, members: Sequence[Member], data: Data, share: float, has_refit: bool, epoch: int, seed: int) -> None:
        self._data, self._has_refit, self._epoch, self._seed = data, has_refit, epoch, seed
        self._left_out: dict[str, str] = {}
        self._bounds: list[int] = []
        self._members = [member for member in members if self._can_learn(member)]
        if not self._members:
            reasons = "; ".join(f"{label}: {why}" for label, why in self._left_out.items())
            raise InvalidInputError(f"none of the algorithms can learn from this data, name others: {reasons}")
        train, kept = _split(data.y, share, seed)
        self._train, self._kept = data.rows(train), data.rows(kept)
        self._scores: tuple[Score, ...] = ()
        self._best: Model | None = None
        self._at, self._winner = 0, -1
        self._work: Training | None = None
        if len(self._members) == 1 or not len(kept):
            self._decide_without_contest(len(kept))
        else:
            self._begin_member()

    def _can_learn(self, member: Member) -> bool:
        try:
            self._bounds.append(self._start(member, self._data).steps)
        except InvalidInputError as exc:
            self._left_out[member.label] = str(exc)
            return False
        return True

    def _start(self, member: Member, data: Data) -> Training:
        return member.algorithm.start(*data, dict(member.parameters), self._epoch, self._seed)

    # ------------------------------------------------------------ the order of parts

    def advance(self) -> float:
        if self.step >= self.steps:
            raise InvalidInputError(f"this training is done: its {self.steps} steps are taken")
        work = self._work
        assert work is not None
        seen = work.n_seen
        loss = work.advance()
        self.step += 1
        self.n_seen += work.n_seen - seen
        if work.step >= work.steps and self._at < len(self._members):
            self._judge(work.model())
            self._at += 1
            self._begin_member()
        self._plan()
        return loss

    def _judge(self, model: Model) -> None:
        score = _score(self._members[self._at].label, model, self._kept)
        if self._best is None or score.rank > max(one.rank for one in self._scores):
            self._best, self._winner = model, self._at
        self._scores = (*self._scores, score)

    def _begin_member(self) -> None:
        """Start the member whose turn it is, or the next that can learn from what is not kept aside; after the last one decide."""
        while self._at < len(self._members):
            try:
                self._work = self._start(self._members[self._at], self._train)
                self._plan()
                return
            except InvalidInputError as exc:
                self._left_out[self._members[self._at].label] = str(exc)
                self._at += 1
        if self._best is None:
            self._decide_without_contest(len(self._kept.x))
            return
        ranked = sorted(self._scores, key=lambda one: one.rank, reverse=True)
        said = f"{ranked[0].member} is the best of {len(ranked)} on {len(self._kept.x)} items kept aside: "
        self._begin_final(said + ", ".join(map(str, ranked)), self._has_refit)

    def _decide_without_contest(self, n_kept: int) -> None:
        label, self._winner = self._members[0].label, 0
        why = "no other algorithm of the set can learn this" if n_kept else f"{len(self._data.x)} items are too few to compare on"
        self._begin_final(f"{label} without a comparison: {why}", True)

    def _begin_final(self, note: str, has_training: bool) -> None:
        self._at = len(self._members)
        left_out = [f"{label} is left out: {why}" for label, why in self._left_out.items()]
        refit = [f"trained on all {len(self._data.x)} items"] if has_training else []
        self.note = "; ".join([note, *left_out, *refit])
        self._work = self._start(self._members[self._winner], self._data) if has_training else None
        self._plan()

    def _plan(self) -> None:
        work, is_final = self._work, self._at == len(self._members)
        left = 0 if work is None else work.steps - work.step
        if not is_final:
            left += sum(self._bounds[self._at + 1 :]) + (max(self._bounds) if self._has_refit else 0)
        self.steps = self.step + left
        self.is_candidate = is_final and (work is None or work.step > 0)

    # ------------------------------------------------------------ what it is worth, and going on

    def model(self) -> Model:
        """Return the winner's model; while members are compared the best so far, or of the first one as far as it is."""
        work, is_final = self._work, self._at == len(self._members)
        if self._best is not None and not (is_final and work is not None and work.step):
            return wrap(self._best, self._record(self._winner))
        assert work is not None
        return wrap(work.model(), self._record(self._winner if is_final else self._at))

    def _record(self, number: int) -> Record:
        member = self._members[number]
        return Record(member.algorithm.name, member.parameters, self._scores, self._left_out, self.note)

    def _labels(self) -> tuple[str, ...]:
        return tuple(member.label for member in self._members)

    def state(self) -> dict[str, bytes]:
        progress = Progress(
            self._labels(), len(self._data.x), self.step, self._at, self._winner, self._scores, self._left_out, self.note
        )
        at_work = {} if self._work is None else self._work.state()
        best = {} if self._best is None else self._best.files()
        return {
            STATE: msgspec.json.encode(progress),
            **{_AT_WORK + name: data for name, data in at_work.items()},
            **{_BEST + name: data for name, data in best.items()},
        }

    def restore(self, state: Files) -> None:
        progress = _read(need(state, STATE), Progress, STATE)
        if (progress.members, progress.rows) != (self._labels(), len(self._data.x)):
            raise IntegrityError(f"the state is of {', '.join(progress.members)} on {progress.rows} items, not of this training")
        if not 0 <= progress.at <= len(self._members) or not -1 <= progress.winner < len(self._members):
            raise IntegrityError(f"{STATE} is of member {progress.at} and winner {progress.winner}, there are {len(self._members)}")
        self.step, self._at, self._winner, self.note = progress.step, progress.at, progress.winner, progress.note
        self._scores, self._left_out = progress.scores, progress.left_out
        best = _under(_BEST, state)
        self._best = self._members[self._winner].read(best) if best else None
        self._work = self._restored(_under(_AT_WORK, state))
        self._plan()

    def _restored(self, state: Files) -> Training | None:
        if self._at < len(self._members):
            work = self._start(self._members[self._at], self._train)
        elif self._has_refit or self._best is None:
            work = self._start(self._members[self._winner], self._data)
        else:
            return None
        work.restore(state)
        return work


def _under(prefix: str, state: Files) -> dict[str, bytes]:
    return {name.removeprefix(prefix): data for name, data in state.items() if name.startswith(prefix)}


def _split(y: Any, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows to train on and rows kept aside: of each class its share; items with regions by the label of the first one."""
    if isinstance(y, list):
        y = np.array([int(one.labels[0]) if len(one.labels) else -1 for one in y])
    return keep_aside(y, share, seed)


def _score(member: str, model: Model, kept: Data) -> Score:
    if isinstance(kept.y, list):
        assert isinstance(model, RegionModel)
        found = model.predict_regions(kept.x)
        is_box = kept.y[0].where.shape[1] == BOX
        score = mean_average_precision(kept.y, found, kept.n_labels) if is_box else span_f1(kept.y, found)
        return Score(member, score, 1.0 - region_f1(kept.y, found))
    proba = model.predict_proba(kept.x)
    truth = kept.y.argmax(axis=1) if is_soft(kept.y) else kept.y
    return Score(member, accuracy(truth, proba), log_loss(proba, kept.y))


def _read(data: bytes, kind: type[Any], name: str) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as exc:
        raise IntegrityError(f"{name} is malformed: {exc}") from exc


def read_record(files: Mapping[str, bytes]) -> Record:
    """Return the record in `files`. Raises IntegrityError."""
    record: Record = _read(need(files, RECORD), Record, RECORD)
    return record
