"""What `labelloop registry`, `broker` and `token` do.

A composition root: it reads settings, builds, runs. Imported by `cluster.commands` when one of them runs.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
from pathlib import Path
from typing import cast

import msgspec

from cluster.authority import Authority, TokenView
from cluster.backup import Backup, restore
from cluster.broker.embedded import EmbeddedServer
from cluster.commands import ADDRESS_FILE, parse_roles
from cluster.election import parse_ip
from cluster.joining import machine_address
from cluster.joinline import show_join_line
from cluster.metrics import RegistryMetrics, serve_metrics
from cluster.ops_door import registry_folder
from cluster.orders import Orders
from cluster.registry import Registry
from cluster.state import choose_port
from labelloop import messages as m
from labelloop.errors import InvalidInputError, SettingsError
from labelloop.logs import set_process_context, set_up_logs
from labelloop.settings import Settings, read_settings
from labelloop.tls import Identity, is_renewal_due, write_file
from labelloop.wire import Server

logger = logging.getLogger(__name__)

_LOOK_S = 1.0
_RENEWAL_LOOK_S = 3600.0


def run_broker(args: argparse.Namespace) -> None:
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
    folder = registry_folder(args, settings)
    host = str(parse_ip(machine_address() if args.host == "auto" else args.host, True))
    if args.restore is not None:
        restore(args.restore.absolute(), folder)
    authority = Authority(folder / "authority", settings.cluster)
    if args.datastore is not None:
        from datastore_layout.root import create_root

        create_root(args.datastore, authority.cluster_id)
    identity = authority.own_identity("registry", host, "ops", folder / "identity")
    orders = Orders(identity, settings.wire)
    registry = Registry(folder, authority, orders, settings, parse_roles(args.role), identity_folder=folder / "identity")
    port = args.port or choose_port(folder / "ports.json", "registry", host)
    server = Server("registry", registry.handlers(), identity, settings.wire, host, port)
    server.listen()
    write_file(folder / ADDRESS_FILE, f"{host}:{server.address[1]}\n".encode())
    server.start()
    registry.start()
    metrics = serve_metrics(settings.cluster.metrics, folder, RegistryMetrics(registry))
    if args.join_line:
        show_join_line(folder, f"{host}:{server.address[1]}", authority.create_token("node"), args.datastore)
    _keep_safe(args, settings, folder, (authority, identity, host), registry, ended)
    metrics.close()
    server.close(grace_s=1.0)
    registry.stop()
    return 0


def _keep_safe(
    args: argparse.Namespace,
    settings: Settings,
    folder: Path,
    own: tuple[Authority, Identity, str],
    registry: Registry,
    ended: threading.Event,
) -> None:
    """Copy what changes into the backup and renew the registry's own certificate, until `ended`."""
    authority, identity, host = own
    target = args.backup or (Path(settings.cluster.backup_dir) if settings.cluster.backup_dir else None)
    backup = Backup(folder, target.absolute()) if target else None
    renewal_at_s, trouble = 0.0, ""
    while True:
        if backup is not None:
            try:
                if backup.follow():
                    trouble = ""
            except OSError as exc:
                if str(exc) != trouble:
                    logger.error("the backup in %s is behind: %s", target, exc)
                    registry.journal.note("failure", f"the backup in {target} is behind: {exc}")
                trouble = str(exc)
        if time.monotonic() >= renewal_at_s:
            renewal_at_s = time.monotonic() + _RENEWAL_LOOK_S
            if is_renewal_due(identity):
                authority.own_identity("registry", host, "ops", folder / "identity")
        if ended.wait(_LOOK_S):
            return


def run_token(args: argparse.Namespace) -> int:
    """Print one new join token, list the good ones, or revoke one."""
    settings = read_settings(args.settings)
    folder = registry_folder(args, settings)
    if not (folder / "authority").exists():
        raise SettingsError(f"{folder} holds no cluster: start `labelloop registry` first, or give its --state")
    if (args.kind is not None) + args.list + (args.revoke is not None) != 1:
        raise InvalidInputError("say one of: a kind (node, ops, client), --list, --revoke ID")
    authority = Authority(folder / "authority", settings.cluster)
    if args.revoke is not None:
        authority.revoke_token(args.revoke)
        _say('{"revoked": true}' if args.json else "revoked")
    elif args.list:
        _show_tokens(authority.list_tokens(), args.json)
    elif args.life is not None and args.life <= 0:
        raise InvalidInputError(f"--life {args.life:g}: a token is good for more than 0 seconds")
    else:
        token = authority.create_token(cast(m.PeerKind, args.kind), args.life)
        _say(msgspec.json.encode({"token": token}).decode() if args.json else token)
    return 0


def _show_tokens(tokens: tuple[TokenView, ...], is_json: bool) -> None:
    if is_json:
        _say(msgspec.json.encode({"tokens": tokens}).decode())
        return
    for view in tokens:
        _say(f"{view.token_id}\t{view.kind}\tgood for {(view.expires_s - time.time()) / 3600:.1f} h")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
