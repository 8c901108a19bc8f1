"""Queues of a RabbitMQ cluster: their declaration, and the decision on which members each one's replicas belong.

Owns every queue argument. `plan_balance` is pure. Must never move a message: growing and shrinking is RabbitMQ's own work.
Called by `rabbitmq`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import msgspec

from cluster.broker import QueueSpec
from cluster.broker.rabbitmq_config import atom, binary

LIST_REPLICATED = """
[begin
  {resource, _, _, Name} = amqqueue:get_name(Q),
  {_, Leader} = amqqueue:get_pid(Q),
  Nodes = maps:get(nodes, amqqueue:get_type_state(Q)),
  #{name => Name, leader => atom_to_binary(Leader), nodes => [atom_to_binary(N) || N <- Nodes]}
end || Q <- rabbit_amqqueue:list(), amqqueue:get_type(Q) =:= rabbit_quorum_queue]
"""

# A replica that a fall made forget that it was ever in use waits for others to hold an election: alone it would wait for ever.
WAKE = """
[catch ra:trigger_election({Ra, node()})
 || Q <- rabbit_amqqueue:list(), amqqueue:get_type(Q) =:= rabbit_quorum_queue,
    {Ra, _} <- [amqqueue:get_pid(Q)],
    lists:member(node(), maps:get(nodes, amqqueue:get_type_state(Q))),
    ra_leaderboard:lookup_leader(Ra) =:= undefined],
ok
"""
# Members keep the names of their replicas in a table that is written with delay; without its name a replica is lost in a fall.
_SYNC = "rpc:multicall(rabbit_nodes:all_running(), dets, sync, [ra_directory_reverse], 5000)"


class Replicas(msgspec.Struct, frozen=True):
    """One replicated queue and the Erlang nodes that hold it."""

    name: str
    leader: str
    nodes: tuple[str, ...]


class Move(msgspec.Struct, frozen=True):
    """One step: give `queue` a replica on `node`, take it away, hand it the lead, go on from its fullest one, or make it anew."""

    action: Literal["grow", "shrink", "lead", "rescue", "renew"]
    queue: str
    node: str = ""


def wanted_replicas(members: int) -> int:
    """Return how many replicas a queue has in a cluster of `members`."""
    return 5 if members >= 5 else min(3, members)


def is_short(nodes: Sequence[str], members: Sequence[str], running: Sequence[str]) -> bool:
    """Return whether a queue on `nodes` shall get one more replica, on a running member. One that is down keeps its place."""
    kept = set(nodes) & set(members)
    return len(kept) < wanted_replicas(len(members)) and bool(set(running) - kept)


def plan_balance(queues: Sequence[Replicas], members: Sequence[str], running: Sequence[str]) -> list[Move]:
    """Return the moves that give each queue its number of replicas on running members, with leads spread evenly; pure.

    A replica on a member that is down but not forgotten stays: it may come back. A queue that lost its majority to members
    that were forgotten goes on from the replica that holds most; only one that lost all of them is made anew, empty.
    """
    moves: list[Move] = []
    load = Counter(dict.fromkeys(running, 0))
    load.update(node for queue in queues for node in queue.nodes if node in load)
    leads: Counter[str] = Counter(dict.fromkeys(running, 0))
    for queue in sorted(queues, key=lambda each: each.name):
        alive = [node for node in queue.nodes if node in running]
        strangers = [node for node in queue.nodes if node not in members]
        if 2 * len(alive) <= len(queue.nodes):
            if strangers and len(alive) + len(strangers) == len(queue.nodes):  # else one that is down may hold more
                moves.append(Move("rescue" if alive else "renew", queue.name))
            continue
        replicas = _moves_of(queue, strangers, members, running, load, moves)
        _lead(queue, [node for node in replicas if node in running], leads, moves)
    return moves


def _moves_of(
    queue: Replicas,
    strangers: Sequence[str],
    members: Sequence[str],
    running: Sequence[str],
    load: Counter[str],
    moves: list[Move],
) -> list[str]:
    """Add the moves of one queue's replicas and return where they are afterwards."""
    replicas = [node for node in queue.nodes if node not in strangers]
    moves.extend(Move("shrink", queue.name, node) for node in strangers)
    wanted = wanted_replicas(len(members))
    for node in sorted((node for node in running if node not in replicas), key=lambda each: (load[each], each)):
        if len(replicas) >= wanted:
            break
        moves.append(Move("grow", queue.name, node))
        replicas.append(node)
        load[node] += 1
    for node in sorted((node for node in replicas if node != queue.leader), key=lambda each: (each in running, -load[each], each)):
        if len(replicas) <= wanted:
            break
        moves.append(Move("shrink", queue.name, node))
        replicas.remove(node)
        load[node] -= 1
    return replicas


