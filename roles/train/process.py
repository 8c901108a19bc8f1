"""One process of a run whose library fixes its members at the start: started anew for each generation, it does steps until the end.

Owns its life from the order on standard input to its exit status: 0 = all done, else the generation is over. The first process
judges, saves, publishes and ends the run; the others only compute. Started by `lead` and `rank` as `python -m roles.train.process
<role config> <parent pid>`; it dies with its parent; how far it is goes to standard output, logs to standard error.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from datastore_layout.ranks import Checkpointed
from labelloop.errors import LabelloopError
from labelloop.logs import log_context, set_process_context, set_up_logs
from labelloop.messages import Message, RoleConfig, decode
from labelloop.settings import Settings, read_settings
from roles.hints import RunHint
from roles.train.child import EX_TEMPFAIL, die_with
from roles.train.orders import Frames, frame

if TYPE_CHECKING:
    from datastore_layout.runs import Checkpoint
    from learning.algorithms import Training
    from roles.train.attempt import Work
    from roles.train.samples import Samples

logger = logging.getLogger("roles.train.process")

_TELL_S = 0.3


class ProcessOrder(Message, frozen=True, kw_only=True):
    """Be process `index` of those at `addresses` (host:port; a single one = alone), from checkpoint `start` on."""

    hint: RunHint
    index: int
    addresses: tuple[str, ...]
    start: Checkpointed


class Progress(Message, frozen=True, kw_only=True):
    """The step reached, the steps and samples computed here; `text` is the last sentence."""

    step: int = 0
    steps: int = 0
    items: int = 0
    text: str = ""


class Process:
    """The parent's end: a started process; call `progress` now and then, and `end` last."""

    def __init__(self, config_file: Path, order: ProcessOrder) -> None:
        command = [sys.executable, "-m", "roles.train.process", str(config_file), str(os.getpid())]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(frame(order))
        self._process.stdin.close()
        self._out = self._process.stdout
        os.set_blocking(self._out.fileno(), False)
        self._frames = Frames()
        self._last = Progress()

    def status(self) -> int | None:
        """Return its exit status, None while it runs."""
        return self._process.poll()

    def progress(self) -> Progress:
        """Return how far it has said to be."""
        while True:
            try:
                data = os.read(self._out.fileno(), 65536)
            except BlockingIOError:
                break
            if not data:
                break
            for message in self._frames.feed(data):
                self._last = decode(Progress, message)
        return self._last

    def end(self) -> Progress:
        """Kill it, if it still runs, and return the last it said."""
        self._process.kill()
        self._process.wait()
        last = self.progress()
        self._out.close()
        return last


class Telling:
    """Takes the steps of its training and tells the parent how far it is."""

    def __init__(self, training: Training, out: int) -> None:
        self.training = training
        self._out, self._steps, self._told_s = out, 0, 0.0

    def advance(self, holds: bool = False) -> float:
        """Do one step and return its loss."""
        loss = self.training.advance()
        self._steps += 1
        if time.monotonic() - self._told_s >= _TELL_S:
            self.record()
        return loss

    def release(self) -> None:
        """The others wait in their next step."""

    def record(self) -> None:
        """Tell the parent."""
        self._told_s = time.monotonic()
        os.write(self._out, frame(Progress(step=self.training.step, steps=self._steps, items=self.training.n_seen)))

    def close(self) -> None:
        """Tell the parent for the last time."""
        self.record()


def serve(config: RoleConfig, settings: Settings, order: ProcessOrder, out: int) -> str:
    """Do the order's part of the run; return one sentence for the log."""
    from datastore_layout.root import open_root, task_folder
    from datastore_layout.runs import Attempt, read_run
    from learning.algorithms import find_algorithm

    folder = task_folder(open_root(Path(config.datastore_root), config.cluster_id), order.hint.task)
    spec = read_run(folder, order.hint.run)
    scope = _scope(order.addresses, order.index)
    find_algorithm(spec.algorithm).preload()
    attempt = Attempt(folder, order.hint.run, order.hint.attempt)
    work, made = _work(folder, spec, attempt, settings, order, scope, out)
    if order.index == 0:
        return work.do()
    frozen, samples = work.load()
    training, has_start = work.start(frozen, samples)
    checkpoint = work.checkpoint()
    if checkpoint is not None:
        training.restore({name: data for name, data in checkpoint.files().items() if name != made})
    stepper = work.stepper(training, samples, has_start)
    while training.step < training.steps:
        stepper.advance()
    stepper.close()
    return f"process {order.index} of run {order.hint.run} has done its part of all steps"


def _scope(addresses: Sequence[str], index: int) -> AbstractContextManager[Any]:
    from learning.algorithms.strategy import strategy_scope

    return strategy_scope(addresses, index) if len(addresses) > 1 else nullcontext()


def _work(
    folder: Any, spec: Any, attempt: Any, settings: Settings, order: ProcessOrder, scope: AbstractContextManager[Any], out: int
) -> tuple[Work, str]:
    """Return the run's work with our way to start, step and resume, and the name of what a checkpoint holds beside the state."""
    from roles.train.attempt import Work
    from roles.train.fitting import JUDGED
    from roles.train.sharing import Here

    class Part(Work):
        def begin(self) -> AbstractContextManager[Any]:
            return scope

        def stepper(self, training: Training, samples: Samples, has_start: bool) -> Telling:
            return Telling(training, out)

        def checkpoint(self) -> Checkpoint | None:
            return order.start.of(folder, order.hint.run)

    return Part(folder, spec, attempt, settings, Here()), JUDGED


def main(arguments: list[str]) -> int:
    """Read the order, carry it out, return the exit status."""
    die_with(int(arguments[1]))
    out = os.dup(1)
    os.dup2(2, 1)  # what a library prints belongs into the log
    config = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=RoleConfig)
    settings = read_settings(None)
    set_up_logs(msgspec.structs.replace(settings.log, level=config.log_level))
    set_process_context(node=config.node, role="train")
    order = decode(ProcessOrder, next(Frames().feed(sys.stdin.buffer.read())))
    with log_context(task=order.hint.task, run=str(order.hint.run)):
        try:
            logger.info("%s", serve(config, settings, order, out))
            status = 0
        except LabelloopError as exc:
            logger.warning("process %d stops: %s", order.index, exc)
            status = EX_TEMPFAIL
        except Exception:
            logger.exception("process %d broke, or lost the others", order.index)
            status = 1
    logging.shutdown()
    os._exit(status)  # the library's own threads may wait for peers for ever


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
