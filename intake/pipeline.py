"""Links to features, each computed once per task and encoder: the same function for training and inference.

Owns the order cached by (item, link) → cached by content → fetched, decoded, embedded and written as shards, and the choice of
an encoder where the settings say 'auto'. Must never let one item's error fail its batch. Called by roles.data and
roles.inference; one `Pipeline` serves one thread at a time.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from datastore_layout.decisions import decide_once, read_decision, resolve_encoder
from datastore_layout.root import TaskFolder
from datastore_layout.shards import ShardSet
from intake.decode import Decoded, decoding_record
from intake.encoders import default_encoder, find_encoder, pixels_encoder
from intake.encoders.base import Encoder, Features
from intake.encoders.table_columns import TableColumns
from intake.loading import Loaded, Loader, Outcome
from intake.tables import Columns, Row, columns_of, declared_columns
from labelloop.decoding import decode_json
from labelloop.errors import InvalidInputError, LabelloopError, UnreadableItemError
from labelloop.ids import parse_item
from labelloop.messages import MEDIUM_OF, Item, ItemError, TaskSpec
from labelloop.settings import IntakeSettings

logger = logging.getLogger(__name__)

AUTO = "auto"
AUTO_PIXELS = "pixels"
_COLUMNS = "columns"
_PROBE = 32
_PROBE_ROWS = 1024
Place = tuple[str, int]
NOWHERE: Place = ("", -1)


@dataclass(frozen=True)
class FeatureBatch:
    """What became of a batch. Row i of `features` (n_ok, d) belongs to `item_ids[i]`, input position `indices[i]`, and lies at
    `places[i]` = (shard, row), ('', -1) when it was not written. `failed` and `failed_indices` name the others with their
    reasons; `unfinished` are positions that the budget of time left out."""

    item_ids: tuple[str, ...]
    features: Features
    places: tuple[Place, ...]
    failed: tuple[ItemError, ...]
    indices: tuple[int, ...] = ()
    failed_indices: tuple[int, ...] = ()
    unfinished: tuple[int, ...] = ()


def encoder_of(folder: TaskFolder, spec: TaskSpec) -> str | None:
    """Return the task's encoder: the one its settings name, else the one decided for it, None = not decided yet."""
    return spec.extra.encoder if spec.extra.encoder != AUTO else read_decision(folder, "encoder")


def preprocess_record(spec: TaskSpec, encoder: str, folder: TaskFolder | None = None) -> dict[str, Any]:
    """Return what a manifest stores about preprocessing: steps and versions, encoder, with `folder` a table's columns.

    Augmentation is done by the algorithms that read pixels and declared in their parameters.
    """
    record: dict[str, Any] = {"decoding": decoding_record(spec.category), "encoding": find_encoder(encoder).record()}
    if folder is not None and encoder == TableColumns.name:
        columns = known_columns(folder, spec)
        record["encoding"] = TableColumns(columns or ()).record()
    return record


def known_columns(folder: TaskFolder, spec: TaskSpec) -> Columns | None:
    """Return a table's columns: declared by its settings, else decided from its first rows, None = not decided yet."""
    declared = declared_columns(spec.extra.parameters)
    if declared is not None:
        return declared
    decided = read_decision(folder, _COLUMNS)
    return None if decided is None else decode_json(Columns, decided)


def decide_columns(folder: TaskFolder, rows: Sequence[Row]) -> Columns:
    """Return the columns of a table whose settings declare none: those of `rows`, unless others were decided first."""
    candidate = msgspec.json.encode(columns_of(rows)).decode()
    return decode_json(Columns, decide_once(folder, _COLUMNS, candidate))


