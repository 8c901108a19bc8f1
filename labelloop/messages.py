"""Every value that crosses a process: frozen structs with a schema number, as MessagePack.

Owns the shapes of requests, replies and Celery payloads, and their encoding. Must never import numpy, a broker or rpyc:
arrays travel as raw buffers with dtype and shape. Called by both ends of each connection.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from labelloop.errors import IntegrityError, InvalidInputError

SCHEMA = 1

Category = Literal["image-classification", "text-classification", "tables"]
CATEGORIES: tuple[str, ...] = ("image-classification", "text-classification", "tables")


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all messages; a reader refuses a `schema` it does not know."""

    schema: int = SCHEMA


M = TypeVar("M", bound=Message)


def encode(message: Message) -> bytes:
    """Return the MessagePack bytes of `message`."""
    return msgspec.msgpack.encode(message)


def decode(kind: type[M], data: bytes | bytearray | memoryview) -> M:
    """Return the validated message of type `kind` in `data`.

    Raises InvalidInputError naming the field at fault; IntegrityError on a schema number this build does not know.
    """
    try:
        message = msgspec.msgpack.decode(data, type=kind)
    except msgspec.MsgspecError as exc:  # validation and malformed bytes both derive from it
        raise InvalidInputError(f"not a valid {kind.__name__}: {exc}") from exc
    if message.schema != SCHEMA:
        raise IntegrityError(f"{kind.__name__} has schema {message.schema}, this build reads {SCHEMA}: upgrade the older side")
    return message


class Empty(Message, frozen=True, kw_only=True):
    """A request or reply without content."""


class Array(Message, frozen=True, kw_only=True):
    """A dense array as a raw little-endian C-order buffer; `dtype` is numpy's name, e.g. 'float32'."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


# ---------------------------------------------------------------- tasks, items, samples


class TaskExtraInfo(Message, frozen=True, kw_only=True):
    """What a project tells the cluster about itself beyond its category.

    `target`: accuracy on new labels at which training rests, in (0, 1]; `budget`: labels at which labelling stops, 0 = none;
    `epoch`: passes over the data for deep algorithms, 0 = the algorithm's default. `algorithm` and `encoder` may be 'auto':
    a run names them, a project need not. `is_comparer_on` = False retrains on every `retrain_labels` whatever the comparer says.
    `retrain_labels`: new labels that start a training, 0 = automatic growth. `parameters` are the algorithm's own.
    """

    kind: Literal["multiclass", "multilabel"] = "multiclass"
    labels: tuple[str, ...]
    target: float = 0.95
    budget: int = 0
    epoch: int = 0
    algorithm: str = "auto"
    encoder: str = "auto"
    is_comparer_on: bool = True
    retrain_labels: int = 0
    parameters: dict[str, Any] = {}


class TaskSpec(Message, frozen=True, kw_only=True):
    """One task as the cluster sees it; `revision` grows by one with each change of settings."""

    task: str
    category: Category
    extra: TaskExtraInfo
    revision: int = 1


class Item(Message, frozen=True, kw_only=True):
    """One thing to label, known by id and link (http, https, file below an allowed folder, or data:)."""

    item_id: str
    link: str


class Draft(Message, frozen=True, kw_only=True):
    """A prediction shown to an annotator before the label: its labels, version and confidence in [0, 1]."""

    labels: tuple[str, ...]
    version: str
    confidence: float = 0.0


class Sample(Message, frozen=True, kw_only=True):
    """An item with a label; (item_id, revision) is its identity. `labels` has one entry for multiclass, any number for
    multilabel. `is_deleted` withdraws the item's label (undo). `draft` is what the annotator saw first, if anything."""

    item_id: str
    link: str
    labels: tuple[str, ...]
    revision: int = 1
    annotator: str = ""
    draft: Draft | None = None
    is_deleted: bool = False


class ItemError(Message, frozen=True, kw_only=True):
    """Why one item of a batch failed; `code` is one of `labelloop.errors`."""

    item_id: str
    revision: int = 0
    code: str
    reason: str


