"""What is seen of one RabbitMQ: one expression that tells all, and a memory of the last answer, so that looking is cheap.

Owns the reading of the broker's state. Must never change anything in it, and never make a caller wait for a frozen broker.
Called by `rabbitmq`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import msgspec

from cluster.broker.rabbitmq_config import host_of
from cluster.broker.rabbitmq_queues import is_short
from labelloop.messages import BrokerView

CLUSTER_PREFIX = "labelloop/"
_FRESH_S = 0.8
_PATIENCE_S = 0.05
_FIRST_PATIENCE_S = 2.0
_STALE_S = 5.0

# The file of members is read past the cache of file handles: that server dies, and a boot with it, of a caller that ends too early.
LOOK = """
IsBooting = whereis(rabbit_boot) =/= undefined,
Booted = case try rabbit_boot_state:get() catch _:_ -> stopped end of
  stopped when IsBooting -> booting;
  Said -> Said
end,
Paused = whereis(rabbit_outside_app_process) =/= undefined,
Names = fun(Nodes) -> [atom_to_binary(N) || N <- Nodes] end,
case Booted of
  ready ->
    Count = fun(Q) ->
      {resource, _, _, Name} = amqqueue:get_name(Q),
      N = case amqqueue:get_type(Q) of
        rabbit_quorum_queue ->
          {Ra, _} = amqqueue:get_pid(Q),
          case ra:local_query({Ra, node()}, fun rabbit_fifo:query_messages_total/1, 500) of
            {ok, {_, Total}, _} when is_integer(Total) ->
              case ra:local_query({Ra, node()}, fun rabbit_fifo:query_consumer_count/1, 500) of
                {ok, {_, Fetching}, _} when is_integer(Fetching) -> {Total, Fetching};
                _ -> {Total, -1}
              end;
            _ -> {-1, -1}
          end;
        _ ->
          case node(amqqueue:get_pid(Q)) =:= node() of
            true ->
              Info = rabbit_amqqueue:info(Q, [messages, consumers]),
              {proplists:get_value(messages, Info, -1), proplists:get_value(consumers, Info, -1)};
            false -> {-1, -1}
          end
      end,
      {Name, N}
    end,
    Held = fun(Q) ->
      {resource, _, _, Name} = amqqueue:get_name(Q),
      {Name, Names(maps:get(nodes, amqqueue:get_type_state(Q)))}
    end,
    Counted = [try Count(Q) catch _:_ -> {<<>>, {-1, -1}} end || Q <- rabbit_amqqueue:list()],
    #{node => node(), booted => Booted, is_paused => Paused, cluster => rabbit_nodes:cluster_name(),
      members => Names(rabbit_mnesia:cluster_nodes(all)), running => Names(rabbit_mnesia:cluster_nodes(running)),
      partitions => Names(rabbit_node_monitor:partitions()),
      alarms => length(rabbit_alarm:get_alarms()),
      queues => maps:from_list([{Name, N} || {Name, {N, _}} <- Counted, N >= 0]),
      consumers => maps:from_list([{Name, N} || {Name, {_, N}} <- Counted, N >= 0]),
      replicas => maps:from_list([Held(Q) || Q <- rabbit_amqqueue:list(), amqqueue:get_type(Q) =:= rabbit_quorum_queue])};
  _ ->
    Known = try file:consult(rabbit_node_monitor:cluster_status_filename()) of
      {ok, [{All, _}]} -> All;
      _ -> []
    catch _:_ -> [] end,
    #{node => node(), booted => Booted, is_paused => Paused, members => Names(Known)}
end
"""


class Look(msgspec.Struct, frozen=True):
    """The answer to `LOOK`. `booted` is RabbitMQ's own word: ready, booting, core_started, stopping or stopped."""

    booted: str
    is_paused: bool
    node: str = ""
    cluster: str = ""
    members: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    alarms: int = 0
    queues: dict[str, int] = {}
    consumers: dict[str, int] = {}
    replicas: dict[str, tuple[str, ...]] = {}


def view_of(look: Look, known_cluster: str = "") -> BrokerView:
    """Return what heartbeats carry of one look; pure. One that does not run cannot name its cluster: it is the last known one."""
    members = tuple(sorted(map(host_of, look.members)))
    if look.booted != "ready":
        if look.is_paused:
            why = f"in a minority of {', '.join(members)}: it goes on by itself once it reaches the others"
            return BrokerView(kind="rabbitmq", state="paused", cluster=known_cluster, members=members, reason=why)
        why = "starting" if look.booted in ("booting", "core_started") else f"its application is {look.booted}"
        return BrokerView(kind="rabbitmq", state="stopped", cluster=known_cluster, members=members, reason=why)
    is_named = look.cluster.startswith(CLUSTER_PREFIX)
    return BrokerView(
        kind="rabbitmq",
        state="running",
        cluster=look.cluster.removeprefix(CLUSTER_PREFIX) if is_named else "",
        members=members,
        running=tuple(sorted(map(host_of, look.running))),
        queues=look.queues,
        consumers=look.consumers,
        short=tuple(sorted(queue for queue, nodes in look.replicas.items() if is_short(nodes, look.members, look.running))),
        reason=_trouble(look),
    )


def _trouble(look: Look) -> str:
    if look.partitions:
        return f"parted from {', '.join(sorted(map(host_of, look.partitions)))}"
    return "takes no messages: memory or disk is short" if look.alarms else ""


class LastLook:
    """Remembers the last view; looks again in a thread of its own when that is old. Any thread may call.

    `cluster` tells which one the broker was in last: one that does not answer is in that one still.
    """

    def __init__(self, look: Callable[[], BrokerView], cluster: Callable[[], str]) -> None:
        self._look = look
        self._cluster = cluster
        self._lock = threading.Lock()
        self._looking: threading.Thread | None = None
        self._view: BrokerView | None = None
        self._seen_s = 0.0

    def get(self, now_s: float | None = None) -> BrokerView:
        """Return the newest view; one whose broker stopped answering becomes 'unknown' after some seconds."""
        now_s = time.monotonic() if now_s is None else now_s
        with self._lock:
            if self._view is not None and now_s - self._seen_s < _FRESH_S:
                return self._view
            if self._looking is None or not self._looking.is_alive():
                self._looking = threading.Thread(target=self._refresh, name="broker-look", daemon=True)
                self._looking.start()
            looking, is_first = self._looking, self._view is None
        looking.join(_FIRST_PATIENCE_S if is_first else _PATIENCE_S)
        with self._lock:
            if self._view is not None and time.monotonic() - self._seen_s <= _STALE_S:
                return self._view
            members = self._view.members if self._view is not None else ()
        return BrokerView(kind="rabbitmq", state="unknown", cluster=self._cluster(), members=members, reason="does not answer")

    def forget(self) -> None:
        """Look anew at the next `get`: something was changed."""
        with self._lock:
            self._seen_s -= _FRESH_S

    def _refresh(self) -> None:
        began_s = time.monotonic()
        view = self._look()
        with self._lock:
            self._view, self._seen_s = view, began_s