class Pipeline:
    """Features of one task by one encoder.

    `encoder`: a name; 'auto' = the task's own (see `encoder_of`), chosen from the first readable items and then the same for
    all nodes; 'pixels' = the pictures that go with it, for algorithms that read pixels. Close it, or drop it.
    """

    def __init__(self, folder: TaskFolder, spec: TaskSpec, encoder: str, settings: IntakeSettings) -> None:
        self._folder = folder
        self._spec = spec
        self._asked = encoder
        self._settings = settings
        self._loader = Loader(spec.category, settings)
        self._encoder: Encoder | None = None
        self._shards: ShardSet | None = None
        self._finalizer = weakref.finalize(self, self._loader.close)
        if encoder not in (AUTO, AUTO_PIXELS):
            found = find_encoder(encoder)
            if found.category != spec.category:
                raise InvalidInputError(f"encoder {encoder!r} is for {found.category}, task {spec.task!r} is {spec.category}")

    def close(self) -> None:
        """Close idle connections."""
        self._finalizer()

    @property
    def encoder_name(self) -> str | None:
        """The encoder in use; None = 'auto' that is not decided yet."""
        if self._encoder is None:
            self._ready(())
        return self._encoder.name if self._encoder else None

    @property
    def shards(self) -> ShardSet | None:
        """The shards of the encoder in use; None = not decided yet."""
        return self._shards if self.encoder_name else None

    def features(self, items: Sequence[Item], write_shard: bool = True, budget_s: float | None = None) -> FeatureBatch:
        """Return the features of `items`, computing what no shard has; with `write_shard` the new ones are on disk on return.

        After `budget_s` no further download begins; what is left is `unfinished`. Raises StorageFullError and other errors of
        the datastore; NotReadyError when the encoder's weights are missing.
        """
        deadline = None if budget_s is None else time.monotonic() + budget_s
        ready = self._ready(items)
        if ready is None:
            return self._all_failed(items)
        encoder, shards = ready
        shards.refresh()
        found: list[Place | None] = shards.find_many((item.item_id, item.link) for item in items)
        missing = [i for i, place in enumerate(found) if place is None]
        outcomes, fresh = self._embed(encoder, shards, list(dict.fromkeys(items[i].link for i in missing)), deadline)
        return self._batch(items, found, outcomes, fresh, write_shard)

    # ---- the encoder

    def _ready(self, items: Sequence[Item]) -> tuple[Encoder, ShardSet] | None:
        """Return encoder and shards, deciding what is open by `items`; None when none of them can be read."""
        if self._encoder is None or self._shards is None:
            encoder = self._choose(items)
            if encoder is None:
                return None
            self._encoder, self._shards = encoder, ShardSet(self._folder, encoder.name)
        return self._encoder, self._shards

    def _choose(self, items: Sequence[Item]) -> Encoder | None:
        name: str | None = self._asked
        if name in (AUTO, AUTO_PIXELS):
            name = encoder_of(self._folder, self._spec)
            if name is None:
                name = self._decide_encoder(items)
            if name is not None and self._asked == AUTO_PIXELS:
                name = pixels_encoder(name)
        if name is None:
            return None
        return self._with_columns(items) if name == TableColumns.name else find_encoder(name)

    def _decide_encoder(self, items: Sequence[Item]) -> str | None:
        samples = self._probe(items, _PROBE)
        if not samples:
            return None
        name = resolve_encoder(self._folder, default_encoder(self._spec.category, samples))
        logger.info("task %s uses encoder %s, by its first %d items", self._spec.task, name, len(samples))
        return name

    def _with_columns(self, items: Sequence[Item]) -> TableColumns | None:
        columns = known_columns(self._folder, self._spec)
        if columns is None:
            rows = [row for row in self._probe(items, _PROBE_ROWS) if isinstance(row, Row)]
            if not rows:
                return None
            columns = decide_columns(self._folder, rows)
        return TableColumns(columns)

    def _probe(self, items: Sequence[Item], n: int) -> list[Decoded]:
        """Return the first readable items, looking at `n` at a time."""
        links = list(dict.fromkeys(item.link for item in items))
        for i in range(0, len(links), n):
            found = self._loader.decoded(links[i : i + n])
            if found:
                return found
        return []

    def _all_failed(self, items: Sequence[Item]) -> FeatureBatch:
        """Return the batch in which no item can be read, each with its own reason."""
        reader: Encoder = find_encoder("pixels-8") if MEDIUM_OF[self._spec.category] == "image" else TableColumns()
        links = list(dict.fromkeys(item.link for item in items))
        outcomes = dict(
            zip(links, (o for part in self._loader.load(links, reader, lambda _: False, None) for o in part), strict=True)
        )
        errors = [outcomes[item.link] for item in items]
        failed = [(i, e) for i, e in enumerate(errors) if isinstance(e, LabelloopError)]
        return FeatureBatch(
            (),
            np.empty((0, 0), np.float32),
            (),
            tuple(_item_error(items[i], e) for i, e in failed),
            failed_indices=tuple(i for i, _ in failed),
            unfinished=tuple(i for i, e in enumerate(errors) if not isinstance(e, LabelloopError)),
        )

    # ---- the rows

    def _embed(
        self, encoder: Encoder, shards: ShardSet, links: Sequence[str], deadline: float | None
    ) -> tuple[dict[str, Outcome], dict[str, Features]]:
        """Return what became of each link, and the row of each content hash among them."""
        outcomes: dict[str, Outcome] = {}
        rows: dict[str, Features] = {}
        known: dict[str, Place] = {}

        def is_known(digest: str) -> bool:
            place = shards.find_content(digest)
            if place is not None:
                known[digest] = place
            return place is not None

        at = 0
        for part in self._loader.load(links, encoder, is_known, deadline):
            outcomes.update(zip(links[at : at + len(part)], part, strict=True))
            at += len(part)
            fresh = {o.content_hash: o.prepared for o in part if isinstance(o, Loaded) and o.content_hash not in known}
            todo = [digest for digest in fresh if digest not in rows]
            rows.update(zip(todo, encoder.embed([fresh[digest] for digest in todo]), strict=True))
        rows.update(zip(known, shards.rows(list(known.values())), strict=True))
        return outcomes, rows

    def _batch(
        self,
        items: Sequence[Item],
        found: list[Place | None],
        outcomes: dict[str, Outcome],
        fresh: dict[str, Features],
        write_shard: bool,
    ) -> FeatureBatch:
        failed: dict[int, LabelloopError] = {}
        unfinished: list[int] = []
        new: dict[int, Features] = {}
        for i, (item, place) in enumerate(zip(items, found, strict=True)):
            if place is not None:
                continue
            outcome = outcomes[item.link]
            if outcome is None:
                unfinished.append(i)
                continue
            row, error = _row_of(item, outcome, fresh)
            if error is not None:
                failed[i] = error
            elif row is not None:
                new[i] = row
        if write_shard:
            hashes = {link: o.content_hash for link, o in outcomes.items() if isinstance(o, Loaded)}
            self._write(items, found, new, hashes)
        good = [i for i in range(len(items)) if i in new or found[i] is not None]
        return FeatureBatch(
            tuple(items[i].item_id for i in good),
            self._gather(good, found, new),
            tuple(found[i] or NOWHERE for i in good),
            tuple(_item_error(items[i], error) for i, error in failed.items()),
            tuple(good),
            tuple(failed),
            tuple(unfinished),
        )

    def _gather(self, good: Sequence[int], found: Sequence[Place | None], new: dict[int, Features]) -> Features:
        assert self._encoder is not None and self._shards is not None
        out = np.empty((len(good), self._encoder.dim), np.float32)
        cached: list[tuple[int, Place]] = []
        for at, i in enumerate(good):
            place = found[i]
            if i in new:
                out[at] = new[i]
            elif place is not None:
                cached.append((at, place))
        if cached:
            out[[at for at, _ in cached]] = self._shards.rows([place for _, place in cached])
        return out

    def _write(self, items: Sequence[Item], found: list[Place | None], new: dict[int, Features], hashes: dict[str, str]) -> None:
        """Write the `new` rows as shards, each (item, link) once, and note in `found` where they lie."""
        assert self._shards is not None
        first: dict[tuple[str, str], int] = {}
        for i in new:
            first.setdefault((items[i].item_id, items[i].link), i)
        order = list(first.values())
        for start in range(0, len(order), self._settings.shard_rows):
            part = order[start : start + self._settings.shard_rows]
            links = [items[i].link for i in part]
            name = self._shards.write(
                [items[i].item_id for i in part], links, [hashes[link] for link in links], np.stack([new[i] for i in part])
            )
            for row, i in enumerate(part):
                found[i] = (name, row)
        for i in new:
            found[i] = found[first[items[i].item_id, items[i].link]]


def _row_of(item: Item, outcome: Outcome, fresh: dict[str, Features]) -> tuple[Features | None, LabelloopError | None]:
    """Return the fresh row of an item that no shard has, or why it has none."""
    if not isinstance(outcome, Loaded):
        return None, outcome
    try:
        parse_item(item.item_id)
    except InvalidInputError as exc:
        return None, exc
    row = fresh[outcome.content_hash]
    if not np.isfinite(row).all():
        return None, UnreadableItemError("its features are not finite; check the item for absurd values")
    return row, None


def _item_error(item: Item, error: LabelloopError) -> ItemError:
    return ItemError(item_id=item.item_id, code=error.code, reason=str(error))
