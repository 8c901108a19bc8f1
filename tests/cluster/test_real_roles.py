"""The real role scripts under two real managers: how many processes there are, and that each comes back after kill -9."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.process import find_marked
from labelloop.clients import InferenceClient, TrainClient
from labelloop.errors import NotReadyError
from labelloop.messages import FormRequest, Item, OpenTaskRequest, PredictRequest, ProgressRequest, TaskExtraInfo, TaskSpec
from tests.cluster.two_managers import SETTINGS, Cluster, running_cluster, until

pytestmark = pytest.mark.slow
SPEC = TaskSpec(task="birds", category="tables", extra=TaskExtraInfo(labels=("a", "b")))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), "scripts") as running:
        running.registry.form(FormRequest(train=1, inference=1), deadline_s=120)
        running.registry.open_task(OpenTaskRequest(spec=SPEC))
        yield running


def _parents(pids: tuple[int, ...]) -> dict[int, int]:
    return {pid: int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]) for pid in pids}


def test_inference_rpc_is_forked_once_a_good_machine_and_train_rpc_is_one_process(cluster: Cluster) -> None:
    pids = cluster.role_pids()
    rpc = pids["inference-1/inference-rpc"]
    forks = _parents(find_marked(str(cluster.folder / "inference-1" / "logs" / "inference-rpc.log")))
    assert sorted(parent == rpc for pid, parent in forks.items() if pid != rpc) == [True, True]
    assert find_marked(str(cluster.folder / "train-1" / "logs" / "train-rpc.log")) == (pids["train-1/train-rpc"],)
    assert not [name for name in pids if name.startswith("inference-1/train")]


def _answers(cluster: Cluster) -> bool:
    topology = cluster.registry.topology()
    with TrainClient(topology.train_rpc, cluster.client, SETTINGS.wire) as train:
        assert train.progress(ProgressRequest(task="birds"), deadline_s=10).labels == 0
    request = PredictRequest(task="birds", items=(Item(item_id="x", link="data:,1"),))
    not_yet = pytest.raises(NotReadyError, match="no version of task 'birds' serves yet")
    with InferenceClient(topology.inference_rpc[0], cluster.client, SETTINGS.wire) as inference, not_yet:
        inference.predict(request, deadline_s=10)
    return True


def test_both_rpcs_answer_where_the_topology_says_also_after_kill_9_of_every_role_process(cluster: Cluster) -> None:
    assert _answers(cluster)
    for name, pid in cluster.role_pids().items():
        os.kill(pid, signal.SIGKILL)
        until(lambda name=name, pid=pid: cluster.role_pids()[name] not in (0, pid), name)  # type: ignore[misc]
    until(lambda: _answers(cluster), "both roles answer again")
