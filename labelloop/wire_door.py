"""The accept loop and the table of connections of one server process.

Owns the caps (in all and per address), the eviction of peers that have shown no certificate, and what happens when file
descriptors run out. A socket that never shows a certificate can only push out others of its sort: the oldest goes first, so idle
sockets cannot keep a good peer out. Must never read from a connection (a peer that dawdles would stop the loop) and never
import rpyc. Called by `labelloop.wire.Server`.

Locks: `Connections._lock` guards the table and is taken before a ticket's own lock, never after it. Only the thread of a
connection closes its socket; everybody else may only shut it down, through the ticket, so that a descriptor is never reused
under a stranger's feet.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

STARVED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
STARVED_PAUSE_S = 0.05
EVICTED_PAUSE_S = 0.002
BACKLOG = 1024
LINGER_S = 0.5


class Ticket:
    """One accepted connection: its socket (plain, then TLS), its peer's address, whether its peer has shown a certificate."""

    def __init__(self, connection: socket.socket, address: str) -> None:
        self.address = address
        self.is_known = False
        self._socket = connection
        self._is_closed = False
        self._lock = threading.Lock()

    def wrap(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        """Return the socket under TLS, the handshake not yet done."""
        with self._lock:
            wrapped = context.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
            self._socket = wrapped
            return wrapped

    def shut(self, how: int = socket.SHUT_RDWR) -> None:
        """End the conversation from any thread; its own thread wakes, and closes the socket."""
        with self._lock, contextlib.suppress(OSError):
            if not self._is_closed:
                # SSLSocket.shutdown would drop the TLS layer under its reader and answer in plain text
                socket.socket.shutdown(self._socket, how)

    def close(self, is_lingering: bool = False) -> None:
        """Close the socket (its own thread only). Lingering lets the peer read our last words before the reset."""
        if is_lingering:
            self._linger()
        with self._lock:
            self._is_closed = True
            self._socket.close()

    def _linger(self) -> None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
            self._socket.settimeout(LINGER_S)
            end_s = time.monotonic() + LINGER_S
            while time.monotonic() < end_s and socket.socket.recv(self._socket, 65536):
                pass


class Connections:
    """The tickets of a server, within its caps."""

    def __init__(self, most: int, most_per_address: int) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._lock = threading.Lock()
        self._tickets: set[Ticket] = set()
        self._unknown: dict[Ticket, None] = {}  # in order of arrival
        self._of_address: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._tickets)

    def admit(self, connection: socket.socket, address: str) -> Ticket | None:
        """Return a ticket, evicting the oldest unknown peer at a cap; None = only known peers hold the places."""
        with self._lock:
            if self._of_address.get(address, 0) >= self._most_per_address and not self._evict(address):
                return None
            if len(self._tickets) >= self._most and not self._evict(None):
                return None
            ticket = Ticket(connection, address)
            self._tickets.add(ticket)
            self._unknown[ticket] = None
            self._of_address[address] = self._of_address.get(address, 0) + 1
            return ticket

    def know(self, ticket: Ticket) -> None:
        """Note that the peer has shown a certificate: it is not evicted any more."""
        with self._lock:
            ticket.is_known = True
            self._unknown.pop(ticket, None)

    def evict(self) -> bool:
        """Push out the oldest unknown peer; False = there is none."""
        with self._lock:
            return self._evict(None)

    def remove(self, ticket: Ticket) -> None:
        """Forget a ticket; harmless when it is gone already."""
        with self._lock:
            self._remove(ticket)

    def shut_all(self, how: int) -> None:
        """Shut every connection down in direction `how`."""
        with self._lock:
            for ticket in self._tickets:
                ticket.shut(how)

    def _evict(self, address: str | None) -> bool:
        for ticket in self._unknown:
            if address is None or ticket.address == address:
                self._remove(ticket)
                ticket.shut()
                return True
        return False

    def _remove(self, ticket: Ticket) -> None:
        if ticket not in self._tickets:
            return
        self._tickets.discard(ticket)
        self._unknown.pop(ticket, None)
        left = self._of_address[ticket.address] - 1
        if left:
            self._of_address[ticket.address] = left
        else:
            del self._of_address[ticket.address]


