"""The ops command line: what `labelloop` offers of this room, and how each command explains itself.

Owns arguments and their help. Must never hold logic of the cluster, nor import what is slow: each command's work lies in a module
of its own (`commands_daemons`, `commands_ops`, `commands_status`), imported when it runs. Registered by `scripts.cli`; start.sh and
the demo's supervisor run `registry` and `broker`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast, get_args

from cluster.pages import Page, add_page
from labelloop import messages as m
from labelloop.errors import InvalidInputError
from labelloop.ids import parse_node

ADDRESS_FILE = "address"
NODE_STATE = Path("/var/lib/labelloop")
_OPS = "cluster.commands_ops"
_STATUS = "cluster.commands_status"
_DAEMONS = "cluster.commands_daemons"

_NODES = Page(
    "nodes",
    "list the nodes, one a line",
    "List the nodes that have registered, lowest address first, one a line with tabs between: name, address, role, alive or "
    "how long silent, epoch, where its role answers. The last line says what the registry decided last, and why.",
    (("labelloop nodes", "all nodes"), ("labelloop nodes --json | jq -r '.nodes[].status.hostname'", "their names")),
    f"{_STATUS}:run_nodes",
)
_STATUS_PAGE = Page(
    "status",
    "show nodes, machines, processes, queues and the last actions",
    "Show the cluster as the last heartbeats tell it: each node's role, who is master, GPU and memory, broker and queue "
    "depths, workers, what is running, restarts and the last reason; then the registry's last actions and what is wrong.",
    (
        ("labelloop status", "once"),
        ("labelloop status --watch", "a live table, until Ctrl-C"),
        ("labelloop status --json | jq .topology", "for programs"),
    ),
    f"{_STATUS}:run_status",
)
_FORM = Page(
    "form",
    "say how many nodes, or which, train and infer; opens a task besides",
    "Choose nodes and form the cluster: nodes keep their role where they can; then those without a role are taken, for "
    "training first those with GPUs, by the lowest address. Returns once every role answers. Without numbers and names the "
    "wanted roles stay, and a registry that was learning is confirmed. With --task, a task is opened once the cluster is "
    "formed.",
    (
        ("labelloop form --train 3 --inference 4", "seven dockers become a cluster"),
        ("labelloop form --role gpu-1=train --role cpu-1=inference", "by name; nobody else keeps a role"),
        (
            "labelloop form --train 1 --inference 1 --task birds --category image-classification --labels robin,wren",
            "and open a task",
        ),
    ),
    f"{_OPS}:run_form",
)
_CONFIRM = Page(
    "confirm",
    "let a registry that was learning give orders again",
    "A registry that lost its folder, or was restored from an old backup, knows less than the nodes do: it learns epoch and "
    "roles from their heartbeats and gives no order. Look at `labelloop status`; if the roles shown are right, confirm them. "
    "Nothing restarts.",
    (("labelloop confirm", "take the roles that the nodes hold as wanted"),),
    f"{_OPS}:run_confirm",
)
_ASSIGN = Page(
    "assign",
    "change the roles of named nodes, leave the others alone",
    "Give nodes a role, or none, and return once they hold it. The other nodes keep theirs.",
    (
        ("labelloop assign gpu-4=train", "one more train node"),
        ("labelloop assign gpu-1=inference gpu-2=none", "change one, release another"),
    ),
    f"{_OPS}:run_assign",
)
_DRAIN = Page(
    "drain",
    "let nodes finish their work and take no more, e.g. before a reboot",
    "A draining node stays in the cluster (hosts block, broker member) and gets no new work. An inference node is called by "
    "nobody from now on and stops its processes when its work has ended. A train node stops between two trainings; a train "
    "master takes labels in until then, and the next lowest address takes over when it stops. Work that does not end within "
    "cluster.drain_wait_s goes on elsewhere: nothing is lost by it. Returns at once unless --wait is given.",
    (
        ("labelloop drain gpu-3 --wait 900", "return when nothing runs there any more"),
        ("labelloop drain gpu-3 --undo", "it works again"),
    ),
    f"{_OPS}:run_drain",
)
_ADD = Page(
    "add",
    "let a removed node in again",
    "Lift a removal. The node gets the role that it had, or the one of --role; a manager that still runs there is taken back "
    "at once, one that was stopped is to be started (`./start.sh node ...`). A node that was never removed needs no `add`: "
    "boot it, then `assign` or `form`.",
    (("labelloop add gpu-3", "in the role it had"), ("labelloop add gpu-3 --role train", "in another one")),
    f"{_OPS}:run_add",
)
_REMOVE = Page(
    "remove",
    "take nodes out of the cluster for good",
    "The node is told to leave (roles stopped, out of the broker cluster, hosts block emptied), the rest is formed without "
    "it, and it is refused until `add`. A dead one is forgotten by the broker cluster, and told to leave when it comes back. "
    "Only this removes a node: one that is merely silent stays wanted and gets its role back when it returns.",
    (("labelloop remove gpu-3", "and wait until the rest is formed"),),
    f"{_OPS}:run_remove",
)
_REVOKE = Page(
    "revoke",
    "make the certificates of a name worthless",
    "Every server of the cluster refuses the certificates issued to that name: the registry at once, nodes with their next "
    "heartbeat. It comes in again only with a join token and a new key (remove its identity folder). Tokens that it may still "
    "hold are revoked with `labelloop token --revoke ID`; `remove` takes it out of the wanted nodes.",
    (("labelloop revoke gpu-3", "a stolen or misused machine"),),
    f"{_OPS}:run_revoke",
)
_ACTIONS = Page(
    "actions",
    "show what the registry did and what was done to it, with the reasons",
    "Print the newest actions, the latest last: orders with their epoch and reason, failures, who was admitted and refused, "
    "and what ops asked for. The registry keeps the last 200, over its restarts.",
    (("labelloop actions", "all that are kept"), ("labelloop actions --last 5 --json", "five, for programs")),
    f"{_STATUS}:run_actions",
)
_LOGS = Page(
    "logs",
    "show the last log lines of a node's processes",
    "Print the last lines that the role processes of a node have logged, as its manager has them.",
    (("labelloop logs gpu-1", "all processes"), ("labelloop logs gpu-1 train-rpc --follow", "one, and what comes")),
    f"{_OPS}:run_logs",
)
_DOCTOR = Page(
    "doctor",
    "find what is wrong, why it matters and what to do",
    "Examine every node and what lies between them: ports, clocks, cookies, brokers and queues, the datastore (its mount, its "
    "habits, a race of all nodes for 1,000 names), disks, memory, GPUs, versions, hosts files, certificates, role processes. Each "
    "finding says what is wrong, why it matters and the way out. With the registry down it looks from this machine's node.",
    (
        ("labelloop doctor", "everything"),
        ("labelloop doctor gpu-3 gpu-4", "what concerns these nodes"),
        ("labelloop doctor --local", "on a node, without the registry"),
    ),
    "cluster.doctor.command:run_doctor",
    (
        ("0", "nothing is wrong"),
        ("1", "warnings only; or it could not look: one sentence on stderr"),
        ("2", "at least one error; or wrong arguments"),
    ),
)
_REGISTRY = Page(
    "registry",
    "run the registry",
    "Run the registry in the foreground until SIGTERM: admission, heartbeats, wanted state and the loop that keeps the "
    "cluster as wanted. The cluster goes on without it; only changes wait. Keep a backup (--backup): its folder holds the "
    "CA's key.",
    (
        ("labelloop registry --host auto --datastore /home/datastore --backup /mnt/safe/registry", "as start.sh runs it"),
        ("labelloop registry --restore /mnt/safe/registry --host auto", "on a new machine; then `labelloop confirm` if it asks"),
    ),
    f"{_DAEMONS}:run_registry",
)
_TOKEN = Page(
    "token",
    "make, list and revoke join tokens (on the registry's machine)",
    "Print a new join token of a kind: it admits a node, an ops person, or a client (a platform's backend). --list shows the "
    "good ones without their secret; --revoke makes one worthless, whom it admitted stays (see `labelloop revoke`).",
    (
        ("labelloop token node > node.token && chmod 600 node.token", "good for a day"),
        ("labelloop token --list", "ids, kinds, how long they are good"),
        ("labelloop token --revoke 3f0c...", "by id, or by the whole token"),
    ),
    f"{_DAEMONS}:run_token",
)
_BROKER = Page(
    "broker",
    "run the embedded broker of this machine",
    "Run the embedded broker (valkey) in the foreground, for a cluster on one machine; dockers run RabbitMQ instead.",
    (("labelloop broker --state state/broker", "on loopback, durable"),),
    f"{_DAEMONS}:run_broker",
)


def register(subparsers: Any) -> None:
    """Add this room's subcommands."""
    for page in (_STATUS_PAGE, _NODES):
        parser = add_page(subparsers, page)
        ops_arguments(parser)
        if page is _STATUS_PAGE:
            parser.add_argument("--watch", action="store_true", help="go on showing, once a second")
    actions = add_page(subparsers, _ACTIONS)
    ops_arguments(actions)
    actions.add_argument("--last", type=int, default=200, metavar="N", help="the newest N (default: all)")
    _add_form(subparsers)
    ops_arguments(add_page(subparsers, _CONFIRM))
    assign = add_page(subparsers, _ASSIGN)
    ops_arguments(assign)
    assign.add_argument("role", nargs="+", metavar="NAME=ROLE", help="train, inference or none")
    _add_node_commands(subparsers)
    _add_logs(subparsers)
    _add_doctor(subparsers)
    _add_registry(subparsers)
    _add_token(subparsers)
    broker = add_page(subparsers, _BROKER)
    settings_argument(broker)
    broker.add_argument("--state", type=Path, help="its folder (default: <state_dir>/broker)")


