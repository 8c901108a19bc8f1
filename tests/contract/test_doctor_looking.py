"""How a node looks around for `doctor`, and how doctor looks at nodes: on real sockets, mounts, disks and certificates."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.doctor.collect import Looker, look_at_registry, look_closer
from cluster.doctor.exam import Exam, NodeExam, Severity
from cluster.doctor.report import judge
from cluster.hostsfile import write_hosts
from cluster.probe import Surroundings, count_gpus, file_system_of, look_around, try_ports, why_no_gpu, why_shut
from datastore_layout.root import create_root
from labelloop import messages as m
from labelloop.errors import InvalidInputError
from labelloop.settings import Settings
from tests.contract.wire_world import SETTINGS, World, open_world

HOSTS = (("127.0.0.1", "gpu-1"), ("127.0.0.2", "gpu-2"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as opened:
        yield opened


def place(folder: Path, world: World, name: str = "gpu-1", datastore: Path | None = None) -> Surroundings:
    """Make the folders of one node."""
    state = folder / name
    state.mkdir(exist_ok=True)
    shared = datastore or folder / "datastore"
    if datastore is None:
        create_root(shared, world.authority.cluster_id)
    write_hosts(state / "hosts", HOSTS)
    return Surroundings(
        name=name,
        cluster_id=world.authority.cluster_id,
        state=state,
        datastore=shared,
        hosts_file=state / "hosts",
        certificate_file=world.identity(name).certificate_file,
        broker=state,
    )


@contextlib.contextmanager
def mounted(*words: str, at: Path) -> Iterator[Path]:
    at.mkdir()
    subprocess.run([*words, str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


# ---------------------------------------------------------------- ports


def test_an_open_port_a_shut_one_and_a_silent_one_are_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_server(("127.0.0.1", 0)) as other:
        opened, shut = listening.getsockname()[1], other.getsockname()[1]
        other.close()
        outcomes = try_ports([f"127.0.0.1:{opened}", f"127.0.0.1:{shut}"])
    assert outcomes == {f"127.0.0.1:{opened}": "", f"127.0.0.1:{shut}": "refused: nothing listens there"}
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        crowd = [socket.socket() for _ in range(4)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        assert why_shut("127.0.0.1", full.getsockname()[1], 0.3).startswith("no answer within")
        for one in crowd:
            one.close()


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:x", "127.0.0.1:70000", ""])
def test_an_address_that_is_none_is_refused_by_name(address: str) -> None:
    with pytest.raises(InvalidInputError):
        try_ports([address])


def test_a_probe_is_no_port_scanner() -> None:
    with pytest.raises(InvalidInputError, match="at most 512"):
        try_ports([f"127.0.0.1:{port}" for port in range(1, 600)])


# ---------------------------------------------------------------- the node itself


def test_a_sound_node_sees_its_disks_mount_certificate_and_names(tmp_path: Path, world: World) -> None:
    reply = look_around(m.ProbeRequest(is_datastore_tried=True), place(tmp_path, world))
    assert (reply.datastore, reply.habits, reply.gpu) == ("", (), "")
    assert {disk.what for disk in reply.disks} == {"state", "broker", "datastore"}
    assert all(0 < disk.free_bytes <= disk.size_bytes for disk in reply.disks)
    assert 89 < (reply.certificate_end_s - time.time()) / 86400 < 91
    assert (reply.hosts, reply.resolved) == (HOSTS, {"gpu-1": "127.0.0.1", "gpu-2": "127.0.0.2"})
    assert abs(reply.clock_s - time.time()) < 60
    assert [path.name for path in (tmp_path / "datastore").iterdir()] == [".labelloop-root"]


def test_a_name_that_an_earlier_line_leads_elsewhere_shows(tmp_path: Path, world: World) -> None:
    where = place(tmp_path, world)
    where.hosts_file.write_text("192.168.7.7 gpu-2 # by hand\n" + where.hosts_file.read_text())
    assert look_around(m.ProbeRequest(), where).resolved["gpu-2"] == "192.168.7.7"


def test_a_missing_mount_another_clusters_and_a_read_only_one_say_so(tmp_path: Path, world: World) -> None:
    (tmp_path / "empty").mkdir()
    create_root(tmp_path / "foreign", "another")
    create_root(tmp_path / "store", world.authority.cluster_id)
    request = m.ProbeRequest(is_datastore_tried=True)
    assert "no .labelloop-root" in look_around(request, place(tmp_path, world, datastore=tmp_path / "empty")).datastore
    foreign = look_around(request, place(tmp_path, world, datastore=tmp_path / "foreign")).datastore
    assert foreign.startswith("conflict: ")
    assert "belongs to cluster 'another'" in foreign
    with mounted("bindfs", "-r", str(tmp_path / "store"), at=tmp_path / "mount") as mount:
        reply = look_around(request, place(tmp_path, world, datastore=mount))
    assert reply.datastore == ""
    assert "Read-only file system" in " ".join(reply.habits)
    assert reply.file_system == f"fuse on {mount}"


def test_a_mount_that_does_not_rename_breaks_the_habits(tmp_path: Path, world: World) -> None:
    create_root(tmp_path / "store", world.authority.cluster_id)
    with mounted("bindfs", "--rename-deny", str(tmp_path / "store"), at=tmp_path / "mount") as mount:
        reply = look_around(m.ProbeRequest(is_datastore_tried=True), place(tmp_path, world, datastore=mount))
    assert reply.habits != ()


def test_a_mount_that_hangs_is_said_to_hang_and_the_rest_is_looked_at(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.probe.MOUNT_TIMEOUT_S", 0.5)
    create_root(tmp_path / "store", world.authority.cluster_id)
    with mounted("bindfs", str(tmp_path / "store"), at=tmp_path / "mount") as mount:
        server = _server_of(mount)
        os.kill(server, 19)  # SIGSTOP: every call into the mount waits
        try:
            reply = look_around(m.ProbeRequest(is_datastore_tried=True), place(tmp_path, world, datastore=mount))
        finally:
            os.kill(server, 18)
        assert reply.datastore == f"{mount} does not answer"
        assert {disk.what for disk in reply.disks} == {"state", "broker"}


def _server_of(mount: Path) -> int:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if words[0] == b"bindfs" and str(mount).encode() in words:
                return int(path.parent.name)
    raise AssertionError(f"no bindfs serves {mount}")


def test_a_disk_that_is_full_is_found_on_a_small_one(tmp_path: Path, world: World) -> None:
    with mounted("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", at=tmp_path / "small") as small:
        create_root(small, world.authority.cluster_id)
        where = place(tmp_path, world, datastore=small)
        assert _disk_findings(where) == []
        with contextlib.suppress(OSError), (small / "filler").open("wb") as file:
            file.write(b"x" * 2**21)
        findings = _disk_findings(where)
    assert findings == [(Severity.ERROR, f"the disk of {small} (datastore) on gpu-1 has room for 0 MiB of 1 MiB")]


def _disk_findings(where: Surroundings) -> list[tuple[Severity, str]]:
    node = NodeExam(hostname=where.name, ip="127.0.0.1", port=1, probe=look_around(m.ProbeRequest(), where))
    findings = judge(Exam(now_s=time.time(), seen_from="node", nodes=(node,))).findings
    return [(f.severity, f.what) for f in findings if f.check == "disk" and "datastore" in f.what]


def test_gpus_whose_driver_shows_fewer_than_there_are_device_files(tmp_path: Path) -> None:
    assert why_no_gpu(tmp_path, count_gpus) == ""
    for number in range(64):
        (tmp_path / f"nvidia{number}").touch()
    (tmp_path / "nvidiactl").touch()
    assert why_no_gpu(tmp_path, count_gpus).startswith("64 NVIDIA device file")
    assert why_no_gpu(tmp_path, lambda: 64) == ""
    assert why_no_gpu(tmp_path, lambda: 8).endswith("the driver shows 8 GPU(s)")


def test_the_innermost_mount_is_the_one_named(tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    table.write_text("/dev/sda / ext4 rw 0 0\nceph /home/data\\040store fuse.ceph rw 0 0\ntmp /home tmpfs rw 0 0\n")
    assert file_system_of(Path("/home/data store/birds"), table) == "fuse.ceph on /home/data store"
    assert file_system_of(Path("/home/other"), table) == "tmpfs on /home"
    assert file_system_of(Path("/srv"), table) == "ext4 on /"


# ---------------------------------------------------------------- doctor over the wire


def _serve(world: World, where: Surroundings, status: m.NodeStatus) -> tuple[Callable[[], None], m.NodeStatus]:
    """Serve a manager that answers status and probe; returns how to stop it, and its status with the port.

    `status.clock_s` is by how much its clock is ahead.
    """
    ports: list[int] = []

    def told(*_: object) -> m.NodeStatus:
        return msgspec.structs.replace(status, port=ports[0], clock_s=time.time() + status.clock_s)

    handlers: dict[str, Callable[..., m.Message]] = {"status": told, "probe": lambda request, peer: look_around(request, where)}
    server = world.server(handlers, "manager", identity=world.identity(where.name))
    ports.append(server.address[1])
    return lambda: server.close(0.0), told()


def _nodes(
    tmp_path: Path, world: World, *places: Surroundings, **second: Any
) -> tuple[list[Callable[[], None]], tuple[m.NodeStatus, ...]]:
    """Serve the managers of `places`; `second` are fields of the second one's status."""
    stops, statuses = [], []
    for where in places:
        role = "train" if where.name == "gpu-1" else "inference"
        status = m.NodeStatus(
            hostname=where.name, ip="127.0.0.1", port=1, epoch=3, role=role, is_master=True,  # type: ignore[arg-type]
            processes=(m.ProcessView(name="w", pid=1, state="running", restarts=0),),
            broker=m.BrokerView(state="running"), versions={"labelloop": "0.1.0"}, gpus=("A100",),
        )  # fmt: skip
        if stops:
            status = msgspec.structs.replace(status, **second)
        stop, told = _serve(world, where, status)
        stops.append(stop)
        statuses.append(told)
    return stops, tuple(statuses)


