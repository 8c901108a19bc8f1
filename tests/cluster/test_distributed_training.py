"""One run on three train nodes, real processes on addresses of their own: shared steps; a rank, the owner, the master lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from datastore_layout.ranks import Generation, read_generations, read_meeting
from datastore_layout.root import TaskFolder
from datastore_layout.runs import Attempt, latest_attempt, newest_checkpoint, read_finish, read_run, read_run_metrics
from labelloop.clients import TrainClient
from labelloop.messages import CancelRequest, RunView
from labelloop.settings import WireSettings
from roles.train.attempt import Work
from roles.train.sharing import Here
from tests.support_train import TrainNode, digit_files, free_port, listens_on, parent_of, running_node, until

pytestmark = pytest.mark.slow

Items = list[tuple[str, str, str]]
N = 60
EPOCHS = 100
PATIENCE_S = 240.0  # three trainings at once on two busy cores
SHARED = {"algorithm": "small-cnn", "parameters": {"width": 8, "batch": 16}}
SETTINGS = {
    "requeue_after_s": 1.0,
    "lease_s": 5.0,
    "checkpoint_s": 0.2,
    "distribute_from_s": 0.0,
    "gather_s": 2.0,
    "rank_timeout_s": 60.0,
}


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Items:
    return digit_files(tmp_path_factory.mktemp("digits"), N)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, items: Items) -> Iterator[dict[str, TrainNode]]:
    media = Path(items[0][1].removeprefix("file://")).parent
    with running_node(tmp_path_factory.mktemp("node"), media, **SETTINGS) as first:
        found = {"n1": first, "n2": first.sibling("n2", "127.0.0.2"), "n3": first.sibling("n3", "127.0.0.3")}
        say_good(found)
        try:
            first.start("data", "rpc")
            for node in found.values():
                node.start("train")
            yield found
        finally:
            for node in found.values():
                node.end_processes()


def say_good(nodes: dict[str, TrainNode], *gone: str) -> None:
    """Tell all nodes, as their managers would, which of them are good."""
    good = [node for name, node in nodes.items() if name not in gone]
    for node in nodes.values():
        node.say_good(good)


def begin(nodes: dict[str, TrainNode], items: Items, task: str, epochs: int = EPOCHS) -> TaskFolder:
    """Open a task and submit enough labels for its first run."""
    folder = nodes["n1"].open_task(task, **SHARED, epoch=epochs)
    nodes["n1"].submit(task, items, "b1")
    return folder


def generations(folder: TaskFolder, attempt: int) -> list[Generation]:
    return [one for k, one in read_generations(folder, 1) if k == attempt]


def until_shared(folder: TaskFolder, n_ranks: int = 3, attempt: int = 1) -> Generation:
    """Wait until a generation of `n_ranks` has made some steps, with a checkpoint of one of them; return it."""

    def look() -> Generation | None:
        one = (generations(folder, attempt) or [None])[-1]
        checkpoint = newest_checkpoint(folder, 1)
        is_on = one is not None and len(one.ranks) == n_ranks and checkpoint is not None and checkpoint.step > one.begin
        return one if is_on else None

    return until(look, f"steps of {n_ranks} ranks in attempt {attempt}", PATIENCE_S)


def end_of(folder: TaskFolder, client: TrainNode) -> RunView:
    """Wait for the end of the first run."""
    until(lambda: read_finish(folder, 1), f"the end of the run of {folder.task}", PATIENCE_S)

    def look() -> RunView | None:
        view = client.progress(folder.task).run
        return view if view is not None and view.state not in ("queued", "running") else None

    return until(look, "its view")


def kill_docker(node: TrainNode) -> None:
    """Kill a node's train worker, and by the kernel its spare and all that it forked."""
    node.kill("train", signal.SIGKILL)


