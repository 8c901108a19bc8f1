"""`./start.sh web`: the labelling app and its pilot, kept running, with the state they share.

Owns the processes. Must never hold their logic: they are `labelloop web`, `labelloop pilot` and, where no `web.redis_url` is set,
`labelloop broker`, which then holds nothing but the app's ranked queue. A composition root; registered by `scripts.cli`.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from cluster.authority import Authority
from cluster.commands import ADDRESS_FILE
from cluster.process import ProcessSpec
from cluster.supervisor import Supervisor
from cluster.tokenfile import add_token_once
from labelloop.errors import LabelloopError, RetryableError, SettingsError
from labelloop.logs import set_process_context, set_up_logs
from labelloop.settings import Settings, environment_of, read_settings
from labelloop.tls import write_file
from labelloop.wire import parse_address
from webapp.joining import JoiningCluster

logger = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent.parent
TOKEN_FILE = "client-token"


def register(subparsers: Any) -> None:
    """Add `web-stack`."""
    stack = subparsers.add_parser("web-stack", help="run app and pilot together (what ./start.sh web does)")
    stack.add_argument("--registry", required=True, metavar="HOST:PORT", help="where the registry listens")
    stack.add_argument(
        "--token-file", type=Path, metavar="FILE", help="join token of kind client; needed once, and not beside the registry"
    )
    add_token_once(stack)
    stack.add_argument("--settings", type=Path, help="TOML file of settings")
    stack.set_defaults(run=run_web_stack)


def run_web_stack(args: argparse.Namespace) -> int:
    """Keep all of it running until a signal."""
    parse_address(args.registry)
    settings = read_settings(args.settings)
    settings = msgspec.structs.replace(settings, state_dir=str(Path(settings.state_dir).absolute()))
    state = Path(settings.state_dir)
    set_up_logs(settings.log)
    set_process_context(node="web", role="supervisor")
    token_file = _join(args.registry, _keep_token(args, state), settings)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    supervisor = Supervisor(web_processes(args.registry, token_file, settings), settings.cluster)
    supervisor.start()
    print(f"labelloop web: http://{settings.web.host}:{settings.web.port} (logs in {state / 'logs'})", flush=True)
    while not ended.wait(3600.0):
        continue
    supervisor.stop()
    return 0


def web_processes(registry: str, token_file: Path | None, settings: Settings) -> tuple[ProcessSpec, ...]:
    """Return the processes of the app, the shared state among them unless the settings name a server for it."""
    state = Path(settings.state_dir)
    labelloop, env = (sys.executable, "-m", "scripts.cli"), environment_of(settings)
    joins = ("--registry", registry, *(("--token-file", str(token_file)) if token_file else ()))

    def process(name: str, *argv: str, layer: int) -> ProcessSpec:
        log = state / "logs" / f"{name}.log"
        grace_s = settings.cluster.shutdown_grace_s * 2  # open pages may hold the app for a while
        return ProcessSpec(name=name, argv=(*labelloop, *argv), log_file=log, env=env, cwd=HERE, stop_layer=layer, grace_s=grace_s)

    own_state = () if settings.web.redis_url else (process("broker", "broker", "--state", str(state / "broker"), layer=0),)
    return (*own_state, process("web", "web", *joins, layer=1), process("pilot", "pilot", *joins, layer=1))


def _join(registry: str, token_file: Path | None, settings: Settings) -> Path | None:
    """Be admitted before anything starts; return the token file that app and pilot still need.

    A registry that does not answer keeps nobody waiting: app and pilot join later. Raises UnauthenticatedError, SettingsError.
    """
    cluster = JoiningCluster(registry, settings, Path(settings.state_dir) / "client", token_file)
    try:
        cluster.join()
    except RetryableError as exc:
        logger.warning("app and pilot start all the same and join when it answers: %s", exc)
        return token_file
    except LabelloopError:
        (Path(settings.state_dir) / TOKEN_FILE).unlink(missing_ok=True)
        raise
    finally:
        cluster.close()
    (Path(settings.state_dir) / TOKEN_FILE).unlink(missing_ok=True)
    return None


def _keep_token(args: argparse.Namespace, state: Path) -> Path | None:
    """Return the file with the token: the given one, start.sh's own moved into the state folder, one made beside the registry."""
    kept = state / TOKEN_FILE
    if args.token_once is None:
        if args.token_file is None and _is_beside(args.registry, state) and not (state / "client" / "certificate.pem").exists():
            token = Authority(state / "registry" / "authority", read_settings(args.settings).cluster).create_token("client")
            write_file(kept, f"{token}\n".encode(), 0o600)
            return kept
        return args.token_file.absolute() if args.token_file else None
    kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        write_file(kept, args.token_once.read_bytes(), 0o600)
    except OSError as exc:
        raise SettingsError(f"cannot read the join token: {exc}; make one with `labelloop token client`") from exc
    args.token_once.unlink(missing_ok=True)
    return kept


def _is_beside(registry: str, state: Path) -> bool:
    """Return whether the registry at this address keeps its folder, and so the cluster's CA, below the same state folder."""
    address = state / "registry" / ADDRESS_FILE
    return address.exists() and address.read_text().strip() == registry and (state / "registry" / "authority").exists()
