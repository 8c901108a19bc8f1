"""Two inference nodes, each with its own RabbitMQ of one broker cluster: replies, jobs and swaps cross between the nodes.

The work queues live on the second broker alone, so that the first may go without taking their majority along.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from datastore_layout.job_progress import JobDesk
from datastore_layout.root import TaskFolder, create_root
from labelloop import queues
from labelloop.errors import RetryableError, UnreachableError
from labelloop.messages import ChunkResult, Item, JobRequest, MachineInfo, PredictRequest, ResultsRequest
from labelloop.nodefiles import Machines, read_activity, write_machines
from roles.inference.nodes import homes_of
from scripts.inference_node import CLUSTER, InferenceNode
from tests.support_inference import MOODY, MOODY_DIM, matrix, publish_version, signed, text_items, text_spec, write_moody_encoder
from tests.support_rabbit import Rabbit

pytestmark = pytest.mark.slow

PATIENCE_S = 90.0
SETTINGS = {
    "LABELLOOP_INFERENCE_CHUNK_ITEMS": "50",
    "LABELLOOP_INFERENCE_REQUEUE_AFTER_S": "1.0",
    "LABELLOOP_BROKER_HEARTBEAT_S": "1.0",
}
DELIVERY_LIMIT = 2
WORK = (queues.interactive_queue(CLUSTER), queues.bulk_queue(CLUSTER))
DEAD = queues.dead_letter_queue("inference", CLUSTER)


@dataclass
class Pair:
    """Nodes x and y on brokers x and y over one datastore; only y has workers at first."""

    brokers: tuple[Rabbit, Rabbit]
    x: InferenceNode
    y: InferenceNode

    def open_task(self, task: str) -> TaskFolder:
        return self.x.open_task(text_spec(task, MOODY))

    def declare(self) -> None:
        """Declare the queues of both nodes, each node's own on its own broker."""
        for node, broker in zip((self.x, self.y), self.brokers, strict=True):
            broker.declare(own=[queues.node_queue(node.name), queues.reply_queue(node.name, 0)])
        self.brokers[1].declare(WORK, dead=DEAD, limit=DELIVERY_LIMIT, replicas=1)

    def know(self, *nodes: InferenceNode) -> None:
        """Tell both nodes which machines are good, as their managers do."""
        machines = tuple(MachineInfo(hostname=n.name, ip=f"127.0.0.{i}", port=1, type="inference") for i, n in enumerate(nodes, 1))
        for node in (self.x, self.y):
            Path(node.config.state_dir).mkdir(parents=True, exist_ok=True)
            write_machines(Path(node.config.state_dir), Machines(epoch=1, good=machines))

    def task_of(self, node: InferenceNode) -> str:
        """Return a name for a task whose home is `node`."""
        names = (f"t{number}-{os.urandom(3).hex()}" for number in range(1000))
        return next(task for task in names if homes_of(task, (self.x.name, self.y.name))[0] == node.name)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    first = Rabbit(folder / "broker-x", name="x")
    second = Rabbit(folder / "broker-y", name="y", family=first.family)
    nodes: list[InferenceNode] = []
    try:
        starting = [threading.Thread(target=broker.start) for broker in (first, second)]
        for thread in starting:
            thread.start()
        for thread in starting:
            thread.join()
        second.join(first)
        plugin = folder / "plugin"
        plugin.mkdir()
        path = os.pathsep.join([write_moody_encoder(plugin), os.environ.get("PYTHONPATH", "")])
        root = create_root(folder / "datastore", CLUSTER)
        for name, broker in (("x", first), ("y", second)):
            environment = {**SETTINGS, "PYTHONPATH": path}
            node = InferenceNode(
                folder / name, name=name, broker_url=broker.url, root=root, rpc_processes=1, environment=environment
            )
            nodes.append(node)
        made = Pair((first, second), *nodes)
        made.declare()
        made.know(*nodes)
        made.y.start_workers()
        for node in nodes:
            node.start_rpc()
        made.y.await_workers()
        yield made
    finally:
        for node in nodes:
            node.close()
        for broker in (first, second):
            broker.kill()
        first.end_epmd()


