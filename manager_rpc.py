"""The per-docker daemon: reads settings, joins the cluster, serves the `manager` RPC and keeps this node's roles running.

    python manager_rpc.py --name train-1 --ip 127.0.0.2 --state DIR --registry HOST:PORT --token-file F --datastore PATH

A composition root: it reads, builds and runs. Nobody imports it.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cluster.broker import Broker, open_broker
from cluster.broker.rabbitmq import RabbitBroker
from cluster.election import parse_ip
from cluster.heartbeat import Heartbeats, Upkeep
from cluster.joining import holder_of, join, own_address
from cluster.manager import Manager
from cluster.metrics import ManagerMetrics, serve_metrics
from cluster.reachability import make_ping
from cluster.rolefiles import NodeOptions
from cluster.state import claim_port
from labelloop.errors import LabelloopError
from labelloop.ids import parse_node
from labelloop.logs import set_process_context, set_up_logs
from labelloop.settings import Settings, read_settings
from labelloop.tls import Identity
from labelloop.wire import Server


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line of the daemon."""
    parser = argparse.ArgumentParser(prog="manager_rpc.py", description="The manager of one node of a labelloop cluster.")
    parser.add_argument("--name", default=socket.gethostname().lower(), help="host name of the node (default: this machine's)")
    parser.add_argument("--ip", default="", help="address of the node (default: the one that reaches the registry)")
    parser.add_argument("--state", type=Path, required=True, help="folder of everything this manager keeps")
    parser.add_argument("--registry", required=True, metavar="HOST:PORT", help="where the registry listens")
    parser.add_argument("--token-file", type=Path, help="file with a join token of kind node; needed once")
    parser.add_argument("--datastore", type=Path, required=True, help="root of the datastore")
    parser.add_argument(
        "--broker",
        choices=("rabbitmq", "embedded"),
        default="embedded",
        help="rabbitmq: this docker's own, started and looked after here; embedded: the one whose URL file is given (default)",
    )
    parser.add_argument("--broker-url-file", type=Path, help="0600 file with the broker's URL (default: <state_dir>/broker/url)")
    parser.add_argument("--hosts-file", type=Path, help="hosts file to keep (default: <state>/hosts; never /etc/hosts by itself)")
    parser.add_argument("--settings", type=Path, help="TOML file of settings")
    parser.add_argument("--role-package", default="scripts", help=argparse.SUPPRESS)
    parser.add_argument("--rejoin", action="store_true", help="come back after `leave`")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; exit status 1 = it could not start, with the sentence on stderr."""
    args = parse_arguments(argv)
    try:
        run(args)
    except LabelloopError as exc:
        sys.stderr.write(f"manager_rpc: {exc}\n")
        return 1
    return 0


def run(args: argparse.Namespace) -> None:
    """Build the manager and its loops, serve, and stop all of it on a signal."""
    settings = read_settings(args.settings)
    settings = msgspec.structs.replace(settings, state_dir=str(Path(settings.state_dir).absolute()))
    set_up_logs(settings.log)
    set_process_context(node=parse_node(args.name), role="manager")
    ip = str(parse_ip(args.ip or own_address(args.registry), True))
    state = args.state.absolute()
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    identity = join(args.registry, args.token_file, args.name, ip, "node", state / "identity", settings.wire)
    # until here a signal simply ends the process: joining may wait for a registry
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    options = NodeOptions(
        name=args.name,
        ip=ip,
        port=claim_port(state / "ports.json", "manager", ip),
        cluster_id=holder_of(identity).cluster_id,
        state=state,
        datastore=args.datastore.absolute(),
        hosts_file=args.hosts_file or state / "hosts",
        role_package=args.role_package,
    )
    ping = make_ping(identity, settings.wire, settings.cluster.ping_timeout_s)
    manager = Manager(options, settings, identity, choose_broker(args, options, identity, settings), ping)
    if args.rejoin:
        manager.rejoin()
    server = Server("manager", manager.handlers(), identity, settings.wire, ip, options.port)
    loops = (
        Heartbeats(args.registry, manager, identity, settings),
        Upkeep(args.registry, manager, identity, settings),
    )
    metrics = serve_metrics(settings.cluster.metrics, state, ManagerMetrics(manager))
    try:
        serve(server, manager, loops, ended, settings)
    finally:
        metrics.close()


def choose_broker(args: argparse.Namespace, options: NodeOptions, identity: Identity, settings: Settings) -> Broker:
    """Return the broker of the kind that was asked for; nothing is started yet."""
    if args.broker == "rabbitmq":
        return RabbitBroker(options.name, options.ip, options.state, options.cluster_id, identity, settings)
    return open_broker(args.broker_url_file or Path(settings.state_dir) / "broker" / "url")


def serve(
    server: Server, manager: Manager, loops: Sequence[Heartbeats | Upkeep], ended: threading.Event, settings: Settings
) -> None:
    """Serve until `ended`, then stop in the order that leaves nothing behind."""
    server.listen()
    server.start()
    for loop in loops:
        loop.start()
    ended.wait()
    for loop in loops:
        loop.stop()
    server.close(grace_s=1.0)
    manager.stop()


if __name__ == "__main__":
    sys.exit(main())