def _add_form(subparsers: Any) -> None:
    form = add_page(subparsers, _FORM)
    ops_arguments(form)
    form.add_argument("--train", type=int, default=0, metavar="N", help="number of train nodes")
    form.add_argument("--inference", type=int, default=0, metavar="N", help="number of inference nodes")
    form.add_argument("--role", action="append", default=[], metavar="NAME=ROLE", help="name them instead, e.g. gpu-1=train")
    task = form.add_argument_group("the task to open (each field as in docs/backend.md)")
    task.add_argument("--task", metavar="NAME", help="its name")
    task.add_argument("--category", metavar="NAME", help="e.g. image-classification")
    task.add_argument("--labels", metavar="A,B,...", help="its labels")
    task.add_argument("--multilabel", action="store_true", help="an item may have several labels")
    task.add_argument("--target", type=float, default=0.95, help="accuracy at which training rests (default 0.95)")
    task.add_argument("--budget", type=int, default=0, metavar="N", help="labels at which labelling stops (default: none)")
    task.add_argument(
        "--revision", type=int, default=1, metavar="N", help="one more than the last when settings change (default 1)"
    )


def _add_node_commands(subparsers: Any) -> None:
    for page in (_DRAIN, _ADD, _REMOVE, _REVOKE):
        parser = add_page(subparsers, page)
        ops_arguments(parser)
        parser.add_argument("node", nargs="+", metavar="NODE", help="host name")
        if page is _DRAIN:
            parser.add_argument("--undo", action="store_true", help="let them work again")
            parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="wait until nothing runs there")
        if page is _ADD:
            parser.add_argument("--role", choices=get_args(m.Role), help="give them this role")


