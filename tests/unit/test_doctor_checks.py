"""Every finding of `doctor`, got by breaking one thing of a sound cluster in the exam, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from cluster.doctor.exam import Exam, NodeExam, Race, Severity
from cluster.doctor.ports import plan_ports
from cluster.doctor.report import judge, render
from labelloop.messages import BrokerView, DiskView, NodesReply, NodeStatus, ProbeReply, ProcessView
from labelloop.settings import BrokerSettings

NOW_S = 1_800_000_000.0
DAY_S = 86400.0
REGISTRY = "10.0.0.1:7070"
TRAIN, TRAIN_2, INFER, INFER_2, INFER_3 = "gpu-1", "gpu-2", "gpu-3", "gpu-4", "gpu-5"
IPS = {TRAIN: "10.0.0.2", TRAIN_2: "10.0.0.3", INFER: "10.0.0.9", INFER_2: "10.0.0.10", INFER_3: "10.0.0.11"}
MEMBERS = (INFER, INFER_2, INFER_3)
BLOCK = tuple((ip, name) for name, ip in IPS.items())


def _broker(name: str) -> BrokerView:
    members = MEMBERS if name in MEMBERS else (name,)
    return BrokerView(
        kind="rabbitmq",
        state="running",
        cluster="c1" if name in MEMBERS else f"own-{name}",
        members=members,
        running=members,
        queues={"inference.c1.bulk": 3, "inference.c1.dead": 0} if name in MEMBERS else {},
        consumers={"inference.c1.bulk": 3} if name in MEMBERS else {},
    )


def _status(name: str) -> NodeStatus:
    role = "inference" if name in MEMBERS else "train"
    return NodeStatus(
        hostname=name,
        ip=IPS[name],
        port=7001,
        erlang_hash="aaaa" if name in MEMBERS else f"own-{name}",
        role=role,  # type: ignore[arg-type]
        rpc=f"{IPS[name]}:7100" if role == "inference" or name == TRAIN else "",
        is_master=name in (TRAIN, INFER),
        epoch=7,
        cluster_id="c1",
        processes=(ProcessView(name=f"{role}-worker", pid=9, state="running", restarts=0),),
        memory_bytes=16 * 2**30,
        memory_free_bytes=8 * 2**30,
        gpus=("A100 40960 MiB",),
        versions={"labelloop": "0.1.0", "python": "3.11.2", "torch": "2.9.1+cpu"},
        broker=_broker(name),
        last_reason="epoch 7",
        clock_s=NOW_S,
    )


def _probe(name: str, ports: dict[str, str]) -> ProbeReply:
    disks = [DiskView(what=what, path=f"/{what}", free_bytes=50 * 2**30, size_bytes=100 * 2**30) for what in ("state", "datastore")]
    return ProbeReply(
        hostname=name,
        clock_s=NOW_S,
        disks=tuple(disks),
        ports=ports,
        datastore_path="/home/datastore",
        file_system="fuse on /home/datastore",
        certificate_end_s=NOW_S + 80 * DAY_S,
        hosts_file="/etc/hosts",
        hosts=BLOCK,
        resolved={name: ip for ip, name in BLOCK},
    )


def sound() -> Exam:
    """Two train and three inference nodes, all well."""
    nodes = tuple(NodeExam(hostname=n, ip=ip, port=7001, status=_status(n), later=_status(n), rtt_s=0.01) for n, ip in IPS.items())
    ports = plan_ports(nodes, REGISTRY, BrokerSettings())
    nodes = tuple(
        msgspec.structs.replace(
            node, probe=_probe(node.hostname, {port.address: "" for port in ports if node.hostname in port.sources})
        )
        for node in nodes
    )
    cluster = NodesReply(nodes=(), epoch=7, cluster_id="c1", state="running", last_reason="5 of 5 nodes")
    wins: dict[str, tuple[tuple[int, ...], ...]] = {"mkdir": ((0, 2), (1,)), "O_EXCL": ((0,), (1, 2))}
    return Exam(
        now_s=NOW_S,
        registry=REGISTRY,
        cluster=cluster,
        nodes=nodes,
        ports=ports,
        own_ports={port.address: "" for port in ports if "" in port.sources},
        races=(Race(contestants=tuple(IPS), rounds=3, wins=wins),),
        tokens=(("node", 3600.0),),
        identity_end_s=NOW_S + 80 * DAY_S,
    )


def change(exam: Exam, name: str, **fields: Any) -> Exam:
    nodes = tuple(msgspec.structs.replace(n, **fields) if n.hostname == name else n for n in exam.nodes)
    return msgspec.structs.replace(exam, nodes=nodes)


def status(name: str, **fields: Any) -> Callable[[Exam], Exam]:
    return lambda exam: change(exam, name, status=msgspec.structs.replace(_status(name), **fields))


def broker(name: str, **fields: Any) -> Callable[[Exam], Exam]:
    return status(name, broker=msgspec.structs.replace(_broker(name), **fields))


def probe(name: str, **fields: Any) -> Callable[[Exam], Exam]:
    def broken(exam: Exam) -> Exam:
        node = next(n for n in exam.nodes if n.hostname == name)
        assert node.probe is not None
        return change(exam, name, probe=msgspec.structs.replace(node.probe, **fields))

    return broken


def node(name: str, **fields: Any) -> Callable[[Exam], Exam]:
    return lambda exam: change(exam, name, **fields)


def cluster(**fields: Any) -> Callable[[Exam], Exam]:
    def broken(exam: Exam) -> Exam:
        assert exam.cluster is not None
        return msgspec.structs.replace(exam, cluster=msgspec.structs.replace(exam.cluster, **fields))

    return broken


def exam_with(**fields: Any) -> Callable[[Exam], Exam]:
    return lambda exam: msgspec.structs.replace(exam, **fields)


def shut(address: str, sources: tuple[str, ...], why: str = "refused: nothing listens there") -> Callable[[Exam], Exam]:
    def broken(exam: Exam) -> Exam:
        for source in sources:
            if not source:
                exam = msgspec.structs.replace(exam, own_ports={**exam.own_ports, address: why})
                continue
            before = next(n for n in exam.nodes if n.hostname == source).probe
            assert before is not None
            exam = probe(source, ports={**before.ports, address: why})(exam)
        return exam

    return broken


def _disk(what: str, free: int, size: int, names: int = -1) -> tuple[DiskView, ...]:
    return (DiskView(what=what, path=f"/{what}", free_bytes=free, size_bytes=size, free_names=names),)


def _process(state: str, restarts: int) -> tuple[ProcessView, ...]:
    return (ProcessView(name="train-worker", pid=0, state=state, restarts=restarts, reason="killed by signal 9"),)  # type: ignore[arg-type]


def _many(*breaks: Callable[[Exam], Exam]) -> Callable[[Exam], Exam]:
    def broken(exam: Exam) -> Exam:
        for one in breaks:
            exam = one(exam)
        return exam

    return broken


E, W, N = Severity.ERROR, Severity.WARNING, Severity.NOTE
CASES: list[tuple[str, Callable[[Exam], Exam], tuple[Severity, str, str], str]] = [
    ("registry down", exam_with(registry_trouble="refused: nothing listens there"), (E, "registry", ""), "10.0.0.1:7070 does not"),
    ("registry learns", cluster(state="learning", last_reason="gpu-1 knows epoch 9"), (W, "registry", ""), "gpu-1 knows epoch 9"),
    ("no node", exam_with(nodes=(), ports=(), races=()), (E, "role", ""), "no node has registered"),
    (
        "manager dead",
        node(TRAIN_2, trouble="unreachable: gone", is_alive=False, silent_s=9.0, probe=None),
        (E, "manager", TRAIN_2),
        "gone",
    ),
    ("manager deaf", node(TRAIN_2, trouble="deadline: 5 s", probe=None), (E, "manager", TRAIN_2), "does not answer: deadline"),
    ("not heard", node(TRAIN_2, is_alive=False, silent_s=42.0), (E, "heartbeat", TRAIN_2), "not heard of it for 42 s"),
    ("blind", node(TRAIN_2, probe=None, probe_trouble="not_found: no method probe"), (W, "probe", TRAIN_2), "no method probe"),
    (
        "no train master",
        _many(status(TRAIN, is_master=False), lambda e: _less_ports(e, "AMQPS")),
        (E, "role", ""),
        "is the train master",
    ),
    ("clock ahead", node(INFER, offset_s=20.0), (W, "clock", INFER), "20 s ahead of the others"),
    ("clock behind", node(INFER, offset_s=-4000.0), (E, "clock", INFER), "4000 s behind the others"),
    ("our clock", _many(*(node(name, offset_s=60.0) for name in IPS)), (W, "clock", ""), "this machine is 60 s behind"),
    ("manager port", shut("10.0.0.9:7001", ("", TRAIN)), (E, "port", INFER), "from here, gpu-1: refused"),
    ("AMQPS", shut("10.0.0.2:5671", (TRAIN_2,)), (E, "port", TRAIN), "AMQPS at 10.0.0.2:5671 cannot be reached from gpu-2"),
    ("epmd", shut("10.0.0.9:4369", (INFER_2, INFER_3)), (E, "port", INFER), "epmd at 10.0.0.9:4369"),
    ("distribution", shut("10.0.0.9:25672", (INFER_2,)), (E, "port", INFER), "Erlang distribution at 10.0.0.9:25672"),
    ("role RPC", shut("10.0.0.10:7100", ("", INFER_2)), (E, "port", INFER_2), "inference RPC at 10.0.0.10:7100"),
    ("registry port", shut(REGISTRY, (INFER_3,)), (E, "port", ""), "registry at 10.0.0.1:7070 cannot be reached from gpu-5"),
    ("unmounted", probe(TRAIN, datastore="not_ready: no .labelloop-root"), (E, "datastore", TRAIN), "no .labelloop-root"),
    ("unmounted, by status", status(TRAIN, datastore="not_ready: no mount"), (E, "datastore", TRAIN), "no mount"),
    (
        "foreign datastore",
        probe(TRAIN, datastore="conflict: belongs to cluster 'x'"),
        (E, "datastore", TRAIN),
        "belongs to cluster",
    ),
    ("hung mount", probe(TRAIN, datastore="/home/datastore does not answer"), (E, "datastore", TRAIN), "does not answer"),
    ("read-only", probe(TRAIN, habits=("publish: Read-only file system",)), (E, "datastore", TRAIN), "Read-only file system"),
    (
        "two winners",
        exam_with(races=(Race(contestants=(TRAIN, INFER), rounds=2, wins={"mkdir": ((0, 1), (1,)), "O_EXCL": ((0, 1), ())}),)),
        (E, "datastore", ""),
        "between gpu-1 and gpu-3: mkdir gave 1 of 2 names to more than one node",
    ),
    (
        "no common mount",
        exam_with(races=(Race(contestants=(TRAIN, INFER), rounds=2, trouble="gpu-3 did not appear"),)),
        (E, "datastore", ""),
        "gpu-3 did not appear",
    ),
    ("state full", probe(TRAIN, disks=_disk("state", 2**20, 10 * 2**30)), (E, "disk", TRAIN), "room for 1 MiB of 10.0 GiB"),
    ("broker filling", probe(TRAIN, disks=_disk("broker", 2**30, 40 * 2**30)), (W, "disk", TRAIN), "room for 1.0 GiB of 40.0 GiB"),
    (
        "datastore full",
        _many(*(probe(name, disks=_disk("datastore", 0, 2**40)) for name in IPS)),
        (E, "disk", TRAIN),
        "/datastore (datastore)",
    ),
    ("no inodes", probe(TRAIN, disks=_disk("state", 2**40, 2**40, 5)), (E, "disk", TRAIN), "room for 5 more files"),
    ("falling", status(TRAIN_2, processes=_process("backing-off", 3)), (E, "process", TRAIN_2), "keeps falling and waits"),
    ("fell often", status(TRAIN_2, processes=_process("running", 7)), (W, "process", TRAIN_2), "started again 7 times"),
    ("idle role", status(TRAIN_2, processes=(), last_reason="no broker"), (E, "process", TRAIN_2), "runs nothing: no broker"),
    (
        "other cookie",
        status(INFER_3, erlang_hash="bbbb"),
        (E, "cookie", INFER_3),
        "cookie of gpu-5 (bbbb) is not that of the others (aaaa)",
    ),
    ("broker stopped", broker(TRAIN_2, state="stopped", reason="exit 1"), (E, "broker", TRAIN_2), "does not run: exit 1"),
    ("broker paused", broker(INFER_3, state="paused"), (E, "broker", INFER_3), "smaller part of a partition"),
    ("broker unknown", broker(TRAIN_2, state="unknown"), (W, "broker", TRAIN_2), "does not say how it is"),
    (
        "broker outside",
        broker(INFER_3, cluster="", members=MEMBERS, running=MEMBERS),
        (E, "broker", INFER_3),
        "outside the cluster, the others are in c1",
    ),
    (
        "members differ",
        broker(INFER_3, members=(INFER, INFER_3), running=(INFER, INFER_3)),
        (W, "members", INFER_3),
        "gpu-5 counts gpu-3, gpu-5 as members, the others gpu-3, gpu-4, gpu-5",
    ),
    (
        "member down",
        _many(*(broker(n, members=(*MEMBERS, "gpu-9"), running=MEMBERS) for n in MEMBERS)),
        (W, "members", "gpu-9"),
        "gpu-9 is a member of the RabbitMQ cluster and does not run",
    ),
    (
        "queue not copied yet",
        _many(*(broker(n, short=("inference.c1.bulk",)) for n in MEMBERS)),
        (W, "members", INFER),
        "queue inference.c1.bulk is not copied yet to a running member that shall hold it",
    ),
    (
        "no consumer",
        _many(*(broker(n, queues={"inference.c1.bulk": 5}, consumers={"inference.c1.bulk": 0}) for n in MEMBERS)),
        (E, "queue", INFER),
        "inference.c1.bulk holds 5 message(s) and nobody consumes it",
    ),
    (
        "queue grows",
        lambda e: _grown(e, INFER, 1000),
        (W, "queue", INFER),
        "inference.c1.bulk grows: 3 messages, 1000 at the second look",
    ),
    ("dead letters", broker(INFER, queues={"inference.c1.dead": 2}), (W, "dead letters", INFER), "2 message(s)"),
    ("no block", probe(INFER, hosts=()), (E, "hosts", INFER), "/etc/hosts on gpu-3 has no block 'labelloop begin'"),
    ("name missing", probe(INFER, hosts=BLOCK[:-1]), (E, "hosts", INFER), "does not lead to gpu-5"),
    (
        "name astray",
        probe(INFER, resolved={**{n: ip for ip, n in BLOCK}, INFER_2: "192.168.1.1"}),
        (E, "hosts", INFER),
        "leads gpu-4 to 192.168.1.1 in a line before the block",
    ),
    ("GPU hidden", probe(INFER, gpu="1 NVIDIA device file(s), but NVML says no"), (E, "gpu", INFER), "NVML says no"),
    ("GPU missing", status(INFER, gpus=()), (W, "gpu", INFER), "gpu-3 shows no GPU"),
    (
        "torch differs",
        status(INFER, versions={"labelloop": "0.1.0", "python": "3.11.2", "torch": "2.8.0"}),
        (W, "version", INFER),
        "torch is 2.8.0 on gpu-3 and 2.9.1 on most nodes",
    ),
    (
        "labelloop differs",
        status(INFER, versions={"labelloop": "0.2.0", "python": "3.11.2", "torch": "2.9.1"}),
        (E, "version", INFER),
        "labelloop is 0.2.0",
    ),
    ("old epoch", status(INFER, epoch=5), (W, "epoch", INFER), "gpu-3 is at epoch 5, not 7"),
    ("no memory", status(INFER, memory_free_bytes=2**20), (W, "memory", INFER), "1 MiB of 16.0 GiB memory left"),
    ("certificate ending", probe(INFER, certificate_end_s=NOW_S + 5 * DAY_S), (W, "certificate", INFER), "ends in 5.0 days"),
    ("certificate ended", probe(INFER, certificate_end_s=NOW_S - 1), (E, "certificate", INFER), "has ended"),
    ("ops certificate", exam_with(identity_end_s=NOW_S + 2 * DAY_S), (W, "certificate", ""), "ops certificate of this machine"),
    ("no token", exam_with(tokens=(("client", 60.0),)), (N, "token", ""), "no join token for nodes is valid"),
]


def _less_ports(exam: Exam, what: str) -> Exam:
    return msgspec.structs.replace(exam, ports=tuple(port for port in exam.ports if port.what != what))


def _grown(exam: Exam, name: str, count: int) -> Exam:
    view = msgspec.structs.replace(_broker(name), queues={"inference.c1.bulk": count})
    return change(exam, name, later=msgspec.structs.replace(_status(name), broker=view))


def test_a_sound_cluster_has_no_finding_and_exit_status_0() -> None:
    report = judge(sound())
    assert report.findings == ()
    assert report.exit_status == 0
    assert render(report) == "5 node(s) examined: nothing wrong"


@pytest.mark.parametrize(("broken", "expected", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_one_broken_thing_is_one_finding_that_names_it(
    broken: Callable[[Exam], Exam], expected: tuple[Severity, str, str], words: str
) -> None:
    report = judge(broken(sound()))
    assert [(f.severity, f.check, f.node) for f in report.findings] == [expected]
    assert words in report.findings[0].what
    assert report.findings[0].why
    assert report.findings[0].way_out
    assert report.exit_status == {E: 2, W: 1, N: 0}[expected[0]]


@pytest.mark.parametrize("role", ["train", "inference"])
def test_a_role_that_nobody_holds_is_an_error(role: str) -> None:
    names = MEMBERS if role == "inference" else (TRAIN, TRAIN_2)
    exam = sound()
    kept = tuple(n for n in exam.nodes if n.hostname not in names)
    findings = judge(msgspec.structs.replace(exam, nodes=kept, ports=(), races=())).findings
    assert [(f.severity, f.what) for f in findings] == [(E, f"no node holds the role {role}")]


def test_a_port_that_others_reach_is_the_firewalls_and_one_that_nobody_reaches_the_servers() -> None:
    partly = judge(shut("10.0.0.9:4369", (INFER_2,), "no answer within 2 s")(sound())).findings[0]
    assert "(from gpu-3, gpu-5 it can)" in partly.what
    assert partly.way_out == "open TCP port 4369 of gpu-3 for gpu-4: firewall, docker network, route"
    nowhere = judge(shut("10.0.0.9:4369", MEMBERS)(sound())).findings[0]
    assert "its broker listens on another address or is down" in nowhere.way_out


def test_each_port_is_tried_from_where_it_is_needed() -> None:
    wanted = {(port.what, port.address): port.sources for port in sound().ports}
    assert wanted["manager", "10.0.0.2:7001"] == ("", *IPS)
    assert wanted["AMQPS", "10.0.0.2:5671"] == (TRAIN, TRAIN_2)
    assert wanted["epmd", "10.0.0.10:4369"] == MEMBERS
    assert wanted["Erlang distribution", "10.0.0.11:25672"] == MEMBERS
    assert wanted["train RPC", "10.0.0.2:7100"] == ("", TRAIN)
    assert wanted["registry", REGISTRY] == tuple(IPS)
    assert ("AMQPS", "10.0.0.3:5671") not in wanted


def test_the_embedded_broker_needs_no_cluster_port() -> None:
    exam = sound()
    for name in IPS:
        exam = broker(name, kind="embedded")(exam)
    assert {port.what for port in plan_ports(exam.nodes, "", BrokerSettings())} == {"manager", "train RPC", "inference RPC"}


def test_findings_can_be_asked_of_one_node_and_come_errors_first() -> None:
    exam = _many(status(INFER, memory_free_bytes=0), probe(INFER_2, habits=("mkdir: no",)), exam_with(registry_trouble="gone"))(
        sound()
    )
    assert [f.check for f in judge(exam).findings] == ["registry", "datastore", "memory"]
    report = judge(exam, [INFER])
    assert [f.check for f in report.findings] == ["registry", "memory"]
    assert report.nodes == (INFER,)


def test_a_role_whose_only_holders_are_dead_is_told_to_start_them_again() -> None:
    dead = (node(name, trouble="unreachable: gone", is_alive=False, silent_s=9.0, probe=None) for name in (TRAIN, TRAIN_2))
    [finding] = [f for f in judge(_many(*dead)(sound())).findings if f.check == "role"]
    assert finding.what == "no node that answers holds the role train; gpu-1, gpu-2 did"
    assert finding.way_out.startswith("start gpu-1, gpu-2 again")


def test_a_node_of_an_older_release_whose_clock_is_not_known_has_none_that_differs() -> None:
    assert judge(node(INFER, offset_s=0.0, rtt_s=0.0)(sound())).findings == ()


def test_what_is_seen_from_one_node_says_so_and_asks_nothing_of_the_registry() -> None:
    exam = msgspec.structs.replace(sound(), seen_from="node", cluster=None, tokens=None)
    report = judge(exam)
    assert report.findings == ()
    assert "seen from this node alone" in render(report)
