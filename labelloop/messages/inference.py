"""What inference_rpc is asked and answers. Called through `labelloop.messages`."""

from __future__ import annotations

from typing import Any, Literal

from labelloop.messages.base import Array, Message
from labelloop.messages.tasks import Item, ItemError, Region


class PredictRequest(Message, frozen=True, kw_only=True):
    """`version` '' = the serving one."""

    task: str
    items: tuple[Item, ...]
    version: str = ""


class Predictions(Message, frozen=True, kw_only=True):
    """Answers in the order of the items. `proba` is (n, n_labels) float32: rows sum to 1 for multiclass, independent for
    multilabel; the row of a failed item is all zero and its reason is in `failed`. `labels` names the columns.

    `regions`: for tasks of boxes or spans, what was found in each item, one entry an item (`proba` is then the highest confidence
    of a region of each label); else empty.
    """

    version: str
    labels: tuple[str, ...]
    item_ids: tuple[str, ...]
    proba: Array
    failed: tuple[ItemError, ...] = ()
    regions: tuple[tuple[Region, ...], ...] = ()


class JobRequest(Message, frozen=True, kw_only=True):
    """A durable job over explicit `items`, or over feature `shards` that an earlier job of the task reported.

    `job_id` is the caller's: repeating the call is harmless. `version` '' pins the serving one at acceptance; when no model
    serves, the job only embeds (`version` stays '' and its chunks carry no probabilities).
    """

    task: str
    job_id: str
    items: tuple[Item, ...] = ()
    shards: tuple[str, ...] = ()
    version: str = ""


class JobReply(Message, frozen=True, kw_only=True):
    """`done` of `chunks` chunks are answered; `state` is 'running', 'done' or 'failed'."""

    task: str
    job_id: str
    version: str
    chunks: int
    done: int
    state: Literal["running", "done", "failed"]
    reason: str = ""
    items: int = 0
    failed_items: int = 0


class JobKey(Message, frozen=True, kw_only=True):
    task: str
    job_id: str


class ResultsRequest(Message, frozen=True, kw_only=True):
    """Chunk numbers `after` < c, in rising order, at most `limit` chunks that are done. `with_ids` False leaves item ids out
    of chunks over shards: the caller knows a shard's order from the job that made it."""

    task: str
    job_id: str
    after: int = -1
    limit: int = 16
    with_ids: bool = True


class ChunkResult(Message, frozen=True, kw_only=True):
    """One chunk. `shard` is the feature shard whose rows these are, in its order ('' when not embedded in one shard);
    `proba` is None for an embed-only job; `regions` as in `Predictions`."""

    chunk: int
    shard: str
    version: str
    item_ids: tuple[str, ...]
    n_items: int
    proba: Array | None = None
    failed: tuple[ItemError, ...] = ()
    regions: tuple[tuple[Region, ...], ...] = ()


class ResultsReply(Message, frozen=True, kw_only=True):
    """`is_complete`: no chunk after the last one returned will ever come."""

    task: str
    job_id: str
    version: str
    labels: tuple[str, ...]
    chunks: tuple[ChunkResult, ...]
    is_complete: bool


class RankRequest(Message, frozen=True, kw_only=True):
    """Order a finished job's items (`job_id`), or explicit `items`, by what teaches most.

    `strategy` 'auto' = typicality while no model serves, then margin (of boxes and spans: how unsure what was found is) with an
    exploration share. `n` = how many to return,
    0 = all. `exclude` are item ids that are labelled already. `exploration` in [0, 1] is the random share. `parameters` are the
    strategy's own. `costs`, by item id, say what asking an item costs (1 where an item is not named): scores are per unit of cost.
    """

    task: str
    strategy: str = "auto"
    n: int = 0
    job_id: str = ""
    items: tuple[Item, ...] = ()
    exclude: tuple[str, ...] = ()
    exploration: float = 0.05
    seed: int = 0
    parameters: dict[str, Any] = {}
    costs: dict[str, float] = {}


class RankReply(Message, frozen=True, kw_only=True):
    """`item_ids` best first and `scores` (n,) float32 falling, the very numbers the order was made from; `strategy` as
    really used."""

    strategy: str
    version: str
    item_ids: tuple[str, ...]
    scores: Array
    reason: str
