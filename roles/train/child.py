"""The process that trains: started early, warm, one order, gone.

Owns its own life: it dies with its parent, imports the libraries first, waits for one order on its standard input and ends
after it. Must never be imported by the role process. Started by `runner` as
`python -m roles.train.child <role config> <parent pid> <algorithms>`. What it says on standard output is one sentence about how
the order ended; everything else goes to the log on standard error.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
from pathlib import Path

import msgspec

from labelloop.errors import LabelloopError
from labelloop.logs import log_context, set_process_context, set_up_logs
from labelloop.messages import RoleConfig, decode
from labelloop.settings import read_settings
from roles.hints import RunHint

logger = logging.getLogger("roles.train.child")

PR_SET_PDEATHSIG = 1
EX_TEMPFAIL = 75
BACKGROUND_NICE = 10


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent dies; end at once if it is dead already."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)


def warm(algorithms: list[str]) -> None:
    """Import what a training needs and train each algorithm once on a few numbers, in a thread of low priority.

    Linux keeps the priority of a thread, so the main thread stays at full speed for the order.
    """

    def work() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BACKGROUND_NICE)
        from roles.train import warming

        warming.warm(algorithms)

    thread = threading.Thread(target=work, name="warm")
    thread.start()
    thread.join()


def read_order(stream: int) -> RunHint | None:
    """Return the order that the parent writes before it closes the pipe; None when it closes it without one."""
    data = b""
    while part := os.read(stream, 65536):
        data += part
    return decode(RunHint, data) if data else None


def train(config: RoleConfig, hint: RunHint) -> str:
    """Carry the order out; return the sentence about its end."""
    from datastore_layout.root import open_root, task_folder
    from roles.train.attempt import run_attempt

    root = open_root(Path(config.datastore_root), config.cluster_id)
    return run_attempt(task_folder(root, hint.task), hint, read_settings(None))


def main(arguments: list[str]) -> int:
    """Run the process; 0 = the order was carried out, 75 = try again later, 1 = a defect, whose traceback is in the log."""
    die_with(int(arguments[1]))
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints belongs into the log
    config = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=RoleConfig)
    settings = read_settings(None)
    set_up_logs(msgspec.structs.replace(settings.log, level=config.log_level))
    set_process_context(node=config.node, role="train")
    warm([name for name in arguments[2].split(",") if name])
    hint = read_order(0)
    if hint is None:
        return 0
    with log_context(task=hint.task, run=str(hint.run)):
        try:
            said, status = train(config, hint), 0
            logger.info("%s", said)
        except LabelloopError as exc:
            said, status = str(exc), EX_TEMPFAIL
            logger.warning("attempt %d stops, another will follow: %s", hint.attempt, exc)
        except Exception as exc:
            said, status = f"{type(exc).__name__}: {exc}", 1
            logger.exception("attempt %d broke", hint.attempt)
    answer.write(said)
    answer.close()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
