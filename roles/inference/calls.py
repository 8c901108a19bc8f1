"""What travels between inference_rpc and its workers: work orders one way, short replies the other.

Owns these structs and the names of the Celery tasks. Must never import numpy, Celery or a model library. Called by the RPC
side (`asking`, `dispatch`, `swap`) and by `worker`.
"""

from __future__ import annotations

from typing import Literal

from labelloop.errors import LabelloopError
from labelloop.messages import ChunkResult, Item, ItemError, Message

PREDICT = "inference.predict"
CHUNKS = "inference.chunks"
WARM = "inference.warm"
PING = "inference.ping"
FEATURES = "inference.features"
RULES = "inference.rules"


class Work(Message, frozen=True, kw_only=True):
    """Base of all orders: `call` names the order, replies go to the queue `reply_to`."""

    call: str
    reply_to: str


class PredictWork(Work, frozen=True, kw_only=True):
    """Score `items` with exactly `version` ('' with task FEATURES: the encoder of the task's settings)."""

    task: str
    version: str
    items: tuple[Item, ...]


class WarmWork(Work, frozen=True, kw_only=True):
    """Load `version` into memory and say so."""

    task: str
    version: str


class RulesWork(Work, frozen=True, kw_only=True):
    """Apply `rules` (checked JSON) to `items`; `version` is the model that rules of kind model ask, '' where none does."""

    task: str
    version: str
    rules: bytes
    items: tuple[Item, ...]


class RuleVotes(Message, frozen=True, kw_only=True):
    """(n_items, n_rules) int16 in the order of the items, -1 = the rule abstains; a failed item has no vote."""

    data: bytes
    failed: tuple[ItemError, ...] = ()


class ChunkPart(Message, frozen=True, kw_only=True):
    """One chunk of a job: explicit items, or one feature shard of `encoder`."""

    chunk: int
    items: tuple[Item, ...] = ()
    shard: str = ""


class ChunkWork(Work, frozen=True, kw_only=True):
    """Chunks of one job, in order. The worker stops after a slice of time and answers which it left."""

    task: str
    job_id: str
    version: str
    parts: tuple[ChunkPart, ...]


class Reply(Message, frozen=True, kw_only=True):
    """`taken`: a worker begins; `alive`: it is still at it; `lost`: an earlier worker died over this order; `done`: `body` holds
    the answer and `left` the chunks not begun; `failed`: an error of `labelloop.errors` by code and reason. `job`: from another
    node, for the home of a task: `body` is the JobKey of a job that waits."""

    call: str
    kind: Literal["taken", "alive", "lost", "done", "failed", "job"]
    worker: str = ""
    body: bytes = b""
    left: tuple[int, ...] = ()
    code: str = ""
    reason: str = ""


class FeatureRows(Message, frozen=True, kw_only=True):
    """Raw float32 features of `item_ids`, (n, d), for the ordering before any model serves."""

    item_ids: tuple[str, ...]
    dim: int
    data: bytes


def failed_chunk(order: ChunkWork, part: ChunkPart, error: LabelloopError) -> ChunkResult:
    """Return the answer that says of every item of a chunk that it failed with `error`."""
    ids = tuple(item.item_id for item in part.items)
    failed = tuple(ItemError(item_id=item_id, code=error.code, reason=str(error)) for item_id in ids or ("",))
    return ChunkResult(chunk=part.chunk, shard=part.shard, version=order.version, item_ids=(), n_items=0, failed=failed)
