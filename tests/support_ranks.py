"""Ranks as real processes: forks that meet on the signed store of an attempt and form real gloo groups.

Owns the forks it starts and reaps exactly those. They leave by `os._exit`, so that nothing of pytest runs twice. Holds no test.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from roles.train.rendezvous import preload

SECRET = "a secret of this test"
OWNER_IP = "127.0.0.1"


def ip_of(n: int) -> str:
    """Return the loopback address that stands for node `n`, counted from 0."""
    return f"127.0.0.{n + 1}"


@contextlib.contextmanager
def forked(n: int, work: Callable[[int], None], errors: Path) -> Iterator[list[int]]:
    """Run `work(rank)` in `n` forks, ranks from 1 on; at the end wait for them. A traceback goes to a file below `errors`."""
    preload()  # or each fork imports it while the others wait
    gc.freeze()  # what earlier tests left must not be collected in a fork: it may wait for a thread that is not there (seen)
    pids: list[int] = []
    for rank in range(1, n + 1):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                stuck = (errors / f"rank-{rank}.txt").open("w")
                faulthandler.dump_traceback_later(90, exit=True, file=stuck)  # a fork never outlives its test for long
                torch.set_num_threads(1)  # it has inherited the name of a thread pool, not its threads
                work(rank)
                status = 0
            except BaseException:
                (errors / f"rank-{rank}.txt").write_text(traceback.format_exc())
            finally:
                os._exit(status)
        pids.append(pid)
    gc.unfreeze()
    try:
        yield pids
    finally:
        for pid in pids:
            os.waitpid(pid, 0)


def errors_in(folder: Path) -> str:
    """Return the tracebacks that forks left behind."""
    return "\n".join(path.read_text() for path in sorted(folder.glob("rank-*.txt"))).strip()