def _add_logs(subparsers: Any) -> None:
    logs = add_page(subparsers, _LOGS)
    ops_arguments(logs)
    logs.add_argument("node", metavar="NODE", help="host name")
    logs.add_argument("process", nargs="?", default="", metavar="PROCESS", help="e.g. train-rpc (default: all)")
    logs.add_argument("--lines", type=int, default=50, metavar="N", help="how many (default 50)")
    logs.add_argument("--follow", action="store_true", help="go on with what comes, until Ctrl-C")


def _add_doctor(subparsers: Any) -> None:
    doctor = add_page(subparsers, _DOCTOR)
    ops_arguments(doctor)
    doctor.add_argument("node", nargs="*", metavar="NODE", help="report on these nodes only (default: all)")
    doctor.add_argument("--local", action="store_true", help="examine from this machine's node, without the registry")
    doctor.add_argument(
        "--node-state", type=Path, default=NODE_STATE, metavar="DIR", help=f"folder of this machine's node (default {NODE_STATE})"
    )
    doctor.add_argument("--no-race", action="store_true", help="leave out the race on the datastore")


def _add_registry(subparsers: Any) -> None:
    registry = add_page(subparsers, _REGISTRY)
    settings_argument(registry)
    registry.add_argument("--state", type=Path, help="its folder: CA, tokens, wanted state (default: <state_dir>/registry)")
    registry.add_argument(
        "--host", default="127.0.0.1", help="address to listen on, `auto` = this machine's own (default 127.0.0.1; start.sh: auto)"
    )
    registry.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one, remembered)")
    registry.add_argument("--datastore", type=Path, help="datastore to mark as this cluster's, if it is not yet")
    registry.add_argument(
        "--role",
        action="append",
        default=[],
        metavar="NAME=ROLE",
        help="role of a node in a cluster that was never formed, e.g. train-1=train; `form` changes it later",
    )
    registry.add_argument("--join-line", action="store_true", help="print the line that joins a docker (start.sh does)")
    registry.add_argument("--backup", type=Path, metavar="DIR", help="copy CA, tokens and wanted state there after each change")
    registry.add_argument("--restore", type=Path, metavar="DIR", help="begin with the copy in DIR; the folder must hold no cluster")


