"""What goes wrong in a lab, on purpose: frozen dockers, cut wires, slow wires.

Owns the rules in the bridge's namespace and the relays of slow wires. Must never touch the machine's own rules. Called by `lab`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from cluster.lab.bridge import in_bridge, port_of
from cluster.lab.dockers import command_of, pids_in
from cluster.lab.plan import mark_of
from cluster.lab.relay import set_delay
from cluster.process import find_marked
from labelloop.errors import DeadlineError

_TABLE = "lab"
_STOP_S = 10.0


def freeze(first: int) -> None:
    """SIGSTOP every process of a docker until none runs; process 1 last, so that no new child is missed."""
    _signal_all(first, signal.SIGSTOP, wanted="tTZX")


def thaw(folder: Path, first: int) -> None:
    """SIGCONT every process of a docker, and each nsenter that stopped itself because its child inside was stopped."""
    entered = [pid for pid in find_marked(mark_of(folder)) if f"--target {first} " in command_of(pid)]
    for pid in (*pids_in(first), *entered):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _signal_all(first: int, number: int, wanted: str) -> None:
    until_s = time.monotonic() + _STOP_S
    while running := [pid for pid in pids_in(first) if _state(pid) not in wanted]:
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if time.monotonic() > until_s:
            raise DeadlineError(f"processes {running} do not stop")
        time.sleep(0.01)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def partition(keeper: int, groups: Sequence[Sequence[int]]) -> None:
    """Drop every frame between ports of different groups; earlier cuts are replaced."""
    heal(keeper)
    rules = []
    for number, group in enumerate(groups):
        others = [port for other, ports in enumerate(groups) if other != number for port in ports]
        if group and others:
            rules.append(f"iifname {_names(group)} oifname {_names(others)} drop")
    text = "".join(f"    {rule}\n" for rule in rules)
    chain = f"  chain cut {{\n    type filter hook forward priority 0; policy accept;\n{text}  }}\n"
    in_bridge(keeper, ["nft", "-f", "-"], f"table bridge {_TABLE} {{\n{chain}}}\n")


def heal(keeper: int) -> None:
    """Forget every cut."""
    in_bridge(keeper, ["nft", "-f", "-"], f"table bridge {_TABLE}\ndelete table bridge {_TABLE}\n")


def _names(numbers: Sequence[int]) -> str:
    return "{ " + ", ".join(f'"{port_of(number)}"' for number in numbers) + " }"


def slow(folder: Path, keeper: int, first: int, number: int, delay_ms: float) -> None:
    """Put a relay between a docker's wire and the bridge, replace it, or take it away (0)."""
    set_delay(folder, keeper, first, number, delay_ms)
