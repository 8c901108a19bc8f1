"""Booting dockers with the real start.sh: by hand on a bare one, over SSH, twice, after a reboot, with mounts that come and go."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from cluster.lab.lab import Lab, running_lab
from cluster.noderecord import manager_port, read_record
from labelloop.errors import RetryableError

pytestmark = pytest.mark.slow
CHECKOUT = Path(__file__).resolve().parents[2]
STATE = Path("var/lib/labelloop")
MOUNT = "bindfs /run/lab/disk /home/datastore"


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two nodes that start.sh has booted."""
    with running_lab(2, tmp_path_factory.mktemp("booted") / "lab") as lab:
        yield lab


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two dockers that have booted nothing, beside a registry."""
    with running_lab(2, tmp_path_factory.mktemp("bare") / "lab", has_bare_nodes=True) as lab:
        yield lab


def start_sh(lab: Lab, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run start.sh inside a docker."""
    return lab.run(name, [str(CHECKOUT / "start.sh"), *words], timeout_s=120)


def node_line(lab: Lab, *more: str) -> Sequence[str]:
    return ("node", "--registry", lab.registry_address, "--datastore", "/home/datastore", *more)


def is_alive(lab: Lab, name: str) -> bool:
    try:
        with lab.ops_client() as client:
            return any(node.is_alive and node.status.hostname == name for node in client.nodes().nodes)
    except RetryableError:  # the registry is just starting
        return False


def is_answering(lab: Lab, name: str) -> bool:
    """Whether the node's manager takes connections."""
    port = manager_port(lab.disk(name) / STATE)
    try:
        socket.create_connection((lab.address(name), port), timeout=1.0).close()
    except OSError:
        return False
    return port > 0


# ---------------------------------------------------------------- what boots


def test_a_booted_node_is_registered_under_its_own_name_and_address(booted: Lab) -> None:
    with booted.ops_client() as client:
        nodes = {node.status.hostname: node.status.ip for node in client.nodes().nodes if node.is_alive}
    assert nodes == {name: booted.address(name) for name in booted.nodes}


def test_a_second_start_on_a_docker_says_so_and_harms_nothing(booted: Lab) -> None:
    before = booted.pids("node-1", "manager_rpc.py")
    again = start_sh(booted, "node-1", *node_line(booted))
    assert (again.returncode, again.stderr) == (0, "")
    assert "node node-1 runs already" in again.stdout
    other = start_sh(booted, "node-1", "node", "--registry", "10.99.0.1:7600", "--ip", booted.address("node-1"))
    assert other.returncode == 1
    assert f"node node-1 runs on /var/lib/labelloop with registry {booted.registry_address}" in other.stderr
    assert "--stop" in other.stderr
    assert booted.pids("node-1", "manager_rpc.py") == before != ()


def test_a_killed_manager_is_started_again(booted: Lab) -> None:
    (pid,) = booted.pids("node-1", "manager_rpc.py")
    os.kill(pid, signal.SIGKILL)
    until(lambda: booted.pids("node-1", "manager_rpc.py") not in ((), (pid,)), "another manager runs")
    until(lambda: is_answering(booted, "node-1"), "it answers")


@pytest.mark.parametrize("how", ["unmounted", "dead"])
def test_a_datastore_that_goes_away_is_mounted_again(booted: Lab, how: str) -> None:
    if how == "unmounted":
        assert booted.run("node-2", ["umount", "--lazy", "/home/datastore"]).returncode == 0
    else:
        (pid,) = booted.pids("node-2", "bindfs")
        os.kill(pid, signal.SIGKILL)
    until(lambda: booted.run("node-2", ["cat", "/home/datastore/.labelloop-root"]).returncode == 0, "the datastore is back")


def test_a_reboot_needs_neither_registry_nor_token(booted: Lab) -> None:
    booted.kill("registry")
    booted.kill("node-2")
    booted.boot("node-2")
    assert "--token" not in (booted.folder / "node-2" / "config.json").read_text()
    until(lambda: is_answering(booted, "node-2"), "the manager serves with the registry down")
    booted.boot("registry")
    until(lambda: is_alive(booted, "node-2") and is_alive(booted, "node-1"), "both nodes report again")


