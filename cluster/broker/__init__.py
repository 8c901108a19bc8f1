"""The one door to the queues' server: what a manager may ask of any broker, whichever kind it is.

Owns the protocol `Broker` and the choice of its kind by URL. Must never be a transport: messages travel through Celery in
roles/. Called by managers, by `labelloop broker` and by the demo.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from labelloop.errors import SettingsError
from labelloop.messages import MachineInfo


class BrokerUrls(msgspec.Struct, frozen=True, kw_only=True):
    """Where messages, results and the web app's live state are; each holds a password: never log one, never put one in argv."""

    broker: str
    result: str
    web: str

    def __repr__(self) -> str:
        return "BrokerUrls(...)"


class Broker(Protocol):
    """One node's broker. All calls may be repeated."""

    def start(self) -> None:
        """Return when the broker answers. Raises NotReadyError saying what to start."""

    def stop(self) -> None:
        """Leave the broker; what others still use goes on running."""

    def urls(self) -> BrokerUrls:
        """Return the URLs of the moment. Raises NotReadyError while there are none."""

    def check(self) -> None:
        """Raise UnreachableError when the broker does not answer now."""

    def erlang_hash(self, cluster_id: str) -> str:
        """Return a short hash by which two nodes see whether they mean the same broker cluster; '' when not known."""

    def join(self, machines: Sequence[MachineInfo], master: str) -> None:
        """Make this node a member of the broker cluster of `machines`, led by the node with IP `master`."""

    def ensure_queues(self, names: Sequence[str]) -> None:
        """Declare the queues, with replicas where the broker has any."""

    def leave(self) -> None:
        """Take this node out of the broker cluster."""


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
