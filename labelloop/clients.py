"""Typed clients: one method for each row of `labelloop.methods`, and `Cluster`, which finds the peer to call by itself.

Owns the choice of the peer: the train master of the moment, any inference node that answers. Must never import rpyc nor interpret
an answer. Called by the web app, the pilot, the ops command, managers and foreign backends.

    cluster = Cluster("10.0.0.2:7000", load_identity(Path("~/.labelloop").expanduser()), WireSettings())
    cluster.train().submit(SubmitRequest(task="birds", batch_id="b-1", samples=(...,)))

Everything here is thread-safe and meant to be kept: connections are reused.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol, Self, TypeVar, cast

import msgspec

from labelloop import messages as m
from labelloop.errors import DeadlineError, NotReadyError, RetryableError, UnreachableError
from labelloop.methods import SERVICES
from labelloop.settings import WireSettings
from labelloop.tls import Identity
from labelloop.wire import Client, backoff_s

logger = logging.getLogger(__name__)

TOPOLOGY_S = 2.0  # age at which the topology is asked for again
TOPOLOGY_DEADLINE_S = 2.0
SHUNNED_S = 5.0  # how long an unreachable inference node is tried last

R = TypeVar("R", bound=m.Message)


class Caller(Protocol):
    """Whatever carries a call: a `wire.Client`, or a choice among several."""

    def call(self, method: str, request: m.Message, deadline_s: float | None = None) -> m.Message: ...

    def close(self) -> None: ...


class TypedClient:
    """Base of the typed clients; `service` names the table."""

    service = ""

    def __init__(self, address: str, identity: Identity, settings: WireSettings) -> None:
        self._caller: Caller = Client(address, self.service, identity, settings)

    @classmethod
    def over(cls, caller: Caller) -> Self:
        """Return a client whose calls go through `caller`."""
        client = cls.__new__(cls)
        client._caller = caller
        return client

    def close(self) -> None:
        """Close the connections."""
        self._caller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _call(self, reply: type[R], method: str, request: m.Message, deadline_s: float | None) -> R:
        return cast(R, self._caller.call(method, request, deadline_s))  # wire decodes into the table's reply type


class RegistryClient(TypedClient):
    """The registry: who is in the cluster, and where to call."""

    service = "registry"

    def admit(self, request: m.AdmitRequest, deadline_s: float | None = None) -> m.AdmitReply:
        return self._call(m.AdmitReply, "admit", request, deadline_s)

    def renew(self, request: m.AdmitRequest, deadline_s: float | None = None) -> m.AdmitReply:
        return self._call(m.AdmitReply, "renew", request, deadline_s)

    def heartbeat(self, request: m.Heartbeat, deadline_s: float | None = None) -> m.HeartbeatReply:
        return self._call(m.HeartbeatReply, "heartbeat", request, deadline_s)

    def nodes(self, request: m.Empty = m.Empty(), deadline_s: float | None = None) -> m.NodesReply:
        return self._call(m.NodesReply, "nodes", request, deadline_s)

    def topology(self, request: m.Empty = m.Empty(), deadline_s: float | None = None) -> m.Topology:
        return self._call(m.Topology, "topology", request, deadline_s)

    def form(self, request: m.FormRequest, deadline_s: float | None = None) -> m.NodesReply:
        return self._call(m.NodesReply, "form", request, deadline_s)

    def open_task(self, request: m.OpenTaskRequest, deadline_s: float | None = None) -> m.OpenTaskReply:
        return self._call(m.OpenTaskReply, "open_task", request, deadline_s)

    def assign(self, request: m.AssignRequest, deadline_s: float | None = None) -> m.NodesReply:
        return self._call(m.NodesReply, "assign", request, deadline_s)

    def add(self, request: m.NodeRequest, deadline_s: float | None = None) -> m.NodesReply:
        return self._call(m.NodesReply, "add", request, deadline_s)

    def drain(self, request: m.NodeRequest, deadline_s: float | None = None) -> m.NodesReply:
        return self._call(m.NodesReply, "drain", request, deadline_s)

    def remove(self, request: m.NodeRequest, deadline_s: float | None = None) -> m.NodesReply:
        return self._call(m.NodesReply, "remove", request, deadline_s)

    def revoke(self, request: m.NodeRequest, deadline_s: float | None = None) -> m.Empty:
        return self._call(m.Empty, "revoke", request, deadline_s)

    def actions(self, request: m.Empty = m.Empty(), deadline_s: float | None = None) -> m.ActionsReply:
        return self._call(m.ActionsReply, "actions", request, deadline_s)


class ManagerClient(TypedClient):
    """The manager of one node."""

    service = "manager"

    def initial(self, request: m.InitialRequest, deadline_s: float | None = None) -> m.InitialReply:
        return self._call(m.InitialReply, "initial", request, deadline_s)

    def open_task(self, request: m.OpenTaskRequest, deadline_s: float | None = None) -> m.OpenTaskReply:
        return self._call(m.OpenTaskReply, "open_task", request, deadline_s)

    def status(self, request: m.Empty = m.Empty(), deadline_s: float | None = None) -> m.NodeStatus:
        return self._call(m.NodeStatus, "status", request, deadline_s)

    def stop_role(self, request: m.RoleRequest, deadline_s: float | None = None) -> m.NodeStatus:
        return self._call(m.NodeStatus, "stop_role", request, deadline_s)

    def logs(self, request: m.LogsRequest, deadline_s: float | None = None) -> m.LogsReply:
        return self._call(m.LogsReply, "logs", request, deadline_s)

    def leave(self, request: m.Empty = m.Empty(), deadline_s: float | None = None) -> m.Empty:
        return self._call(m.Empty, "leave", request, deadline_s)

    def invite(self, request: m.InviteRequest, deadline_s: float | None = None) -> m.InviteReply:
        return self._call(m.InviteReply, "invite", request, deadline_s)

    def forget(self, request: m.ForgetRequest, deadline_s: float | None = None) -> m.Empty:
        return self._call(m.Empty, "forget", request, deadline_s)

    def link(self, request: m.LinkRequest, deadline_s: float | None = None) -> m.LinkReply:
        return self._call(m.LinkReply, "link", request, deadline_s)

    def probe(self, request: m.ProbeRequest, deadline_s: float | None = None) -> m.ProbeReply:
        return self._call(m.ProbeReply, "probe", request, deadline_s)


class TrainClient(TypedClient):
    """train_rpc: labels in, trainings, versions."""

    service = "train"

    def submit(self, request: m.SubmitRequest, deadline_s: float | None = None) -> m.SubmitReply:
        return self._call(m.SubmitReply, "submit", request, deadline_s)

    def train(self, request: m.TrainRequest, deadline_s: float | None = None) -> m.TrainReply:
        return self._call(m.TrainReply, "train", request, deadline_s)

    def progress(self, request: m.ProgressRequest, deadline_s: float | None = None) -> m.ProgressReply:
        return self._call(m.ProgressReply, "progress", request, deadline_s)

    def cancel(self, request: m.CancelRequest, deadline_s: float | None = None) -> m.RunView:
        return self._call(m.RunView, "cancel", request, deadline_s)

    def models(self, request: m.TaskRequest, deadline_s: float | None = None) -> m.ModelsReply:
        return self._call(m.ModelsReply, "models", request, deadline_s)

    def run_log(self, request: m.RunLogRequest, deadline_s: float | None = None) -> m.RunLogReply:
        return self._call(m.RunLogReply, "run_log", request, deadline_s)

    def promote(self, request: m.PromoteRequest, deadline_s: float | None = None) -> m.PointerReply:
        return self._call(m.PointerReply, "promote", request, deadline_s)

    def rollback(self, request: m.TaskRequest, deadline_s: float | None = None) -> m.PointerReply:
        return self._call(m.PointerReply, "rollback", request, deadline_s)


class InferenceClient(TypedClient):
    """inference_rpc: drafts, jobs, the order in which to label, labels from rules."""

    service = "inference"

    def predict(self, request: m.PredictRequest, deadline_s: float | None = None) -> m.Predictions:
        return self._call(m.Predictions, "predict", request, deadline_s)

    def predict_async(self, request: m.JobRequest, deadline_s: float | None = None) -> m.JobReply:
        return self._call(m.JobReply, "predict_async", request, deadline_s)

    def job(self, request: m.JobKey, deadline_s: float | None = None) -> m.JobReply:
        return self._call(m.JobReply, "job", request, deadline_s)

    def results(self, request: m.ResultsRequest, deadline_s: float | None = None) -> m.ResultsReply:
        return self._call(m.ResultsReply, "results", request, deadline_s)

    def rank(self, request: m.RankRequest, deadline_s: float | None = None) -> m.RankReply:
        return self._call(m.RankReply, "rank", request, deadline_s)

    def apply_rules(self, request: m.RulesRequest, deadline_s: float | None = None) -> m.RulesReply:
        return self._call(m.RulesReply, "apply_rules", request, deadline_s)

    def weigh_votes(self, request: m.VotesRequest, deadline_s: float | None = None) -> m.RulesReply:
        return self._call(m.RulesReply, "weigh_votes", request, deadline_s)


# ---------------------------------------------------------------- the whole cluster


class _Follower:
    """Carries calls of one service to the peers that `choose` names, in that order; only an idempotent call goes to a second."""

    def __init__(self, cluster: Cluster, service: str, choose: Callable[[], tuple[str, ...]]) -> None:
        self._cluster = cluster
        self._service = service
        self._choose = choose

    def call(self, method: str, request: m.Message, deadline_s: float | None = None) -> m.Message:
        """Return the first answer. The list is asked for anew after each peer that does not answer; after a whole round
        without an answer there is a pause, and at most `wire.retries` more rounds. Raises the last error.
        """
        settings = self._cluster.settings
        end_s = time.monotonic() + (settings.deadline_s if deadline_s is None else deadline_s)
        is_idempotent = SERVICES[self._service][method].is_idempotent
        for attempt in itertools.count():
            try:
                return self._round(method, request, end_s, is_idempotent)
            except UnreachableError:
                pause_s = backoff_s(attempt)
                if not is_idempotent or attempt >= settings.retries or time.monotonic() + pause_s >= end_s:
                    raise
                time.sleep(pause_s)
        raise AssertionError("unreachable")

    def _round(self, method: str, request: m.Message, end_s: float, is_idempotent: bool) -> m.Message:
        tried: set[str] = set()
        last: UnreachableError | None = None
        while True:
            address = next((a for a in self._choose() if a not in tried), None)
            if address is None:
                raise last or UnreachableError(f"no {self._service} node answers")
            tried.add(address)
            try:
                return self._cluster.client(address, self._service).call(method, request, end_s - time.monotonic())
            except DeadlineError:
                self._cluster.shun(address)
                raise
            except UnreachableError as exc:
                self._cluster.shun(address)
                if not is_idempotent:
                    raise
                last = exc

    def close(self) -> None:
        """Nothing to close: the cluster owns the connections."""


class Cluster:
    """Finds peers through the registry's topology; with the registry down, goes on with the topology it has seen last.

    Locks: `_lock` guards topology, clients and the shunned; no call is made while it is held. `_asking` lets one thread ask
    the registry at a time while the others use what is known.
    """

    def __init__(self, registry_address: str, identity: Identity, settings: WireSettings) -> None:
        self.settings = settings
        self._identity = identity
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._clients: dict[tuple[str, str], Client] = {}
        self._shunned: dict[str, float] = {}
        self._turn = 0
        self._topology: m.Topology | None = None
        self._asked_s = float("-inf")
        self._registry = RegistryClient(registry_address, identity, settings)
        self._once = msgspec.structs.replace(settings, retries=0)  # followers repeat, and choose anew each time
        self._scout = RegistryClient(registry_address, identity, self._once)
        self._train = TrainClient.over(_Follower(self, "train", self._masters))
        self._inference = InferenceClient.over(_Follower(self, "inference", self._servers))

    def registry(self) -> RegistryClient:
        """Return the client of the registry."""
        return self._registry

    def train(self) -> TrainClient:
        """Return a client whose calls go to the train master of the moment. They raise NotReadyError while there is none."""
        return self._train

    def inference(self) -> InferenceClient:
        """Return a client whose calls go to the good inference nodes in turn, and to the next one when one is unreachable."""
        return self._inference

    def topology(self) -> m.Topology:
        """Return the topology, at most a few seconds old while the registry answers. Raises UnreachableError if never seen."""
        if self._topology is None:
            with self._asking:
                if self._topology is None:
                    self._ask(self.settings.deadline_s)
        elif time.monotonic() - self._asked_s >= TOPOLOGY_S and self._asking.acquire(blocking=False):
            try:
                self._ask(TOPOLOGY_DEADLINE_S)
            except RetryableError as exc:
                logger.warning("the registry does not tell the topology, going on with the last one: %s", exc)
            finally:
                self._asking.release()
        assert self._topology is not None
        return self._topology

    def client(self, address: str, service: str) -> Client:
        """Return the kept client of `service` at `address`."""
        with self._lock:
            found = self._clients.get((address, service))
            if found is None:
                found = self._clients[address, service] = Client(address, service, self._identity, self._once)
            return found

    def shun(self, address: str) -> None:
        """Drop the idle connections to a peer that did not answer, try it last for a while, ask for the topology again."""
        with self._lock:
            self._shunned[address] = time.monotonic() + SHUNNED_S
            self._asked_s = float("-inf")
            clients = [client for key, client in self._clients.items() if key[0] == address]
        for client in clients:
            client.disconnect()

    def close(self) -> None:
        """Close all connections."""
        self._registry.close()
        self._scout.close()
        self._drop(list(self._clients))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _ask(self, deadline_s: float) -> None:
        """Ask the registry and forget the clients of peers that are gone; the age counts from the end of a slow answer."""
        try:
            topology = self._scout.topology(deadline_s=deadline_s)
        finally:
            self._asked_s = time.monotonic()
        self._topology = topology
        known = {(topology.train_rpc, "train"), *((address, "inference") for address in topology.inference_rpc)}
        self._drop(key for key in list(self._clients) if key not in known)

    def _drop(self, keys: Iterable[tuple[str, str]]) -> None:
        with self._lock:
            gone = [self._clients.pop(key) for key in keys if key in self._clients]
        for client in gone:
            client.close()

    def _masters(self) -> tuple[str, ...]:
        topology = self.topology()
        if not topology.train_rpc:
            raise NotReadyError(_nobody("train", topology))
        return (topology.train_rpc,)

    def _servers(self) -> tuple[str, ...]:
        """Return the inference nodes from the next one in turn, the shunned ones last."""
        topology = self.topology()
        if not topology.inference_rpc:
            raise NotReadyError(_nobody("inference", topology))
        now_s = time.monotonic()
        with self._lock:
            self._turn += 1
            start = self._turn % len(topology.inference_rpc)
            turned = topology.inference_rpc[start:] + topology.inference_rpc[:start]
            shunned = {address for address, until_s in self._shunned.items() if until_s > now_s}
        return tuple(sorted(turned, key=lambda address: address in shunned))


def _nobody(role: str, topology: m.Topology) -> str:
    return f"no {role} node is online: " + ("; ".join(topology.warnings) or f"start one, then `labelloop form` with {role} nodes")
