"""What a manager starts on a train node: `start_train <config>` = the train worker, `start_train <config> --rpc` = train_rpc.

A composition root: reads the role's config file and the settings from the environment, builds, runs until SIGTERM.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path

import msgspec

from labelloop.errors import LabelloopError
from labelloop.logs import set_process_context, set_up_logs
from labelloop.messages import RoleConfig
from labelloop.settings import read_settings

logger = logging.getLogger("scripts.start_train")


def serve(config: RoleConfig) -> int:
    """Run train_rpc until SIGTERM or SIGINT."""
    from roles.train.rpc import run_train_rpc

    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    run_train_rpc(config, read_settings(None), ending)
    return 0


def work(config: RoleConfig, config_file: Path) -> int:
    """Run the train worker until SIGTERM or SIGINT."""
    from roles.train.worker import run_train_worker

    return run_train_worker(config, config_file, read_settings(None))


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0 = ended by a signal, 1 = it could not start (the log says why)."""
    parser = argparse.ArgumentParser(prog="start_train", description=__doc__)
    parser.add_argument("config", type=Path, help="file with the RoleConfig (JSON)")
    parser.add_argument("--rpc", action="store_true", help="serve train_rpc instead of training")
    chosen = parser.parse_args(arguments)
    config = msgspec.json.decode(chosen.config.read_bytes(), type=RoleConfig)
    settings = read_settings(None)
    set_up_logs(msgspec.structs.replace(settings.log, level=config.log_level))
    set_process_context(node=config.node, role="train-rpc" if chosen.rpc else "train")
    try:
        return serve(config) if chosen.rpc else work(config, chosen.config)
    except LabelloopError as exc:
        logger.error("start_train cannot run: %s", exc)
        return 1


if __name__ == "__main__":
    sys.exit(main())
