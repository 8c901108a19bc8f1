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
    """`epoch` orders assignments: a manager refuses one lower than it has applied.

    `survivors` is set when the broker cluster lost its majority: these inference nodes reset their brokers and form anew.
    `drained` machines keep their place (hosts block, broker member) but run no role process and are nobody's master.
    """

    machines_info: tuple[MachineInfo, ...]
    task_category: str
    task_extra_info: TaskExtraInfo
    task_datastore_path: str
    epoch: int
    survivors: tuple[str, ...] = ()
    drained: tuple[str, ...] = ()


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
    activity: str = ""


class BrokerView(Message, frozen=True, kw_only=True):
    """A node's broker as its manager sees it.

    `state`: 'paused' = in a minority, so it answers nobody until the partition heals. `cluster` is the id of the broker cluster it
    belongs to, '' = outside any. `members` and `running` are host names; `queues` counts the messages of each queue, ready or
    being worked on, `consumers` those who fetch from it (a queue that is not in it: not known). `short` names the queues that
    are being copied to a running member which shall hold a replica and does not yet: until then one more death may stop them.
    """

    kind: Literal["embedded", "rabbitmq"] = "embedded"
    state: Literal["running", "paused", "stopped", "unknown"] = "unknown"
    cluster: str = ""
    members: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    queues: dict[str, int] = {}
    consumers: dict[str, int] = {}
    short: tuple[str, ...] = ()
    reason: str = ""


class NodeStatus(Message, frozen=True, kw_only=True):
    """What a manager says of its node in each heartbeat; sizes in bytes, `load` is the 1-minute average.

    `clock_s` is its wall clock (seconds since 1970), for `doctor` alone; `datastore` '' = mounted and ours, else what is wrong.
    """

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
    broker: BrokerView = BrokerView()
    last_reason: str = ""
    disk_free_bytes: int = 0
    datastore: str = ""
    clock_s: float = 0.0


class NodeView(Message, frozen=True, kw_only=True):
    """A node as the registry sees it; `age_s` since its last heartbeat by the registry's own monotonic clock.

    `is_drained`: it has taken the order that stops its role processes, or is dead; meaningful while `is_draining`.
    """

    status: NodeStatus
    age_s: float
    is_alive: bool
    kind: PeerKind = "node"
    is_draining: bool = False
    is_drained: bool = False


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
    """`revoked` are the serial numbers (hex) of certificates that no server may accept any more."""

    epoch: int
    cluster_id: str
    revoked: tuple[str, ...] = ()


class FormRequest(Message, frozen=True, kw_only=True):
    """Choose machines and call `initial` on all: `train` and `inference` are how many of each; 0 and 0 = keep the wanted ones.
    `roles` names them instead: hostname → role."""

    train: int = 0
    inference: int = 0
    roles: dict[str, Role] = {}


class NodeRequest(Message, frozen=True, kw_only=True):
    """One node by its host name: `add`, `drain` (`is_undone` takes it back), `remove`, `revoke`."""

    hostname: str
    is_undone: bool = False


class AssignRequest(Message, frozen=True, kw_only=True):
    """Give nodes a role, '' = none; the others keep theirs."""

    roles: dict[str, Literal["", "train", "inference"]]


class Action(Message, frozen=True, kw_only=True):
    """One thing that the registry did or that was done to it, with its reason; `at` is ISO 8601 UTC of the registry's clock."""

    at: str
    what: str
    reason: str


class ActionsReply(Message, frozen=True, kw_only=True):
    """The newest last."""

    actions: tuple[Action, ...]


class InviteRequest(Message, frozen=True, kw_only=True):
    """Ask a manager for the way into the broker cluster that its node is in, as of `epoch`."""

    hostname: str
    epoch: int


class InviteReply(Message, frozen=True, kw_only=True):
    """The way in: `cookie` is the cluster's secret. Not ready: `reason` says what is waited for, and the cookie is empty."""

    is_ready: bool
    reason: str = ""
    cluster: str = ""
    cookie: str = ""
    members: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"InviteReply(is_ready={self.is_ready}, reason={self.reason!r}, cluster={self.cluster!r})"


class ForgetRequest(Message, frozen=True, kw_only=True):
    """Make the broker cluster forget a member that is not running, and shrink its queues."""

    hostname: str
    epoch: int


class LinkRequest(Message, frozen=True, kw_only=True):
    """Ask the train master's manager where its queues are for the workers of another train node."""

    hostname: str
    epoch: int


class LinkReply(Message, frozen=True, kw_only=True):
    """`broker_url` holds the password of the role's account."""

    broker_url: str

    def __repr__(self) -> str:
        return "LinkReply(...)"


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

    `master_host` is the host name of the train master (queue names carry it). `broker_url` of a train role is the train
    master's broker, of an inference role the node's own; `result_url` '' = no result backend (RabbitMQ has none).
    `rpc_host`/`rpc_port` is where the RPC listens, `rpc_processes` the N of inference_rpc. `concurrency` is Celery's number of
    worker children.
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
