"""Membership on one machine, with real daemons: registry, broker and two managers that are killed, stopped and lied to.

The role scripts of `tests/cluster/standin` open ports and fork, so that these tests need no model.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cluster.commands import ADDRESS_FILE
from cluster.hostsfile import read_block
from cluster.process import find_marked
from datastore_layout.root import list_tasks, open_root, task_folder
from datastore_layout.tasks import read_spec
from labelloop.clients import RegistryClient
from labelloop.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    LabelloopError,
    NotFoundError,
    NotReadyError,
    StaleEpochError,
)
from labelloop.messages import (
    Empty,
    FormRequest,
    Heartbeat,
    InitialReply,
    InitialRequest,
    LogsRequest,
    MachineInfo,
    NodeStatus,
    OpenTaskRequest,
    RoleRequest,
    TaskExtraInfo,
    TaskSpec,
)
from labelloop.tls import enrol
from tests.cluster.two_managers import CHECKOUT, NODES, SETTINGS, Cluster, running_cluster, until

pytestmark = pytest.mark.slow
STANDIN = "tests.cluster.standin"
EXTRA = TaskExtraInfo(labels=("cat", "dog"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    hosts = Path("/etc/hosts").read_bytes()
    with running_cluster(tmp_path_factory.mktemp("cluster"), STANDIN) as running:
        yield running
    assert Path("/etc/hosts").read_bytes() == hosts


@pytest.fixture
def formed(cluster: Cluster) -> Cluster:
    """One train and one inference node, all well."""
    for name in ("broker", "registry", *NODES):
        cluster.start_process(name)
    until(lambda: len([n for n in cluster.registry.nodes().nodes if n.is_alive]) == 2)
    cluster.registry.form(FormRequest(roles={"train-1": "train", "inference-1": "inference"}), deadline_s=120)
    until(lambda: _is_up(cluster), "all roles run")
    return cluster


def _is_up(cluster: Cluster) -> bool:
    pids = cluster.role_pids()
    return len(pids) == 5 and all(pids.values())


def _machines(cluster: Cluster) -> tuple[MachineInfo, ...]:
    nodes = {n.status.hostname: n.status for n in cluster.registry.nodes().nodes}
    kinds = {"train-1": "train", "inference-1": "inference"}
    return tuple(MachineInfo(hostname=n, ip=nodes[n].ip, port=nodes[n].port, type=kinds[n]) for n in kinds)  # type: ignore[arg-type]


def _order(cluster: Cluster, node: str, **changes: object) -> InitialReply:
    fields: dict[str, object] = {
        "machines_info": _machines(cluster),
        "task_category": "",
        "task_extra_info": TaskExtraInfo(labels=()),
        "task_datastore_path": "",
        "epoch": cluster.registry.nodes().epoch,
    }
    with cluster.manager(node) as client:
        return client.initial(InitialRequest(**{**fields, **changes}), deadline_s=60)  # type: ignore[arg-type]


# ------------------------------------------------------------ initial


def test_initial_answers_rpc_masters_good_machines_and_the_broker_hash(formed: Cluster) -> None:
    replies = {name: _order(formed, name) for name in NODES}
    for name, reply in replies.items():
        assert (reply.master_train, reply.master_inference) == ("127.0.0.2", "127.0.0.3")
        assert [m.hostname for m in reply.good_machines_info] == ["train-1", "inference-1"]
        assert (reply.bad_machines_info, reply.warnings) == ((), ())
        assert len(reply.erlang_hash) == 16
        assert {m.erlang_hash for m in reply.good_machines_info} == {reply.erlang_hash}
        assert reply.rpc.startswith(NODES[name] + ":")
    topology = formed.registry.topology()
    assert (topology.train_rpc, topology.inference_rpc) == (replies["train-1"].rpc, (replies["inference-1"].rpc,))
    for name in NODES:
        assert read_block(formed.folder / name / "hosts") == (("127.0.0.2", "train-1"), ("127.0.0.3", "inference-1"))


def test_one_train_rpc_and_as_many_inference_rpc_processes_as_good_machines(formed: Cluster) -> None:
    pids = formed.role_pids()
    assert [name for name in pids if name.endswith("/train-rpc")] == ["train-1/train-rpc"]
    log = formed.folder / "inference-1" / "logs" / "inference-rpc.log"
    until(lambda: len(find_marked(str(log))) == 3)  # a parent and one for each of two good machines
    train = until(lambda: find_marked(str(formed.folder / "train-1" / "logs" / "train-worker.log")))
    assert len(train) == 1


def test_initial_again_and_with_another_task_restarts_nothing(formed: Cluster) -> None:
    before = formed.role_pids()
    for path in ("birds", str(formed.datastore / "birds"), "bees"):
        for name in NODES:
            _order(formed, name, task_category="image-classification", task_extra_info=EXTRA, task_datastore_path=path)
    assert formed.role_pids() == before
    root = open_root(formed.datastore)
    assert {"birds", "bees"} <= set(list_tasks(root))
    assert read_spec(task_folder(root, "birds")).revision == 1
    wider = TaskExtraInfo(labels=("cat", "dog", "cow"))
    for name in NODES:
        _order(formed, name, task_category="image-classification", task_extra_info=wider, task_datastore_path="birds")
    assert read_spec(task_folder(root, "birds")) == TaskSpec(task="birds", category="image-classification", extra=wider, revision=2)


def _bad_orders(machines: tuple[MachineInfo, ...]) -> list[tuple[dict[str, object], str]]:
    train, inference = machines

    def entry(**changes: object) -> dict[str, object]:
        return {"machines_info": (train, msgspec.structs.replace(inference, **changes))}

    task: dict[str, object] = {"task_category": "image-classification", "task_extra_info": EXTRA, "task_datastore_path": "birds"}
    return [
        ({"machines_info": ()}, "machines_info is empty"),
        (entry(hostname="train-1"), r"machines_info\[1\]"),
        (entry(ip="127.0.0.2"), r"machines_info\[1\]"),
        (entry(ip="127.0.0.999"), "127.0.0.999"),
        (entry(ip="224.0.0.7"), "224.0.0.7"),
        (entry(ip="0.0.0.0"), r"0\.0\.0\.0"),
        (entry(hostname="Bad_Name"), "Bad_Name"),
        (entry(port=70000), "70000"),
        (entry(type=""), "type ''"),
        (entry(type="boss"), r"'boss' - at `\$\.machines_info\[1\]\.type"),
        (entry(hostname=5), r"got `int` - at `\$\.machines_info\[1\]\.hostname"),
        (entry(port="nine"), r"got `str` - at `\$\.machines_info\[1\]\.port"),
        ({"machines_info": (inference,)}, "does not name 'train-1'"),
        ({"machines_info": (msgspec.structs.replace(train, ip="127.0.0.9"), inference)}, "it is at 127.0.0.2"),
        ({"epoch": 0}, "epoch 0"),
        ({**task, "task_category": "sorting-hats"}, "sorting-hats"),
        ({**task, "task_extra_info": TaskExtraInfo(labels=("cat", "cat"))}, "'cat' is there twice"),
        ({**task, "task_extra_info": TaskExtraInfo(labels=("cat",))}, "1 entries"),
        ({**task, "task_extra_info": TaskExtraInfo(labels=("cat", "dog"), target=1.5)}, "target 1.5"),
        ({**task, "task_datastore_path": "../birds"}, "../birds"),
        ({**task, "task_datastore_path": "/etc/birds"}, "/etc/birds"),
        ({**task, "task_datastore_path": "."}, "'.'"),
        ({**task, "task_datastore_path": "a/b"}, "a/b"),
        ({"task_datastore_path": "birds"}, "without a task_category"),
    ]


def test_a_malformed_initial_is_one_error_that_names_the_entry_and_changes_nothing(formed: Cluster) -> None:
    before = (formed.role_pids(), _files(formed))
    higher = formed.registry.nodes().epoch + 5
    for changes, words in _bad_orders(_machines(formed)):
        with pytest.raises(InvalidInputError, match=words):
            _order(formed, "train-1", **{"epoch": higher, **changes})
    assert (formed.role_pids(), _files(formed)) == before


def _files(cluster: Cluster) -> dict[str, bytes]:
    kept = [p for name in NODES for p in (cluster.folder / name / "assignment.json", cluster.folder / name / "hosts")]
    kept += [p for p in cluster.datastore.rglob("*") if p.is_file()]
    return {str(path): path.read_bytes() for path in kept}


def test_a_symbolic_link_out_of_the_datastore_is_no_task(formed: Cluster, tmp_path: Path) -> None:
    (formed.datastore / "outside").symlink_to(tmp_path)
    with pytest.raises(InvalidInputError, match="outside"):
        _order(formed, "train-1", task_category="tables", task_extra_info=EXTRA, task_datastore_path="outside")
    (formed.datastore / "outside").unlink()
    assert list(tmp_path.iterdir()) == []


def test_an_older_epoch_is_refused(formed: Cluster) -> None:
    formed.registry.form(FormRequest(roles={"train-1": "inference", "inference-1": "train"}), deadline_s=120)
    formed.registry.form(FormRequest(roles={"train-1": "train", "inference-1": "inference"}), deadline_s=120)
    before = formed.role_pids()
    with pytest.raises(StaleEpochError, match="is older than"):
        _order(formed, "train-1", epoch=formed.registry.nodes().epoch - 1)
    assert formed.role_pids() == before


def test_a_dead_machine_is_in_the_bad_ones_with_its_reason_and_the_rest_forms(formed: Cluster) -> None:
    ghost = MachineInfo(hostname="ghost", ip="127.0.0.9", port=9, type="inference")
    reply = _order(formed, "train-1", machines_info=(*_machines(formed), ghost))
    assert [(bad.machine.hostname, bad.reason.partition(":")[0]) for bad in reply.bad_machines_info] == [("ghost", "unreachable")]
    assert [m.hostname for m in reply.good_machines_info] == ["train-1", "inference-1"]


def test_a_frozen_manager_is_bad_after_the_ping_timeout(formed: Cluster) -> None:
    pid = formed.pid("inference-1")
    os.kill(pid, signal.SIGSTOP)
    try:
        machines = _machines(formed)
        reply = _order(formed, "train-1", machines_info=machines)
        assert [bad.machine.hostname for bad in reply.bad_machines_info] == ["inference-1"]
        assert reply.master_inference == ""
        assert any("no good inference machine" in warning for warning in reply.warnings)
        until(lambda: "inference-1 is dead" in formed.log("registry"), "the registry misses its heartbeats")
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: len(read_block(formed.folder / "train-1" / "hosts")) == 2, "the registry orders it back")


# ------------------------------------------------------------ life and death


def test_a_role_process_killed_with_sigkill_is_up_again(formed: Cluster) -> None:
    for name, pid in formed.role_pids().items():
        os.kill(pid, signal.SIGKILL)
        until(lambda name=name, pid=pid: formed.role_pids()[name] not in (0, pid), name)  # type: ignore[misc]


@pytest.mark.parametrize("name", list(NODES))
def test_a_manager_killed_with_sigkill_resumes_its_role_in_the_same_epoch(formed: Cluster, name: str) -> None:
    epoch, rpc, before = formed.registry.nodes().epoch, formed.status(name).rpc, formed.role_pids()
    formed.kill(name)
    until(lambda: formed.status(name).rpc == rpc and _is_up(formed), "resumed at the same address")
    after = formed.role_pids()
    assert all((after[key] != pid) == key.startswith(name) for key, pid in before.items())
    until(lambda: formed.registry.nodes().last_reason.startswith("2 of 2 nodes"))
    assert formed.registry.nodes().epoch == epoch


def test_a_killed_registry_disturbs_no_role_and_gives_no_order(formed: Cluster) -> None:
    epoch, before = formed.registry.nodes().epoch, formed.role_pids()
    formed.kill("registry")
    until(lambda: formed.registry.nodes().last_reason.startswith("2 of 2 nodes as wanted"))
    assert formed.registry.nodes().epoch == epoch
    assert formed.role_pids() == before


def test_a_registry_that_stood_still_takes_no_node_for_dead(formed: Cluster) -> None:
    epoch, before, said = formed.registry.nodes().epoch, formed.role_pids(), len(formed.log("registry"))
    os.kill(formed.pid("registry"), signal.SIGSTOP)
    time.sleep(2 * SETTINGS.cluster.dead_after_s)  # as long as two deaths
    os.kill(formed.pid("registry"), signal.SIGCONT)
    until(lambda: "the registry stood still" in formed.log("registry")[said:], "it has noticed")
    until(lambda: formed.registry.nodes().last_reason.startswith("2 of 2 nodes as wanted"))
    assert "is dead" not in formed.log("registry")[said:]
    assert (formed.registry.nodes().epoch, formed.role_pids()) == (epoch, before)


def test_a_manager_comes_back_with_the_registry_down(formed: Cluster) -> None:
    formed.stop_process("registry")
    formed.kill("train-1")
    assignment = formed.folder / "train-1" / "logs"
    until(lambda: len(find_marked(str(assignment / "train-rpc.log"))) == 1, "train_rpc runs without a registry")
    formed.start_process("registry")
    until(lambda: formed.registry.nodes().last_reason.startswith("2 of 2 nodes as wanted"))


def test_a_killed_broker_keeps_its_url_and_no_role_restarts(formed: Cluster) -> None:
    url, before = (formed.folder / "broker" / "url").read_text(), formed.role_pids()
    formed.kill("broker")
    until(lambda: _order(formed, "train-1").good_machines_info)
    assert (formed.folder / "broker" / "url").read_text() == url
    assert formed.role_pids() == before


def test_a_node_that_stays_away_is_formed_out_and_back_in(formed: Cluster) -> None:
    epoch, before = formed.registry.nodes().epoch, formed.role_pids()
    formed.stop_process("inference-1")
    until(lambda: formed.registry.nodes().epoch == epoch + 1 and "1 of 2 nodes" in formed.registry.nodes().last_reason)
    assert read_block(formed.folder / "train-1" / "hosts") == (("127.0.0.2", "train-1"),)
    topology = formed.registry.topology()
    assert topology.inference_rpc == ()
    assert "no inference node online: no drafts" in topology.warnings
    formed.start_process("inference-1")
    until(lambda: formed.registry.nodes().epoch == epoch + 2 and "2 of 2 nodes" in formed.registry.nodes().last_reason)
    until(lambda: _is_up(formed))
    after = formed.role_pids()
    assert {key: pid for key, pid in after.items() if key.startswith("train-1")} == {
        key: pid for key, pid in before.items() if key.startswith("train-1")
    }


def test_a_registry_that_lost_its_state_learns_and_orders_only_after_form(formed: Cluster) -> None:
    epoch, before = formed.registry.nodes().epoch, formed.role_pids()
    formed.stop_process("registry")
    (formed.folder / "registry" / "wanted.json").unlink()
    formed.start_process("registry")
    until(lambda: formed.registry.nodes().state == "learning" and len(formed.registry.nodes().nodes) == 2)
    assert formed.registry.topology().train_rpc == formed.status("train-1").rpc
    time.sleep(2 * SETTINGS.cluster.dead_after_s)  # time in which it could have ordered
    assert formed.registry.nodes().state == "learning"
    assert formed.role_pids() == before
    reply = formed.registry.form(FormRequest(), deadline_s=120)
    assert (reply.state, reply.epoch) == ("running", epoch + 1)
    assert formed.role_pids() == before


def test_a_wiped_manager_joins_again_under_its_token_and_gets_its_role(formed: Cluster) -> None:
    formed.stop_process("inference-1")
    until(lambda: not formed.registry.nodes().nodes[1].is_alive)
    for path in sorted((formed.folder / "inference-1").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    formed.start_process("inference-1")
    until(lambda: _is_up(formed) and "2 of 2 nodes" in formed.registry.nodes().last_reason)


def test_a_released_node_stops_its_role_and_can_be_taken_again(formed: Cluster) -> None:
    formed.registry.form(FormRequest(train=1), deadline_s=120)
    assert formed.status("inference-1").processes == ()
    assert formed.status("inference-1").role == ""
    reply = formed.registry.form(FormRequest(train=1, inference=1), deadline_s=120)
    assert {n.status.hostname: n.status.role for n in reply.nodes} == {"train-1": "train", "inference-1": "inference"}


def _until_reason(cluster: Cluster, words: str) -> None:
    """Return once the registry's last reason holds `words`; a failure says which reasons there were instead."""
    said: list[str] = []

    def is_said() -> bool:
        said.append(cluster.registry.nodes().last_reason)
        return words in said[-1]

    try:
        until(is_said)
    except AssertionError:
        pytest.fail(f"the registry never said {words!r} but {list(dict.fromkeys(said))}")