def _registry(world: World, statuses: tuple[m.NodeStatus, ...]) -> str:
    views = tuple(m.NodeView(status=status, age_s=0.1, is_alive=True) for status in statuses)
    handlers = {
        "nodes": lambda request, peer: m.NodesReply(nodes=views, epoch=3, cluster_id="c"),
        "topology": lambda request, peer: m.Topology(epoch=3, train_rpc="", inference_rpc=()),
    }
    server = world.server(handlers, "registry", identity=world.identity("registry", "ops"))
    return f"127.0.0.1:{server.address[1]}"


def _looker(world: World) -> Looker:
    return Looker(identity=world.identity("ops", "ops"), settings=Settings(wire=SETTINGS))


def _places(tmp_path: Path, world: World) -> tuple[Surroundings, Surroundings]:
    hosts = (("127.0.0.1", "gpu-1"), ("127.0.0.1", "gpu-2"))
    first = place(tmp_path, world)
    second = place(tmp_path, world, "gpu-2", first.datastore)
    for where in (first, second):
        write_hosts(where.hosts_file, hosts)
    return first, second


def _checks(exam: Exam) -> list[str]:
    return [f.check for f in judge(exam).findings if f.check not in ("disk", "memory")]


def test_two_sound_nodes_race_on_their_datastore_and_nothing_is_found(tmp_path: Path, world: World) -> None:
    first, second = _places(tmp_path, world)
    _, statuses = _nodes(tmp_path, world, first, second)
    exam = look_closer(look_at_registry(_looker(world), _registry(world, statuses)), _looker(world))
    assert _checks(exam) == []
    assert exam.races[0].contestants == ("gpu-1", "gpu-2")
    assert sum(len(won) for won in exam.races[0].wins["mkdir"]) == exam.races[0].rounds
    assert all(node.later is not None and node.rtt_s > 0 and abs(node.offset_s) < 5 for node in exam.nodes)