def is_at_work(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def items_of(view: RunView) -> int:
    return sum(rank.items for rank in view.ranks)


def test_a_run_uses_all_good_train_nodes_and_its_record_says_who_did_what(nodes: dict[str, TrainNode], items: Items) -> None:
    folder = begin(nodes, items, "shared", epochs=40)
    view = end_of(folder, nodes["n1"])
    assert (view.state, view.attempt) == ("done", 1), view.reason
    last = generations(folder, 1)[-1]
    ranks = [rank for rank in view.ranks if rank.generation == last.number]
    assert {rank.node for rank in ranks} == {"n1", "n2", "n3"}
    assert len({rank.pid for rank in ranks}) == 3
    assert [rank.rank for rank in ranks] == [0, 1, 2]
    assert {rank.steps for rank in ranks} == {view.steps}
    assert all(rank.items > 0 and rank.hostname for rank in ranks)
    meeting = read_meeting(folder, 1, 1)
    assert meeting is not None
    assert (meeting.node, meeting.host) == (ranks[0].node, nodes[ranks[0].node].config.ip)
    work = Work(folder, read_run(folder, 1), Attempt(folder, 1, 1), nodes["n1"].settings, Here())
    frozen, samples = work.load()
    assert items_of(view) == 40 * len(samples.train.rows)  # disjoint parts whose union is each epoch
    alone, _ = work.start(frozen, samples)
    losses = dict(enumerate((alone.advance() for _ in range(24)), start=1))
    shared = {point.step: point.loss for point in read_run_metrics(folder, 1)}
    both = sorted(losses.keys() & shared.keys())
    assert len(both) > 10
    np.testing.assert_allclose([shared[step] for step in both], [losses[step] for step in both], rtol=0.02)


def test_killing_a_rank_that_is_not_the_owner_changes_the_membership_and_the_run_finishes(
    nodes: dict[str, TrainNode], items: Items
) -> None:
    folder = begin(nodes, items, "lost-rank")
    three = until_shared(folder)
    for rank in three.ranks:  # each a fork of the spare of its own node's train worker, on its own node's address alone
        node = nodes[rank.node]
        assert parent_of(parent_of(rank.pid)) == node.processes["train"].pid
        assert listens_on(rank.pid) == {node.config.ip}
    lost = three.ranks[1].node
    kill_docker(nodes[lost])
    view = end_of(folder, nodes["n1"])
    nodes[lost].start("train")
    assert (view.state, view.attempt) == ("done", 1), view.reason
    after = next(one for one in generations(folder, 1) if one.number > three.number)
    assert {rank.node for rank in after.ranks} == {"n1", "n2", "n3"} - {lost}
    assert f"{lost} left" in after.reason
    assert items_of(view) == EPOCHS * (items_of(view) // EPOCHS)  # each step was done once, whoever was in it
    assert sum(one.step - one.begin for one in generations(folder, 1)) == view.steps


def test_killing_the_owner_starts_the_next_attempt_elsewhere_from_its_checkpoint(nodes: dict[str, TrainNode], items: Items) -> None:
    folder = begin(nodes, items, "lost-owner")
    owner = until_shared(folder).ranks[0].node
    before = newest_checkpoint(folder, 1)
    kill_docker(nodes[owner])
    say_good(nodes, owner)
    view = end_of(folder, nodes["n1"])
    assert (view.state, view.attempt) == ("done", 2), view.reason
    start = Attempt(folder, 1, 2).start_checkpoint()
    assert start is not None and before is not None
    assert start.step >= before.step > 0
    second = {rank.node for rank in view.ranks if rank.attempt == 2}
    assert second == {"n1", "n2", "n3"} - {owner}
    nodes[owner].start("train")
    say_good(nodes)


def test_a_frozen_owner_is_replaced_and_the_rank_that_waits_for_it_is_free_for_the_next_attempt(
    nodes: dict[str, TrainNode], items: Items
) -> None:
    folder = begin(nodes, items, "frozen-owner", epochs=20_000)
    owner = until_shared(folder).ranks[0]
    os.kill(owner.pid, signal.SIGSTOP)  # its connections stay open and silent, as those of a machine without power
    say_good(nodes, owner.node)
    try:
        second = until_shared(folder, n_ranks=2, attempt=2)
        assert {rank.node for rank in second.ranks} == {"n1", "n2", "n3"} - {owner.node}
    finally:
        os.kill(owner.pid, signal.SIGCONT)
        say_good(nodes)
    until(lambda: not is_at_work(owner.pid), "the end of the owner that was replaced")
    assert latest_attempt(folder, 1) == 2
    nodes["n1"].client.cancel(CancelRequest(task="frozen-owner", run=1, reason="seen enough"))
    until(lambda: not any(is_at_work(rank.pid) for rank in second.ranks), "the end of all ranks")


def test_a_node_that_comes_later_is_taken_in_and_cancelling_ends_the_processes_on_all_nodes(
    nodes: dict[str, TrainNode], items: Items
) -> None:
    say_good(nodes, "n3")
    folder = begin(nodes, items, "cancelled", epochs=20_000)
    assert {rank.node for rank in until_shared(folder, n_ranks=2).ranks} == {"n1", "n2"}
    say_good(nodes)
    three = until_shared(folder)
    assert three.reason.startswith("another node came")
    pids = [rank.pid for rank in three.ranks]
    nodes["n1"].client.cancel(CancelRequest(task="cancelled", run=1, reason="wrong labels"))
    until(lambda: not any(is_at_work(pid) for pid in pids), "the end of all ranks")
    end = read_finish(folder, 1)
    assert end is not None
    assert end.state == "cancelled"


def test_a_dead_train_master_hands_the_running_training_to_the_next_lowest_address(
    nodes: dict[str, TrainNode], items: Items
) -> None:
    folder = begin(nodes, items, "lost-master")
    until_shared(folder)
    first, second = nodes["n1"], nodes["n2"]
    for name in ("train", "rpc", "data"):
        first.kill(name, signal.SIGKILL)
    say_good(nodes, "n1")
    port = free_port()
    for name in ("n2", "n3"):  # their managers restart the roles, which now look to another master
        nodes[name].kill("train")
        nodes[name].config = msgspec.structs.replace(nodes[name].config, master_host="n2", is_master=name == "n2", rpc_port=port)
        nodes[name].write_config()
    second.client = TrainClient(f"127.0.0.1:{port}", second.identity, WireSettings(retries=0, deadline_s=20))
    try:
        second.start("rpc", "train")
        nodes["n3"].start("train")
        view = end_of(folder, second)
    finally:
        second.client.close()
    assert view.state == "done", view.reason
    assert latest_attempt(folder, 1) == view.attempt > 1
    start = Attempt(folder, 1, view.attempt).start_checkpoint()
    assert start is not None
    assert start.step > 0
    assert {rank.node for rank in view.ranks if rank.attempt == view.attempt} == {"n2", "n3"}
