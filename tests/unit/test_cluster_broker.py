"""The embedded broker: a real server that keeps URL and messages over kill -9 and shows its password to nobody."""

from __future__ import annotations

import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.broker import open_broker
from cluster.broker.embedded import HOST, URL_FILE, EmbeddedBroker, EmbeddedServer, _command, _read_lines
from cluster.process import ProcessSpec
from cluster.supervisor import Supervisor
from labelloop.errors import NotReadyError, SettingsError, UnauthenticatedError, UnreachableError
from labelloop.settings import BrokerSettings, ClusterSettings


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[], Supervisor]]:
    made: list[Supervisor] = []

    def run() -> Supervisor:
        argv = EmbeddedServer(tmp_path / "broker", BrokerSettings()).prepare()
        made.append(
            Supervisor(
                [ProcessSpec(name="broker", argv=argv, log_file=tmp_path / "broker.log")], ClusterSettings(backoff_first_s=0.05)
            )
        )
        made[-1].start()
        EmbeddedBroker(tmp_path / "broker" / URL_FILE).start()
        return made[-1]

    yield run
    for supervisor in made:
        supervisor.stop()


def _ask(url: str, *words: str) -> bytes:
    password, _, where = url.removeprefix("redis://:").partition("@")
    host, _, rest = where.partition(":")
    with socket.create_connection((host, int(rest.partition("/")[0])), timeout=5) as link:
        link.sendall(_command("AUTH", password) + _command(*words))
        return _read_lines(link, 2)[1]


def test_messages_and_url_survive_kill_9(serve: Callable[[], Supervisor], tmp_path: Path) -> None:
    supervisor = serve()
    broker = EmbeddedBroker(tmp_path / "broker" / URL_FILE)
    urls = broker.urls()
    assert _ask(urls.broker, "RPUSH", "queue", "one") == b":1"
    pid = supervisor.views()[0].pid
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while supervisor.views()[0].pid in (0, pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    broker.start()
    assert broker.urls() == urls
    assert _ask(urls.broker, "LLEN", "queue") == b":1"


def test_the_password_is_in_0600_files_only_and_the_server_on_loopback_only(
    serve: Callable[[], Supervisor], tmp_path: Path
) -> None:
    supervisor = serve()
    folder = tmp_path / "broker"
    password = (folder / "password").read_text()
    assert len(password) == 64
    for path in folder.iterdir():
        if path.is_file() and password.encode() in path.read_bytes():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    pid = supervisor.views()[0].pid
    for secret_free in (Path(f"/proc/{pid}/cmdline"), Path(f"/proc/{pid}/environ"), tmp_path / "broker.log"):
        assert password.encode() not in secret_free.read_bytes()
    assert password not in repr(EmbeddedBroker(folder / URL_FILE).urls())
    urls = EmbeddedBroker(folder / URL_FILE).urls()
    for name, value in (
        ("maxmemory-policy", b"noeviction"),
        ("appendonly", b"yes"),
        ("appendfsync", b"everysec"),
        ("bind", b"127.0.0.1"),
    ):
        assert _config(urls.broker, name) == value


def _config(url: str, name: str) -> bytes:
    password, _, where = url.removeprefix("redis://:").partition("@")
    host, _, rest = where.partition(":")
    with socket.create_connection((host, int(rest.partition("/")[0])), timeout=5) as link:
        link.sendall(_command("AUTH", password) + _command("CONFIG", "GET", name))
        return _read_lines(link, 6)[5]


def test_a_caller_without_the_password_is_refused(serve: Callable[[], Supervisor], tmp_path: Path) -> None:
    serve()
    wrong = tmp_path / "wrong"
    port = (tmp_path / "broker" / URL_FILE).read_text().strip().rpartition(":")[2]
    wrong.write_text(f"redis://:nothing@127.0.0.1:{port}")
    with pytest.raises(UnauthenticatedError, match="refuses the password"):
        EmbeddedBroker(wrong).check()


def test_a_port_taken_by_a_stranger_is_given_up(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, BrokerSettings())
    server.prepare()
    first = (tmp_path / URL_FILE).read_text()
    server.prepare()
    assert (tmp_path / URL_FILE).read_text() == first
    with socket.create_server((HOST, int(first.strip().rpartition(":")[2]))):
        server.prepare()
    assert (tmp_path / URL_FILE).read_text() != first


def test_a_broker_that_was_never_started_says_what_to_start(tmp_path: Path) -> None:
    broker = open_broker(tmp_path / "none")
    with pytest.raises(NotReadyError, match="labelloop broker"):
        broker.urls()
    assert broker.erlang_hash("c") == ""


def test_a_server_that_is_down_is_unreachable_and_the_hash_tells_servers_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        EmbeddedServer(tmp_path / name, BrokerSettings()).prepare()
    a, b = (EmbeddedBroker(tmp_path / name / URL_FILE) for name in ("a", "b"))
    with pytest.raises(UnreachableError):
        a.check()
    assert a.erlang_hash("c") == EmbeddedBroker(tmp_path / "a" / URL_FILE).erlang_hash("c")
    assert len({a.erlang_hash("c"), b.erlang_hash("c"), a.erlang_hash("d")}) == 3


def test_an_unknown_scheme_is_refused(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("kafka://x")
    with pytest.raises(SettingsError, match="unknown kind 'kafka'"):
        open_broker(tmp_path / "url")
