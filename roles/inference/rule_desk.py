"""Rules over the items of one order, in one interactive worker: what a person tries out answers from memory.

Owns blocks of items that were read a moment ago, with the votes of rules on them, bounded by bytes. Must never embed an item for a
rule that only reads it, nor weigh votes. Called by `worker` on the child's main thread alone.

A person who writes rules asks again and again on the same items, one rule changed: items are read once, words numbered once, and a
rule that is the same has its votes already. A block with an item whose link did not answer is not kept.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from intake.decode import Decoded
from intake.loading import Loader
from intake.pipeline import decide_columns, known_columns
from intake.tables import Cell, Column, Row, as_number
from intake.wordnet import read_wordnet
from labelloop.errors import BY_CODE, DeadlineError, LabelloopError, NotFoundError, NotReadyError, TooLargeError
from labelloop.messages import Item, ItemError, TaskSpec
from labelloop.settings import IntakeSettings
from learning.weak import (
    ABSTAIN,
    CrowdOpinion,
    Hypernym,
    Items,
    Knowledge,
    ModelOpinion,
    Relation,
    Rule,
    apply_rules,
    read_rules,
)
from roles.inference.calls import RulesWork, RuleVotes
from roles.inference.people import People
from roles.inference.predictor import Predictor

logger = logging.getLogger(__name__)

CACHE_BYTES = 256 * 2**20
BLOCK_AGE_S = 600.0
READ_S = 10.0  # for an order's items
RULES_S = 10.0  # for an order's rules
TEXT, ITEM = "text", "item"
_KEPT_RULES = 1000
_BYTES_A_CHAR = 8  # a text, its folded and encoded copies, its words' numbers
_BYTES_A_CELL = 150
_BYTES_AN_ERROR = 1000

Votes = NDArray[np.int16]


class Block:
    """Items that were read: `items` are those at the positions `good`, `failed` the others by position."""

    def __init__(self, items: Items | None, good: Sequence[int], failed: Mapping[int, LabelloopError], size_bytes: int) -> None:
        self.items, self.good, self.failed, self.size_bytes = items, list(good), failed, size_bytes
        self.read_s = time.monotonic()
        self._votes: OrderedDict[bytes, Votes] = OrderedDict()

    def votes(self, rule: Rule, n_labels: int) -> Votes:
        """Return what a rule that only reads items says of the good ones, (n_good,)."""
        assert self.items is not None
        key = hashlib.blake2b(msgspec.json.encode(rule), digest_size=16).digest()
        if key not in self._votes:
            self._votes[key] = apply_rules((rule,), self.items, n_labels)[:, 0]
            if len(self._votes) > _KEPT_RULES:
                self._votes.popitem(last=False)
        self._votes.move_to_end(key)
        return self._votes[key]


class RuleDesk:
    """Applies rules; one per worker child."""

    def __init__(self, predictor: Predictor, settings: IntakeSettings) -> None:
        self._predictor, self._settings = predictor, settings
        self._people = People()
        self._blocks: OrderedDict[bytes, Block] = OrderedDict()
        self._loaders: dict[str, Loader] = {}

    def votes(self, work: RulesWork) -> RuleVotes:
        """Return what each rule says of each item.

        Raises InvalidInputError naming the rule, TooLargeError when the rules take longer than `RULES_S`, NotReadyError where a
        rule asks for a knowledge base that this node lacks.
        """
        spec = self._predictor.spec(work.task)
        rules = read_rules(work.rules, len(spec.extra.labels))
        block = self._block(spec, work.items)
        opinions = _Opinions(self._predictor, self._people, spec, work)
        votes = np.full((len(work.items), len(rules)), ABSTAIN, dtype=np.int16)
        end_s = time.monotonic() + RULES_S
        for place, rule in enumerate(rules):
            if time.monotonic() > end_s:
                raise TooLargeError(f"rule {rule.name!r} was not reached in {RULES_S:g} s: ask for fewer items or fewer rules")
            if isinstance(rule, ModelOpinion | CrowdOpinion):
                votes[:, place] = opinions.votes(rule)
            elif block.items is not None:
                if isinstance(rule, Hypernym | Relation):
                    block.items.knowledge.setdefault("wordnet", _wordnet(rule.name))
                votes[block.good, place] = block.votes(rule, len(spec.extra.labels))
        failed = {**opinions.failed, **block.failed}
        votes[list(failed)] = ABSTAIN
        errors = (ItemError(item_id=work.items[i].item_id, code=e.code, reason=str(e)) for i, e in sorted(failed.items()))
        return RuleVotes(data=votes.tobytes(), failed=tuple(errors))

    # ------------------------------------------------------------ items

    def _block(self, spec: TaskSpec, items: Sequence[Item]) -> Block:
        if spec.category == "image-classification":
            return Block(None, (), {}, 0)  # no rule reads a picture
        key = hashlib.blake2b(msgspec.json.encode([spec.task, spec.revision, [item.link for item in items]])).digest()
        found = self._blocks.pop(key, None)
        if found is None or time.monotonic() - found.read_s > BLOCK_AGE_S:
            found = self._read(spec, items)
        if not any(error.is_retryable for error in found.failed.values()):
            self._blocks[key] = found
        while self._blocks and sum(block.size_bytes for block in self._blocks.values()) > CACHE_BYTES:
            self._blocks.popitem(last=False)
        return found

    def _read(self, spec: TaskSpec, items: Sequence[Item]) -> Block:
        if spec.category not in self._loaders:
            self._loaders[spec.category] = Loader(spec.category, self._settings)
        links = list(dict.fromkeys(item.link for item in items))
        outcome = dict(zip(links, self._loaders[spec.category].read(links, time.monotonic() + READ_S), strict=True))
        good: list[int] = []
        read: list[Decoded] = []
        failed: dict[int, LabelloopError] = {}
        for i, item in enumerate(items):
            found = outcome[item.link]
            if found is None:
                failed[i] = DeadlineError(f"its link was not reached in {READ_S:g} s: ask again, or for fewer items at once")
            elif isinstance(found, LabelloopError):
                failed[i] = found
            else:
                good.append(i)
                read.append(found)
        columns = self._columns(spec, read) if good else {}
        size_bytes = sum(map(_size_of, columns.values())) + _BYTES_AN_ERROR * len(failed)
        return Block(Items(columns) if good else None, good, failed, size_bytes)

    def _columns(self, spec: TaskSpec, read: Sequence[Decoded]) -> dict[str, list[Any]]:
        """Return what rules may name: the text of texts, the task's columns of rows."""
        rows = [row for row in read if isinstance(row, Row)]
        if not rows:
            return {TEXT: list(read)}
        folder = self._predictor.folder(spec.task)
        columns = known_columns(folder, spec) or decide_columns(folder, rows)
        return {column.name: [_cell(column, row.cells.get(column.name)) for row in rows] for column in columns}


