"""Five dockers, booted by start.sh and formed by the ops command: what is there afterwards, and what a second order changes."""

from __future__ import annotations

import pytest

from cluster.hostsfile import read_block
from labelloop import messages as m
from labelloop.errors import NotFoundError
from scripts.chaos.trial import await_whole, until
from scripts.chaos.whole import wanted_replicas
from tests.cluster.conftest import Formed

pytestmark = pytest.mark.slow


def status_of(formed: Formed) -> dict[str, m.NodeStatus]:
    return {view.status.hostname: view.status for view in formed.ground.registry.nodes().nodes}


def test_the_command_returns_once_every_role_is_there_and_the_task_is_open(formed: Formed) -> None:
    await_whole(formed.ground)
    assert "5 of 5 nodes as wanted" in formed.said
    assert formed.ground.cluster.train().progress(m.ProgressRequest(task="first")).labels == 0


def test_the_masters_are_the_lowest_addresses_as_numbers(formed: Formed) -> None:
    nodes = status_of(formed)
    assert {name for name, status in nodes.items() if status.is_master} == {"node-1", "node-3"}
    assert nodes["node-1"].ip.endswith(".9")
    assert nodes["node-2"].ip.endswith(".10")  # higher than .9, though not as text


def test_train_rpc_is_one_process_on_the_train_master_and_every_inference_node_answers(formed: Formed) -> None:
    running = {name: set(formed.ground.processes(name)) for name in formed.lab.nodes}
    assert [name for name, kinds in running.items() if "train-rpc/0" in kinds] == ["node-1"]
    topology = formed.ground.registry.topology()
    assert len(topology.inference_rpc) == 3
    for node in formed.ground.of("inference"):
        with formed.ground.inference_at(node) as client, pytest.raises(NotFoundError):
            client.job(m.JobKey(task="first", job_id="none"))


def test_the_inference_brokers_are_one_cluster_and_each_train_broker_is_its_own(formed: Formed) -> None:
    await_whole(formed.ground)
    nodes = status_of(formed)
    for name in formed.ground.of("inference"):
        assert sorted(nodes[name].broker.running) == list(formed.ground.of("inference"))
    for name in formed.ground.of("train"):
        assert nodes[name].broker.running == (name,)
    hashes = {nodes[name].erlang_hash for name in formed.ground.of("inference")}
    assert len(hashes) == 1
    assert len({nodes[name].erlang_hash for name in formed.lab.nodes}) == 3


def test_every_shared_queue_has_its_replicas(formed: Formed) -> None:
    await_whole(formed.ground)
    replicas = formed.ground.replicas()
    assert replicas
    assert set(replicas.values()) == {wanted_replicas(3)}


def test_every_docker_knows_the_others_by_name_and_keeps_its_own_lines(formed: Formed) -> None:
    for name in formed.lab.nodes:
        path = formed.lab.disk(name) / "etc/hosts"
        assert {host: ip for ip, host in read_block(path)} == {node: formed.lab.address(node) for node in formed.lab.nodes}
        assert "127.0.0.1 localhost" in path.read_text()


def until_same(formed: Formed, name: str, kind: str, pids: tuple[int, ...] | None) -> None:
    """Wait until the pids are those: a process that forks is there twice for a moment, one that was started anew never the same."""
    until(
        lambda: "" if (now := formed.ground.processes(name).get(kind)) == pids else f"{kind} is {now}, was {pids}",
        f"{kind} of {name}",
    )


def test_the_same_order_again_restarts_nothing(formed: Formed) -> None:
    await_whole(formed.ground)
    before = {name: formed.ground.processes(name) for name in formed.lab.nodes}
    done = formed.labelloop("form", "--train", "2", "--inference", "3")
    assert done.returncode == 0, done.stderr
    await_whole(formed.ground)
    for name in formed.lab.nodes:
        for kind in (
            "broker",
            "manager",
            "train-rpc/0",
            "train-worker/0",
            "data-worker/0",
            "inference-rpc/0",
            "inference-worker/0",
        ):
            until_same(formed, name, kind, before[name].get(kind))


def test_a_drained_node_does_no_work_and_comes_back_when_it_is_undone(formed: Formed) -> None:
    assert formed.labelloop("drain", "node-5").returncode == 0
    until(lambda: "" if not status_of(formed)["node-5"].rpc else "node-5 still answers", "node-5 drained")
    assert len(formed.ground.registry.topology().inference_rpc) == 2
    formed.ground.registry.drain(m.NodeRequest(hostname="node-5", is_undone=True))
    await_whole(formed.ground)


def test_the_ops_command_shows_all_of_it(formed: Formed) -> None:
    await_whole(formed.ground)
    shown = formed.labelloop("status")
    assert shown.returncode == 0, shown.stderr
    for name in formed.lab.nodes:
        assert name in shown.stdout