def open_listener(host: str, port: int) -> socket.socket:
    """Return a bound, listening, non-blocking socket at `host`:`port` (0 = a free port). Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


class Door:
    """Accepts connections in one thread and starts one more for each, which runs `converse(ticket)`.

    The listener may be shared with forked siblings, so it is never shut down, only left alone.
    """

    def __init__(self, listener: socket.socket, connections: Connections, converse: Callable[[Ticket], None], name: str) -> None:
        self._listener = listener
        self._connections = connections
        self._converse = converse
        self._name = name
        self._stopping = threading.Event()
        self._ear, self._bell = socket.socketpair()
        self._threads: set[threading.Thread] = set()
        self._threads_lock = threading.Lock()
        self._refused = 0
        self._refusal_logged_s = float("-inf")
        self._loop = threading.Thread(target=self._run, name=f"{name}-accept", daemon=True)
        self._loop.start()

    def close(self, grace_s: float) -> None:
        """Stop accepting, let running calls answer within `grace_s`, end every conversation and join all threads."""
        self._stopping.set()
        self._bell.send(b"!")
        self._loop.join()
        self._connections.shut_all(socket.SHUT_RD)
        end_s = time.monotonic() + grace_s
        self._join(end_s)
        self._connections.shut_all(socket.SHUT_RDWR)
        self._join(end_s + 1.0)
        self._ear.close()
        self._bell.close()
        for thread in self._alive():
            logger.warning("%s: %s still runs after %.1f s and is left behind", self._name, thread.name, grace_s)

    def _alive(self) -> list[threading.Thread]:
        with self._threads_lock:
            return list(self._threads)

    def _join(self, end_s: float) -> None:
        for thread in self._alive():
            thread.join(max(0.0, end_s - time.monotonic()))

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        poller.register(self._ear, select.POLLIN)
        while not self._stopping.is_set():
            poller.poll()
            try:
                self._accept_some()
            except Exception:
                logger.exception("%s: the accept loop goes on after a defect", self._name)
                self._stopping.wait(STARVED_PAUSE_S)

    def _accept_some(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, ConnectionError, InterruptedError):
                return
            except OSError as exc:
                if exc.errno not in STARVED:
                    raise
                self._starve(exc)
                return
            self._greet(connection, str(address[0]))

    def _starve(self, exc: OSError) -> None:
        has_evicted = self._connections.evict()
        self._note("%s: cannot accept (%s); %s", self._name, exc, "an idle peer goes" if has_evicted else "waiting for a free one")
        self._stopping.wait(EVICTED_PAUSE_S if has_evicted else STARVED_PAUSE_S)

    def _greet(self, connection: socket.socket, address: str) -> None:
        ticket = self._connections.admit(connection, address)
        if ticket is None:
            connection.close()
            self._note("%s: refused %s, the cap on connections is reached", self._name, address)
            return
        thread = threading.Thread(target=self._host, args=(ticket,), name=f"{self._name}-{address}", daemon=True)
        with self._threads_lock:
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError as exc:  # no more threads to be had
            with self._threads_lock:
                self._threads.discard(thread)
            self._connections.remove(ticket)
            ticket.close()
            self._note("%s: refused %s, %s", self._name, address, exc)

    def _host(self, ticket: Ticket) -> None:
        try:
            self._converse(ticket)
        except Exception:
            logger.exception("%s: the connection of %s ends with a defect", self._name, ticket.address)
        finally:
            self._connections.remove(ticket)
            with self._threads_lock:
                self._threads.discard(threading.current_thread())

    def _note(self, line: str, *values: object) -> None:
        """Log a refusal, at most one line in ten seconds: strangers must not fill the disk."""
        self._refused += 1
        now_s = time.monotonic()
        if now_s - self._refusal_logged_s >= 10.0:
            logger.warning(line + " (%d refused in all)", *values, self._refused)
            self._refusal_logged_s = now_s
