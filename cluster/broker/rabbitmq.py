"""The broker of one docker: RabbitMQ from Debian, alone on a train node, a member of the inference cluster on an inference node.

Owns what its node does about the broker cluster: name one, invite, enter, leave, forget a member, declare and balance queues.
Must never reset a running member of a living cluster without being told to, and never boot by force. The server outlives this
process; all that is known of it is found again from disk and /proc. Built by manager_rpc.py; any thread may call.
"""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from cluster.broker import BrokerUrls, QueueSpec, never
from cluster.broker.rabbitmq_config import ACCOUNTS, HOSTS_FILE, Paths, atom, binary, host_of, node_of, text
from cluster.broker.rabbitmq_control import Control
from cluster.broker.rabbitmq_queues import LIST_REPLICATED, Move, Replicas, declaration, execution, plan_balance, plan_leave
from cluster.broker.rabbitmq_secrets import hash_of, password_of
from cluster.broker.rabbitmq_server import LOOPBACK, RabbitServer
from cluster.broker.rabbitmq_view import CLUSTER_PREFIX, Look, view_of
from labelloop.errors import ConflictError, InvalidInputError, LabelloopError, NotReadyError
from labelloop.messages import BrokerView, InviteReply, Role
from labelloop.settings import Settings
from labelloop.tls import Identity, write_file

logger = logging.getLogger(__name__)

_SLOW_S = 60.0
_HOSTS_S = 1.0
_ROUNDS = 3
_END_HEARD_S = 5.0
_POLL_S = 0.05
_CLUSTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


