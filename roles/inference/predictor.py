"""Warm models and the way from items or a shard to probabilities, in one worker child.

Owns a bounded cache of models keyed by (task, version) and the pipelines that give features. Must never write a model or choose a
version: the message names it. Called by `worker` and `chunks`.

Threads: the child's main thread predicts while its warming thread loads; the lock guards the tables, never a load or a product.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datastore_layout.models import Manifest, read_manifest, verified_model_dir
from datastore_layout.root import Root, TaskFolder, task_folder
from datastore_layout.shards import ShardSet
from datastore_layout.tasks import read_spec
from intake.pipeline import AUTO, FeatureBatch, Pipeline
from labelloop.errors import NotFoundError
from labelloop.messages import Array, Item, ItemError, Predictions, Region, TaskSpec
from labelloop.settings import Settings
from learning.algorithms import Model, find_algorithm
from learning.regions import RegionModel, best_scores
from roles.regions import DRAFT_CONFIDENCE, to_messages

SPEC_AGE_S = 1.0
Proba = NDArray[np.float32]
Found = tuple[tuple[Region, ...], ...]


@dataclass(frozen=True)
class WarmModel:
    """A loaded version: its manifest and the model that answers."""

    manifest: Manifest
    model: Model


@dataclass(frozen=True)
class Scored:
    """Rows in the order of `item_ids`; failed items are not among them. `shard` '' = these rows are no shard of their own.
    `proba` None = only embedded; `regions` has a row each for tasks of boxes or spans, else none. `indices` are the rows' positions
    among the items asked for; `is_finished` False = the budget of time left some out."""

    version: str
    item_ids: tuple[str, ...]
    proba: Proba | None
    shard: str
    failed: tuple[ItemError, ...]
    indices: tuple[int, ...] = ()
    is_finished: bool = True
    regions: Found = ()


class Predictor:
    """Answers for many tasks; keeps the `settings.inference.warm_models` models used last."""

    def __init__(self, root: Root, settings: Settings) -> None:
        self.root = root
        self._settings = settings
        self._lock = threading.Lock()
        self._models: OrderedDict[tuple[str, str], WarmModel] = OrderedDict()
        self._loading: dict[tuple[str, str], threading.Lock] = {}
        self._pipelines: OrderedDict[tuple[str, str, int], Pipeline] = OrderedDict()
        self._specs: dict[str, tuple[float, TaskSpec]] = {}
        self._folders: dict[str, tuple[float, TaskFolder]] = {}

    @property
    def most_models(self) -> int:
        """How many models are kept warm."""
        return self._settings.inference.warm_models

    def folder(self, task: str) -> TaskFolder:
        """Return the folder of `task`, checked for links that lead out of it at most once a second; raises InvalidInputError."""
        now_s = time.monotonic()
        checked_s, folder = self._folders.get(task, (0.0, None))
        if folder is None or now_s - checked_s > SPEC_AGE_S:
            folder = task_folder(self.root, task)
            self._folders[task] = (now_s, folder)
        return folder

    def warm(self, task: str, version: str) -> WarmModel:
        """Return the model, loading it once; raises IntegrityError when a byte of it changed, NotFoundError."""
        key = (task, version)
        with self._lock:
            found = self._models.get(key)
            if found is not None:
                self._models.move_to_end(key)
                return found
            gate = self._loading.setdefault(key, threading.Lock())
        with gate:
            with self._lock:
                found = self._models.get(key)
            return found or self._load(key)

    def _load(self, key: tuple[str, str]) -> WarmModel:
        folder = self.folder(key[0])
        path = verified_model_dir(folder, key[1])
        manifest = read_manifest(folder, key[1])
        loaded = WarmModel(manifest, find_algorithm(manifest.algorithm).load(path))
        with self._lock:
            self._models[key] = loaded
            self._loading.pop(key, None)
            while len(self._models) > self._settings.inference.warm_models:
                self._models.popitem(last=False)
        return loaded

    def spec(self, task: str) -> TaskSpec:
        """Return the task's settings, at most a second old."""
        now_s = time.monotonic()
        read_s, spec = self._specs.get(task, (0.0, None))
        if spec is None or now_s - read_s > SPEC_AGE_S:
            spec = read_spec(self.folder(task))
            self._specs[task] = (now_s, spec)
        return spec

    def encoder(self, task: str, version: str) -> str:
        """Return whose features `version` reads; 'auto' without a version: the pipeline knows the task's own."""
        return self.warm(task, version).manifest.encoder if version else AUTO

    def pipeline(self, task: str, encoder: str) -> Pipeline:
        """Return the way from links to features of one task and encoder; for the child's main thread only."""
        spec = self.spec(task)
        key = (task, encoder, spec.revision)
        if key not in self._pipelines:
            self._pipelines[key] = Pipeline(self.folder(task), spec, encoder, self._settings.intake)
            while len(self._pipelines) > 2 * self._settings.inference.warm_models:
                self._pipelines.popitem(last=False)[1].close()
        self._pipelines.move_to_end(key)
        return self._pipelines[key]

    def shards(self, task: str, encoder: str) -> ShardSet:
        """Return the feature shards of one task and encoder; their mappings stay warm between calls.

        Raises NotFoundError while 'auto' is not decided.
        """
        found = self.pipeline(task, encoder).shards
        if found is None:
            raise NotFoundError(f"task {task!r} has no features yet: embed its items first")
        return found

    def score_items(
        self, task: str, version: str, items: Sequence[Item], *, write_shard: bool, budget_s: float | None = None
    ) -> Scored:
        """Embed `items` (cached features first) and score them with `version`, '' = only embed.

        With `write_shard` the rows end up as one shard of exactly these rows. After `budget_s` no further download begins.
        """
        encoder = self.encoder(task, version)
        batch = self.pipeline(task, encoder).features(items, write_shard=write_shard, budget_s=budget_s)
        is_finished = not batch.unfinished
        shard = ""
        if write_shard and is_finished and batch.item_ids:
            shard = self._one_shard(task, encoder, [items[i] for i in batch.indices], batch)
        proba, regions = self._predict(task, version, batch.features) if batch.item_ids else (None, ())
        return Scored(version, batch.item_ids, proba, shard, batch.failed, batch.indices, is_finished, regions)

    def embed(self, task: str, version: str, items: Sequence[Item]) -> FeatureBatch:
        """Return the features of `items` as `version` reads them; '' = by the task's own encoder."""
        return self.pipeline(task, self.encoder(task, version)).features(items, write_shard=True)

    def _one_shard(self, task: str, encoder: str, items: Sequence[Item], batch: FeatureBatch) -> str:
        """Return the shard of exactly the rows of `batch`; rows that lie elsewhere are written once more."""
        shards, name = self.shards(task, encoder), batch.places[0][0]
        is_exact = all(place == (name, row) for row, place in enumerate(batch.places))
        if is_exact and len(shards.features(name)) == len(batch.places):
            return name
        copies = [f"copy of {item.item_id} {item.link}" for item in items]  # never the hash of any bytes
        return shards.write([item.item_id for item in items], [item.link for item in items], copies, batch.features)

    def score_rows(self, task: str, version: str, shard: str, rows: slice) -> Scored:
        """Score rows of a feature shard of the version's encoder, straight from its mapping."""
        features = self.shards(task, self.encoder(task, version)).features(shard)[rows]
        proba, regions = self._predict(task, version, features)
        return Scored(version, (), proba, shard, (), regions=regions)

    def _predict(self, task: str, version: str, features: NDArray[Any]) -> tuple[Proba | None, Found]:
        if not version:
            return None, ()
        warm = self.warm(task, version)
        if not isinstance(warm.model, RegionModel):
            return warm.model.predict_proba(features), ()
        found = warm.model.predict_regions(features)
        least, labels = warm.manifest.metrics.get(DRAFT_CONFIDENCE, 0.0), warm.manifest.labels
        return best_scores(found, warm.model.n_labels), tuple(to_messages(one, labels, least) for one in found)

    def predict(self, task: str, version: str, items: Sequence[Item]) -> Predictions:
        """Return the answer to an interactive call: one row for each item, zero and without a region where it failed."""
        warm = self.warm(task, version)
        labels = warm.manifest.labels
        scored = self.score_items(task, version, items, write_shard=False)
        proba = np.zeros((len(items), len(labels)), dtype=np.float32)
        if scored.proba is not None:
            proba[list(scored.indices)] = scored.proba
        ids = tuple(item.item_id for item in items)
        found = dict(zip(scored.indices, scored.regions, strict=False))
        regions = tuple(found.get(i, ()) for i in range(len(items))) if isinstance(warm.model, RegionModel) else ()
        return Predictions(
            version=version, labels=labels, item_ids=ids, proba=pack_array(proba), failed=scored.failed, regions=regions
        )


def pack_array(array: NDArray[np.float32]) -> Array:
    """Return `array` as a message: float32, C order."""
    array = np.ascontiguousarray(array, dtype=np.float32)
    return Array(dtype="float32", shape=array.shape, data=array.tobytes())


def unpack_array(array: Array) -> NDArray[np.float32]:
    """Return the read-only view of a message's float32 buffer."""
    return np.frombuffer(array.data, dtype=array.dtype).reshape(array.shape)
