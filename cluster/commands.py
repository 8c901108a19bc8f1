"""The ops command line: `labelloop registry | broker | token | form | nodes | status | logs`.

Owns arguments and their output. Must never hold logic of the cluster. Registered by `scripts.cli`; start.sh and the demo's
supervisor run `registry` and `broker`.

Commands that talk to the registry do so under an ops identity, made once: with `--token-file`, or by itself where the
registry's own folder is at hand.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from cluster.authority import KINDS, Authority
from cluster.broker.embedded import EmbeddedServer
from cluster.election import parse_ip
from cluster.joining import join, own_address
from cluster.orders import Orders
from cluster.reachability import address_of
from cluster.registry import FORM_WAIT_S, Registry
from cluster.state import choose_port
from labelloop import messages as m
from labelloop.clients import ManagerClient, RegistryClient
from labelloop.errors import InvalidInputError, NotFoundError, SettingsError
from labelloop.ids import parse_node
from labelloop.logs import set_process_context, set_up_logs
from labelloop.settings import Settings, read_settings
from labelloop.tls import is_renewal_due, write_file
from labelloop.wire import Server

ADDRESS_FILE = "address"
_RENEWAL_LOOK_S = 3600.0


def register(subparsers: Any) -> None:
    """Add this room's subcommands."""
    _add_registry(subparsers)
    broker = subparsers.add_parser("broker", help="run the embedded broker of this machine")
    _settings_argument(broker)
    broker.add_argument("--state", type=Path, help="its folder (default: <state_dir>/broker)")
    broker.set_defaults(run=run_broker)
    token = subparsers.add_parser("token", help="make a join token (on the registry's machine)")
    _settings_argument(token)
    token.add_argument("kind", choices=KINDS, help="what it admits: a node, an ops person, a client (a platform's backend)")
    token.add_argument("--state", type=Path, help="the registry's folder (default: <state_dir>/registry)")
    token.add_argument("--life", type=float, metavar="SECONDS", help="how long it is good (default: cluster.token_life_s)")
    token.set_defaults(run=run_token)
    form = subparsers.add_parser("form", help="say how many nodes, or which, train and infer")
    _ops_arguments(form)
    form.add_argument("--train", type=int, default=0, metavar="N", help="number of train nodes")
    form.add_argument("--inference", type=int, default=0, metavar="N", help="number of inference nodes")
    form.add_argument("--role", action="append", default=[], metavar="NAME=ROLE", help="name them instead, e.g. gpu-1=train")
    form.set_defaults(run=run_form)
    nodes = subparsers.add_parser("nodes", help="list the nodes, one a line")
    _ops_arguments(nodes)
    nodes.set_defaults(run=run_nodes)
    status = subparsers.add_parser("status", help="show nodes, processes and where to call")
    _ops_arguments(status)
    status.add_argument("--json", action="store_true", help="as one JSON object")
    status.set_defaults(run=run_status)
    logs = subparsers.add_parser("logs", help="show the last log lines of a node's processes")
    _ops_arguments(logs)
    logs.add_argument("node")
    logs.add_argument("process", nargs="?", default="", help="e.g. train-rpc (default: all)")
    logs.add_argument("--lines", type=int, default=50)
    logs.set_defaults(run=run_logs)


def _add_registry(subparsers: Any) -> None:
    registry = subparsers.add_parser("registry", help="run the registry")
    _settings_argument(registry)
    registry.add_argument("--state", type=Path, help="its folder: CA, tokens, wanted state (default: <state_dir>/registry)")
    registry.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    registry.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one, remembered)")
    registry.add_argument("--datastore", type=Path, help="datastore to mark as this cluster's, if it is not yet")
    registry.add_argument(
        "--role",
        action="append",
        default=[],
        metavar="NAME=ROLE",
        help="role of a node in a cluster that was never formed, e.g. train-1=train; `form` changes it later",
    )
    registry.set_defaults(run=run_registry)


def _settings_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, help="TOML file of settings")