def test_a_stopped_node_leaves_no_process_of_its_own(booted: Lab) -> None:
    stopped = start_sh(booted, "node-1", "node", "--stop")
    assert (stopped.returncode, stopped.stdout) == (0, "node node-1 is stopped\n")
    assert booted.pids("node-1", "manager_rpc.py") == booted.pids("node-1", "cluster.guard") == ()
    again = start_sh(booted, "node-1", "node", "--stop")
    assert again.returncode == 1 and "no node runs" in again.stderr


# ---------------------------------------------------------------- what is refused


def test_a_datastore_that_is_no_mount_is_refused(bare: Lab) -> None:
    bare.run("node-1", ["mkdir", "-p", "/home/datastore"])
    refused = start_sh(bare, "node-1", *node_line(bare, "--token", bare.create_token()))
    assert refused.returncode == 1
    assert "/home/datastore is no mount: mount the datastore there first, or give the command that does" in refused.stderr


def test_a_mount_command_that_fails_is_told_with_its_words(bare: Lab) -> None:
    fails = "echo the NAS is shut >&2; exit 7"
    refused = start_sh(bare, "node-1", *node_line(bare, "--token", bare.create_token(), "--mount", fails))
    assert refused.returncode == 1
    assert "ended with status 7 and /home/datastore is still no mount: the NAS is shut" in refused.stderr


def test_a_token_of_the_command_line_is_out_of_sight_before_anything_runs(bare: Lab) -> None:
    token, looks = bare.create_token(), "ps -e -o args >/opt/seen; exit 1"
    for line in (node_line(bare, "--token", token, "--mount", looks), node_line(bare, f"--token={token}", "--mount", looks)):
        assert start_sh(bare, "node-1", *line).returncode == 1
        seen = (bare.disk("node-1") / "opt/seen").read_text()
        assert "scripts.cli node" in seen and "--token-once" in seen
        assert token not in seen and token.partition(".")[0] not in seen


def test_a_mount_that_breaks_a_habit_is_refused(bare: Lab) -> None:
    refused = start_sh(bare, "node-1", *node_line(bare, "--token", bare.create_token(), "--mount", f"{MOUNT} --rename-deny"))
    bare.run("node-1", ["umount", "--lazy", "/home/datastore"])
    assert refused.returncode == 1
    assert "the mount at /home/datastore cannot hold a datastore" in refused.stderr and "publish" in refused.stderr


def test_a_mount_without_the_cluster_s_mark_is_refused(bare: Lab) -> None:
    refused = start_sh(bare, "node-1", *node_line(bare, "--token", bare.create_token(), "--mount", "bindfs /opt /home/datastore"))
    bare.run("node-1", ["umount", "--lazy", "/home/datastore"])
    assert refused.returncode == 1 and ".labelloop-root" in refused.stderr and "--datastore" in refused.stderr


def test_a_wrong_token_is_refused_in_one_sentence_and_shown_nowhere(bare: Lab) -> None:
    good = bare.create_token()
    wrong = f"{'0' * good.index('.')}{good[good.index('.') :]}"
    refused = start_sh(bare, "node-1", *node_line(bare, "--token", wrong, "--mount", MOUNT))
    assert refused.returncode == 1 and refused.stderr.splitlines()[-1].startswith("labelloop node: ")
    assert wrong not in refused.stdout + refused.stderr + bare.log("registry")
    places = [path for folder in ("tmp", STATE) for path in (bare.disk("node-1") / folder).rglob("*") if path.is_file()]
    assert not [path for path in places if wrong.encode() in path.read_bytes()]


# ---------------------------------------------------------------- over SSH