def test_a_node_that_left_stays_out_until_it_rejoins(formed: Cluster) -> None:
    with formed.manager("inference-1") as client:
        client.leave(Empty())
    until(lambda: not formed.node("inference-1").role or not formed.registry.nodes().nodes[1].is_alive)
    _until_reason(formed, "1 of 2 nodes")
    assert read_block(formed.folder / "inference-1" / "hosts") == ()
    formed.kill("inference-1")
    until(lambda: "left" in formed.log("inference-1"))
    formed.stop_process("inference-1")
    path = formed.folder / "inference-1" / "assignment.json"
    path.write_text(path.read_text().replace('"has_left": true', '"has_left": false'))  # what --rejoin does
    formed.start_process("inference-1")
    _until_reason(formed, "2 of 2 nodes")


# ------------------------------------------------------------ the registry's door


def test_too_few_nodes_or_unknown_names_are_told(formed: Cluster) -> None:
    with pytest.raises(InvalidInputError, match="asked for 2 train and 1 inference machines, 2 alive: train-1, inference-1"):
        formed.registry.form(FormRequest(train=2, inference=1))
    with pytest.raises(NotFoundError, match="no node 'ghost' has registered"):
        formed.registry.form(FormRequest(roles={"ghost": "train"}))


def test_a_client_may_look_and_open_tasks_but_neither_form_nor_heartbeat(formed: Cluster) -> None:
    spec = TaskSpec(task="wasps", category="tables", extra=EXTRA)
    address = f"127.0.0.1:{formed.registry_port}"
    with contextlib.closing(RegistryClient(address, formed.client, SETTINGS.wire)) as client:
        assert client.topology().train_rpc
        assert client.open_task(OpenTaskRequest(spec=spec)).revision == 1
        assert client.open_task(OpenTaskRequest(spec=spec)).revision == 1
        with pytest.raises(ConflictError, match="revision 1"):
            client.open_task(OpenTaskRequest(spec=msgspec.structs.replace(spec, extra=TaskExtraInfo(labels=("a", "b")))))
        with pytest.raises(InvalidInputError, match="Wasps"):
            client.open_task(OpenTaskRequest(spec=msgspec.structs.replace(spec, task="Wasps")))
        with pytest.raises(ForbiddenError):
            client.form(FormRequest(train=1))
        with pytest.raises(ForbiddenError):
            client.heartbeat(Heartbeat(status=NodeStatus(hostname="train-1", ip="127.0.0.2", port=1)))
    assert read_spec(task_folder(open_root(formed.datastore), "wasps")) == spec


