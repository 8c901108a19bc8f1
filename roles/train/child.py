"""The warm spare of a train worker: it has every library in memory and becomes a training by one fork.

Owns its own life: it dies with its parent, imports first, then forks one process for each order on its standard input; each
training is a process, and a process group, of its own. It must never start a thread that lives, run a parallel region (a fork
would inherit its locks) or open a GPU: that is done in the forks. Must never be imported by the role process. Started by
`runner` as `python -m roles.train.child <role config> <parent pid> <algorithms>`; reports go to standard output, logs to
standard error.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from labelloop.errors import LabelloopError
from labelloop.logs import log_context, set_process_context, set_up_logs
from labelloop.messages import RoleConfig
from labelloop.nodefiles import read_machines
from labelloop.settings import Settings, read_settings
from roles.hints import RankHint, RunHint
from roles.train.orders import MOST_SAID, Frames, Order, Report, write_report

if TYPE_CHECKING:
    from roles.train.sharing import Here

logger = logging.getLogger("roles.train.child")

PR_SET_PDEATHSIG = 1
EX_TEMPFAIL = 75
BACKGROUND_NICE = 10
SAY_S = 1.0
PEACE_S = 2.0  # in which the processes of a booting node answer
_GPUS = "CUDA_VISIBLE_DEVICES"


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent dies; end at once if it is dead already."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def gpu_of(slot: int, visible: str, count: int) -> str:
    """Return which GPU the training in `slot` gets, as CUDA_VISIBLE_DEVICES names it, '' = no choice is to be made.

    `visible` is what that variable says so far, '' = all `count` of the node.
    """
    names = [name.strip() for name in visible.split(",")] if visible else [str(number) for number in range(count)]
    return names[slot % len(names)] if len(names) > 1 else ""


def await_order(most_s: float) -> None:
    """Return when the first order comes, at the latest after `most_s`: its libraries cost a booting node seconds of processor."""
    select.select([0], [], [], most_s)


def warm(names: list[str]) -> list[str]:
    """Import what trainings by `names` need, in a thread of low priority, and return the algorithms that are warm then.

    Linux keeps priorities by thread, so the forks of the main thread run at full speed.
    """
    found: list[str] = []

    def work() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BACKGROUND_NICE)
        found.extend(load(names))

    thread = threading.Thread(target=work, name="warm")
    thread.start()
    thread.join()
    return found


def load(names: list[str]) -> list[str]:
    """Import what trainings by `names` need; return the algorithms."""
    from roles.train import warming

    algorithms = warming.expand(names)
    warming.warm(algorithms)
    gc.collect()
    gc.freeze()  # what is in memory now stays shared with the forks
    return algorithms


class Spare:
    """The spare's loop over orders and ends of its forks."""

    def __init__(self, config: RoleConfig, config_file: Path, settings: Settings, reports: int, algorithms: list[str]) -> None:
        self._config = config
        self._config_file = config_file
        self._settings = settings
        self._reports = reports
        self._algorithms = algorithms
        self._frames = Frames()
        self._hints: dict[int, RunHint] = {}
        self._scratch = Path(config.state_dir) / "scratch"
        shutil.rmtree(self._scratch, ignore_errors=True)  # of a spare that was killed

    def run(self) -> None:
        """Serve until the parent closes the pipe; its forks are killed by the kernel then."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        write_report(self._reports, Report(kind="ready"))
        while True:
            ready, _, _ = select.select([0, wake_read], [], [])
            if wake_read in ready:
                os.read(wake_read, 4096)
            self._reap()
            if 0 in ready:
                data = os.read(0, 65536)
                if not data:
                    return
                for order in self._frames.orders(data):
                    self._fork(order)

    def _fork(self, order: Order) -> None:
        if order.algorithm not in self._algorithms:  # its first order waits for the import, all later ones find it done
            self._algorithms += load([order.algorithm])
        me = os.getpid()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.setpgid(0, 0)
                die_with(me)
                status = self._train(order)
            finally:
                logging.shutdown()
                os._exit(status)
        with contextlib.suppress(OSError):  # the fork did it first, or is over already
            os.setpgid(pid, pid)
        self._hints[pid] = order.hint
        write_report(self._reports, Report(kind="began", pid=pid, hint=order.hint))

    def _reap(self) -> None:
        while self._hints:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            shutil.rmtree(self._scratch / str(pid), ignore_errors=True)
            write_report(self._reports, Report(kind="ended", pid=pid, status=code, hint=self._hints.pop(pid)))

    def _train(self, order: Order) -> int:
        """Carry an order out in the fork; 0 = done, 75 = try again later, 1 = a defect, whose traceback is in the log."""
        hint = order.hint
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with log_context(task=hint.task, run=str(hint.run)):
            try:
                said, status = self._work(order), 0
                logger.info("%s", said)
            except LabelloopError as exc:
                said, status = str(exc), EX_TEMPFAIL
                logger.warning("attempt %d stops, another will follow: %s", hint.attempt, exc)
            except Exception as exc:
                said, status = f"{type(exc).__name__}: {exc}", 1
                logger.exception("attempt %d broke", hint.attempt)
        write_report(self._reports, Report(kind="said", pid=os.getpid(), text=said[:MOST_SAID], hint=hint))
        return status

    def _use_scratch(self) -> None:
        """Let what this fork and its children put into temporary files lie where it is removed however they end."""
        mine = self._scratch / str(os.getpid())
        mine.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(mine)

    def _use_gpu(self, slot: int) -> None:
        """Give this fork and its children one GPU of several, before a library looks for any."""
        count = len(list(Path("/dev").glob("nvidia[0-9]*")))
        if name := gpu_of(slot, os.environ.get(_GPUS, ""), count):
            os.environ[_GPUS] = name

    def _work(self, order: Order) -> str:
        from datastore_layout.root import open_root, task_folder
        from roles.train.attempt import run_attempt
        from roles.train.rank import run_rank

        self._use_scratch()
        self._use_gpu(order.slot)
        root = open_root(Path(self._config.datastore_root), self._config.cluster_id)
        folder, here = task_folder(root, order.hint.task), self._here(order.hint)
        if order.rank is not None:
            return run_rank(folder, order.rank, here, self._settings)
        return run_attempt(folder, order.hint, self._settings, here)

    def _here(self, hint: RunHint) -> Here:
        from roles.train.sharing import Here

        def call(rank: RankHint, node: str) -> None:
            write_report(self._reports, Report(kind="calls", pid=os.getpid(), hint=hint, rank=rank, node=node))

        said_s = 0.0

        def say(text: str) -> None:
            nonlocal said_s
            if time.monotonic() - said_s >= SAY_S:
                said_s = time.monotonic()
                write_report(self._reports, Report(kind="at", pid=os.getpid(), hint=hint, text=text))

        return Here(
            node=self._config.node,
            hostname=socket.gethostname(),
            ip=self._config.ip,
            config_file=self._config_file,
            machines=lambda: read_machines(Path(self._config.state_dir)).good,
            call=call,
            say=say,
        )


def main(arguments: list[str]) -> int:
    """Warm up, then serve orders until the parent closes the pipe."""
    die_with(int(arguments[1]))
    reports = os.dup(1)
    os.dup2(2, 1)  # what a library prints belongs into the log
    config = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=RoleConfig)
    settings = read_settings(None)
    set_up_logs(msgspec.structs.replace(settings.log, level=config.log_level))
    set_process_context(node=config.node, role="train")
    await_order(PEACE_S)
    algorithms = warm([name for name in arguments[2].split(",") if name])
    Spare(config, Path(arguments[0]), settings, reports, algorithms).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
