"""Heartbeats: what a manager tells the registry at the moment it is told to leave."""

from __future__ import annotations

from typing import Any, cast

import pytest

from cluster import heartbeat
from cluster.heartbeat import Heartbeats
from cluster.manager import Manager
from labelloop.messages import HeartbeatReply, NodeStatus
from labelloop.settings import Settings
from labelloop.tls import Identity


class LeavingManager:
    """A manager that takes `leave` while its status is read: what the status says of it is that it has no role."""

    def __init__(self, has_left: bool = False, leaves_while_read: bool = False) -> None:
        self.has_left = has_left
        self._leaves_while_read = leaves_while_read
        self.heard: list[HeartbeatReply] = []

    def status(self) -> NodeStatus:
        self.has_left = self.has_left or self._leaves_while_read
        return NodeStatus(hostname="i1", ip="10.0.0.3", port=1, erlang_hash="", role="")

    def hear(self, reply: HeartbeatReply) -> None:
        self.heard.append(reply)


def beats_of(manager: LeavingManager, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Have one turn of the loop and return what reached the registry."""
    sent: list[Any] = []

    class Registry:
        def __init__(self, *_: object) -> None: ...

        def heartbeat(self, request: Any, deadline_s: float) -> HeartbeatReply:
            sent.append(request)
            return HeartbeatReply(epoch=1, cluster_id="c")

    monkeypatch.setattr(heartbeat, "RegistryClient", Registry)
    Heartbeats("10.0.0.1:1", cast(Manager, manager), cast(Identity, None), Settings())._beat()
    return sent


def test_a_node_tells_the_registry_how_it_is_and_hears_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = LeavingManager()
    assert [request.status.hostname for request in beats_of(manager, monkeypatch)] == ["i1"]
    assert len(manager.heard) == 1


@pytest.mark.parametrize(
    "manager", [LeavingManager(has_left=True), LeavingManager(leaves_while_read=True)], ids=["left", "leaving"]
)
def test_a_node_that_leaves_never_says_that_it_has_no_role(manager: LeavingManager, monkeypatch: pytest.MonkeyPatch) -> None:
    assert beats_of(manager, monkeypatch) == []