def write_hosts(lab: Lab, folder: Path, **changed: str) -> Path:
    token = folder / "node.token"
    token.touch(0o600)
    token.write_text(lab.create_token())
    lines = [f'registry = "{lab.registry_address}"', 'token_file = "node.token"', 'datastore = "/home/datastore"']
    lines += [f'mount = "{MOUNT}"', f'key_file = "{lab.ssh_key}"', f'known_hosts = "{folder / "known_hosts"}"']
    for name in lab.nodes:
        lines += ["[[hosts]]", f'address = "{lab.address(name)}"', f'name = "{name}"']
        if key := changed.get(name, lab.host_key(name)):
            lines.append(f'host_key = "{key}"')
    path = folder / "hosts.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def up(*words: str) -> tuple[int, dict[str, dict[str, object]], str]:
    """Run `labelloop up --json`; return (status, name → result, standard error)."""
    argv = [sys.executable, "-m", "scripts.cli", "up", "--json", *words]
    done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return done.returncode, {host["name"]: host for host in json.loads(done.stdout)["hosts"]}, done.stderr


def test_up_sets_up_two_dockers_over_ssh_and_again_without_harm(bare: Lab, tmp_path: Path) -> None:
    status, results, words = up(str(write_hosts(bare, tmp_path)))
    assert (status, words) == (0, ""), results
    assert all(int(str(result["copied_files"])) > 100 for result in results.values())
    for name in bare.nodes:
        until(lambda name=name: is_alive(bare, name), f"{name} registers")
        assert bare.pids(name, "/opt/labelloop/manager_rpc.py")
        record = read_record(bare.disk(name) / STATE)
        assert record is not None and record.name == name
        assert bare.run(name, ["sh", "-c", "ls /tmp/labelloop-token* /var/lib/labelloop/join-token"]).stdout == ""
        assert stat.S_IMODE((bare.disk(name) / STATE / "node.json").stat().st_mode) == 0o600
    before = {name: bare.pids(name, "manager_rpc.py") for name in bare.nodes}
    (bare.disk("node-1") / "opt/labelloop/README.md").write_text("changed by hand")
    status, results, _ = up(str(write_hosts(bare, tmp_path)))
    assert status == 0 and [results[name]["copied_files"] for name in bare.nodes] == [1, 0]
    assert (bare.disk("node-1") / "opt/labelloop/README.md").read_bytes() == (CHECKOUT / "README.md").read_bytes()
    assert {name: bare.pids(name, "manager_rpc.py") for name in bare.nodes} == before
    assert "runs already" in str(results["node-1"]["last"])


def test_up_refuses_a_changed_host_key_always_and_an_unknown_one_until_it_is_told_to_take_it(bare: Lab, tmp_path: Path) -> None:
    status, results, _ = up(
        str(write_hosts(bare, tmp_path, **{"node-1": bare.host_key("registry")})), "--only", "node-1", "--accept-new"
    )
    assert status == 1
    assert results["node-1"]["code"] == "forbidden" and bare.host_key("node-1") in str(results["node-1"]["error"])
    hosts = write_hosts(bare, tmp_path, **{"node-1": "", "node-2": ""})
    status, results, _ = up(str(hosts), "--only", "node-1")
    assert status == 1 and list(results) == ["node-1"]
    assert "is not known" in str(results["node-1"]["error"]) and bare.host_key("node-1") in str(results["node-1"]["error"])
    assert not (tmp_path / "known_hosts").exists()
    assert up(str(hosts), "--only", "node-1", "--accept-new")[0] == 0
    assert bare.host_key("node-1") in (tmp_path / "known_hosts").read_text()


def test_up_goes_on_with_the_others_where_a_docker_is_unreachable_and_names_a_refused_key(bare: Lab, tmp_path: Path) -> None:
    hosts = write_hosts(bare, tmp_path)
    nobody = bare.address("node-1").rpartition(".")[0] + ".200"
    hosts.write_text(hosts.read_text().replace(f'"{bare.address("node-1")}"', f'"{nobody}"'))
    status, results, _ = up(str(hosts))
    assert status == 1 and results["node-2"]["error"] == ""
    assert results["node-1"]["code"] == "unreachable" and nobody in str(results["node-1"]["error"])
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "stranger")], check=True)
    hosts = write_hosts(bare, tmp_path)
    hosts.write_text(hosts.read_text().replace(str(bare.ssh_key), str(tmp_path / "stranger")))
    status, results, _ = up(str(hosts))
    assert status == 1 and {result["code"] for result in results.values()} == {"unauthenticated"}
