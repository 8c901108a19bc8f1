"""The registry over real RPC with simulated managers: take-over, drain, remove and add, survivors, learning, revocation."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from labelloop import messages as m
from labelloop.clients import RegistryClient
from labelloop.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    NotReadyError,
    UnauthenticatedError,
)
from labelloop.tls import enrol
from tests.support_registry import SETTINGS, SimulatedManager, World, open_world, until


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    before = set(threading.enumerate())
    with open_world(tmp_path / "registry") as opened:
        yield opened
    assert [t.name for t in set(threading.enumerate()) - before if t.name.startswith(("wire-", "order-", "reconcile"))] == []


def _request(name: str, **fields: bool) -> m.NodeRequest:
    return m.NodeRequest(hostname=name, **fields)


def _assign_in_vain(world: World, roles: dict[str, m.Role]) -> None:
    with contextlib.suppress(NotReadyError):
        world.ops.assign(m.AssignRequest(roles=roles), deadline_s=120)  # type: ignore[arg-type]


def _begin_work(world: World, manager: SimulatedManager, work: str) -> None:
    """Have a node work, and the registry know it."""
    manager.work = work

    def is_heard() -> bool:
        return any(p.activity == work for n in world.ops.nodes().nodes for p in n.status.processes)

    until(is_heard, "the registry hears of the work")


def _rabbit(state: str, members: tuple[str, ...], running: tuple[str, ...] = ()) -> m.BrokerView:
    fields = {"kind": "rabbitmq", "state": state, "cluster": "C", "members": members, "running": running}
    return msgspec.convert(fields, m.BrokerView)


# ------------------------------------------------------------ forming and taking over


def test_form_prefers_gpus_for_training_and_opens_the_task_through_the_train_master(world: World) -> None:
    world.boot("n1", "n2", "n3", gpus=("n3",))
    reply = world.ops.form(m.FormRequest(train=1, inference=2), deadline_s=120)
    assert {n.status.hostname: n.status.role for n in reply.nodes} == {"n1": "inference", "n2": "inference", "n3": "train"}
    spec = m.TaskSpec(task="birds", category="tables", extra=m.TaskExtraInfo(labels=("a", "b")))
    assert world.ops.open_task(m.OpenTaskRequest(spec=spec)).revision == 1
    assert world.managers["n3"].tasks == ["birds"]
    assert ("open-task", "birds at revision 1, by ops") in world.journal()


def test_a_dead_train_master_is_replaced_by_the_next_lowest_ip_and_takes_its_place_again_when_it_is_back(world: World) -> None:
    t1, t2, _, _ = world.boot("t1", "t2", "t3", "i1")
    world.form(t1="train", t2="train", t3="train", i1="inference")
    assert world.ops.topology().train_rpc == f"{t1.ip}:9"
    t1.kill()
    until(lambda: world.ops.topology().train_rpc == f"{t2.ip}:9", "t2 takes over")
    reply = world.settled("3 of 4 nodes as wanted")
    assert not next(n for n in reply.nodes if n.status.hostname == "t1").is_alive
    assert any(what == "order" and "t1 is dead" in reason for what, reason in world.journal())
    t1.start()
    until(lambda: world.ops.topology().train_rpc == f"{t1.ip}:9", "t1 is back")
    world.settled("4 of 4 nodes as wanted")


def machines_of(order: m.InitialRequest) -> list[str]:
    return [machine.hostname for machine in order.machines_info]


@pytest.mark.parametrize("heard", ["before the order", "after it"])
def test_forming_does_not_end_well_while_queues_are_not_copied_and_does_once_they_are(
    world: World, monkeypatch: pytest.MonkeyPatch, heard: str
) -> None:
    (i1,) = world.boot("i1")
    copying = m.BrokerView(kind="rabbitmq", state="running", short=("inference.c.bulk",))
    i1.broker, i1.broker_once_ordered = (copying, None) if heard == "before the order" else (i1.broker, copying)
    monkeypatch.setattr("cluster.steward.SETTLE_WAIT_S", 1.5)
    with pytest.raises(NotReadyError, match=r"i1 has queues that are still being copied: inference\.c\.bulk; the registry goes on"):
        world.form(i1="inference")
    i1.broker, i1.broker_once_ordered = m.BrokerView(kind="rabbitmq", state="running"), None
    until(lambda: not world.ops.nodes().nodes[0].status.broker.short, "the registry hears that they are copied")
    assert [node.status.role for node in world.form(i1="inference").nodes] == ["inference"]


def test_a_node_that_hangs_in_an_order_delays_no_take_over(world: World) -> None:
    t1, t2, i1 = world.boot("t1", "t2", "i1")
    world.form(t1="train", t2="train", i1="inference")
    i1.may_answer.clear()
    x = world.boot("x")[0]
    forming = threading.Thread(target=_assign_in_vain, args=(world, {"x": "train"}))
    forming.start()
    until(lambda: x.assignment.role == "train" and "x" in machines_of(i1.orders[-1]), "i1 hangs in the order that takes x in")
    t1.kill()
    until(lambda: t2.assignment.is_master, "t2 takes over though i1 still hangs")
    assert i1.assignment.epoch < t2.assignment.epoch
    i1.may_answer.set()
    forming.join()
    world.settled("3 of 4 nodes as wanted")


def test_a_node_that_refuses_its_order_is_told_and_asked_again_while_the_others_go_on(world: World) -> None:
    t1, i1 = world.boot("t1", "i1")
    i1.trouble = NotReadyError("mount the datastore")
    with pytest.raises(NotReadyError, match="i1: not_ready: mount the datastore"):
        world.form(t1="train", i1="inference")
    assert t1.assignment.is_master
    assert ("failure", "i1: not_ready: mount the datastore") in world.journal()
    i1.trouble = None
    world.settled("2 of 2 nodes as wanted")


def test_forming_does_not_end_well_while_a_node_that_took_its_order_does_not_answer(world: World) -> None:
    _, i1 = world.boot("t1", "i1")
    i1.late_trouble = NotReadyError("the broker is not in the cluster yet")
    with pytest.raises(NotReadyError, match=r"i1.*the registry goes on trying"):
        world.form(t1="train", i1="inference")
    assert i1.assignment.role == "inference"
    i1.late_trouble = None
    reply = world.form(t1="train", i1="inference")
    assert {n.status.hostname: bool(n.status.rpc) for n in reply.nodes} == {"t1": True, "i1": True}


def test_assign_changes_the_named_nodes_alone(world: World) -> None:
    world.boot("a", "b", "c")
    world.form(a="train", b="inference")
    reply = world.ops.assign(m.AssignRequest(roles={"c": "inference", "b": ""}), deadline_s=120)
    assert {n.status.hostname: n.status.role for n in reply.nodes} == {"a": "train", "b": "", "c": "inference"}
    with pytest.raises(NotFoundError, match="no node 'ghost'"):
        world.ops.assign(m.AssignRequest(roles={"ghost": "train"}))
    reply = world.ops.assign(m.AssignRequest(roles={"a": "", "c": ""}), deadline_s=120)
    assert {n.status.role for n in reply.nodes} == {""}


# ------------------------------------------------------------ drain


def test_a_draining_inference_node_is_called_no_more_finishes_and_keeps_its_place(world: World) -> None:
    _, i1, i2 = world.boot("t1", "i1", "i2")
    world.form(t1="train", i1="inference", i2="inference")
    _begin_work(world, i1, "3 chunks")
    reply = world.ops.drain(_request("i1"))
    assert next(n for n in reply.nodes if n.status.hostname == "i1").is_draining
    assert world.ops.topology().inference_rpc == (f"{i2.ip}:9",)
    assert i1.status().processes
    i1.work = ""
    until(lambda: i1.assignment.drained == ("i1",), "i1 drained")
    world.settled("3 of 3 nodes as wanted in epoch 2")
    assert i1.status().processes == ()
    assert (i1.assignment.role, i2.assignment.master_inference) == ("inference", i2.ip)
    assert "i1" in {machine.hostname for machine in i2.assignment.good}, "the others keep it in their hosts block"
    world.ops.drain(_request("i1", is_undone=True))
    until(lambda: i1.status().processes and i1.status().is_master, "i1 works again")
    until(lambda: world.ops.topology().inference_rpc == (f"{i1.ip}:9", f"{i2.ip}:9"), "both are called")


def test_a_draining_train_master_takes_labels_in_until_patience_ends_and_then_the_next_leads(world: World) -> None:
    t1, t2 = world.boot("t1", "t2")
    world.form(t1="train", t2="train")
    _begin_work(world, t1, "run 7, step 3")
    world.ops.drain(_request("t1"))
    assert world.ops.topology().train_rpc == f"{t1.ip}:9"
    until(lambda: world.ops.topology().train_rpc == f"{t2.ip}:9", "t2 leads")
    assert t1.assignment.drained == ("t1",)
    t1.kill()
    world.settled("1 of 2 nodes as wanted")
    t1.start()
    world.settled("2 of 2 nodes as wanted")
    assert world.ops.topology().train_rpc == f"{t2.ip}:9", "a drained node that was rebooted is still drained"


# ------------------------------------------------------------ remove and add


def test_a_removed_node_is_told_to_leave_refused_everywhere_and_taken_back_by_add(world: World, tmp_path: Path) -> None:
    t1, i1, _ = world.boot("t1", "i1", "i2")
    world.form(t1="train", i1="inference", i2="inference")
    reply = world.ops.remove(_request("i1"), deadline_s=120)
    assert {n.status.hostname for n in reply.nodes} == {"t1", "i2"}
    assert (i1.left, i1.assignment.role) == (1, None)
    assert [machine.hostname for machine in t1.assignment.good] == ["t1", "i2"]
    i1.assignment = msgspec.structs.replace(i1.assignment, has_left=False)  # its disk was wiped: it knows nothing of it
    until(lambda: isinstance(i1.refused, ForbiddenError) or i1.left > 1, "its heartbeat is refused")
    until(lambda: i1.left > 1, "it is told again")
    with pytest.raises(ForbiddenError, match="i1 was removed"):
        enrol(world.address, world.node_token, "i1", i1.ip, "node", tmp_path / "again", SETTINGS.wire)
    with pytest.raises(ForbiddenError, match="labelloop add i1"):
        world.form(t1="train", i1="inference")
    with pytest.raises(InvalidInputError, match="labelloop add i1"):
        world.ops.remove(_request("i1", is_undone=True))
    world.ops.add(_request("i1"))
    until(lambda: i1.assignment.role == "inference" and not i1.assignment.has_left, "it has its role again")
    world.settled("3 of 3 nodes as wanted")
    assert ("remove", "i1 has left") in world.journal()


def test_a_removed_dead_node_is_in_no_order_any_more_and_told_to_leave_when_it_comes_back(world: World) -> None:
    i1, i2, i3 = world.boot("i1", "i2", "i3")
    world.form(i1="inference", i2="inference", i3="inference")
    i1.kill()
    world.settled("2 of 3 nodes as wanted")
    assert [machine.hostname for machine in i2.orders[-1].machines_info] == ["i1", "i2", "i3"], "silence is no removal"
    world.ops.remove(_request("i1"), deadline_s=120)
    for manager in (i2, i3):  # a member that does not run and that no order names is forgotten by the others
        assert [machine.hostname for machine in manager.orders[-1].machines_info] == ["i2", "i3"]
    assert i1.left == 0
    i1.start()
    until(lambda: i1.left == 1, "it hears that it was removed")
    assert {n.status.hostname for n in world.ops.nodes().nodes} == {"i2", "i3"}


def test_a_removal_and_a_drain_outlive_the_registry(world: World) -> None:
    world.boot("a", "b", "c")
    world.form(a="train", b="inference", c="inference")
    world.ops.remove(_request("c"), deadline_s=120)
    world.ops.drain(_request("b"))
    until(lambda: world.managers["b"].assignment.drained == ("b",))
    epoch = world.ops.nodes().epoch
    world.shut()
    world.open()
    reply = world.settled("2 of 2 nodes as wanted")
    assert {n.status.hostname: n.is_draining for n in reply.nodes} == {"a": False, "b": True}
    assert ("start", f"the registry has started, at epoch {epoch}, with roles for 2 nodes") in world.journal()
    with pytest.raises(ForbiddenError, match="c was removed"):
        world.ops.drain(_request("c"))
    with pytest.raises(NotFoundError, match="no node 'ghost'"):
        world.ops.add(_request("ghost"))


# ------------------------------------------------------------ a lost majority


def test_survivors_are_named_in_a_new_epoch_only_after_the_rest_had_its_time(world: World) -> None:
    i1, i2, i3 = world.boot("i1", "i2", "i3")
    world.form(i1="inference", i2="inference", i3="inference")
    members = ("i1", "i2", "i3")
    for manager in (i1, i2, i3):
        manager.broker = _rabbit("running", members, members)
    i2.kill()
    i3.kill()
    i1.broker = _rabbit("running", members, ("i1",))
    world.settled("1 of 3 nodes as wanted")
    assert [order.survivors for order in i1.orders if order.survivors] == [], "a running broker forbids it"
    i1.broker = _rabbit("paused", members)
    until(lambda: i1.orders[-1].survivors == ("i1",), "i1 forms anew")
    assert any(what == "order" and "lost its majority" in reason and "i1 form anew" in reason for what, reason in world.journal())
    i1.broker = _rabbit("running", ("i1",), ("i1",))
    i2.start()
    until(
        lambda: i2.orders and i2.orders[-1].survivors == () and i2.assignment.epoch == i1.assignment.epoch, "i2 joins as others do"
    )


def test_no_survivor_is_named_while_a_majority_runs(world: World) -> None:
    i1, i2, i3 = world.boot("i1", "i2", "i3")
    world.form(i1="inference", i2="inference", i3="inference")
    members = ("i1", "i2", "i3")
    i1.broker = _rabbit("paused", members)
    for manager in (i2, i3):
        manager.broker = _rabbit("running", members, ("i2", "i3"))
    epoch = world.ops.nodes().epoch
    ended = threading.Event()
    ended.wait(3 * SETTINGS.cluster.majority_lost_s)  # time in which it could have named some
    assert world.ops.nodes().epoch == epoch


# ------------------------------------------------------------ learning


def test_an_empty_registry_learns_from_heartbeats_and_orders_nothing_until_it_is_confirmed(world: World) -> None:
    t1, i1 = world.boot("t1", "i1")
    epoch = world.form(t1="train", i1="inference").epoch
    world.shut()
    (world.folder / "wanted.json").unlink()
    orders = len(t1.orders) + len(i1.orders)
    world.open()
    until(lambda: world.ops.nodes().state == "learning" and len(world.ops.nodes().nodes) == 2, "it learns")
    assert world.ops.topology().train_rpc == f"{t1.ip}:9"
    for command in (world.ops.drain, world.ops.remove, world.ops.add):
        with pytest.raises(NotReadyError, match="labelloop confirm"):
            command(_request("t1"))
    with pytest.raises(NotReadyError, match="labelloop confirm"):
        world.ops.assign(m.AssignRequest(roles={"t1": "inference"}))
    i1.kill()
    until(lambda: not next(n for n in world.ops.nodes().nodes if n.status.hostname == "i1").is_alive)
    assert world.ops.nodes().state == "learning"
    assert len(t1.orders) + len(i1.orders) == orders, "no order, whatever happens"
    i1.start()
    until(lambda: all(n.is_alive for n in world.ops.nodes().nodes))
    reply = world.ops.form(m.FormRequest(), deadline_s=120)
    assert (reply.state, reply.epoch) == ("running", epoch + 1)
    assert {n.status.hostname: n.status.role for n in reply.nodes} == {"t1": "train", "i1": "inference"}


def test_a_registry_restored_from_an_older_backup_keeps_the_role_of_a_silent_node(world: World) -> None:
    t1, i1, _ = world.boot("t1", "i1", "i2")
    world.form(t1="train", i1="inference")
    old = (world.folder / "wanted.json").read_bytes()
    world.form(t1="train", i1="inference", i2="inference")
    i1.kill()
    world.settled("2 of 3 nodes as wanted")
    world.shut()
    (world.folder / "wanted.json").write_bytes(old)
    world.open()
    until(lambda: world.ops.nodes().state == "learning" and t1.refused is None)
    until(lambda: {n.status.hostname for n in world.ops.nodes().nodes if n.is_alive} == {"t1", "i2"})
    world.ops.form(m.FormRequest(), deadline_s=120)
    reply = world.settled("2 of 3 nodes as wanted")
    assert {n.status.hostname for n in reply.nodes} == {"t1", "i1", "i2"}
    i1.start()
    world.settled("3 of 3 nodes as wanted")


# ------------------------------------------------------------ admission and revocation


def test_a_revoked_node_is_refused_by_name_and_key_and_the_others_are_told(world: World, tmp_path: Path) -> None:
    t1, i1 = world.boot("t1", "i1")
    world.form(t1="train", i1="inference")
    world.ops.revoke(_request("i1"))
    until(lambda: isinstance(i1.refused, UnauthenticatedError), "its heartbeats are refused")
    until(lambda: len(t1.revoked) == 1, "the others hear of it")
    world.settled("1 of 2 nodes as wanted")
    with pytest.raises(ForbiddenError, match="key of i1 was revoked"):
        world.enrol("i1", i1.ip)
    i1.kill()
    i1.identity = enrol(world.address, world.node_token, "i1", i1.ip, "node", tmp_path / "new-key", SETTINGS.wire)
    i1.start()
    world.settled("2 of 2 nodes as wanted")
    with pytest.raises(NotFoundError, match="'ghost'"):
        world.ops.revoke(_request("ghost"))
    world.shut()
    world.open()
    until(lambda: len(t1.revoked) == 1, "a revocation outlives the registry")


def test_strangers_are_refused_and_journalled_while_the_registry_goes_on(world: World, tmp_path: Path) -> None:
    world.boot("n1")
    token = world.node_token
    revoked = world.authority.create_token("node")
    world.authority.revoke_token(revoked)
    wrong = f"{'x' * 43}.{token.rpartition('.')[2]}"
    cases = (
        (token, "n1", "127.0.3.9", ConflictError),
        (token, "n9", "127.0.3.1", ConflictError),
        (revoked, "n9", "127.0.3.9", UnauthenticatedError),
        (world.authority.create_token("node", 0.0), "n9", "127.0.3.9", UnauthenticatedError),
        (wrong, "n9", "127.0.3.9", UnauthenticatedError),
        (world.authority.create_token("client"), "n9", "127.0.3.9", ForbiddenError),
        (token, "n9\nroot", "127.0.3.9", InvalidInputError),
    )
    for number, (given, name, ip, error) in enumerate(cases):
        with pytest.raises(error):
            enrol(world.address, given, name, ip, "node", tmp_path / str(number), SETTINGS.wire)
    assert world.registry.counts["refusals"] == len(cases)
    refusals = [reason for what, reason in world.journal() if what == "refuse"]
    assert refusals
    assert "node 'n1' at '127.0.3.9'" in refusals[0]
    kept = b"".join(path.read_bytes() for path in world.folder.glob("*.json*"))
    for given, *_ in cases:
        assert given.partition(".")[0].encode() not in kept
    world.form(n1="train")


def test_only_ops_may_command_and_a_client_may_read_the_actions(world: World) -> None:
    node = world.boot("n1")[0]
    client = world.authority.own_identity("platform", "127.0.0.1", "client", world.folder / "client")
    for identity in (client, node.identity):
        with contextlib.closing(RegistryClient(world.address, identity, SETTINGS.wire)) as caller:
            for command in (caller.remove, caller.add, caller.drain, caller.revoke):
                with pytest.raises(ForbiddenError):
                    command(_request("n1"))
            with pytest.raises(ForbiddenError):
                caller.assign(m.AssignRequest(roles={"n1": "train"}))
    with contextlib.closing(RegistryClient(world.address, client, SETTINGS.wire)) as caller:
        assert [action.what for action in caller.actions().actions][:2] == ["start", "admit"]