def test_a_name_or_address_whose_holder_lives_is_not_given_to_another_key(formed: Cluster, tmp_path: Path) -> None:
    token = formed.token_file.read_text()
    address = f"127.0.0.1:{formed.registry_port}"
    for name, ip in (("train-1", "127.0.0.8"), ("other", "127.0.0.2")):
        with pytest.raises(ConflictError, match="held by a living peer"):
            enrol(address, token, name, ip, "node", tmp_path / name)


def test_a_node_cannot_speak_for_another(formed: Cluster, tmp_path: Path) -> None:
    address = f"127.0.0.1:{formed.registry_port}"
    identity = enrol(address, formed.token_file.read_text(), "mole", "127.0.0.7", "node", tmp_path / "mole")
    with (
        contextlib.closing(RegistryClient(address, identity, SETTINGS.wire)) as client,
        pytest.raises(ForbiddenError, match="mole"),
    ):
        client.heartbeat(Heartbeat(status=NodeStatus(hostname="train-1", ip="127.0.0.2", port=1)))


def test_logs_and_stop_role_are_answered_and_the_registry_restores_the_role(formed: Cluster) -> None:
    with formed.manager("train-1") as client:
        assert "stays with" in client.logs(LogsRequest(process="train-rpc", lines=5)).text
        with pytest.raises(NotFoundError, match="no process 'nope' here"):
            client.logs(LogsRequest(process="nope"))
        with pytest.raises(InvalidInputError, match="lines is 0"):
            client.logs(LogsRequest(lines=0))
        with pytest.raises(InvalidInputError, match="role is train, not 'inference'"):
            client.stop_role(RoleRequest(role="inference"))
        assert client.stop_role(RoleRequest()).processes == ()
    until(lambda: _is_up(formed), "the registry gives the role back")


