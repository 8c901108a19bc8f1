"""From an assignment to what the supervisor runs: the configuration of this node's role processes and their files.

Owns `roles/*.json`, the ports of the node and its kept way to the train master's queues (`link.json`, 0600). Must never start a
process. Called by the manager, under its order lock.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from cluster.broker import BrokerUrls
from cluster.facts import inference_processes, read_facts, worker_concurrency
from cluster.initial import Assignment
from cluster.peers import Peers
from cluster.process import ProcessSpec
from cluster.roles import config_file, processes_of, spec_of
from cluster.state import choose_port, claim_port, read_state, write_state
from labelloop import messages as m
from labelloop.errors import LabelloopError, NotReadyError, RetryableError
from labelloop.settings import Settings, environment_of
from labelloop.tls import Identity

logger = logging.getLogger(__name__)

_CHECKOUT = Path(__file__).resolve().parent.parent
_POLL_S = 0.1


class NodeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Who and where this node is. `role_package` holds the start_* scripts."""

    name: str
    ip: str
    port: int
    cluster_id: str
    state: Path
    datastore: Path
    hosts_file: Path
    role_package: str = "scripts"


class KeptLink(msgspec.Struct, frozen=True):
    """The way to the queues of a train master, by its host name."""

    master_host: str = ""
    broker_url: str = ""

    def __repr__(self) -> str:
        return f"KeptLink({self.master_host!r})"


class MasterLink:
    """Where the train master's queues are, asked of its manager and kept for a start without it."""

    def __init__(self, options: NodeOptions, peers: Peers, sleep: Callable[[float], None] = time.sleep) -> None:
        self.is_overtaken: Callable[[], bool] = lambda: False  # whoever gives orders says when a newer one waits
        self._options = options
        self._peers = peers
        self._sleep = sleep
        self._file = options.state / "link.json"

    def url(self, assignment: Assignment, timeout_s: float) -> str:
        """Return the URL of the master's queues; the kept one where the master does not tell within `timeout_s`.

        Raises NotReadyError when there is none, at once when a newer order waits.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                return self._fetch(assignment)
            except RetryableError as exc:
                kept = read_state(self._file, KeptLink) or KeptLink()
                if kept.master_host == assignment.master_host:
                    logger.info("the train master does not tell where its queues are (%s): going by what it said last", exc)
                    return kept.broker_url
                if time.monotonic() >= deadline_s or self.is_overtaken():
                    raise NotReadyError(
                        f"the train master {assignment.master_host} does not tell where its queues are: {exc}"
                    ) from exc
            self._sleep(_POLL_S)

    def newer(self, assignment: Assignment, known: str) -> str:
        """Return the URL that the master tells now where it is another than `known`; '' otherwise, also when it does not answer."""
        try:
            url = self._fetch(assignment)
        except LabelloopError as exc:
            logger.debug("the train master does not tell where its queues are: %s", exc)
            return ""
        return url if url != known else ""

    def _fetch(self, assignment: Assignment) -> str:
        master = next((machine for machine in assignment.good if machine.hostname == assignment.master_host), None)
        if master is None:
            raise NotReadyError("there is no train master")
        url = self._peers.link(master, m.LinkRequest(hostname=self._options.name, epoch=assignment.epoch)).broker_url
        kept = KeptLink(assignment.master_host, url)
        if read_state(self._file, KeptLink) != kept:
            write_state(self._file, kept)
        return url


class RoleFiles:
    """See the module."""

    def __init__(self, options: NodeOptions, settings: Settings, identity: Identity, link: MasterLink) -> None:
        self._options = options
        self._settings = settings
        self._identity = identity
        self._link = link

    def config(
        self, assignment: Assignment, urls: BrokerUrls, running: Collection[str], timeout_s: float
    ) -> tuple[m.RoleConfig, str]:
        """Return the configuration of this node's role and a warning, '' = none; `running` are the processes that run now.

        Raises NotReadyError while a train node does not know where the master's queues are.
        """
        assert assignment.role is not None
        facts, options, cluster = read_facts(), self._options, self._settings.cluster
        n_good = len(assignment.good)
        processes, why = inference_processes(n_good, facts, cluster.inference_processes)
        is_capped = assignment.role == "inference" and processes < n_good
        if is_capped:
            logger.info("inference_rpc: %d processes: %s", processes, why)
        is_guest = assignment.role == "train" and not assignment.is_master
        config = m.RoleConfig(
            node=options.name,
            ip=options.ip,
            role=assignment.role,
            is_master=assignment.is_master,
            master_host=assignment.master_host,
            cluster_id=options.cluster_id,
            epoch=assignment.epoch,
            datastore_root=str(options.datastore),
            broker_url=self._link.url(assignment, timeout_s) if is_guest else urls.broker,
            result_url=urls.result,
            rpc_host=options.ip,
            rpc_port=self._rpc_port(f"{assignment.role}-rpc", running),
            rpc_processes=processes if assignment.role == "inference" else 1,
            concurrency=worker_concurrency(facts, cluster.concurrency),
            certificate_file=str(self._identity.certificate_file),
            key_file=str(self._identity.key_file),
            ca_file=str(self._identity.ca_file),
            state_dir=str(options.state),
            log_level=self._settings.log.level,
        )
        return config, f"inference_rpc has {processes} processes: {why}" if is_capped else ""

    def specs(self, config: m.RoleConfig) -> list[ProcessSpec]:
        """Write the configuration of each process and return what to run."""
        specs = []
        environment = environment_of(self._settings)
        for process in processes_of(config):
            write_state(config_file(self._options.state, process), config)
            specs.append(spec_of(process, config, self._options.state, self._options.role_package, environment, _CHECKOUT))
        return specs

    def _rpc_port(self, name: str, running: Collection[str]) -> int:
        """Return the role's remembered port; another one when it is taken while the role does not run."""
        ports = self._options.state / "ports.json"
        return (choose_port if name in running else claim_port)(ports, name, self._options.ip)
