"""`python -m scripts.start_inference <role config> [--rpc]`: the Celery workers of an inference node, or its inference_rpc.

Owns reading settings and config, the environment that a process needs before its first import, and the choice. Must never hold
logic beyond that. Called by the manager.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from labelloop.errors import LabelloopError, SettingsError
from labelloop.logs import set_process_context, set_up_logs
from labelloop.messages import RoleConfig
from labelloop.settings import Settings, read_settings

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def read_config(path: Path) -> RoleConfig:
    """Return the role config the manager wrote. Raises SettingsError naming the file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=RoleConfig)
    except (OSError, msgspec.MsgspecError) as exc:
        raise SettingsError(f"cannot read the role config {path}: {exc}") from exc


def _start_workers(config: RoleConfig, settings: Settings) -> int:
    from roles.celery_app import import_worker
    from roles.inference import worker
    from roles.inference.forks import Family

    import_worker(config.broker_url)  # once, before the fork: both workers need it, and so does one that is forked again
    kinds = (worker.INTERACTIVE, worker.BULK)
    members = [(f"{kind} worker", functools.partial(worker.run, config, settings, kind)) for kind in kinds]
    return Family(members, settings.cluster.shutdown_grace_s).run()


def _allocator() -> dict[str, str]:
    from roles.celery_app import ALLOCATOR_ENVIRONMENT  # an RPC process is spared what this imports until it has its environment

    return dict(ALLOCATOR_ENVIRONMENT)


def _with_environment(wanted: dict[str, str], argv: Sequence[str]) -> None:
    """Start this process anew with `wanted` in its environment, unless it is there: glibc and BLAS read it before main()."""
    if all(os.environ.get(name) == value for name, value in wanted.items()):
        return
    command = [sys.executable, "-m", "scripts.start_inference", *argv]
    os.execve(sys.executable, command, {**os.environ, **wanted})


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM; exit status 1 = it could not start, with the sentence in the log."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="start_inference", description="Workers of an inference node, or its RPC.")
    parser.add_argument("config", type=Path, help="role config file written by the manager")
    parser.add_argument("--rpc", action="store_true", help="serve inference_rpc instead of working")
    args = parser.parse_args(argv)
    _with_environment(_ONE_THREAD if args.rpc else _allocator(), argv)
    try:
        config = read_config(args.config)
        settings = read_settings(None)
        set_up_logs(msgspec.structs.replace(settings.log, level=config.log_level))
        set_process_context(node=config.node, role="inference-rpc" if args.rpc else "inference")
        if args.rpc:
            from roles.inference import service

            return service.run(config, settings)
        return _start_workers(config, settings)
    except LabelloopError as exc:
        print(f"start_inference: {exc}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