class RabbitBroker:
    """`Broker` on RabbitMQ. `state` is the manager's folder; `paths` are the broker's own folders, one set a docker."""

    def __init__(
        self,
        hostname: str,
        ip: str,
        state: Path,
        cluster_id: str,
        identity: Identity,
        settings: Settings,
        paths: Paths | None = None,
    ) -> None:
        self._server = RabbitServer(hostname, ip, state / "broker", identity, settings, paths or Paths())
        self._cluster_id = cluster_id

    # ------------------------------------------------------------ this node's server

    def start(self, is_over: Callable[[], bool] = never) -> None:
        """Return when the broker takes messages; see `RabbitServer.start`."""
        self._server.start(is_over)

    def stop(self) -> None:
        """End the broker in good order; what it holds stays on its disk."""
        self._server.stop()

    def read_hosts(self) -> None:
        """Take up a changed hosts file now, which the server looks at every five seconds otherwise."""
        with contextlib.suppress(LabelloopError):
            self._server.ask("to read the hosts file", f"inet_db:set_hosts_file({text(HOSTS_FILE)}), ok", _HOSTS_S)

    def check(self) -> None:
        """Raise UnreachableError when the broker does not answer now."""
        self._server.check()

    def view(self) -> BrokerView:
        """Return what is known of the broker, within milliseconds and at most a second old."""
        return self._server.view()

    def urls(self, role: Role = "inference") -> BrokerUrls:
        """Return the URL of the role's account on the loopback; RabbitMQ has no results and no web state.

        Raises NotReadyError before the first start.
        """
        return BrokerUrls(broker=self._url("amqp", role, LOOPBACK, self._server.settings.amqp_port), result="", web="")

    def link(self) -> str:
        """Return the URL of the train account over mutual TLS, for the workers of other train nodes; it holds a password."""
        return self._url("amqps", "train", self._server.ip, self._server.settings.amqps_port)

    def erlang_hash(self, cluster_id: str) -> str:
        """Return 16 hex digits of HMAC(cookie, cluster id); '' before the first start."""
        return hash_of(self._server.cookie.read(), cluster_id)

    def reset(self) -> None:
        """Empty this node's broker, give it a cookie of its own and leave it stopped; nobody is asked."""
        logger.info("emptying the broker of %s", self._server.hostname)
        self._server.empty()

    def _url(self, scheme: str, account: str, host: str, port: int) -> str:
        assert account in ACCOUNTS
        cookie = self._server.cookie.read()
        if not cookie:
            raise NotReadyError(f"the broker of {self._server.hostname} was never started: it has no accounts yet")
        return f"{scheme}://{account}:{password_of(cookie, account)}@{host}:{port}//"

    # ------------------------------------------------------------ the broker cluster

    def invite(self) -> InviteReply:
        """Return the way into the cluster that this node is a running member of, or why there is none."""
        try:
            view = self._server.see()
        except LabelloopError as exc:
            return InviteReply(is_ready=False, reason=str(exc))
        if view.state != "running" or not view.cluster:
            return InviteReply(is_ready=False, reason=view.reason or "this broker belongs to no cluster yet")
        return InviteReply(is_ready=True, cluster=view.cluster, cookie=self._server.cookie.read(), members=view.running)

    def found(self, cluster: str) -> None:
        """Name the cluster that this node is the first member of; what it holds stays.

        Raises ConflictError when it is in another cluster that has more members, NotReadyError.
        """
        _check_cluster(cluster)
        with self._server.change:
            self._server.start()
            view = self._server.see()
            if view.cluster == cluster:
                return
            if len(view.members) > 1:
                raise ConflictError(
                    f"{self._server.hostname} is in the broker cluster {view.cluster!r}: reset it before it founds {cluster!r}"
                )
            self._server.ask("to found a cluster", f"rabbit_nodes:set_cluster_name({binary(CLUSTER_PREFIX + cluster)}), ok")
            self._server.look_again()
        logger.info("%s founded the broker cluster %s", self._server.hostname, cluster)

    def join(self, invite: InviteReply) -> None:
        """Enter the cluster of `invite`; what this node's broker held before is gone. Harmless when it is a member already.

        Raises ConflictError when the cluster still knows this node under an earlier life: it must forget it first.
        Raises NotReadyError when no member answers or this node did not get in: try again.
        """
        if not invite.is_ready:
            raise NotReadyError(f"there is no invitation: {invite.reason}")
        _check_cluster(invite.cluster)
        with self._server.change:
            if self._is_member_of(invite.cluster):
                return
            contact, known = self._ask_member(invite)
            if self._server.node in known.members:
                self._come_back(invite, contact)
            else:
                self._server.empty(invite.cookie)
                self._server.await_boot(self._server.boot(node_of(contact)))
            if not self._is_member_of(invite.cluster):
                raise NotReadyError(f"{self._server.hostname} did not get into the cluster of {contact}: try again")
            self._server.look_again()
        logger.info("%s joined the broker cluster %s by %s", self._server.hostname, invite.cluster, contact)

    def _is_member_of(self, cluster: str) -> bool:
        try:
            return self._server.see().cluster == cluster
        except LabelloopError:
            return False

    def _ask_member(self, invite: InviteReply) -> tuple[str, Look]:
        """Return a running member of the cluster and what it says of it, asked under the cluster's cookie."""
        reasons = []
        with _home_with(invite.cookie, self._server.state) as home:
            for hostname in invite.members:
                if hostname == self._server.hostname:
                    continue
                try:
                    look = self._server.look(self._server.peer(hostname, home))
                except LabelloopError as exc:
                    reasons.append(f"{hostname}: {exc}")
                    continue
                if look.booted == "ready" and look.cluster == CLUSTER_PREFIX + invite.cluster:
                    return hostname, look
                reasons.append(f"{hostname} is {look.booted}, in {look.cluster or 'no cluster'}")
        raise NotReadyError(
            f"no member of the broker cluster answers {self._server.hostname}: {'; '.join(reasons) or 'none named'}"
        )

    def _come_back(self, invite: InviteReply, contact: str) -> None:
        """Start a broker that the cluster knows; its disk must be that of the member it was."""
        forget = f"the cluster of {contact} still knows an earlier life of {self._server.hostname}: it must forget it first"
        if self._server.is_empty():
            raise ConflictError(forget)
        if self._server.cookie.read() != invite.cookie:
            self._server.stop()
            self._server.cookie.replace(invite.cookie)
        self._server.start()
        view = self._server.see()
        if view.cluster != invite.cluster or contact not in view.members:
            raise ConflictError(forget)

    def forget(self, hostname: str) -> None:
        """Strike a member that does not run off the cluster and shrink its queues; harmless when it is none.

        Raises ConflictError while it runs, NotReadyError when this node is no running member.
        """
        node, look = node_of(hostname), self._running()
        if node == self._server.node or node in look.running:
            raise ConflictError(f"{hostname} is a running member of the broker cluster: stop its broker before it is forgotten")
        if node in look.members:
            self._forget_by(self._server.control, node)
            logger.info("%s was struck off the broker cluster", hostname)
        self.balance()

    def _forget_by(self, control: Control, node: str) -> None:
        """Have `control` strike `node` off. Raises ConflictError while it runs: its end is heard of within a moment."""
        deadline_s = time.monotonic() + _END_HEARD_S
        while (said := control.ask("to forget a member", _FORGET.replace("NODE", atom(node)), _SLOW_S)) != "ok":
            if time.monotonic() >= deadline_s:
                raise ConflictError(f"{host_of(node)} cannot be forgotten: {said}")
            time.sleep(_POLL_S)

    def leave(self) -> None:
        """Take this node out of the cluster, queues first, while the others go on; its broker is emptied and stopped."""
        with self._server.change:
            cookie, others = self._server.cookie.read(), self._hand_over()
            self.reset()
            if not others:
                return
            with _home_with(cookie, self._server.state) as home:
                self._struck_off_by([self._server.peer(host_of(node), home) for node in others])

    def _hand_over(self) -> list[str]:
        """Give what this member holds to the other running members and return them; none when it runs alone or not at all."""
        try:
            look = self._running()
        except LabelloopError:
            return []
        others = [node for node in look.running if node != self._server.node]
        if others:
            helper = self._server.peer(host_of(others[0]))
            trouble = self._execute(helper, plan_leave(self._replicas(helper), self._server.node, others))
            if trouble:
                raise NotReadyError(f"{self._server.hostname} cannot leave yet: {trouble}")
            names = ", ".join(atom(node) for node in others)
            helper.ask("to stay when a member leaves", _STAY.replace("NODES", names), 10.0)
        return others

    def _struck_off_by(self, helpers: Sequence[Control]) -> None:
        for helper in helpers:
            try:
                self._forget_by(helper, self._server.node)
                return
            except LabelloopError as exc:
                logger.warning("this node is not struck off yet: %s", exc)

    # ------------------------------------------------------------ queues

    def ensure_queues(self, queues: Sequence[QueueSpec]) -> None:
        """Declare the queues that are missing. Raises ConflictError for one that exists with another type, NotReadyError."""
        if not queues:
            return
        self._running()
        said = self._server.ask("to declare queues", declaration(queues, self._server.settings.delivery_limit), _SLOW_S)
        kinds = {spec.name: "rabbit_quorum_queue" if spec.is_replicated else "rabbit_classic_queue" for spec in queues}
        for name, outcome, kind in said:
            if outcome not in ("new", "existing"):
                raise NotReadyError(f"queue {name!r} cannot be declared: {outcome}")
            if kind != kinds[name]:
                raise ConflictError(f"queue {name!r} exists as a {kind}, not as a {kinds[name]}: reset the broker")
        self._server.look_again()

    def balance(self) -> None:
        """Give each replicated queue min(3, members) replicas (5 from five members on) and spread who leads.

        Raises NotReadyError naming what did not work: try again.
        """
        for _ in range(_ROUNDS):
            look = self._running()
            moves = plan_balance(self._replicas(self._server.control), look.members, look.running)
            if not moves:
                return
            trouble = self._execute(self._server.control, moves)
        if trouble:
            raise NotReadyError(f"queues are not balanced yet: {trouble}")

    def _replicas(self, control: Control) -> tuple[Replicas, ...]:
        return msgspec.convert(control.ask("where its queues are", LIST_REPLICATED, 10.0), tuple[Replicas, ...])

    def _execute(self, control: Control, moves: Sequence[Move]) -> str:
        """Make the moves and return what did not work."""
        if not moves:
            return ""
        said = control.ask("to move replicas", execution(moves), _SLOW_S)
        failed = [f"{action} {name}: {outcome}" for action, name, outcome in said if outcome != "ok"]
        logger.info("%d moves of replicas, %d did not work %s", len(said), len(failed), failed[:3])
        return "; ".join(failed[:3])

    def _running(self) -> Look:
        look = self._server.look()
        if look.booted != "ready":
            raise NotReadyError(f"the broker of {self._server.hostname} is not running: {view_of(look).reason}")
        return look


