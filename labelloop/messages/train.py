"""What train_rpc is asked and answers. Called through `labelloop.messages`."""

from __future__ import annotations

from typing import Any, Literal

from labelloop.messages.base import Message
from labelloop.messages.tasks import ItemError, Sample


class SubmitRequest(Message, frozen=True, kw_only=True):
    """A batch of samples. `batch_id` is the caller's: repeating a batch is harmless."""

    task: str
    batch_id: str
    samples: tuple[Sample, ...]


class SubmitReply(Message, frozen=True, kw_only=True):
    """The batch is durable in the datastore. `rejected` items are not in it and never will be under that content."""

    batch_id: str
    accepted: int
    rejected: tuple[ItemError, ...] = ()


class ItemKey(Message, frozen=True, kw_only=True):
    item_id: str
    revision: int


class ItemState(Message, frozen=True, kw_only=True):
    """`waiting` = durable but not processed yet, `done` = in the label log, `failed` = with its reason, `unknown` = never
    submitted."""

    item_id: str
    revision: int
    state: Literal["waiting", "done", "failed", "unknown"]
    reason: str = ""


RunState = Literal["queued", "running", "done", "failed", "cancelled"]


class RankView(Message, frozen=True, kw_only=True):
    """One rank of a run in one generation of its membership: who it was, and the steps and items it computed there.

    Generations count from 1 within an attempt; a change of membership begins a new one, for `reason`.
    """

    attempt: int
    generation: int
    rank: int
    node: str
    hostname: str
    pid: int
    steps: int = 0
    items: int = 0
    reason: str = ""


class RunView(Message, frozen=True, kw_only=True):
    """One training as people see it; `seconds` since it began (or in all), `metrics` on the held-out part, `ranks` who computed
    it, generation by generation."""

    run: int
    attempt: int
    state: RunState
    algorithm: str
    encoder: str
    labels: int
    step: int = 0
    steps: int = 0
    loss: float | None = None
    losses: tuple[tuple[int, float], ...] = ()
    metrics: dict[str, float] = {}
    seconds: float = 0.0
    version: str = ""
    reason: str = ""
    ranks: tuple[RankView, ...] = ()


class VersionView(Message, frozen=True, kw_only=True):
    """One published model. `is_serving`: the current one; `was_served`: passed the gate at its time; `reason`: the gate's
    sentence."""

    version: str
    run: int
    algorithm: str
    encoder: str
    labels: int
    metrics: dict[str, float] = {}
    parent: str = ""
    is_serving: bool = False
    was_served: bool = False
    reason: str = ""
    created: str = ""
    seconds: float = 0.0


class ProgressRequest(Message, frozen=True, kw_only=True):
    task: str
    items: tuple[ItemKey, ...] = ()


class ProgressReply(Message, frozen=True, kw_only=True):
    """`states` answers `items` in order. `labels`: merged labels in the log, of which rules or a crowd gave
    `weak_labels` (budget, target and agreement count the others alone); `waiting_batches`: intake files not processed.
    `next_training` is the policy's reason ("next training in 14 labels"); `stop` why labelling may stop, '' = go on."""

    task: str
    states: tuple[ItemState, ...] = ()
    labels: int = 0
    weak_labels: int = 0
    waiting_batches: int = 0
    labels_to_next: int = 0
    next_training: str = ""
    stop: str = ""
    comparer: str = ""
    agreement: float | None = None
    serving: str = ""
    pointer: int = 0
    run: RunView | None = None


class TrainRequest(Message, frozen=True, kw_only=True):
    """Start a training now. Empty `algorithm` and `encoder` take the task's. `parameters` override the task's."""

    task: str
    algorithm: str = ""
    encoder: str = ""
    parameters: dict[str, Any] = {}
    reason: str = "asked for by a person"


class TrainReply(Message, frozen=True, kw_only=True):
    run: int
    reason: str


class CancelRequest(Message, frozen=True, kw_only=True):
    task: str
    run: int
    reason: str = "cancelled by a person"


class RunLogRequest(Message, frozen=True, kw_only=True):
    """The last `lines` lines (1 to 10000) of what a training wrote down."""

    task: str
    run: int
    lines: int = 100


class RunLogReply(Message, frozen=True, kw_only=True):
    """`attempt` is the newest one, whose log this is; 0 = nobody has taken the run yet."""

    text: str
    attempt: int = 0


class TaskRequest(Message, frozen=True, kw_only=True):
    task: str


class ModelsReply(Message, frozen=True, kw_only=True):
    """All versions, newest first, and the runs, newest first (at most 50)."""

    task: str
    serving: str = ""
    pointer: int = 0
    versions: tuple[VersionView, ...] = ()
    runs: tuple[RunView, ...] = ()


class PromoteRequest(Message, frozen=True, kw_only=True):
    """Serve `version` from now on, whatever the gate said."""

    task: str
    version: str
    reason: str = "promoted by a person"


class PointerReply(Message, frozen=True, kw_only=True):
    version: str
    pointer: int
    reason: str = ""
