"""doctor and the secrets of a real cluster of dockers: RabbitMQ, FUSE, namespaces; faults are made for real and found.

The last test looks for secrets in all that has been written, printed and started until then, whatever other tests did to these
dockers before. Faults that need no docker are found in tests/contract/test_doctor_looking.py.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cluster.broker.rabbitmq_config import ACCOUNTS
from cluster.broker.rabbitmq_secrets import password_of
from cluster.doctor.exam import Severity
from cluster.doctor.report import Report
from cluster.metrics import ADDRESS_FILE
from labelloop import messages as m
from labelloop.clients import ManagerClient
from labelloop.errors import ForbiddenError, LabelloopError
from labelloop.tls import enrol
from scripts.chaos.trial import await_whole, until
from tests.cluster.conftest import CHECKOUT, Formed

pytestmark = pytest.mark.slow
PATIENCE_S = 240.0
SAID: list[str] = []  # everything that a command has printed
URL_PASSWORD = re.compile(r"://[^:/@]*:([^@/]+)@")


@pytest.fixture
def sound(formed: Formed) -> Formed:
    await_whole(formed.ground, patience_s=PATIENCE_S)
    return formed


def labelloop(formed: Formed, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `labelloop ...` on the registry's machine."""
    argv = [sys.executable, "-m", "scripts.cli", *words, "--state", str(formed.lab.registry_state)]
    done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=300)
    SAID.append(done.stdout + done.stderr)
    return done