def _lead(queue: Replicas, able: Sequence[str], leads: Counter[str], moves: list[Move]) -> None:
    fewest = min((leads[node] for node in able), default=0)
    if queue.leader in able and leads[queue.leader] <= fewest:
        leads[queue.leader] += 1
        return
    if able:
        chosen = min(able, key=lambda node: (leads[node], node))
        leads[chosen] += 1
        moves.append(Move("lead", queue.name, chosen))


def plan_leave(queues: Sequence[Replicas], leaver: str, others: Sequence[str]) -> list[Move]:
    """Return the moves that take all replicas off the member `leaver`, a new one made first where it holds the only one; pure."""
    moves: list[Move] = []
    for queue in queues:
        if leaver not in queue.nodes:
            continue
        if not any(node in others for node in queue.nodes):
            moves.append(Move("grow", queue.name, others[0]))
        if queue.leader == leaver:
            moves.append(Move("lead", queue.name, next((node for node in queue.nodes if node in others), others[0])))
        moves.append(Move("shrink", queue.name, leaver))
    return moves


# ---------------------------------------------------------------- Erlang


def _arguments(spec: QueueSpec, delivery_limit: int) -> str:
    if not spec.is_replicated:
        return '[{<<"x-queue-type">>, longstr, <<"classic">>}]'
    rows = [
        '{<<"x-queue-type">>, longstr, <<"quorum">>}',
        f'{{<<"x-delivery-limit">>, long, {delivery_limit}}}',
    ]
    if spec.dead_letters:
        rows += [
            '{<<"x-dead-letter-exchange">>, longstr, <<>>}',
            f'{{<<"x-dead-letter-routing-key">>, longstr, {binary(spec.dead_letters)}}}',
            '{<<"x-dead-letter-strategy">>, longstr, <<"at-least-once">>}',
            '{<<"x-overflow">>, longstr, <<"reject-publish">>}',
        ]
    return f"[{', '.join(rows)}]"


def declaration(specs: Sequence[QueueSpec], delivery_limit: int) -> str:
    """Return the expression that declares what is missing and answers [[name, outcome, type], ...]."""
    rows = ",\n  ".join(f"{{{binary(spec.name)}, {_arguments(spec, delivery_limit)}}}" for spec in specs)
    return f"""
Declare = fun({{Name, Args}}) ->
  case rabbit_amqqueue:declare(rabbit_misc:r(<<"/">>, queue, Name), true, false, Args, none, <<"labelloop">>) of
    {{absent, Q, _}} -> [Name, absent, amqqueue:get_type(Q)];
    {{Outcome, Q}} when is_atom(Outcome) -> [Name, Outcome, amqqueue:get_type(Q)];
    Other -> [Name, unicode:characters_to_binary(io_lib:format("~0P", [Other, 20])), none]
  end
end,
Said = [Declare(Row) || Row <- [{rows}]],
case [Name || [Name, new, rabbit_quorum_queue] <- Said] of
  [] -> ok;
  _ -> {_SYNC}
end,
{WAKE.strip()},
Said
"""