def await_true(check: Callable[[], object], what: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not check():
        assert time.monotonic() < end_s, f"{what} did not happen"
        time.sleep(0.05)


def predict(node: InferenceNode, task: str, n: int = 2) -> str:
    """Return the version that answers; `node` may still be starting or its broker coming back."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return node.client.predict(PredictRequest(task=task, items=text_items(n)), deadline_s=30).version
        except RetryableError:
            if time.monotonic() > end_s:
                raise
            time.sleep(0.1)


def collect(node: InferenceNode, task: str, job_id: str) -> list[ChunkResult]:
    found: list[ChunkResult] = []
    end_s = time.monotonic() + PATIENCE_S
    while True:
        after = found[-1].chunk if found else -1
        reply = node.client.results(ResultsRequest(task=task, job_id=job_id, after=after))
        found.extend(reply.chunks)
        if reply.is_complete:
            return found
        assert time.monotonic() < end_s, f"job {job_id} stands at chunk {after}"


def check_exactly_once(chunks: list[ChunkResult], items: tuple[Item, ...], failed: tuple[str, ...] = ()) -> None:
    answered = [i for chunk in chunks for i in (*chunk.item_ids, *(error.item_id for error in chunk.failed))]
    assert sorted(answered) == sorted(item.item_id for item in items)
    assert [error.item_id for chunk in chunks for error in chunk.failed] == list(failed)


def log(node: InferenceNode, name: str) -> str:
    return (node.folder / f"{name}.log").read_text()


# ---------------------------------------------------------------- across the nodes


def test_a_node_without_workers_is_answered_by_the_other_nodes(pair: Pair) -> None:
    task = pair.task_of(pair.x)
    version = publish_version(pair.open_task(task), MOODY, MOODY_DIM, 2.0)
    assert predict(pair.x, task) == version
    reply = pair.x.client.predict(PredictRequest(task=task, items=text_items(3)))
    np.testing.assert_allclose(matrix(reply.proba), [signed(2.0)] * 3, atol=1e-6)


def test_a_job_is_sent_by_its_tasks_home_whichever_node_took_it(pair: Pair) -> None:
    for home, other in ((pair.x, pair.y), (pair.y, pair.x)):
        task = pair.task_of(home)
        publish_version(pair.open_task(task), MOODY, MOODY_DIM, 1.0)
        items = text_items(400)
        other.client.predict_async(JobRequest(task=task, job_id="j", items=items))
        check_exactly_once(collect(other, task, "j"), items)
        assert "hears nothing" not in log(other, "rpc")
        assert f"taking over job j of task {task}" not in log(home, "rpc") + log(other, "rpc"), "the home was told at once"


def test_a_swap_waits_for_every_node_and_not_for_a_dead_one(pair: Pair) -> None:
    task = pair.task_of(pair.x)
    folder = pair.open_task(task)
    publish_version(folder, MOODY, MOODY_DIM, 0.0)
    pair.x.start_workers()
    pair.x.await_workers()
    predict(pair.x, task)
    second = publish_version(folder, MOODY, MOODY_DIM, 1.0)
    await_true(lambda: predict(pair.x, task) == second, "the swap")
    assert f"{second} is warm on 2 nodes" in log(pair.x, "rpc")
    pair.x.kill("workers")
    third = publish_version(folder, MOODY, MOODY_DIM, 2.0)
    await_true(lambda: predict(pair.y, task) == third, "the swap without x")
    assert f"{third} is warm but for x" in log(pair.y, "rpc")


# ---------------------------------------------------------------- poison and loss


def test_an_item_that_kills_its_worker_beyond_the_delivery_limit_fails_alone(pair: Pair) -> None:
    task = pair.task_of(pair.x)
    folder = pair.open_task(task)
    publish_version(folder, MOODY, MOODY_DIM, 1.0)
    items = (*text_items(6), *text_items(1, "poison"), *text_items(5, start=6))
    pair.y.client.predict_async(JobRequest(task=task, job_id="j", items=items))
    check_exactly_once(collect(pair.y, task, "j"), items, ("poison-0",))
    assert "was given up by the broker (delivery_limit)" in log(pair.x, "rpc") + log(pair.y, "rpc")
    await_true(lambda: pair.brokers[1].count(DEAD) == 0, "all dead letters taken")
    assert JobDesk(folder, "j").attempts_of("0.dead") == 0, "it was cornered, not given up"


def test_emptied_brokers_lose_no_job(pair: Pair) -> None:
    task = pair.task_of(pair.y)
    publish_version(pair.open_task(task), MOODY, MOODY_DIM, 1.0)
    items = text_items(600, "slow")
    pair.x.client.predict_async(JobRequest(task=task, job_id="j", items=items))
    await_true(lambda: read_activity(Path(pair.y.config.state_dir), "inference-worker").startswith(f"{task}: chunk"), "work")
    own = [name for node in (pair.x, pair.y) for name in (queues.node_queue(node.name), queues.reply_queue(node.name, 0))]
    pair.brokers[1].delete(*WORK, DEAD, *own)
    pair.declare()
    check_exactly_once(collect(pair.x, task, "j"), items)
    predict(pair.x, task)
    await_true(lambda: not read_activity(Path(pair.y.config.state_dir), "inference-worker"), "rest")


def test_a_node_whose_broker_is_down_says_so_at_once_and_the_other_goes_on(pair: Pair) -> None:
    task = pair.task_of(pair.x)
    version = publish_version(pair.open_task(task), MOODY, MOODY_DIM, 1.0)
    predict(pair.x, task)
    items = text_items(300, "slow")
    pair.x.client.predict_async(JobRequest(task=task, job_id="j", items=items))
    pair.brokers[0].kill(signal.SIGKILL)
    try:
        await_true(lambda: is_unreachable(pair.x, task), "x says that its broker is away")
        assert predict(pair.y, task) == version
        check_exactly_once(collect(pair.y, task, "j"), items)
    finally:
        pair.brokers[0].start()
    assert predict(pair.x, task) == version


def is_unreachable(node: InferenceNode, task: str) -> bool:
    try:
        node.client.predict(PredictRequest(task=task, items=text_items(1)))
    except UnreachableError as exc:
        return "broker" in str(exc)
    except RetryableError:
        return False
    return False
