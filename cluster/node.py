"""`labelloop node`: makes this docker a node of the cluster, or says in one sentence why it cannot be one.

Owns the checks before a node runs (one a state folder, the datastore, the admission) and the node's record. Must never keep a
token longer than its admission takes, nor show one. Registered by `scripts.cli`; start.sh runs it. What then keeps the node
running is `cluster.guard`, which this process becomes.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cluster.election import parse_ip
from cluster.joining import holder_of, join, own_address
from cluster.mount import check_datastore, ensure_mounted
from cluster.noderecord import LOCK_FD, NodeRecord, log_file, manager_port, read_record, write_record
from cluster.process import tail_log
from cluster.tokenfile import add_token_once
from labelloop.errors import ConflictError, DeadlineError, LabelloopError, NotFoundError, SettingsError, UnauthenticatedError
from labelloop.ids import parse_node
from labelloop.logs import set_process_context, set_up_logs
from labelloop.settings import Settings, read_settings
from labelloop.tls import load_identity, write_file
from labelloop.wire import parse_address

logger = logging.getLogger(__name__)

DEFAULT_STATE = Path("/var/lib/labelloop")
_RETRY_S = 2.0
_STARTED_S = 120.0
_TOKEN_FILE = "join-token"


def register(subparsers: Any) -> None:
    """Add `node`."""
    node = subparsers.add_parser(
        "node",
        help="run this docker as a node of a cluster",
        description="Run this docker as a node of a cluster: mount and check the datastore, be admitted, then keep broker, manager "
        "and roles running until a signal. A second start on the same state folder says so and ends well; after a reboot the "
        "same line without --token takes the node up where it was.",
    )
    node.add_argument("--registry", metavar="HOST:PORT", help="where the registry listens")
    node.add_argument("--token", metavar="T", help="join token of kind node; needed once, moved out of sight at once")
    node.add_argument("--token-file", type=Path, metavar="FILE", help="file with that token instead")
    add_token_once(node)
    node.add_argument("--datastore", type=Path, metavar="PATH", help="where the shared datastore is mounted")
    node.add_argument("--mount", metavar="COMMAND", default="", help="shell command that mounts it, run whenever it is not mounted")
    node.add_argument("--name", default="", help="host name of the node (default: this machine's)")
    node.add_argument("--ip", default="", help="address of the node (default: the one that reaches the registry)")
    node.add_argument("--state", type=Path, default=DEFAULT_STATE, help=f"folder of all it keeps (default {DEFAULT_STATE})")
    node.add_argument("--broker", choices=("rabbitmq", "embedded"), default="rabbitmq", help="default rabbitmq")
    node.add_argument(
        "--one-machine",
        action="store_true",
        help="the cluster is this machine alone: the datastore may be a plain folder, and /etc/hosts stays as it is",
    )
    node.add_argument("--settings", type=Path, help="TOML file of settings")
    node.add_argument("--rejoin", action="store_true", help="come back after `leave`")
    node.add_argument("--detach", action="store_true", help="go on in the background; return once the manager answers")
    node.add_argument("--stop", action="store_true", help="stop the node that runs on --state")
    node.set_defaults(run=run_node)


def run_node(args: argparse.Namespace) -> int:
    """Check, be admitted, and become the guard of the node. Returns only when there is nothing to run here."""
    settings = read_settings(args.settings)
    set_up_logs(settings.log)
    state = args.state.absolute()
    if args.stop:
        return _stop(state)
    _hide_token(args, state)
    record = _make_record(args, state)
    set_process_context(node=record.name, role="node")
    try:
        lock = _take_lock(state)
        if lock is None:
            return _say_running(state, record)
        prepare(record, state, settings)
    finally:
        if args.token_once is not None:
            args.token_once.unlink(missing_ok=True)
    write_record(state, record)
    os.dup2(lock, LOCK_FD)
    if args.detach:
        return _detach(state, record)
    return os.execv(sys.executable, _guard_argv(state))


def prepare(record: NodeRecord, state: Path, settings: Settings) -> None:
    """Return once the datastore can be used and the node is admitted.

    A node that was never admitted fails at once with the sentence; one that was goes on trying, because after a power cut the
    datastore's servers may come back later than the docker.
    """
    was_admitted = _is_admitted(state, record)
    said = ""
    while True:
        try:
            if not record.is_one_machine:
                ensure_mounted(Path(record.datastore), record.mount, state / "logs" / "mount.log")
            check_datastore(Path(record.datastore))
            break
        except LabelloopError as exc:
            if not was_admitted or not exc.is_retryable:
                raise
            if str(exc) != said:
                logger.warning("waiting for the datastore: %s", exc)
            said = str(exc)
            time.sleep(_RETRY_S)
    token = Path(record.token_file) if record.token_file else None
    join(record.registry, token, record.name, record.ip, "node", state / "identity", settings.wire)
    (state / _TOKEN_FILE).unlink(missing_ok=True)


def _is_admitted(state: Path, record: NodeRecord) -> bool:
    try:
        held = holder_of(load_identity(state / "identity"))
    except UnauthenticatedError:
        return False
    return (held.name, held.address) == (record.name, record.ip)


def _make_record(args: argparse.Namespace, state: Path) -> NodeRecord:
    """Return what was asked for; what the command line leaves out is as the last time. Raises SettingsError naming what lacks."""
    before = read_record(state)
    registry = args.registry or (before.registry if before else "")
    datastore = str(args.datastore.absolute()) if args.datastore else (before.datastore if before else "")
    for value, option in ((registry, "--registry HOST:PORT"), (datastore, "--datastore PATH")):
        if not value:
            raise SettingsError(f"{option} is needed: the registry prints the whole line when it starts")
    parse_address(registry)
    try:
        ip = args.ip or own_address(registry)
    except SettingsError:  # the network may be late after a reboot
        if before is None:
            raise
        ip = before.ip
    token_file = args.token_once or args.token_file or (state / _TOKEN_FILE)
    return NodeRecord(
        name=parse_node(args.name or (before.name if before else socket.gethostname().lower())),
        ip=str(parse_ip(ip, True)),
        registry=registry,
        datastore=datastore,
        mount=args.mount or (before.mount if before and before.datastore == datastore else ""),
        broker=args.broker,
        is_one_machine=args.one_machine,
        settings_file=str(args.settings.absolute()) if args.settings else "",
        token_file=str(token_file.absolute()) if token_file.exists() else "",
        has_to_rejoin=args.rejoin,
    )


def _hide_token(args: argparse.Namespace, state: Path) -> None:
    """Move a token of the command line into a file and start over without it: others on this machine can read command lines."""
    if not args.token:
        return
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_file(state / _TOKEN_FILE, f"{args.token}\n".encode(), 0o600)
    words, rest = [], iter(sys.argv[1:])
    for word in rest:
        if word == "--token":
            next(rest, None)
        elif not word.startswith("--token="):
            words.append(word)
    os.execv(sys.executable, [sys.executable, "-m", "scripts.cli", *words])


def _take_lock(state: Path) -> int | None:
    """Return the descriptor of the state folder's lock, None while another process holds it."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(state / "node.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _say_running(state: Path, wanted: NodeRecord) -> int:
    running = read_record(state)
    if running is None:
        raise ConflictError(f"another `labelloop node` is just starting on {state}: wait for it")
    if (running.registry, running.datastore, running.name) != (wanted.registry, wanted.datastore, wanted.name):
        raise ConflictError(
            f"node {running.name} runs on {state} with registry {running.registry} and datastore {running.datastore}: "
            "stop it first (labelloop node --stop), then start it with the new ones"
        )
    _say(f"node {running.name} runs already at {running.ip} (process {running.pid}); nothing to do")
    return 0


