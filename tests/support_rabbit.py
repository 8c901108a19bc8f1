"""A private RabbitMQ for tests: Debian's server in a temporary folder, on free loopback ports, with an epmd of its own.

Owns the server processes it starts and ends exactly those. The queues are declared as `cluster.broker` declares them. Called by
tests that need the real broker.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import kombu

from cluster.broker.rabbitmq_queues import WAKE

SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
CONTROL = "/usr/lib/rabbitmq/bin/rabbitmqctl"
USER, PASSWORD = "tests", "tests-password"
START_S = 180.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Rabbit:
    """One RabbitMQ node; it keeps ports, name and disk over `kill` and `start`."""

    def __init__(
        self,
        folder: Path,
        *,
        settings: Sequence[str] = (),
        advanced: str = "",
        tls: tuple[Path, Path, Path] | None = None,
        family: tuple[str, int] | None = None,
        name: str = "rabbit",
    ) -> None:
        self.folder = folder
        self.port, self.tls_port, self._dist_port = free_port(), free_port(), free_port()
        self.cookie, self.epmd_port = family or (secrets.token_hex(16), free_port())
        self.node = f"{name}-{self.port}@localhost"
        self._settings, self._advanced, self._tls = tuple(settings), advanced, tls
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"amqp://{USER}:{PASSWORD}@127.0.0.1:{self.port}//"
        self.tls_url = f"amqps://{USER}:{PASSWORD}@127.0.0.1:{self.tls_port}//"

    @property
    def family(self) -> tuple[str, int]:
        """Cookie and epmd port, for a second node of the same cluster."""
        return self.cookie, self.epmd_port

    def start(self) -> None:
        """Start the server and return when it lets a client in."""
        self._write_files()
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [SERVER],
                env=self._environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"RabbitMQ did not start: {(self.folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.05)

    def _write_files(self) -> None:
        home = self.folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        cookie = home / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(0o600)
            cookie.write_text(self.cookie)
            cookie.chmod(0o400)
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / "advanced.config").write_text(f"[{{rabbit, [{self._advanced}]}}].\n")
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{self.port}",
            f"default_user = {USER}",
            f"default_pass = {PASSWORD}",
            "num_acceptors.tcp = 2",
            "log.console = true",
            "log.file = false",
            *self._settings,
        ]
        if self._tls is not None:
            certificate, key, ca = self._tls
            lines += [
                f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}",
                f"ssl_options.cacertfile = {ca}",
                f"ssl_options.certfile = {certificate}",
                f"ssl_options.keyfile = {key}",
                "ssl_options.verify = verify_peer",
                "ssl_options.fail_if_no_peer_cert = true",
            ]
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            "HOME": str(self.folder / "home"),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "ERL_CRASH_DUMP": str(self.folder / "crash.dump"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
            "RABBITMQ_CTL_ERL_ARGS": "+S 1:1",
        }

    def _answers(self) -> bool:
        try:
            with kombu.Connection(self.url, connect_timeout=1) as connection:
                connection.connect()
        except Exception:  # any way of not being up yet
            return False
        return True

    def control(self, *words: str) -> str:
        """Run rabbitmqctl; about a second of processor time."""
        done = subprocess.run(
            [CONTROL, "-q", "-n", self.node, *words], env=self._environment(), capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, f"rabbitmqctl {words}: {done.stdout}{done.stderr}"
        return done.stdout

    def join(self, other: Rabbit) -> None:
        """Make this node a member of the cluster of `other`."""
        self.control("stop_app")
        self.control("join_cluster", other.node)
        self.control("start_app")

    def declare(
        self, replicated: Sequence[str] = (), own: Sequence[str] = (), dead: str = "", limit: int = 10, replicas: int = 3
    ) -> None:
        """Declare quorum queues (with a dead-letter queue) and classic ones, as the manager does."""
        with kombu.Connection(self.url) as connection, connection.channel() as channel:
            quorum = {"x-queue-type": "quorum", "x-quorum-initial-group-size": replicas}
            arguments: dict[str, object] = {**quorum, "x-delivery-limit": limit}
            if dead:
                channel.queue_declare(dead, durable=True, auto_delete=False, arguments=quorum)
                arguments |= {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
            for name in replicated:
                channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)
            for name in own:
                channel.queue_declare(name, durable=True, auto_delete=False)

    def log(self) -> str:
        """Return what the server has logged since it was made."""
        return (self.folder / "server.log").read_text(encoding="utf-8", errors="replace")

    def keep_names(self) -> None:
        """Write where replicas are, as the manager does after each declaration: RabbitMQ by itself does so seconds later."""
        self.control("eval", "dets:sync(ra_directory_reverse), ok.")

    def wake(self) -> None:
        """Let replicas that wait for others to hold an election hold one, as the manager does after a start."""
        self.control("eval", f"{WAKE.strip()}.")

    def delete(self, *names: str) -> None:
        with kombu.Connection(self.url) as connection, connection.channel() as channel:
            for name in names:
                channel.queue_delete(name)

    def count(self, name: str) -> int:
        """Return the ready messages of a queue."""
        with kombu.Connection(self.url) as connection, connection.channel() as channel:
            return int(channel.queue_declare(name, passive=True).message_count)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def tell(self, number: int) -> None:
        """Send a signal to the server and all it started."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End the server and wait; SIGTERM lets it write."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.tell(number)
            self._process.wait(60)
            with contextlib.suppress(ProcessLookupError):
                self.tell(signal.SIGKILL)
            self._process = None

    def end_epmd(self) -> None:
        """End the private port mapper, which outlives the server."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:  # it refuses while it still knows a node that has just died
            done = subprocess.run(
                ["epmd", "-port", str(self.epmd_port), "-kill"], env=self._environment(), capture_output=True, text=True, timeout=20
            )
            if "Killed" in done.stdout or "Cannot connect" in done.stderr:
                return
            time.sleep(0.05)


@contextlib.contextmanager
def running_rabbit(folder: Path, **options: object) -> Iterator[Rabbit]:
    """Yield a started node whose files lie in `folder`; it is ended with its port mapper."""
    rabbit = Rabbit(folder, **options)  # type: ignore[arg-type]
    try:
        rabbit.start()
        yield rabbit
    finally:
        rabbit.kill()
        rabbit.end_epmd()
