"""The runner's end of the warm spare: one process that waits with all libraries in memory and forks a training an order.

Owns that process and its pipes. Must never import numpy or a model library. Called by the runner's one thread alone, because the
kernel's parent-death signal goes by the thread that spawned.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from roles.train.orders import Frames, Order, Report, frame


class SpareProcess:
    """A started spare; orders given before it is warm wait in its pipe."""

    def __init__(self, config_file: Path, environment: Mapping[str, str], algorithms: tuple[str, ...]) -> None:
        command = [sys.executable, "-m", "roles.train.child", str(config_file), str(os.getpid()), ",".join(algorithms)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(environment), start_new_session=True
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._orders, self._reports = self._process.stdin, self._process.stdout
        os.set_blocking(self._reports.fileno(), False)
        self._frames = Frames()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def fileno(self) -> int:
        """Return what to select on for its reports."""
        return self._reports.fileno()

    def give(self, order: Order) -> bool:
        """Hand over an order; False when the spare is dead."""
        try:
            self._orders.write(frame(order))
            self._orders.flush()
        except OSError:
            return False
        return True

    def reports(self) -> list[Report] | None:
        """Return what it has reported since the last call; None when it is dead and has nothing left to say."""
        data = b""
        while True:
            try:
                part = os.read(self._reports.fileno(), 65536)
            except BlockingIOError:
                break
            if not part:
                return self._frames.reports(data) if data else None
            data += part
        return self._frames.reports(data)

    def end(self) -> int:
        """Kill it, and by the kernel every training it forked; return its exit status."""
        self._process.kill()
        status = self._process.wait()
        for pipe in (self._orders, self._reports):
            with contextlib.suppress(OSError):
                pipe.close()
        return status