def _stop(state: Path) -> int:
    lock = _take_lock(state)
    running = read_record(state)
    if lock is not None or running is None or not running.pid:
        if lock is not None:
            os.close(lock)
        raise NotFoundError(f"no node runs on {state}")
    os.kill(running.pid, signal.SIGTERM)
    until_s = time.monotonic() + _STARTED_S
    while (lock := _take_lock(state)) is None:
        if time.monotonic() > until_s:
            raise DeadlineError(f"the node on {state} (process {running.pid}) does not stop")
        time.sleep(0.1)
    os.close(lock)
    _say(f"node {running.name} is stopped")
    return 0


def _guard_argv(state: Path) -> list[str]:
    return [sys.executable, "-m", "cluster.guard", str(state)]


def _detach(state: Path, record: NodeRecord) -> int:
    """Start the guard in a session of its own and return once the manager answers."""
    log = log_file(state)
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with log.open("ab") as out:
        guard = subprocess.Popen(
            _guard_argv(state), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, pass_fds=(LOCK_FD,)
        )
    os.close(LOCK_FD)
    until_s = time.monotonic() + _STARTED_S
    while not _answers(record.ip, manager_port(state)):
        if guard.poll() is not None or time.monotonic() > until_s:
            words = tail_log(log.parent / "manager.log", 1) or tail_log(log, 1)
            raise DeadlineError(f"the manager of node {record.name} does not answer (logs in {log.parent}): {words}")
        time.sleep(0.1)
    _say(f"node {record.name} runs at {record.ip} (process {guard.pid}); its log is {log}")
    return 0


def _answers(ip: str, port: int) -> bool:
    if not port:
        return False
    try:
        socket.create_connection((ip, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
