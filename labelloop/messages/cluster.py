"""What registry, managers and the processes they start tell each other. Called through `labelloop.messages`."""

from __future__ import annotations

from typing import Literal

from labelloop.messages.base import Message
from labelloop.messages.tasks import TaskExtraInfo, TaskSpec

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