def _ops_arguments(parser: argparse.ArgumentParser) -> None:
    _settings_argument(parser)
    parser.add_argument("--registry", metavar="HOST:PORT", help="where it listens (default: as the registry on this machine says)")
    parser.add_argument(
        "--state", type=Path, help="the registry's folder, if it is on this machine (default: <state_dir>/registry)"
    )
    parser.add_argument("--token-file", type=Path, help="join token of kind ops; needed once, away from the registry's machine")


# ---------------------------------------------------------------- daemons


def run_broker(args: argparse.Namespace) -> int:
    """Become the embedded broker."""
    settings = read_settings(args.settings)
    set_up_logs(settings.log)
    set_process_context(node="local", role="broker")
    EmbeddedServer(args.state or Path(settings.state_dir) / "broker", settings.broker).run()


def run_registry(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    settings = read_settings(args.settings)
    set_up_logs(settings.log)
    set_process_context(node="registry", role="registry")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    folder = _registry_folder(args, settings)
    host = str(parse_ip(args.host, True))
    authority = _authority(folder, settings)
    if args.datastore is not None:
        from datastore_layout.root import create_root

        create_root(args.datastore, authority.cluster_id)
    identity = authority.own_identity("registry", host, "ops", folder / "identity")
    registry = Registry(folder, authority, Orders(identity, settings.wire), settings, parse_roles(args.role))
    port = args.port or choose_port(folder / "ports.json", "registry", host)
    server = Server("registry", registry.handlers(), identity, settings.wire, host, port)
    server.listen()
    write_file(folder / ADDRESS_FILE, f"{host}:{server.address[1]}\n".encode())
    server.start()
    registry.start()
    while not ended.wait(_RENEWAL_LOOK_S):
        if is_renewal_due(identity):
            authority.own_identity("registry", host, "ops", folder / "identity")
    server.close(grace_s=1.0)
    registry.stop()
    return 0


def run_token(args: argparse.Namespace) -> int:
    """Print one new join token."""
    settings = read_settings(args.settings)
    folder = _registry_folder(args, settings)
    if not (folder / "authority").exists():
        raise SettingsError(f"{folder} holds no cluster: start `labelloop registry` first, or give its --state")
    _say(_authority(folder, settings).create_token(cast(m.PeerKind, args.kind), args.life))
    return 0


# ---------------------------------------------------------------- questions to the registry


def run_form(args: argparse.Namespace) -> int:
    """Form the cluster and list it."""
    request = m.FormRequest(train=args.train, inference=args.inference, roles=parse_roles(args.role))
    with _registry(args) as (client, _, _):
        _show_nodes(client.form(request, deadline_s=FORM_WAIT_S + 10))
    return 0


def run_nodes(args: argparse.Namespace) -> int:
    """List the nodes."""
    with _registry(args) as (client, _, _):
        _show_nodes(client.nodes())
    return 0


def run_status(args: argparse.Namespace) -> int:
    """Show the whole cluster."""
    with _registry(args) as (client, _, _):
        nodes, topology = client.nodes(), client.topology()
    if args.json:
        _say(msgspec.json.encode({"nodes": nodes, "topology": topology}).decode())
    else:
        _show_status(nodes, topology)
    return 0


def run_logs(args: argparse.Namespace) -> int:
    """Print the last lines of a node's logs."""
    with _registry(args) as (client, identity, settings):
        found = [n.status for n in client.nodes().nodes if n.status.hostname == args.node]
        if not found:
            raise NotFoundError(f"no node {args.node!r} has registered: see `labelloop nodes`")
        machine = m.MachineInfo(hostname=found[0].hostname, ip=found[0].ip, port=found[0].port)
        with contextlib.closing(ManagerClient(address_of(machine), identity, settings.wire)) as manager:
            _say(manager.logs(m.LogsRequest(process=args.process, lines=args.lines)).text)
    return 0


def parse_roles(pairs: Iterable[str]) -> dict[str, m.Role]:
    """Return hostname → role of 'NAME=ROLE' arguments. Raises InvalidInputError naming the one that is not."""
    roles: dict[str, m.Role] = {}
    for pair in pairs:
        name, _, role = pair.partition("=")
        if role not in ("train", "inference"):
            raise InvalidInputError(f"--role {pair!r}: use NAME=train or NAME=inference")
        roles[parse_node(name)] = cast(m.Role, role)
    return roles


def _authority(folder: Path, settings: Settings) -> Authority:
    return Authority(folder / "authority", settings.cluster)


def _registry_folder(args: argparse.Namespace, settings: Settings) -> Path:
    return cast(Path, (args.state or Path(settings.state_dir) / "registry").absolute())


@contextlib.contextmanager
def _registry(args: argparse.Namespace) -> Iterator[tuple[RegistryClient, Any, Settings]]:
    """Yield a client of the registry, its identity and the settings."""
    settings = read_settings(args.settings)
    folder = _registry_folder(args, settings)
    address = args.registry or _remembered_address(folder)
    name, ip = "ops", own_address(address)
    if args.token_file is None and (folder / "authority").exists():
        identity = _authority(folder, settings).own_identity(name, ip, "ops", folder / "ops")
    else:
        identity = join(address, args.token_file, name, ip, "ops", Path(settings.state_dir) / "ops", settings.wire)
    with contextlib.closing(RegistryClient(address, identity, settings.wire)) as client:
        yield client, identity, settings


def _remembered_address(folder: Path) -> str:
    try:
        return (folder / ADDRESS_FILE).read_text().strip()
    except FileNotFoundError:
        raise SettingsError(f"no registry has run in {folder}: give --registry HOST:PORT, or its --state") from None


# ---------------------------------------------------------------- output


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _show_nodes(reply: m.NodesReply) -> None:
    for node in reply.nodes:
        status = node.status
        role = f"{status.role or '-'}{' master' if status.is_master else ''}"
        state = "alive" if node.is_alive else f"silent {node.age_s:.0f} s"
        _say(f"{status.hostname}\t{status.ip}\t{role}\t{state}\tepoch {status.epoch}\t{status.rpc or '-'}")
    _say(f"{reply.state}, epoch {reply.epoch}: {reply.last_reason}")


def _show_status(reply: m.NodesReply, topology: m.Topology) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
        made = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
        for column in columns:
            made.add_column(column, overflow="fold")
        for row in rows:
            made.add_row(*row)
        return made

    console = Console()
    title = f"cluster {reply.cluster_id}, epoch {reply.epoch}, {reply.state}: {reply.last_reason}"
    console.print(table(title, ("node", "role", "state", "rpc", "last"), map(_node_row, reply.nodes)))
    console.print(table("machines", ("node", "ip", "cores", "memory", "GPUs"), map(_machine_row, reply.nodes)))
    console.print(table("processes", ("node", "process", "pid", "state", "restarts", "reason"), _process_rows(reply)))
    for warning in topology.warnings:
        console.print(f"warning: {warning}", highlight=False)


def _node_row(node: m.NodeView) -> tuple[str, ...]:
    s = node.status
    state = "alive" if node.is_alive else f"silent {node.age_s:.0f} s"
    return (s.hostname, f"{s.role or '-'}{' master' if s.is_master else ''}", state, s.rpc or "-", s.last_reason)


def _machine_row(node: m.NodeView) -> tuple[str, ...]:
    s = node.status
    memory = f"{s.memory_free_bytes / 2**30:.1f} of {s.memory_bytes / 2**30:.1f} GiB free"
    return (s.hostname, s.ip, f"{s.cores}, load {s.load:.1f}", memory, "\n".join(s.gpus) or "none")


def _process_rows(reply: m.NodesReply) -> list[tuple[str, ...]]:
    return [
        (node.status.hostname, p.name, str(p.pid or "-"), p.state, str(p.restarts), p.reason)
        for node in reply.nodes
        for p in node.status.processes
    ]
