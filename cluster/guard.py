"""Keeps one node running: its manager (and, with the embedded broker, that), and the datastore's mount.

Owns those processes and the mount's upkeep. Must never decide what the node does: the manager does. `labelloop node` becomes this
process (`python -m cluster.guard STATE`), which holds the lock of the state folder; it imports little: every docker has one.

Threads: the mount is looked after in one of its own, because a hung file system blocks whoever asks it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path

import msgspec

from cluster.mount import ensure_mounted, is_alive, is_mounted
from cluster.noderecord import LOCK_FD, NodeRecord, read_record, write_record
from cluster.supervisor import ProcessSpec, Supervisor
from labelloop.errors import LabelloopError, NotFoundError
from labelloop.logs import set_process_context, set_up_logs
from labelloop.settings import Settings, environment_of, read_settings

logger = logging.getLogger(__name__)

CHECKOUT = Path(__file__).resolve().parents[1]
HOSTS = "/etc/hosts"
_LOOK_S = 1.0


def main() -> int:
    """Run until SIGTERM or SIGINT."""
    state = Path(sys.argv[1])
    record = read_record(state)
    if record is None:
        raise NotFoundError(f"{state} holds no node: start it with `labelloop node`")
    os.set_inheritable(LOCK_FD, False)
    settings = read_settings(Path(record.settings_file) if record.settings_file else None)
    set_up_logs(settings.log)
    set_process_context(node=record.name, role="node")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    write_record(state, msgspec.structs.replace(record, pid=os.getpid(), has_to_rejoin=False))
    supervisor = Supervisor(processes(record, state, settings), settings.cluster)
    supervisor.start()
    logger.info("node %s runs at %s, state in %s", record.name, record.ip, state)
    if not record.is_one_machine:
        threading.Thread(target=_keep_mounted, args=(record, state, ended), name="mount", daemon=True).start()
    while not ended.wait(3600.0):
        continue
    supervisor.stop()
    write_record(state, msgspec.structs.replace(record, pid=0, has_to_rejoin=False))
    logger.info("node %s is stopped", record.name)
    return 0


def processes(record: NodeRecord, state: Path, settings: Settings) -> tuple[ProcessSpec, ...]:
    """Return what the guard keeps running."""
    env = environment_of(msgspec.structs.replace(settings, state_dir=str(state)))
    argv = [sys.executable, str(CHECKOUT / "manager_rpc.py"), "--name", record.name, "--ip", record.ip]
    argv += ["--state", str(state), "--registry", record.registry, "--datastore", record.datastore]
    argv += ["--rejoin"] if record.has_to_rejoin else []
    argv += [] if record.is_one_machine else ["--hosts-file", HOSTS]
    logs = state / "logs"
    grace_s = settings.cluster.shutdown_grace_s * 2  # the manager stops role processes, each with a grace of its own
    found = []
    if record.broker == "embedded":
        broker = (sys.executable, "-m", "scripts.cli", "broker", "--state", str(state / "broker"))
        found.append(ProcessSpec(name="broker", argv=broker, log_file=logs / "broker.log", env=env, cwd=CHECKOUT, stop_layer=0))
    else:
        argv += ["--broker", record.broker]
    manager = ProcessSpec(
        name="manager", argv=tuple(argv), log_file=logs / "manager.log", env=env, cwd=CHECKOUT, stop_layer=1, grace_s=grace_s
    )
    return (*found, manager)


def _keep_mounted(record: NodeRecord, state: Path, ended: threading.Event) -> None:
    """Mount the datastore again whenever it is gone or dead; say so once."""
    path, said = Path(record.datastore), ""
    while not ended.wait(_LOOK_S):
        try:
            if is_mounted(path) and is_alive(path):
                said = ""
                continue
            ensure_mounted(path, record.mount, state / "logs" / "mount.log")
            said = ""
        except LabelloopError as exc:
            if str(exc) != said:
                logger.warning("the datastore is gone: %s", exc)
            said = str(exc)
        except Exception:  # the daemon loop
            logger.exception("a look at the mount failed, trying again")


if __name__ == "__main__":
    sys.exit(main())