# ---------------------------------------------------------------- train_rpc


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
    """`waiting` = durable but not processed yet, `done` = in the label log, `failed` = with its reason, `unknown` = never submitted."""

    item_id: str
    revision: int
    state: Literal["waiting", "done", "failed", "unknown"]
    reason: str = ""


RunState = Literal["queued", "running", "done", "failed", "cancelled"]


class RunView(Message, frozen=True, kw_only=True):
    """One training as people see it; `seconds` since it began (or in all), `metrics` on the held-out part."""

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


class VersionView(Message, frozen=True, kw_only=True):
    """One published model. `is_serving`: the current one; `was_served`: passed the gate at its time; `reason`: the gate's sentence."""

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
    """`states` answers `items` in order. `labels`: merged labels in the log; `waiting_batches`: intake files not processed.
    `next_training` is the policy's reason ("next training in 14 labels"); `stop` why labelling may stop, '' = go on."""

    task: str
    states: tuple[ItemState, ...] = ()
    labels: int = 0
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


# ---------------------------------------------------------------- inference_rpc


class PredictRequest(Message, frozen=True, kw_only=True):
    """`version` '' = the serving one."""

    task: str
    items: tuple[Item, ...]
    version: str = ""


class Predictions(Message, frozen=True, kw_only=True):
    """Answers in the order of the items. `proba` is (n, n_labels) float32: rows sum to 1 for multiclass, independent for
    multilabel; the row of a failed item is all zero and its reason is in `failed`. `labels` names the columns."""

    version: str
    labels: tuple[str, ...]
    item_ids: tuple[str, ...]
    proba: Array
    failed: tuple[ItemError, ...] = ()


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
    `proba` is None for an embed-only job."""

    chunk: int
    shard: str
    version: str
    item_ids: tuple[str, ...]
    n_items: int
    proba: Array | None = None
    failed: tuple[ItemError, ...] = ()


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

    `strategy` 'auto' = typicality while no model serves, then margin with an exploration share. `n` = how many to return,
    0 = all. `exclude` are item ids that are labelled already. `exploration` in [0, 1] is the random share.
    """

    task: str
    strategy: str = "auto"
    n: int = 0
    job_id: str = ""
    items: tuple[Item, ...] = ()
    exclude: tuple[str, ...] = ()
    exploration: float = 0.1
    seed: int = 0


class RankReply(Message, frozen=True, kw_only=True):
    """`item_ids` best first and `scores` (n,) float32 falling, the very numbers the order was made from; `strategy` as really used."""

    strategy: str
    version: str
    item_ids: tuple[str, ...]
    scores: Array
    reason: str


# ---------------------------------------------------------------- registry and managers


Role = Literal["train", "inference"]
PeerKind = Literal["node", "ops", "client"]


class MachineInfo(Message, frozen=True, kw_only=True):
    """One machine of `initial`'s list. `type` '' = not assigned yet."""

    hostname: str
    ip: str
    port: int
    erlang_hash: str = ""
    type: Literal["", "train", "inference"] = ""


class BadMachine(Message, frozen=True, kw_only=True):
    machine: MachineInfo
    reason: str


class InitialRequest(Message, frozen=True, kw_only=True):
    """`epoch` orders assignments: a manager refuses one lower than it has applied."""

    machines_info: tuple[MachineInfo, ...]
    task_category: str
    task_extra_info: TaskExtraInfo
    task_datastore_path: str
    epoch: int


class InitialReply(Message, frozen=True, kw_only=True):
    """`rpc` is this node's role address 'host:port'; masters are IP strings, '' where a role has no good machine."""

    rpc: str
    good_machines_info: tuple[MachineInfo, ...]
    bad_machines_info: tuple[BadMachine, ...]
    master_train: str
    master_inference: str
    erlang_hash: str
    warnings: tuple[str, ...] = ()
    epoch: int = 0


