"""Which node looks after a task, what the nodes' answers about a version mean, and what a dead letter leaves in a job."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cluster.broker.table import queue_table
from cluster.initial import Assignment
from datastore_layout.job_progress import JobDesk
from datastore_layout.jobs import ChunkSpec, JobRecord, create_job, done_chunks, read_result
from datastore_layout.root import create_root, task_folder
from labelloop.errors import DeadlineError, IntegrityError, LabelloopError, NoWorkerError
from labelloop.messages import Item, MachineInfo
from labelloop.nodefiles import Machines, write_machines
from labelloop.queues import is_replicated
from roles.inference.calls import ChunkPart, ChunkWork
from roles.inference.given_up import record
from roles.inference.nodes import Nodes, homes_of
from roles.inference.turns import Turns
from roles.inference.warming import Verdict, judge

NODES = ("i1", "i2", "i3", "i4")


def machines(*names: str) -> Machines:
    good = tuple(MachineInfo(hostname=n, ip=f"10.0.0.{i}", port=1, type="inference") for i, n in enumerate(names, 1))
    return Machines(epoch=1, good=(*good, MachineInfo(hostname="t1", ip="10.0.1.1", port=1, type="train")))


def test_every_node_has_a_fair_share_of_the_tasks_and_a_lost_node_moves_only_its_own() -> None:
    tasks = [f"task-{number}" for number in range(400)]
    homes = {task: homes_of(task, NODES)[0] for task in tasks}
    assert all(60 <= list(homes.values()).count(node) <= 140 for node in NODES)
    without = {task: homes_of(task, NODES[:3])[0] for task in tasks}
    assert [task for task in tasks if without[task] != homes[task]] == [task for task in tasks if homes[task] == "i4"]
    assert homes_of("birds", NODES) == homes_of("birds", reversed(NODES))


def test_a_node_knows_the_good_inference_nodes_and_itself_even_without_its_managers_file(tmp_path: Path) -> None:
    assert Nodes(str(tmp_path), "i1").names() == ("i1",)
    write_machines(tmp_path, machines("i2", "i3"))
    nodes = Nodes(str(tmp_path), "i1")
    assert nodes.names() == ("i1", "i2", "i3")
    assert nodes.others() == ("i2", "i3")
    places = {name: homes_of("birds", nodes.names()).index(name) for name in nodes.names()}
    assert nodes.place_of("birds") == places["i1"]
    assert places[nodes.home_of("birds")] == 0


def test_an_unreadable_file_of_machines_leaves_what_was_known(tmp_path: Path) -> None:
    (tmp_path / "machines.json").write_bytes(b"{")
    assert Nodes(str(tmp_path), "i1").names() == ("i1",)


@pytest.mark.parametrize(
    ("answers", "verdict", "words"),
    [
        ({"me": None, "you": None}, Verdict.WARM, "warm on 2 nodes"),
        ({"me": None, "you": NoWorkerError("dead")}, Verdict.WARM, "warm but for you (dead)"),
        ({"me": NoWorkerError("my workers are down"), "you": None}, Verdict.WARM, "warm but for me"),
        ({"me": None, "you": IntegrityError("a flipped byte")}, Verdict.REFUSED, "you: a flipped byte"),
        ({"me": NoWorkerError("nobody"), "you": DeadlineError("slow")}, Verdict.UNKNOWN, "nobody"),
    ],
)
def test_a_swap_is_judged_by_what_the_nodes_say(answers: dict[str, LabelloopError | None], verdict: Verdict, words: str) -> None:
    found, reason = judge(answers, "me")
    assert found is verdict
    assert words in reason


def test_roles_and_broker_agree_which_queues_have_replicas() -> None:
    good = machines("i1").good
    for role, name in (("inference", "i1"), ("train", "t1")):
        assignment = Assignment(epoch=1, role=role, good=good, master_host=name, is_master=True)  # type: ignore[arg-type]
        table = queue_table(assignment, "c1", name, 2)
        assert table
        assert [spec.is_replicated for spec in table] == [is_replicated(spec.name) for spec in table]


# ---------------------------------------------------------------- dead letters


def test_a_chunk_that_kills_its_workers_before_it_begins_is_answered_as_failed_after_two_letters(tmp_path: Path) -> None:
    root = create_root(tmp_path / "root", "c1")
    folder = task_folder(root, "t")
    items = tuple(Item(item_id=f"i{n}", link="data:,x") for n in range(3))
    create_job(folder, JobRecord(job_id="j", version="v", chunks=(ChunkSpec(items=items), ChunkSpec(items=items))))
    parts = (ChunkPart(chunk=0, items=items), ChunkPart(chunk=1, items=items))
    order = ChunkWork(call="c", reply_to="r", task="t", job_id="j", version="v", parts=parts)
    record(root, order)
    assert not done_chunks(folder, "j")
    record(root, order)
    assert done_chunks(folder, "j") == {0}
    assert [error.item_id for error in read_result(folder, "j", 0).failed] == ["i0", "i1", "i2"]


def test_a_letter_about_a_chunk_whose_attempts_are_marked_leaves_it_to_be_cornered(tmp_path: Path) -> None:
    root = create_root(tmp_path / "root", "c1")
    folder = task_folder(root, "t")
    items = (Item(item_id="i", link="data:,x"),)
    create_job(folder, JobRecord(job_id="j", version="v", chunks=(ChunkSpec(items=items),)))
    JobDesk(folder, "j").record_attempt("0")
    order = ChunkWork(call="c", reply_to="r", task="t", job_id="j", version="v", parts=(ChunkPart(chunk=0, items=items),))
    for _ in range(5):
        record(root, order)
    assert not done_chunks(folder, "j")
    record(root, msgspec.structs.replace(order, job_id="gone"))


def test_only_an_order_under_way_is_taken_back() -> None:
    turns = Turns(4, 1.0)
    turns.add(("t", "j"), [0, 1])
    (order,) = [next(iter(turns.orders(0.0)))]
    turns.sent("call", order, 0.0)
    assert turns.is_under_way("call")
    turns.finished("call", (), 0.0)
    assert not turns.is_under_way("call")
