"""What `initial` makes of an order, what of a configuration is worth a restart, hosts files and small state files: tables."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import msgspec
import pytest

from cluster.census import Census, topology_of
from cluster.commands import parse_roles
from cluster.hostsfile import BEGIN, END, read_block, with_block, write_hosts
from cluster.initial import Assignment, Order, answer, assign, check_epoch, check_order, why_not_ours
from cluster.orders import agreed_good, form_request, why_not_agreed
from cluster.roles import RoleProcess, fingerprint, has_rpc, processes_of
from cluster.state import Ports, choose_port, claim_port, read_state, write_state
from cluster.taskcheck import task_of_path
from cluster.wanted import WantedFile
from labelloop.errors import ConflictError, ForbiddenError, IntegrityError, InvalidInputError, SettingsError, StaleEpochError
from labelloop.messages import BadMachine, InitialReply, MachineInfo, NodeStatus, RoleConfig, TaskExtraInfo
from labelloop.tls import Peer

T1 = MachineInfo(hostname="t1", ip="10.0.0.9", port=7000, type="train")
T2 = MachineInfo(hostname="t2", ip="10.0.0.10", port=7000, type="train")
I1 = MachineInfo(hostname="i1", ip="10.0.0.3", port=7000, type="inference")


def _order(me: MachineInfo) -> Order:
    return Order(me=me, machines=(T1, T2, I1), epoch=4, task=None)


def test_every_node_comes_to_the_same_masters_and_only_one_is_train_master() -> None:
    made = [assign(_order(me), (T2, I1, T1)) for me in (T1, T2, I1)]
    assert {(a.master_train, a.master_inference, a.master_host) for a in made} == {("10.0.0.9", "10.0.0.3", "t1")}
    assert [(a.role, a.is_master) for a in made] == [("train", True), ("train", False), ("inference", True)]
    assert made[0].hosts == (("10.0.0.3", "i1"), ("10.0.0.9", "t1"), ("10.0.0.10", "t2"))


def test_with_the_master_dead_the_next_ip_leads() -> None:
    assert assign(_order(T2), (T2, I1)).is_master


def test_an_order_of_the_same_epoch_is_taken_and_an_older_one_refused() -> None:
    check_epoch(4, 4)
    with pytest.raises(StaleEpochError, match="epoch 3 is older than 4"):
        check_epoch(3, 4)


def test_loopback_machines_are_refused_where_the_node_itself_is_not_on_loopback(tmp_path: Path) -> None:
    other = MachineInfo(hostname="x", ip="127.0.0.2", port=1, type="train")
    with pytest.raises(InvalidInputError, match="loopback"):
        check_order(form_request((T1, other), 1), "t1", "10.0.0.9", tmp_path)
    assert check_order(form_request((other,), 1), "x", "127.0.0.2", tmp_path).task is None


def test_an_assignment_of_another_name_or_address_is_not_ours() -> None:
    mine = assign(_order(T1), (T1, I1))
    assert why_not_ours(mine, "t1", "10.0.0.9") == ""
    assert "no t9 at 10.0.0.9" in why_not_ours(mine, "t9", "10.0.0.9")
    assert "no t1 at 10.0.0.8" in why_not_ours(mine, "t1", "10.0.0.8")
    assert why_not_ours(Assignment(epoch=4), "t9", "10.0.0.9") == "", "a node without a role is nobody in particular"


def test_the_answer_warns_of_a_missing_role_and_of_another_broker() -> None:
    assignment = assign(_order(T1), (T1, T2))
    bad = (BadMachine(machine=I1, reason="unreachable: off"),)
    reply = answer(assignment, bad, "10.0.0.9:1", {"t1": "aa", "t2": "bb"}, "t1", ("cap",), {"t1", "t2"})
    assert (reply.erlang_hash, reply.master_inference, reply.bad_machines_info) == ("aa", "", bad)
    assert reply.warnings == ("no good inference machine: nothing can be pre-labelled", "t2 uses another broker than t1", "cap")
    assert [m.erlang_hash for m in reply.good_machines_info] == ["aa", "bb"]
    apart = answer(assignment, bad, "10.0.0.9:1", {"t1": "aa", "t2": "bb"}, "t1", (), {"t1"})
    assert apart.warnings == ("no good inference machine: nothing can be pre-labelled",)


@pytest.mark.parametrize("path", ["birds", "./birds", "x/../birds"])
def test_a_task_path_is_a_folder_directly_below_the_root(tmp_path: Path, path: str) -> None:
    assert task_of_path(tmp_path, path) == "birds"
    assert task_of_path(tmp_path, str(tmp_path / path)) == "birds"


@pytest.mark.parametrize("path", ["", ".", "..", "/", "../birds", "a/b", "/etc/birds", "Birds", "a\0b", "link", "inner/birds"])
def test_a_task_path_that_leads_elsewhere_is_refused(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    (root / "inner").symlink_to(root)
    with pytest.raises(InvalidInputError):
        task_of_path(root, path)


# ------------------------------------------------------------ what is worth a restart


def _config(**changes: object) -> RoleConfig:
    fields: dict[str, object] = {
        "node": "t1",
        "ip": "10.0.0.9",
        "role": "train",
        "is_master": True,
        "master_host": "t1",
        "cluster_id": "c",
        "epoch": 1,
        "datastore_root": "/d",
        "broker_url": "redis://x/0",
        "result_url": "redis://x/1",
        "rpc_host": "10.0.0.9",
        "rpc_port": 5,
        "rpc_processes": 1,
        "concurrency": 1,
        "certificate_file": "c",
        "key_file": "k",
        "ca_file": "a",
        "state_dir": "s",
    }
    return RoleConfig(**{**fields, **changes})  # type: ignore[arg-type]


def _restarted(before: RoleConfig, after: RoleConfig) -> list[str]:
    old = {p.name: fingerprint(p, before) for p in processes_of(before)}
    new = {p.name: fingerprint(p, after) for p in processes_of(after)}
    return [name for name in new if old.get(name) != new[name]]


@pytest.mark.parametrize(
    ("role", "change", "restarted"),
    [
        ("train", {"epoch": 2}, []),
        ("inference", {"epoch": 2}, []),
        ("inference", {"rpc_processes": 3}, ["inference-rpc"]),
        ("train", {"rpc_processes": 3}, []),
        ("train", {"rpc_port": 6}, ["train-rpc"]),
        ("train", {"broker_url": "redis://y/0"}, ["train-rpc", "train-worker", "data-worker"]),
        ("inference", {"master_host": "t2"}, []),
        ("train", {"master_host": "t2", "is_master": False}, ["train-worker", "data-worker"]),
        ("train", {"concurrency": 2}, ["train-worker", "data-worker"]),
    ],
)
def test_only_what_a_process_looks_at_restarts_it(role: str, change: dict[str, object], restarted: list[str]) -> None:
    assert _restarted(_config(role=role), _config(role=role, **change)) == restarted


def test_train_rpc_is_on_the_train_master_alone() -> None:
    assert [p.name for p in processes_of(_config())] == ["train-rpc", "train-worker", "data-worker"]
    assert [p.name for p in processes_of(_config(is_master=False))] == ["train-worker", "data-worker"]
    assert (has_rpc(_config()), has_rpc(_config(is_master=False)), has_rpc(_config(role="inference"))) == (True, False, True)


def test_every_ignored_field_exists() -> None:
    for role in ("train", "inference"):
        for process in processes_of(_config(role=role)):
            assert isinstance(process, RoleProcess)
            assert set(process.ignored) <= set(RoleConfig.__struct_fields__)


# ------------------------------------------------------------ hosts file


def test_the_block_is_added_replaced_and_emptied_and_other_lines_stay(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1\tlocalhost\n127.0.1.1\tt1\n")
    inode = path.stat().st_ino
    assert write_hosts(path, [("10.0.0.9", "t1"), ("10.0.0.10", "t2")])
    assert read_block(path) == (("10.0.0.9", "t1"), ("10.0.0.10", "t2"))
    assert path.read_text().index("10.0.0.9") < path.read_text().index("127.0.1.1")  # a name means its first line
    path.write_text(path.read_text() + "10.9.9.9\tmine\n")
    assert not write_hosts(path, [("10.0.0.9", "t1"), ("10.0.0.10", "t2")])
    assert write_hosts(path, [("10.0.0.9", "t1")])
    assert path.read_text() == f"{BEGIN}\n10.0.0.9\tt1\n{END}\n127.0.0.1\tlocalhost\n127.0.1.1\tt1\n10.9.9.9\tmine\n"
    write_hosts(path, [])
    assert read_block(path) == ()
    assert path.stat().st_ino == inode  # a bind-mounted file cannot be renamed over


def test_a_torn_block_loses_no_foreign_line() -> None:
    text = with_block(f"a\n{BEGIN}\n10.0.0.9\tt1\nb\n", [("10.0.0.1", "x")])
    assert text == f"a\n{BEGIN}\n10.0.0.1\tx\n{END}\n10.0.0.9\tt1\nb\n"


# ------------------------------------------------------------ state files


def test_state_is_private_and_an_unreadable_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a" / "assignment.json"
    assert read_state(path, Assignment) is None
    write_state(path, Assignment(epoch=3, role="train", good=(T1,)))
    assert read_state(path, Assignment) == Assignment(epoch=3, role="train", good=(T1,))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"{")
    with pytest.raises(IntegrityError, match=r"assignment\.json is not a valid Assignment"):
        read_state(path, Assignment)


def test_ports_are_remembered_and_a_taken_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    port = choose_port(path, "a", "127.0.0.1")
    assert choose_port(path, "a", "127.0.0.1") == port == claim_port(path, "a", "127.0.0.1")
    with socket.create_server(("127.0.0.1", port)):
        other = claim_port(path, "a", "127.0.0.1", patience_s=0.05)
    assert other != port
    assert read_state(path, Ports) == Ports({"a": other})
    with pytest.raises(SettingsError, match=r"192\.0\.2\.1"):
        choose_port(path, "b", "192.0.2.1")


def test_wanted_state_survives_and_is_written_only_when_it_changes(tmp_path: Path) -> None:
    WantedFile(tmp_path).change(epoch=2, roles={"t1": "train"})
    again = WantedFile(tmp_path)
    assert (again.value.epoch, again.value.roles) == (2, {"t1": "train"})
    stamp = (tmp_path / "wanted.json").stat().st_ino
    again.change(epoch=2)
    assert (tmp_path / "wanted.json").stat().st_ino == stamp


# ------------------------------------------------------------ census, answers, arguments


def _reply(*good: MachineInfo) -> InitialReply:
    masters = {"master_train": "10.0.0.9", "master_inference": ""}
    return InitialReply(rpc="10.0.0.9:1", good_machines_info=good, bad_machines_info=(), erlang_hash="", epoch=2, **masters)


def test_answers_that_differ_from_what_the_registry_sees_are_trouble() -> None:
    both = {"t1": _reply(T1, T2), "t2": _reply(T1, T2)}
    assert why_not_agreed(both, (T1, T2)) == ""
    assert why_not_agreed({**both, "t2": _reply(T2)}, (T1, T2)) == "t2 found t2 good, alive are t1, t2"
    assert agreed_good({**both, "t2": _reply(T2)}, (T1, T2)) == (T2,)


def test_the_census_believes_a_node_about_itself_only() -> None:
    census = Census(dead_after_s=5.0)
    peer = Peer(name="t1", kind="node", address="10.0.0.9", key="k1")
    status = NodeStatus(hostname="t1", ip="10.0.0.9", port=7000)
    assert census.note(status, peer, 0.0)
    assert not census.note(msgspec.structs.replace(status, load=3.0), peer, 1.0)
    assert census.note(msgspec.structs.replace(status, role="train"), peer, 2.0)
    with pytest.raises(ForbiddenError, match=r"of 't2' at '10\.0\.0\.9'"):
        census.note(msgspec.structs.replace(status, hostname="t2"), peer, 2.0)
    twin = Peer(name="t1", kind="node", address="10.0.0.9", key="k2")
    with pytest.raises(ConflictError, match="under another key"):
        census.note(status, twin, 6.9)
    assert [census.is_taken("t1", "", k, 6.9) for k in ("k1", "k2")] == [False, True]
    assert census.is_taken("zz", "10.0.0.9", "k2", 6.9)
    assert not census.is_taken("t1", "10.0.0.9", "k2", 7.0)
    assert census.note(status, twin, 7.0)


def test_an_applied_order_shows_before_the_next_heartbeat() -> None:
    census = Census(dead_after_s=5.0)
    peer = Peer(name="t1", kind="node", address="10.0.0.9", key="k1")
    census.note(NodeStatus(hostname="t1", ip="10.0.0.9", port=7000), peer, 0.0)
    census.note_order("t1", "train", _reply(T1))
    assert topology_of(census.nodes(0.0), 2).train_rpc == "10.0.0.9:1"
    assert topology_of(census.nodes(9.0), 2).train_rpc == ""
    census.note_release("t1")
    assert census.seen(0.0)[0].role == ""
    census.forget_strangers(frozenset({"t1"}), 1e6)
    assert census.seen(0.0)
    census.forget_strangers(frozenset(), 1e6)
    assert not census.seen(0.0)


def test_roles_on_the_command_line_are_checked() -> None:
    assert parse_roles(["a=train", "b=inference"]) == {"a": "train", "b": "inference"}
    for pair in ("a", "a=cook", "A_=train"):
        with pytest.raises(InvalidInputError):
            parse_roles([pair])


def test_forming_opens_no_task(tmp_path: Path) -> None:
    request = form_request((T1,), 1)
    assert check_order(request, "t1", "10.0.0.9", tmp_path).task is None
    opened = msgspec.structs.replace(
        request, task_category="tables", task_extra_info=TaskExtraInfo(labels=("a", "b")), task_datastore_path="irises"
    )
    task = check_order(opened, "t1", "10.0.0.9", tmp_path).task
    assert task is not None
    assert (task.task, task.category) == ("irises", "tables")
