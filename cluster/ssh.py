"""The one door to paramiko: entering a docker, running a command there, writing a small file.

Owns the check of host keys: an unknown key is refused and shown, a changed one always refused. Must never log
what a command or file holds. Called by `cluster.up`. A `Session` is for one thread.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import paramiko

from cluster.hostlist import Host
from labelloop.errors import DeadlineError, ForbiddenError, InternalError, SettingsError, UnauthenticatedError, UnreachableError

logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # its tracebacks say what the errors here say in a sentence
_CONNECT_S = 15.0
_CHUNK = 65536
_POLL_S = 0.02
_known_hosts_lock = threading.Lock()


class Session:
    """An open connection to one docker. Raises UnreachableError, UnauthenticatedError, ForbiddenError (host key)."""

    def __init__(self, host: Host, accept_new: bool = False) -> None:
        self._host = host
        self._client = paramiko.SSHClient()
        self._client.set_missing_host_key_policy(_Unknown(host, accept_new))
        try:
            _load_keys(self._client, host)
            self._client.connect(
                host.address,
                port=host.port,
                username=host.user,
                key_filename=str(Path(host.key_file).expanduser()) if host.key_file else None,
                allow_agent=not host.key_file,
                look_for_keys=not host.key_file,
                timeout=_CONNECT_S,
                banner_timeout=_CONNECT_S,
                auth_timeout=_CONNECT_S,
            )
        except BaseException as exc:
            self._client.close()
            raise _rename(exc, host) from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def run(self, command: str, data: bytes = b"", on_line: Callable[[str], None] | None = None, timeout_s: float = 120.0) -> str:
        """Run a shell line with `data` on its standard input and return what it prints (both streams).

        `on_line` hears each line as it comes. Raises InternalError with the last words when its status is not 0, DeadlineError.
        """
        try:
            transport = self._client.get_transport()
            assert transport is not None
            with contextlib.closing(transport.open_session(timeout=_CONNECT_S)) as channel:
                channel.set_combine_stderr(True)
                channel.exec_command(command)
                text = _converse(channel, data, on_line, timeout_s)
                status = channel.recv_exit_status()
        except (paramiko.SSHException, OSError, EOFError) as exc:
            raise _rename(exc, self._host) from exc
        if status:
            raise InternalError(_last_words(text) or f"a command ended with {status}")
        return text

    def write(self, path: str, data: bytes) -> None:
        """Write a file of mode 0600."""
        try:
            with contextlib.closing(self._client.open_sftp()) as sftp, sftp.open(path, "wb") as file:
                file.chmod(0o600)  # before there is anything to read
                file.write(data)
        except (paramiko.SSHException, OSError, EOFError) as exc:
            raise UnreachableError(f"cannot write {path} on {self._host.address}: {exc}") from exc


def _converse(channel: Any, data: bytes, on_line: Callable[[str], None] | None, timeout_s: float) -> str:
    """Feed and read a channel until its command ends; neither side waits for the other."""
    until_s = time.monotonic() + timeout_s
    view, text, said = memoryview(data), bytearray(), 0
    is_open = True
    while not channel.exit_status_ready() or channel.recv_ready():
        if view and channel.send_ready():
            view = view[channel.send(view[:_CHUNK]) :]
        elif not view and is_open:
            channel.shutdown_write()
            is_open = False
        if channel.recv_ready():
            text += channel.recv(_CHUNK)
            while on_line and (end := text.find(b"\n", said)) >= 0:
                on_line(text[said:end].decode("utf-8", "replace"))
                said = end + 1
        elif not (view and channel.send_ready()):
            time.sleep(_POLL_S)
        if time.monotonic() > until_s:
            raise DeadlineError(f"no end after {timeout_s:.0f} s; it said last: {text[-300:].decode('utf-8', 'replace').strip()}")
    while more := channel.recv(_CHUNK):
        text += more
    return text.decode("utf-8", "replace")


def _last_words(text: str) -> str:
    """Return the sentence in which start.sh or labelloop said why it ended, else the last lines."""
    lines = text.strip().splitlines()
    if lines and lines[-1].startswith(("labelloop ", "start.sh: ")):
        return lines[-1]
    return " / ".join(lines[-3:])[-500:]


class _Unknown(paramiko.MissingHostKeyPolicy):
    def __init__(self, host: Host, accept_new: bool) -> None:
        self._host = host
        self._accept_new = accept_new

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        shown = f"{key.get_name()} {key.get_base64()}"
        if self._host.host_key or not self._accept_new:
            digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
            raise ForbiddenError(
                f"the host key of {hostname} is not known: SHA256:{digest}. Compare it with the docker's own, then put "
                f'host_key = "{shown}" into its entry, or take new keys as they are with --accept-new'
            )
        path = Path(self._host.known_hosts).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _known_hosts_lock, path.open("a", encoding="ascii") as file:
            file.write(f"{hostname} {shown}\n")


def _load_keys(client: Any, host: Host) -> None:
    if host.host_key:
        name = host.address if host.port == 22 else f"[{host.address}]:{host.port}"
        kind, text = host.host_key.split()
        try:
            entry = paramiko.hostkeys.HostKeyEntry.from_line(f"{name} {kind} {text}")
        except (paramiko.SSHException, ValueError) as exc:
            raise SettingsError(f"host_key of {host.address}: {exc}") from exc
        if entry is None:
            raise SettingsError(f"host_key of {host.address}: {kind!r} is no kind of key that is known")
        client.get_host_keys().add(name, kind, entry.key)
        return
    path = Path(host.known_hosts).expanduser()
    with _known_hosts_lock:
        if path.exists():
            client.load_system_host_keys(str(path))


def _rename(exc: BaseException, host: Host) -> BaseException:
    """Return the project's own error for one of paramiko's."""
    where = f"{host.user}@{host.address}:{host.port}"
    if isinstance(exc, paramiko.BadHostKeyException):
        return ForbiddenError(
            f"the host key of {where} is not the known one: it shows {exc.key.get_name()} {exc.key.get_base64()}. "
            "Somebody may sit in between, or the docker was made anew: check it, then correct host_key or known_hosts"
        )
    if isinstance(exc, paramiko.AuthenticationException | paramiko.PasswordRequiredException):
        return UnauthenticatedError(f"{where} does not take the key: give key_file, or put the public key into its authorized_keys")
    if isinstance(exc, FileNotFoundError) and host.key_file:
        return SettingsError(f"key_file {host.key_file}: no such file")
    if isinstance(exc, paramiko.ssh_exception.NoValidConnectionsError):
        return UnreachableError(f"{where} does not answer: {next(iter(exc.errors.values())).strerror}")
    if isinstance(exc, paramiko.SSHException | OSError | EOFError | socket.timeout):
        return UnreachableError(f"{where} does not answer: {exc or type(exc).__name__}")
    return exc