def inside(formed: Formed, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `labelloop ...` inside a docker."""
    argv = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', str(CHECKOUT), sys.executable, "-m", "scripts.cli", *words]
    done = formed.lab.run(name, argv, timeout_s=120)
    SAID.append(done.stdout + done.stderr)
    return done


def doctor(formed: Formed, *words: str) -> Report:
    done = labelloop(formed, "doctor", "--json", *words)
    assert done.stdout, done.stderr
    report = msgspec.json.decode(done.stdout, type=Report)
    assert done.returncode == report.exit_status
    return report


def found(report: Report) -> list[tuple[str, str]]:
    """Return (check, node) of all findings but the warnings of many restarts, which are the doing of earlier tests."""
    return [(f.check, f.node) for f in report.findings if f.severity is Severity.ERROR or f.check != "process"]


def what(report: Report, check: str, node: str) -> str:
    """Return the sentences of one check about one node; each finding says why it matters and the way out."""
    matching = [finding for finding in report.findings if (finding.check, finding.node) == (check, node)]
    assert all(finding.why and finding.way_out for finding in matching)
    return "; ".join(finding.what for finding in matching)


# ---------------------------------------------------------------- findings


def test_a_sound_cluster_is_found_sound_and_its_nodes_race_on_the_datastore(sound: Formed) -> None:
    report = doctor(sound)
    assert (found(report), report.nodes) == ([], sound.lab.nodes)
    assert not [path for path in sound.lab.datastore.iterdir() if path.name.startswith(".race")]


def test_a_shut_port_another_cookie_a_hung_mount_and_a_read_only_one_are_found_at_once(sound: Formed) -> None:
    barred, shut = sound.ground.of("inference")[-2:]
    hung, read_only = sound.ground.of("inference")[0], sound.ground.of("train")[-1]
    with contextlib.ExitStack() as faults:
        faults.enter_context(_shut_to(sound, shut, barred))
        faults.enter_context(_other_cookie(sound, shut))
        faults.enter_context(_hung_mount(sound, hung))
        faults.enter_context(_read_only_mount(sound, read_only))
        report = doctor(sound, "--no-race")
    assert report.exit_status == 2
    ports = what(report, "port", shut)
    assert f"epmd at {sound.lab.address(shut)}:4369 cannot be reached from {barred}: no answer within 2 s" in ports
    assert "Erlang distribution at " in ports
    assert f"the erlang cookie of {shut} (" in what(report, "cookie", shut)
    assert f"the datastore of {hung} cannot be used: " in what(report, "datastore", hung)
    assert "Read-only file system" in what(report, "datastore", read_only)
    assert {node for check, node in found(report) if check in ("port", "cookie")} == {shut}
    until(lambda: str(found(doctor(sound, "--no-race")) or ""), "no error any more", PATIENCE_S)


def test_with_the_registry_down_a_node_examines_itself_and_the_others_and_says_so(sound: Formed) -> None:
    here = sound.ground.of("inference")[-1]
    sound.lab.kill("registry")
    try:
        elsewhere = doctor(sound)
        from_node = inside(sound, here, "doctor", "--no-race")
    finally:
        sound.lab.boot("registry")
    assert found(elsewhere) == [("registry", "")]
    assert from_node.returncode == 2, from_node.stderr
    assert f"{len(sound.lab.nodes)} node(s) examined, seen from this node alone" in from_node.stdout
    assert "ERROR [registry]" in from_node.stdout


@contextlib.contextmanager
def _shut_to(formed: Formed, node: str, other: str) -> Iterator[None]:
    """Let the firewall of `node` drop new connections of `other` to its broker; those that are open go on."""
    rules = (
        "add table inet shut; add chain inet shut i { type filter hook input priority 0; }; "
        f"add rule inet shut i ip saddr {formed.lab.address(other)} tcp dport {{ 4369, 25672 }} ct state new drop"
    )
    assert formed.lab.run(node, ["nft", rules]).returncode == 0
    try:
        yield
    finally:
        formed.lab.run(node, ["nft", "delete table inet shut"])


@contextlib.contextmanager
def _other_cookie(formed: Formed, node: str) -> Iterator[None]:
    """Change the cookie that a node keeps; its broker runs on with the one that it has read."""
    path = formed.lab.disk(node) / "var/lib/labelloop/broker/cookie"
    right = path.read_bytes()
    _write_private(path, right[::-1])
    try:
        yield
    finally:
        _write_private(path, right)


def _write_private(path: Path, data: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(0o400)


@contextlib.contextmanager
def _hung_mount(formed: Formed, node: str) -> Iterator[None]:
    servers = formed.lab.pids(node, "bindfs")
    assert servers
    for pid in servers:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in servers:
            with contextlib.suppress(ProcessLookupError):  # its guard has cleared the dead mount and mounted anew
                os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def _read_only_mount(formed: Formed, node: str) -> Iterator[None]:
    assert formed.lab.run(node, ["mount", "-i", "-o", "remount,bind,ro", "/home/datastore"]).returncode == 0
    try:
        yield
    finally:
        formed.lab.run(node, ["mount", "-i", "-o", "remount,bind,rw", "/home/datastore"])


# ---------------------------------------------------------------- secrets


def test_no_secret_is_in_a_log_an_output_an_argument_an_environment_or_the_datastore(sound: Formed, tmp_path: Path) -> None:
    SAID.append(sound.said)
    _have_all_said(sound)
    secrets = {_provoke_errors(sound, tmp_path): "token"} | _secrets(sound)
    assert set(secrets.values()) == {"cookie", "key", "token", "password"}
    assert sorted({*_in_files(sound, secrets), *_in_processes(secrets), *_in_words(secrets)}) == []


def _have_all_said(formed: Formed) -> None:
    """Run every command that shows something, and read the metrics."""
    node = formed.ground.of("inference")[0]
    for words in (
        ("status",), ("status", "--json"), ("nodes", "--json"), ("actions",), ("actions", "--json"), ("doctor", "--no-race"),
        ("token", "--list", "--json"), ("assign", f"{node}=inference", "--json"), ("logs", "ghost"), ("token", "--revoke", "nope"),
        *(("logs", name, "--lines", "2000", "--json") for name in formed.lab.nodes),
    ):  # fmt: skip
        labelloop(formed, *words)
    for name, path in (("registry", formed.lab.registry_state), (node, formed.lab.disk(node) / "var/lib/labelloop")):
        url = f"http://{(path / ADDRESS_FILE).read_text().strip()}/metrics"
        fetch = f"import urllib.request as r; print(r.urlopen({url!r}, timeout=10).read().decode())"
        scraped = formed.lab.run(name, [sys.executable, "-c", fetch])
        assert "labelloop_" in scraped.stdout, scraped.stderr
        SAID.append(scraped.stdout)


def _provoke_errors(formed: Formed, folder: Path) -> bytes:
    """Make errors that touch secrets (wrong tokens, a taken name, ops who ask for the cookie); return the token's secret."""
    token = formed.lab.create_token("node")
    secret, _, ca_hash = token.partition(".")
    taken = formed.ground.of("train")[0]
    for name, bad in ((taken, token), ("mole", f"{'y' * 43}.{ca_hash}"), ("other", f"{secret}.{'0' * 64}"), ("bad", f"{secret}x")):
        with pytest.raises(LabelloopError) as caught:
            enrol(formed.lab.registry_address, bad, name, formed.lab.host, "node", folder / name)
        SAID.append(str(caught.value))
    node = next(view.status for view in formed.ground.registry.nodes().nodes if view.status.role == "inference")
    with contextlib.closing(ManagerClient(f"{node.ip}:{node.port}", formed.lab.ops_identity(), formed.lab.settings.wire)) as client:
        with pytest.raises(ForbiddenError) as refused:
            client.invite(m.InviteRequest(hostname=node.hostname, epoch=node.epoch))
        SAID.append(str(refused.value))
    return secret.encode()


def _secrets(formed: Formed) -> dict[bytes, str]:
    """Return secret → kind of everything secret that the cluster has."""
    secrets: dict[bytes, str] = {}
    for path in formed.lab.folder.rglob("*"):
        if path.is_relative_to(formed.lab.datastore) or path.is_symlink() or not path.is_file():
            continue
        if path.name in ("cookie", ".erlang.cookie"):
            cookie = path.read_text().strip()
            secrets[cookie.encode()] = "cookie"
            secrets |= {password_of(cookie, account).encode(): "password" for account in ACCOUNTS}
        elif path.suffix == ".pem" and b"PRIVATE KEY" in path.read_bytes():
            secrets[path.read_bytes().split(b"\n")[1]] = "key"
        elif path.name in ("join-line", "node.token"):
            secrets[path.read_bytes().rpartition(b"--token ")[2].partition(b".")[0].strip()] = "token"
        elif path.parent.name == "roles" and path.suffix == ".json":
            secrets |= {found.encode(): "password" for found in URL_PASSWORD.findall(path.read_text())}
    return secrets


def _in_files(formed: Formed, secrets: dict[bytes, str]) -> Iterator[str]:
    """Yield the logs, the files of the datastore and the files that others may read which hold a secret."""
    for path in formed.lab.folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # the cluster lives on
            if path.is_symlink() or not path.is_file():
                continue
            parts = path.relative_to(formed.lab.folder).parts
            is_log = "log" in path.name or bool({"logs", "log", "datastore"} & set(parts))
            if not is_log and not stat.S_IMODE(path.stat().st_mode) & 0o077:
                continue
            content = path.read_bytes()
            yield from (
                f"{kind} in {path} of mode {path.stat().st_mode:o}" for secret, kind in secrets.items() if secret in content
            )


def _in_processes(secrets: dict[bytes, str]) -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                content = (process / name).read_bytes()
                command = (process / "cmdline").read_bytes()[:60]
                yield from (f"{kind} in the {name} of {command!r}" for secret, kind in secrets.items() if secret in content)


def _in_words(secrets: dict[bytes, str]) -> Iterator[str]:
    words = "\n".join(SAID).encode()
    yield from (f"{kind} in what a command printed" for secret, kind in secrets.items() if secret in words)
