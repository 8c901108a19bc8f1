"""A manager that comes back with nobody to order it: what it is again by itself, and what it leaves to the registry.

The manager, its files and its role processes are real; its broker is simulated and its peers say what the test wants.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.authority import Authority
from cluster.hostsfile import read_block
from cluster.initial import Assignment
from cluster.manager import Manager
from cluster.rolefiles import NodeOptions
from cluster.state import write_state
from datastore_layout.root import create_root
from labelloop.errors import NotReadyError, UnreachableError
from labelloop.messages import HeartbeatReply, MachineInfo, NodeStatus
from labelloop.nodefiles import read_machines
from labelloop.settings import ClusterSettings, Settings
from tests.simulated_fleet import Fleet

SETTINGS = Settings(cluster=ClusterSettings(shutdown_grace_s=2.0, inference_processes=1))
EPOCH = 4


class Node:
    """The node `a` at 127.0.0.1 and what its peers `b` and `c` say: an epoch each; who is not in `peers` is silent."""

    def __init__(self, folder: Path) -> None:
        self.peers: dict[str, int] = {}
        self.fleet = Fleet(["a", "b", "c"])
        for number, broker in enumerate(self.fleet.brokers.values(), start=1):
            broker.ip = f"127.0.0.{number}"
        self.state = folder / "state"
        self._authority = Authority(folder / "authority", SETTINGS.cluster)
        self._identity = self._authority.own_identity("a", "127.0.0.1", "node", self.state / "identity")
        self.datastore = folder / "datastore"
        create_root(self.datastore, self._authority.cluster_id)
        self._managers: list[Manager] = []

    def wake(self, role: str, name: str = "a") -> Manager:
        """Return a manager that starts with the assignment of a master of `role`, among its peers, in epoch 4."""
        good = tuple(
            MachineInfo(hostname=host, ip=broker.ip, port=1, type=role)  # type: ignore[arg-type]
            for host, broker in self.fleet.brokers.items()
        )
        master = {f"master_{role}": "127.0.0.1", "master_host": "a"}
        listed = ("a", "b", "c") if role == "inference" else ()
        kept = Assignment(epoch=EPOCH, role=role, good=good, is_master=True, listed=listed, **master)  # type: ignore[arg-type]
        write_state(self.state / "assignment.json", kept)
        options = NodeOptions(
            name=name,
            ip="127.0.0.1",
            port=_free_port(),
            cluster_id=self._authority.cluster_id,
            state=self.state,
            datastore=self.datastore,
            hosts_file=self.state / "hosts",
            role_package="tests.cluster.standin",
        )
        manager = Manager(options, SETTINGS, self._identity, self.fleet.brokers["a"], self._ping)
        self._managers.append(manager)
        return manager

    def _ping(self, machine: MachineInfo) -> NodeStatus:
        if machine.hostname not in self.peers:
            raise UnreachableError(f"{machine.hostname} is silent")
        return NodeStatus(
            hostname=machine.hostname,
            ip=machine.ip,
            port=machine.port,
            epoch=self.peers[machine.hostname],
            broker=self.fleet.brokers[machine.hostname].view(),
            erlang_hash=self.fleet.brokers[machine.hostname].erlang_hash(""),
        )

    def stop(self) -> None:
        for manager in self._managers:
            manager.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    try:
        yield made
    finally:
        made.stop()


def test_a_master_whose_peers_are_in_its_epoch_is_again_what_it_was(node: Node) -> None:
    node.peers = {"b": EPOCH, "c": EPOCH - 1}
    manager = node.wake("train")
    manager.resume()
    assert not read_machines(node.state).is_alone
    assert manager.status().is_master and {view.name for view in manager.status().processes} >= {"train-rpc", "train-worker"}
    assert dict(read_block(node.state / "hosts")) == {"127.0.0.1": "a", "127.0.0.2": "b", "127.0.0.3": "c"}


def test_a_master_that_a_peer_knows_to_be_outdated_starts_no_role_and_waits_for_the_registry(node: Node) -> None:
    node.peers = {"b": EPOCH, "c": EPOCH + 1}
    manager = node.wake("train")
    with pytest.raises(NotReadyError, match="c applied a newer epoch than 4"):
        manager.resume()
    assert manager.status().processes == ()
    assert read_block(node.state / "hosts"), "the hosts block comes back first, whatever else does not"


@pytest.mark.parametrize("who", ["a peer", "the registry"])
def test_a_train_master_that_hears_nobody_is_alone_until_somebody_is_in_its_epoch(node: Node, who: str) -> None:
    manager = node.wake("train")
    manager.resume()
    assert read_machines(node.state).is_alone, "roles read there that they may neither train nor publish"
    assert "alone" in manager.status().last_reason
    manager.hear(HeartbeatReply(cluster_id="c", epoch=EPOCH - 1))
    manager.tend()
    assert read_machines(node.state).is_alone
    if who == "a peer":
        node.peers = {"c": EPOCH}
        manager.tend()
    else:
        manager.hear(HeartbeatReply(cluster_id="c", epoch=EPOCH))
    assert not read_machines(node.state).is_alone


def test_an_inference_node_behind_its_peers_starts_its_broker_for_them_and_no_role(node: Node) -> None:
    node.fleet.order()
    node.fleet.run()
    broker = node.fleet.brokers["a"]
    broker.is_up = node.fleet.brokers["b"].is_up = False
    node.peers = {"c": EPOCH + 1}
    manager = node.wake("inference")
    assert node.fleet.brokers["c"].truth().state == "paused"
    with pytest.raises(NotReadyError, match="newer epoch"):
        manager.resume()
    assert broker.is_running and node.fleet.brokers["c"].is_running, "two of three are a majority"
    assert manager.status().processes == ()
    before = broker.changes
    with pytest.raises(NotReadyError, match="newer epoch"):
        manager.resume()
    assert broker.changes == before


def test_a_machine_that_was_renamed_is_nobody_until_it_is_ordered(node: Node) -> None:
    node.peers = {"b": EPOCH, "c": EPOCH}
    broker = node.fleet.brokers["a"]
    before = broker.changes
    manager = node.wake("inference", name="z")
    with pytest.raises(NotReadyError, match=r"no z at 127\.0\.0\.1, so this machine was renamed or moved"):
        manager.resume()
    assert (broker.changes, manager.status().processes) == (before, ())