# RabbitMQ 3.10 cannot shrink a queue that has no majority. The fullest replica that runs is shown a queue of itself alone, so that
# it elects itself; then one lost replica is shown to it again, whose removal is what its log keeps.
_RESCUE = """
  (rescue, Name, _) ->
    Q = Lookup(Name),
    {Ra, _} = amqqueue:get_pid(Q),
    Nodes = maps:get(nodes, amqqueue:get_type_state(Q)),
    Alive = [N || N <- Nodes, lists:member(N, rabbit_nodes:all_running())],
    State = fun(N) -> [S] = [E || E <- tuple_to_list(element(2, sys:get_state({Ra, N}))), is_map(E), is_map_key(cluster, E)], S end,
    Full = fun(N) -> #{log := Log} = State(N), {Index, Term} = ra_log:last_index_term(Log), {Term, Index, N} end,
    {_, _, Chosen} = lists:max([Full(N) || N <- Alive]),
    Me = {Ra, Chosen},
    Lost = {Ra, hd([N || N <- Nodes, not lists:member(N, Alive)])},
    #{cluster := #{Me := Peer, Lost := Away}} = State(Chosen),
    Shown = fun(E, Cluster) -> case is_map(E) andalso is_map_key(cluster, E) of true -> E#{cluster := Cluster}; false -> E end end,
    Show = fun(Cluster) ->
      sys:replace_state(Me, fun({Is, Data}) -> {Is, list_to_tuple([Shown(E, Cluster) || E <- tuple_to_list(Data)])} end)
    end,
    Elect = fun
      (_, 0) -> throw(not_elected);
      (Again, Left) ->
        _ = ra:trigger_election(Me),
        timer:sleep(100),
        case ra:members(Me, 1000) of {ok, [Me], Me} -> ok; _ -> Again(Again, Left - 1) end
    end,
    [catch ra:force_delete_server(quorum_queues, {Ra, N}) || N <- Nodes, N =/= Chosen],
    _ = Show(#{Me => Peer}),
    ok = Elect(Elect, 50),
    _ = Show(#{Me => Peer, Lost => Away}),
    {ok, _, Me} = ra:remove_member(Me, Lost, 5000),
    Alone = fun(Old) -> amqqueue:set_pid(amqqueue:set_type_state(Old, (amqqueue:get_type_state(Old))#{nodes := [Chosen]}), Me) end,
    _ = rabbit_misc:execute_mnesia_transaction(fun() -> rabbit_amqqueue:update(amqqueue:get_name(Q), Alone) end),
    ok;
"""


def execution(moves: Sequence[Move]) -> str:
    """Return the expression that makes `moves` and answers [[action, name, outcome], ...], 'ok' where it worked.

    The moves of one queue are made in their order, several queues at the same time: a dead replica costs seconds each.
    """
    by_queue: dict[str, list[str]] = {}
    for each in moves:
        by_queue.setdefault(each.queue, []).append(f"{{{each.action}, {binary(each.queue)}, {atom(each.node)}}}")
    rows = ",\n  ".join(f"[{', '.join(queue)}]" for queue in by_queue.values())
    return f"""
Lookup = fun(Name) -> {{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, Name)), Q end,
Holds = fun(Name, Node) ->
  {{Ra, _}} = amqqueue:get_pid(Lookup(Name)),
  is_pid(rpc:call(Node, erlang, whereis, [Ra], 2000))
end,
Make = fun
  (grow, Name, Node) -> rabbit_quorum_queue:add_member(<<"/">>, Name, Node, 5000);
  (shrink, Name, Node) -> rabbit_quorum_queue:delete_member(<<"/">>, Name, Node);
  (lead, Name, Node) ->
    case Holds(Name, Node) andalso rabbit_quorum_queue:transfer_leadership(Lookup(Name), Node) of
      false -> no_replica_runs_there;
      {{migrated, _}} -> ok;
      {{not_migrated, already_leader}} -> ok;
      Other -> Other
    end;
  {_RESCUE.strip()}
  (renew, Name, _) ->
    Q = Lookup(Name),
    {{Ra, _}} = amqqueue:get_pid(Q),
    _ = rabbit_amqqueue:internal_delete(amqqueue:get_name(Q), <<"labelloop">>),
    [catch ra:force_delete_server(quorum_queues, {{Ra, N}}) || N <- maps:get(nodes, amqqueue:get_type_state(Q))],
    {{new, _}} = rabbit_amqqueue:declare(amqqueue:get_name(Q), true, false, amqqueue:get_arguments(Q), none, <<"labelloop">>),
    ok
end,
Do = fun({{Action, Name, Node}}) ->
  Outcome = try Make(Action, Name, Node) catch _:Reason -> Reason end,
  [Action, Name, unicode:characters_to_binary(io_lib:format("~0P", [Outcome, 12]))]
end,
Begun = [spawn_monitor(fun() -> exit({{made, [Do(Row) || Row <- Rows]}}) end) || Rows <- [{rows}]],
Outcomes = lists:append([receive {{'DOWN', Ref, process, Pid, {{made, Said}}}} -> Said;
                      {{'DOWN', Ref, process, Pid, _}} -> [[died, <<>>, <<"died">>]] end || {{Pid, Ref}} <- Begun]),
{_SYNC},
Outcomes
"""