# two members of which one leaves on purpose are no minority; the guard comes back by itself if this node does not come to an end
_STAY = """
Guard = fun(Node, How) -> rpc:call(Node, application, set_env, [rabbit, cluster_partition_handling, How]) end,
[begin
   Guard(N, ignore),
   rpc:call(N, timer, apply_after, [20000, application, set_env, [rabbit, cluster_partition_handling, pause_minority]])
 end || N <- [NODES]],
ok
"""
_FORGET = """
try rabbit_mnesia:forget_cluster_node(NODE, false) of
  ok -> ok
catch
  _:{error, not_a_cluster_node} -> ok;
  _:Reason -> unicode:characters_to_binary(io_lib:format("~0P", [Reason, 20]))
end
"""


def _check_cluster(cluster: str) -> None:
    if not _CLUSTER.fullmatch(cluster):
        raise InvalidInputError(f"{cluster!r} is no name of a broker cluster: use 1 to 128 of A-Z, a-z, 0-9 and '._:-'")


@contextlib.contextmanager
def _home_with(cookie: str, state: Path) -> Iterator[Path]:
    """Yield a folder from which `erl_call` takes `cookie`; it is gone afterwards."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=state, prefix="asking-") as name:
        write_file(Path(name) / ".erlang.cookie", cookie.encode(), 0o400)
        yield Path(name)