class ProcessView(Message, frozen=True, kw_only=True):
    """One supervised process of a node."""

    name: str
    pid: int
    state: Literal["starting", "running", "backing-off", "stopped"]
    restarts: int
    reason: str = ""


class NodeStatus(Message, frozen=True, kw_only=True):
    """What a manager says of its node in each heartbeat; sizes in bytes, `load` is the 1-minute average."""

    hostname: str
    ip: str
    port: int
    erlang_hash: str = ""
    role: Literal["", "train", "inference"] = ""
    rpc: str = ""
    is_master: bool = False
    epoch: int = 0
    cluster_id: str = ""
    processes: tuple[ProcessView, ...] = ()
    cores: int = 0
    memory_bytes: int = 0
    memory_free_bytes: int = 0
    load: float = 0.0
    gpus: tuple[str, ...] = ()
    versions: dict[str, str] = {}
    broker: str = ""
    last_reason: str = ""


class NodeView(Message, frozen=True, kw_only=True):
    """A node as the registry sees it; `age_s` since its last heartbeat by the registry's own monotonic clock."""

    status: NodeStatus
    age_s: float
    is_alive: bool
    kind: PeerKind = "node"


class NodesReply(Message, frozen=True, kw_only=True):
    nodes: tuple[NodeView, ...]
    epoch: int
    cluster_id: str
    state: Literal["running", "learning"] = "running"
    last_reason: str = ""


class Topology(Message, frozen=True, kw_only=True):
    """Where to call: `train_rpc` 'host:port' of the train master ('' = none), `inference_rpc` of every good inference node."""

    epoch: int
    train_rpc: str
    inference_rpc: tuple[str, ...]
    warnings: tuple[str, ...] = ()


class AdmitRequest(Message, frozen=True, kw_only=True):
    """A certificate signing request (PEM) under a join token's secret part. `kind` is what the token may grant."""

    secret: str
    csr_pem: str
    name: str
    address: str
    kind: PeerKind


class AdmitReply(Message, frozen=True, kw_only=True):
    certificate_pem: str
    ca_pem: str
    cluster_id: str


class Heartbeat(Message, frozen=True, kw_only=True):
    status: NodeStatus


class HeartbeatReply(Message, frozen=True, kw_only=True):
    epoch: int
    cluster_id: str


class FormRequest(Message, frozen=True, kw_only=True):
    """Choose machines and call `initial` on all: `train` and `inference` are how many of each; 0 and 0 = keep the wanted ones.
    `roles` names them instead: hostname → role."""

    train: int = 0
    inference: int = 0
    roles: dict[str, Role] = {}


class OpenTaskRequest(Message, frozen=True, kw_only=True):
    """Make a task known to the cluster, or change its settings (the same name with a higher `spec.revision`)."""

    spec: TaskSpec


class OpenTaskReply(Message, frozen=True, kw_only=True):
    task: str
    revision: int
    warnings: tuple[str, ...] = ()


class LogsRequest(Message, frozen=True, kw_only=True):
    process: str = ""
    lines: int = 100


class LogsReply(Message, frozen=True, kw_only=True):
    text: str


class RoleRequest(Message, frozen=True, kw_only=True):
    role: str = ""


# ---------------------------------------------------------------- what a manager hands to the processes it starts


class RoleConfig(Message, frozen=True, kw_only=True):
    """All that a role process needs, written by the manager to a file of mode 0600 (JSON) whose path is its only argument.

    `master_host` is the host name of the train master (queue names carry it). `rpc_host`/`rpc_port` is where the RPC listens,
    `rpc_processes` the N of inference_rpc. `concurrency` is Celery's number of worker children.
    """

    node: str
    ip: str
    role: Role
    is_master: bool
    master_host: str
    cluster_id: str
    epoch: int
    datastore_root: str
    broker_url: str
    result_url: str
    rpc_host: str
    rpc_port: int
    rpc_processes: int
    concurrency: int
    certificate_file: str
    key_file: str
    ca_file: str
    state_dir: str
    log_level: str = "INFO"