def test_without_its_datastore_an_order_is_refused_and_roles_go_on(formed: Cluster) -> None:
    before = formed.role_pids()
    marker = formed.datastore / ".labelloop-root"
    marker.rename(formed.folder / "marker")
    try:
        with pytest.raises(NotReadyError, match="mount the datastore"):
            _order(formed, "train-1")
    finally:
        (formed.folder / "marker").rename(marker)
    assert formed.role_pids() == before


def test_no_secret_is_in_a_log_or_an_argument(formed: Cluster) -> None:
    secrets = [formed.token_file.read_text().partition(".")[0], (formed.folder / "broker" / "password").read_text()]
    logs = b"".join(path.read_bytes() for path in formed.folder.rglob("*.log"))
    pids = [*formed.role_pids().values(), *(formed.pid(name) for name in ("broker", "registry", *NODES))]
    arguments = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids)
    for secret in secrets:
        assert secret.encode() not in logs + arguments


def test_the_address_file_tells_where_the_registry_is(formed: Cluster) -> None:
    assert (formed.folder / "registry" / ADDRESS_FILE).read_text().strip() == f"127.0.0.1:{formed.registry_port}"
    with pytest.raises(LabelloopError), contextlib.closing(RegistryClient("127.0.0.1:9", formed.ops, SETTINGS.wire)) as client:
        client.nodes(deadline_s=0.3)


