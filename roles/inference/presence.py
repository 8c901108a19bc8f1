"""Who is alive on this node, told by file locks that the kernel drops at a process's death.

Owns two lock files below the node's state folder: one held by the interactive worker, one by the inference_rpc process that
dispatches jobs. Must never be used on the datastore (a network file system) or across nodes. POSIX record locks: a forked child
does not inherit them, and kill -9 frees them at once, so no clock and no heartbeat is read.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Seat:
    """One seat on this node: at most one process holds it."""

    def __init__(self, state_dir: str, name: str) -> None:
        self.path = Path(state_dir) / f"{name}.lock"
        self._descriptor = -1

    def take(self, *, wait: bool = False) -> bool:
        """Hold the seat until this process ends or `leave`s; returns False when another process holds it and `wait` is off."""
        if self._descriptor >= 0:
            return True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def leave(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def is_taken(self) -> bool:
        """Return whether another process holds the seat. Never call it in the holder: closing the file would free the seat."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


def worker_seat(state_dir: str, node: str) -> Seat:
    """Return the seat of the node's interactive worker."""
    return Seat(state_dir, f"inference-worker-{node}")


def dispatcher_seat(state_dir: str, node: str) -> Seat:
    """Return the seat of the one inference_rpc process of the node that dispatches jobs."""
    return Seat(state_dir, f"inference-dispatcher-{node}")
