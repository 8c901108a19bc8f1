"""The store of one attempt, on its owner: a torch TCPStore bound to the owner's cluster address, every entry signed.

Owns the entries and their signatures: torch's store asks nobody who he is, and torch's elastic rendezvous unpickles what it finds
there, so nothing is read that was not written with the attempt's secret. Must never be asked from two threads at once.
Called by the owner and the ranks of an attempt.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import logging
import socket
from typing import Any, TypeVar

from labelloop.errors import LabelloopError, UnreachableError
from labelloop.messages import Message, decode, encode

logger = logging.getLogger(__name__)

T = TypeVar("T", bound=Message)
_SIGNATURE_BYTES = 32
_BACKLOG = 128


class Board:
    """Signed entries by name in `store`, which others reach at `host`:`port`."""

    def __init__(self, store: Any, host: str, port: int, secret: str) -> None:
        self.store, self.host, self.port = store, host, port
        self._secret = secret.encode()

    def put(self, key: str, message: Message) -> None:
        """Write an entry over what was there. Raises UnreachableError when the owner is gone."""
        try:
            self.store.set(key, self.seal(key, encode(message)))
        except RuntimeError as exc:
            raise self._gone(exc) from exc

    def find(self, key: str, kind: type[T]) -> T | None:
        """Return an entry, None when there is none or it is not signed by this attempt. Raises UnreachableError."""
        try:
            if not self.store.check([key]):
                return None
            data = self.open(key, self.store.get(key))
        except RuntimeError as exc:
            raise self._gone(exc) from exc
        try:
            return decode(kind, data) if data is not None else None
        except LabelloopError as exc:
            logger.warning("entry %s of the attempt's store cannot be read: %s", key, exc)
            return None

    def remove(self, key: str) -> None:
        """Remove an entry. Raises UnreachableError when the owner is gone."""
        try:
            self.store.delete_key(key)
        except RuntimeError as exc:
            raise self._gone(exc) from exc

    def seal(self, key: str, data: bytes) -> bytes:
        """Return `data` signed for `key`."""
        return self._sign(key, data) + data

    def open(self, key: str, sealed: bytes) -> bytes | None:
        """Return what `seal` was given, None and a warning when the signature is not ours."""
        signature, data = sealed[:_SIGNATURE_BYTES], sealed[_SIGNATURE_BYTES:]
        if hmac.compare_digest(signature, self._sign(key, data)):
            return data
        logger.warning("entry %s of the attempt's store is not signed by this attempt and is not read", key)
        return None

    def _sign(self, key: str, data: bytes) -> bytes:
        return hmac.digest(self._secret, key.encode() + b"\0" + data, hashlib.sha256)

    def _gone(self, exc: RuntimeError) -> UnreachableError:
        return UnreachableError(f"the attempt's store at {self.host}:{self.port} is gone: {str(exc).splitlines()[0]}")


def open_board(ip: str, secret: str, timeout_s: float) -> Board:
    """Open the store of an attempt on a free port of `ip` alone; it lives as long as the returned object.

    Raises UnreachableError when the address is not this machine's, or the store does not come up.
    """
    from torch.distributed import TCPStore

    with socket.socket() as listener:
        try:
            listener.bind((ip, 0))
            listener.listen(_BACKLOG)
        except OSError as exc:
            raise UnreachableError(f"cannot listen on {ip}, the node's cluster address: {exc}") from exc
        port = int(listener.getsockname()[1])
        timeout = datetime.timedelta(seconds=timeout_s)
        try:
            store = TCPStore(ip, port, is_master=True, timeout=timeout, wait_for_workers=False, master_listen_fd=listener.detach())
        except RuntimeError as exc:
            raise UnreachableError(f"no store comes up at {ip}:{port}: {str(exc).splitlines()[0]}") from exc
    return Board(store, ip, port, secret)


def join_board(host: str, port: int, secret: str, timeout_s: float) -> Board:
    """Connect to the store of an attempt. Raises UnreachableError when its owner does not answer."""
    from torch.distributed import TCPStore

    try:
        store = TCPStore(host, port, is_master=False, timeout=datetime.timedelta(seconds=timeout_s), wait_for_workers=False)
    except RuntimeError as exc:
        raise UnreachableError(f"no store answers at {host}:{port}: {str(exc).splitlines()[0]}") from exc
    return Board(store, host, port, secret)
