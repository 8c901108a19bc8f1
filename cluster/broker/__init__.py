"""The one door to the queues' server: what a manager may ask of any broker, whichever kind it is.

Owns the protocol `Broker` and the choice of its kind by URL. Must never be a transport: messages travel through Celery in
roles/. Called by managers, by `labelloop broker` and by the demo.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from labelloop.errors import SettingsError
from labelloop.messages import BrokerView, InviteReply, Role


class BrokerUrls(msgspec.Struct, frozen=True, kw_only=True):
    """Where messages, results and the web app's live state are; each holds a password: never log one, never put one in argv."""

    broker: str
    result: str
    web: str

    def __repr__(self) -> str:
        return "BrokerUrls(...)"


class QueueSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One queue of the table. `is_replicated`: a quorum queue with replicas, else a classic one on the node that declares it."""

    name: str
    is_replicated: bool
    dead_letters: str = ""


def never() -> bool:
    """Return False: nothing cuts this short."""
    return False


class Broker(Protocol):
    """One node's broker. All calls may be repeated; a call that finds its work done changes nothing."""

    def start(self, is_over: Callable[[], bool] = never) -> None:
        """Return when the broker answers. Raises NotReadyError saying what it waits for, and at once when `is_over`."""

    def stop(self) -> None:
        """Leave the broker; what others still use goes on running."""

    def read_hosts(self) -> None:
        """Take up a changed hosts file now; a broker that does not run or answer reads it by itself."""

    def urls(self, role: Role = "inference") -> BrokerUrls:
        """Return the URLs of the moment, with the role's account. Raises NotReadyError while there are none."""

    def link(self) -> str:
        """Return the URL by which the workers of other train nodes reach this broker's queues; it holds a password."""

    def check(self) -> None:
        """Raise UnreachableError when the broker does not answer now."""

    def view(self) -> BrokerView:
        """Return what is known of the broker, within milliseconds: heartbeats and pings ask for it."""

    def erlang_hash(self, cluster_id: str) -> str:
        """Return a short hash by which two nodes see whether they mean the same broker cluster; '' when not known."""

    def invite(self) -> InviteReply:
        """Return the way into the broker cluster that this node is a running member of, or why there is none."""

    def found(self, cluster: str) -> None:
        """Make this node the first member of the new broker cluster `cluster`; nothing it holds is lost."""

    def join(self, invite: InviteReply) -> None:
        """Stop, take the cluster's cookie, start and join: what this node's broker held before is gone.

        Raises ConflictError when the cluster still knows this node under an earlier life: it must forget it first.
        """

    def reset(self) -> None:
        """Empty this node's broker and leave whatever cluster it was in, without asking the others."""

    def forget(self, hostname: str) -> None:
        """Strike a member that does not run off the cluster and shrink its queues. Raises ConflictError while it runs."""

    def ensure_queues(self, queues: Sequence[QueueSpec]) -> None:
        """Declare the queues that are missing."""

    def balance(self) -> None:
        """Grow or shrink every replicated queue to min(3, members), from five members on to 5, on running members."""

    def leave(self) -> None:
        """Take this node out of the broker cluster while the others go on."""


def open_broker(url_file: Path) -> Broker:
    """Return the broker that the 0600 file names (or will name once it is started), by the scheme of its URL.

    Raises SettingsError on a scheme that this build does not know.
    """
    from cluster.broker.embedded import EmbeddedBroker

    try:
        scheme = url_file.read_text().strip().partition("://")[0]
    except FileNotFoundError:
        scheme = "redis"  # the embedded one has not been started yet
    if scheme == "redis":
        return EmbeddedBroker(url_file)
    raise SettingsError(f"{url_file} names a broker of the unknown kind {scheme!r}: use redis://")
