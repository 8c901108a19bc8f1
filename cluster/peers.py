"""What managers ask of each other about brokers: views, invitations, forgetting, the way to the train master's queues.

Owns these four calls. Must never decide anything nor keep a cookie. Called by `cluster.member` and `cluster.rolefiles`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Protocol

from cluster.reachability import Ping, address_of, split_machines
from labelloop import messages as m
from labelloop.clients import ManagerClient
from labelloop.settings import WireSettings
from labelloop.tls import Identity

_ASK_S = 5.0
_FORGET_S = 60.0


class Peers(Protocol):
    """The other managers. Each call raises the LabelloopErrors of a wire call."""

    def look(self, machines: Sequence[m.MachineInfo], me: str) -> dict[str, m.NodeStatus]:
        """Return what those of `machines` that answer say of themselves, by host name, without `me`."""

    def invite(self, host: m.MachineInfo, request: m.InviteRequest) -> m.InviteReply:
        """Ask for the way into the broker cluster that `host` is in."""

    def forget(self, host: m.MachineInfo, request: m.ForgetRequest) -> None:
        """Ask `host` to strike a member off."""

    def link(self, host: m.MachineInfo, request: m.LinkRequest) -> m.LinkReply:
        """Ask the train master where its queues are."""


class ManagerPeers:
    """The other managers over RPC. Thread-safe; a connection lives as long as one call."""

    def __init__(self, identity: Identity, settings: WireSettings, ping: Ping) -> None:
        self._identity = identity
        self._settings = settings
        self._ping = ping

    def look(self, machines: Sequence[m.MachineInfo], me: str) -> dict[str, m.NodeStatus]:
        """Return what those of `machines` that answer say of themselves, by host name, without `me`."""
        return split_machines(machines, me, self._ping)[2]

    def invite(self, host: m.MachineInfo, request: m.InviteRequest) -> m.InviteReply:
        """Ask for the way into the broker cluster that `host` is in."""
        with self._open(host) as client:
            return client.invite(request, deadline_s=_ASK_S)

    def forget(self, host: m.MachineInfo, request: m.ForgetRequest) -> None:
        """Ask `host` to strike a member off."""
        with self._open(host) as client:
            client.forget(request, deadline_s=_FORGET_S)

    def link(self, host: m.MachineInfo, request: m.LinkRequest) -> m.LinkReply:
        """Ask the train master where its queues are."""
        with self._open(host) as client:
            return client.link(request, deadline_s=_ASK_S)

    def _open(self, host: m.MachineInfo) -> contextlib.closing[ManagerClient]:
        return contextlib.closing(ManagerClient(address_of(host), self._identity, self._settings))