def test_a_wrong_clock_another_version_and_a_missing_gpu_are_found_in_what_a_node_answers(tmp_path: Path, world: World) -> None:
    first, second = _places(tmp_path, world)
    _, statuses = _nodes(tmp_path, world, first, second, clock_s=-7200.0, versions={"labelloop": "0.2.0"}, gpus=())
    exam = look_closer(look_at_registry(_looker(world), _registry(world, statuses)), _looker(world), has_race=False)
    told = {f.check: (f.node, f.what, f.way_out) for f in judge(exam).findings if f.check not in ("disk", "memory")}
    assert set(told) == {"clock", "version", "gpu"}
    assert [node for node, _, _ in told.values()] == ["gpu-2", "gpu-2", "gpu-2"]
    assert re.search(r"7(19|20)\d s behind the others", told["clock"][1])
    assert "chrony" in told["clock"][2]
    assert "labelloop is 0.2.0 on gpu-2 and 0.1.0 on most nodes" in told["version"][1]
    assert "--gpus all" in told["gpu"][2]


def test_nodes_that_share_no_datastore_are_found_by_the_race(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datastore_layout.race.PATIENCE_S", 0.5)
    first, second = _places(tmp_path, world)
    create_root(tmp_path / "own", world.authority.cluster_id)
    second = msgspec.structs.replace(second, datastore=tmp_path / "own")
    _, statuses = _nodes(tmp_path, world, first, second)
    findings = judge(look_closer(look_at_registry(_looker(world), _registry(world, statuses)), _looker(world))).findings
    assert [f.check for f in findings if f.check not in ("disk", "memory")] == ["datastore"]
    assert "did not appear" in next(f.what for f in findings if f.check == "datastore")


def test_a_manager_that_is_gone_a_dead_registry_and_a_shut_port_are_found(tmp_path: Path, world: World) -> None:
    first, second = _places(tmp_path, world)
    stops, statuses = _nodes(tmp_path, world, first, second)
    with socket.create_server(("127.0.0.1", 0)) as dead:
        shut = dead.getsockname()[1]
    statuses = (msgspec.structs.replace(statuses[0], rpc=f"127.0.0.1:{shut}"), statuses[1])
    looker = _looker(world)
    exam = look_at_registry(looker, _registry(world, statuses))
    stops[1]()
    assert "manager" in _checks(look_closer(exam, looker))
    lost = look_at_registry(looker, f"127.0.0.1:{shut}")
    assert judge(look_closer(lost, looker)).exit_status == 2
    assert _checks(lost) == ["registry"]


def test_an_identity_of_another_cluster_finds_only_that_nobody_accepts_it(tmp_path: Path, world: World) -> None:
    first, second = _places(tmp_path, world)
    _, statuses = _nodes(tmp_path, world, first, second)
    address = _registry(world, statuses)
    exam = look_at_registry(_looker(world), address)
    (tmp_path / "other").mkdir()
    with open_world(tmp_path / "other") as other:
        stranger = _looker(other)
        assert look_at_registry(stranger, address).registry_trouble.startswith("unauthenticated")
        findings = judge(look_closer(exam, stranger)).findings
    managers = [f for f in findings if f.check == "manager"]
    assert [f.node for f in managers] == ["gpu-1", "gpu-2"]
    assert all("fresh `labelloop token`" in f.way_out for f in managers)