def _cell(column: Column, cell: Cell) -> Cell:
    if column.kind == "number":
        return as_number(cell)
    return cell if cell is None or isinstance(cell, str) else f"{cell:g}"


def _size_of(column: Sequence[Any]) -> int:
    return sum(_BYTES_A_CELL + _BYTES_A_CHAR * len(cell) if isinstance(cell, str) else _BYTES_A_CELL for cell in column)


@functools.cache
def _read_base() -> Knowledge:
    return read_wordnet()


def _wordnet(asking: str) -> Knowledge:
    try:
        return _read_base()
    except NotFoundError as exc:
        raise NotReadyError(f"rule {asking!r} asks WordNet, which an inference node lacks: {exc}") from exc


class _Opinions:
    """What the serving model and the people say of the items of one order, each asked when the first rule wants it."""

    def __init__(self, predictor: Predictor, people: People, spec: TaskSpec, work: RulesWork) -> None:
        self._predictor, self._people, self._spec, self._work = predictor, people, spec, work
        self._sources: dict[str, NDArray[np.float32]] = {}
        self.failed: dict[int, LabelloopError] = {}

    def votes(self, rule: ModelOpinion | CrowdOpinion) -> Votes:
        """Return what the rule says of all items, (n,)."""
        if rule.source not in self._sources:
            self._sources[rule.source] = self._model() if isinstance(rule, ModelOpinion) else self._crowd()
        source = {rule.source: self._sources[rule.source]}
        items = Items(
            {ITEM: [item.item_id for item in self._work.items]},
            models=source if isinstance(rule, ModelOpinion) else None,
            crowds=source if isinstance(rule, CrowdOpinion) else None,
        )
        return apply_rules((rule,), items, len(self._spec.extra.labels))[:, 0]

    def _crowd(self) -> NDArray[np.float32]:
        ids = [item.item_id for item in self._work.items]
        return self._people.posteriors(self._predictor.folder(self._work.task), self._spec, ids)

    def _model(self) -> NDArray[np.float32]:
        """Return the version's probabilities by the task's labels: a label it does not know has 0, one that is gone is left out."""
        answer = self._predictor.predict(self._work.task, self._work.version, self._work.items)
        errors = {error.item_id: error for error in answer.failed}
        for i, item in enumerate(self._work.items):
            if item.item_id in errors:
                error = errors[item.item_id]
                self.failed[i] = BY_CODE.get(error.code, LabelloopError)(error.reason)
        said = np.frombuffer(answer.proba.data, dtype=np.float32).reshape(answer.proba.shape)
        proba = np.zeros((len(said), len(self._spec.extra.labels)), dtype=np.float32)
        for column, label in enumerate(self._spec.extra.labels):
            if label in answer.labels:
                proba[:, column] = said[:, answer.labels.index(label)]
        total = proba.sum(axis=1, keepdims=True)
        return np.divide(proba, total, out=np.zeros_like(proba), where=total > 0)
