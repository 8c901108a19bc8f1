"""The process that a lab lives by: its network namespace holds the bridge, and it measures the lab's memory.

Owns `memory.json` (bytes now and at most) and `keeper.pid`. With `--until PID` it takes the whole lab down when that process is
gone, so that a killed test run leaves nothing. Started by `cluster.lab.lab` as `python -m cluster.lab.keeper FOLDER`.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from pathlib import Path

import msgspec

from cluster.lab.dockers import pid_of, pids_by_docker
from cluster.lab.plan import read_plan
from cluster.state import read_state, write_state
from labelloop.errors import LabelloopError
from labelloop.tls import write_file

_SAMPLE_S = 5.0
MEMORY_FILE = "memory.json"
PID_FILE = "keeper.pid"


class Memory(msgspec.Struct, frozen=True):
    """Memory of all dockers together, bytes, shared pages counted once: now, at most, and of each docker now."""

    now: int = 0
    peak: int = 0
    dockers: dict[str, int] = {}


def measure(folder: Path) -> Memory:
    """Return the memory of the lab in `folder` at this moment, with the highest measured so far, and keep it."""
    plan = read_plan(folder)
    firsts = {docker.name: pid_of(folder, docker.name) for docker in plan.dockers}
    pids = pids_by_docker(firsts.values())
    found = {name: sum(map(_share, pids.get(first, ()))) for name, first in firsts.items()}
    now = sum(found.values())
    before = read_state(folder / MEMORY_FILE, Memory) or Memory()
    memory = Memory(now=now, peak=max(now, before.peak), dockers=found)
    write_state(folder / MEMORY_FILE, memory)
    return memory


def peak_of(folder: Path) -> int:
    """Return the highest memory measured so far, bytes; 0 when there is no lab."""
    memory = read_state(folder / MEMORY_FILE, Memory)
    return memory.peak if memory else 0


def _share(pid: int) -> int:
    """Return the proportional share of memory of one process, bytes; 0 when it is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def main() -> int:
    """Keep the namespace until killed, or until the process named by `--until` is gone."""
    folder = Path(sys.argv[1])
    parent = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    watched = [os.pidfd_open(parent)] if parent else []
    write_file(folder / PID_FILE, f"{os.getpid()}\n".encode(), 0o600)
    os.write(1, b"ready\n")
    os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
    while True:
        until_s = time.monotonic() + _SAMPLE_S
        with contextlib.suppress(LabelloopError):  # no plan yet, or no longer
            measure(folder)
        if watched and select.select(watched, [], [], max(0.0, until_s - time.monotonic()))[0]:
            from cluster.lab.lab import take_down

            take_down(folder)
            return 0
        time.sleep(max(0.0, until_s - time.monotonic()))


if __name__ == "__main__":
    sys.exit(main())