# ------------------------------------------------------------ the ops command line


def _labelloop(cluster: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tests.cluster.ops", words[0], "--state", str(cluster.folder / "registry"), *words[1:]]
    return subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False)


def test_ops_list_look_form_and_read_logs_from_the_command_line(formed: Cluster) -> None:
    nodes = _labelloop(formed, "nodes").stdout.splitlines()
    assert nodes[0].split("\t")[:4] == ["train-1", "127.0.0.2", "train master", "alive"]
    assert nodes[-1].startswith("running, epoch")
    status = msgspec.json.decode(_labelloop(formed, "status", "--json").stdout)
    assert status["topology"]["train_rpc"] == formed.status("train-1").rpc
    assert "inference-worker" in _labelloop(formed, "status").stdout
    assert "stays with" in _labelloop(formed, "logs", "train-1", "train-rpc").stdout
    formed_again = _labelloop(formed, "form", "--train", "1", "--inference", "1")
    assert (formed_again.returncode, formed_again.stdout.splitlines()[-1]) == (0, nodes[-1])
    assert "asked for 3 train" in _labelloop(formed, "form", "--train", "3").stderr


def test_a_token_made_on_the_command_line_admits_its_kind_only(formed: Cluster, tmp_path: Path) -> None:
    token = _labelloop(formed, "token", "client").stdout.strip()
    address = f"127.0.0.1:{formed.registry_port}"
    with pytest.raises(ForbiddenError, match="admits a client"):
        enrol(address, token, "backend", "127.0.0.1", "ops", tmp_path / "a")
    with RegistryClient(address, enrol(address, token, "backend", "127.0.0.1", "client", tmp_path / "b"), SETTINGS.wire) as client:
        assert client.topology().train_rpc
