"""What other nodes' managers may ask of ours: `invite`, `forget` and `link`, open to node certificates alone.

Owns the checks of name, address, role and epoch. Must never wait for the order in progress (the others' orders wait for these
answers) and never log a cookie or a URL. Built by the manager.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from cluster.broker import Broker
from cluster.initial import Assignment
from cluster.member import Member
from labelloop import messages as m
from labelloop.errors import ForbiddenError, NotReadyError, StaleEpochError
from labelloop.tls import Peer

logger = logging.getLogger(__name__)


def check_neighbour(assignment: Assignment, me: str, peer: Peer, hostname: str, epoch: int, role: m.Role) -> None:
    """Return when `peer` is the node `hostname` and a good machine of `role`, as ours is, in the epoch that both applied.

    Raises ForbiddenError for another node's name, StaleEpochError for one that is behind us, NotReadyError (retryable) where we
    are behind, have another role, or did not see it as good.
    """
    if peer.name != hostname:
        raise ForbiddenError(f"{peer.name} cannot ask for {hostname!r}: each node asks for itself")
    if epoch < assignment.epoch:
        raise StaleEpochError(f"epoch {epoch} is older than {assignment.epoch}, which {me} has applied: ask the registry again")
    if epoch > assignment.epoch:
        raise NotReadyError(f"{me} has not applied epoch {epoch} yet, it is in {assignment.epoch}")
    if assignment.role != role:
        raise NotReadyError(f"{me} is no {role} node in epoch {epoch}")
    machine = next((machine for machine in assignment.good if machine.hostname == hostname), None)
    if machine is None or machine.type != role:
        raise NotReadyError(f"{me} did not find {hostname} among the good {role} machines of epoch {epoch}")
    if machine.ip != peer.address:
        raise ForbiddenError(
            f"{hostname} is at {machine.ip} in epoch {epoch}, {peer.name} calls with a certificate of {peer.address}"
        )


class Neighbours:
    """The three methods. `moment` returns this node's assignment, and whether it is applied as far as its queues."""

    def __init__(self, me: str, broker: Broker, member: Member, moment: Callable[[], tuple[Assignment, bool]]) -> None:
        self._me = me
        self._broker = broker
        self._member = member
        self._moment = moment

    def handlers(self) -> Mapping[str, Callable[..., m.Message]]:
        """Return the rows of the manager's method table."""
        return {"invite": self.invite, "forget": self.forget, "link": self.link}

    def invite(self, request: m.InviteRequest, peer: Peer) -> m.InviteReply:
        """Tell another inference node the way into the broker cluster, cookie and all, once this node is a running member."""
        try:
            self._check(peer, request.hostname, request.epoch, "inference")
        except NotReadyError as exc:
            return m.InviteReply(is_ready=False, reason=str(exc))
        return self._member.invite()

    def forget(self, request: m.ForgetRequest, peer: Peer) -> m.Empty:
        """Strike the caller's earlier life off the broker cluster: it lost its disk or its cookie and comes in anew."""
        self._check(peer, request.hostname, request.epoch, "inference")
        logger.info("forgetting the broker of %s, which asks for it", request.hostname)
        self._member.forget(request.hostname)
        return m.Empty()

    def link(self, request: m.LinkRequest, peer: Peer) -> m.LinkReply:
        """Tell another train node where this train master's queues are, once they are declared."""
        assignment, is_applied = self._check(peer, request.hostname, request.epoch, "train")
        if not assignment.is_master:
            raise NotReadyError(f"{self._me} is not the train master in epoch {assignment.epoch}")
        if not is_applied:
            raise NotReadyError(f"{self._me} has not declared its queues yet")
        return m.LinkReply(broker_url=self._broker.link())

    def _check(self, peer: Peer, hostname: str, epoch: int, role: m.Role) -> tuple[Assignment, bool]:
        assignment, is_applied = self._moment()
        check_neighbour(assignment, self._me, peer, hostname, epoch, role)
        return assignment, is_applied