def _add_token(subparsers: Any) -> None:
    token = add_page(subparsers, _TOKEN)
    settings_argument(token)
    token.add_argument("kind", nargs="?", choices=get_args(m.PeerKind), help="what it admits")
    token.add_argument("--state", type=Path, help="the registry's folder (default: <state_dir>/registry)")
    token.add_argument("--life", type=float, metavar="SECONDS", help="how long it is good (default: cluster.token_life_s)")
    token.add_argument("--list", action="store_true", help="list the tokens that are good now")
    token.add_argument("--revoke", metavar="ID", help="make a token worthless")
    token.add_argument("--json", action="store_true", help="as one JSON object")


def settings_argument(parser: argparse.ArgumentParser) -> None:
    """Add --settings."""
    parser.add_argument("--settings", type=Path, help="TOML file of settings")


def ops_arguments(parser: argparse.ArgumentParser, has_json: bool = True) -> None:
    """Add what `cluster.ops_door` needs to reach the registry, and --json."""
    settings_argument(parser)
    parser.add_argument("--registry", metavar="HOST:PORT", help="where it listens (default: as the registry on this machine says)")
    parser.add_argument(
        "--state", type=Path, help="the registry's folder, if it is on this machine (default: <state_dir>/registry)"
    )
    parser.add_argument("--token-file", type=Path, help="join token of kind ops; needed once, away from the registry's machine")
    if has_json:
        parser.add_argument("--json", action="store_true", help="as one JSON object")


def parse_roles(pairs: Iterable[str]) -> dict[str, m.Role]:
    """Return hostname → role of 'NAME=ROLE' arguments. Raises InvalidInputError naming the one that is not."""
    roles: dict[str, m.Role] = {}
    for pair in pairs:
        name, _, role = pair.partition("=")
        if role not in get_args(m.Role):
            raise InvalidInputError(f"--role {pair!r}: use NAME=train or NAME=inference")
        if name in roles:
            raise InvalidInputError(f"{name!r} is named twice: a node has one role")
        roles[parse_node(name)] = cast(m.Role, role)
    return roles
