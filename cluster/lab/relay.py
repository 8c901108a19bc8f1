"""A wire with a delay: frames between a docker and the bridge, each passed on some milliseconds later.

Owns the relay process of one docker and the devices around it; made because not every kernel has a delaying queue discipline.
Must never see a frame of another docker. `set_delay` is called by `faults`; the process runs as
`python -m cluster.lab.relay carry OUTER INNER MS`, and `... plain DEVICE` has a device send frames as they are on the wire.

    docker eth0 = wN ── relay ── sN = pN ── bridge        (without delay: docker eth0 = pN ── bridge)
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from cluster.lab.bridge import BRIDGE, await_up, in_bridge, port_of
from cluster.lab.dockers import CHECKOUT, watch
from cluster.lab.plan import mark_of
from cluster.lab.shell import call, find_program, succeeds
from cluster.process import MARK
from labelloop.errors import InternalError
from labelloop.tls import write_file

_ALL_PROTOCOLS = 0x0003
_SIOCETHTOOL = 0x8946
_OFFLOADS = (0x17, 0x19, 0x1F, 0x24)  # ETHTOOL_STXCSUM, SSG, STSO, SGSO
_FRAME_BYTES = 65536
_BUFFER_BYTES = 8 * 2**20
_PENDING = 20_000


def set_delay(folder: Path, keeper: int, first: int, number: int, delay_ms: float) -> None:
    """Give the wire of docker `number` this delay in each direction; 0 takes the relay away."""
    pid_file = folder / f"relay-{number}.pid"
    _end(pid_file)
    has_relay = succeeds(["nsenter", "--target", str(keeper), "--net", "--", "ip", "link", "show", f"w{number}"])
    if delay_ms <= 0:
        if has_relay:
            _join(keeper, number)
            await_up(keeper, port_of(number))
        return
    if not has_relay:
        _part(keeper, number)
    python = [sys.executable, "-m", "cluster.lab.relay"]
    for pid, device in ((first, "eth0"), (keeper, port_of(number))):
        call(["nsenter", "--target", str(pid), "--net", "--", *python, "plain", device], env=_environment(folder))
    argv = [find_program("nsenter"), "--target", str(keeper), "--net", "--", *python]
    with (folder / "keeper.log").open("ab") as log:
        popen = subprocess.Popen(
            [*argv, "carry", f"w{number}", f"s{number}", str(delay_ms)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=CHECKOUT,
            env=_environment(folder),
            start_new_session=True,
        )
    watch(popen)
    assert popen.stdout is not None
    with popen.stdout as pipe:
        if pipe.readline() != b"ready\n":
            raise InternalError(f"the relay of docker .{number} did not start: {(folder / 'keeper.log').read_text()[-300:]}")
    await_up(keeper, port_of(number))
    write_file(pid_file, f"{popen.pid}\n".encode(), 0o600)


def _environment(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(CHECKOUT), MARK: mark_of(folder)}


def _end(pid_file: Path) -> None:
    with contextlib.suppress(OSError, ValueError):
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
    pid_file.unlink(missing_ok=True)


def _part(keeper: int, number: int) -> None:
    port, wire, inner = port_of(number), f"w{number}", f"s{number}"
    in_bridge(
        keeper,
        ["ip", "-batch", "-"],
        f"link set {port} nomaster down\nlink set {port} name {wire}\nlink set {wire} up\n"
        f"link add name {port} type veth peer name {inner}\nlink set {inner} up\nlink set {port} master {BRIDGE} up\n",
    )


def _join(keeper: int, number: int) -> None:
    port, wire = port_of(number), f"w{number}"
    in_bridge(
        keeper,
        ["ip", "-batch", "-"],
        f"link delete {port}\nlink set {wire} down\nlink set {wire} name {port}\nlink set {port} master {BRIDGE} up\n",
    )


def main() -> int:
    """Carry frames until a device goes."""
    if sys.argv[1] == "plain":
        make_plain(sys.argv[2])
        return 0
    return carry(sys.argv[2], sys.argv[3], float(sys.argv[4]) / 1e3)


def make_plain(device: str) -> None:
    """Have a device checksum and cut its frames itself: the relay carries what a real wire could."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for command in _OFFLOADS:
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            request = struct.pack("16sP", device.encode(), ctypes.addressof(value))
            with contextlib.suppress(OSError):  # one that this kernel has not is off already
                fcntl.ioctl(probe, _SIOCETHTOOL, request.ljust(40, b"\0"))


def carry(outer: str, inner: str, delay_s: float) -> int:
    """Pass frames on between two devices, each `delay_s` after it came; returns when a device is gone."""
    ends = [_open(outer), _open(inner)]
    waiting: collections.deque[tuple[float, socket.socket, bytes]] = collections.deque()
    os.write(1, b"ready\n")
    while True:
        wait_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        readable, _, _ = select.select(ends, [], [], wait_s)
        due_s = time.monotonic() + delay_s
        try:
            for end in readable:
                _take(end, ends[1] if end is ends[0] else ends[0], due_s, waiting)
        except OSError:
            return 0
        now_s = time.monotonic()
        while waiting and waiting[0][0] <= now_s:
            _, out, frame = waiting.popleft()
            with contextlib.suppress(OSError):  # a full queue drops frames, as a wire does
                out.send(frame)


def _open(device: str) -> socket.socket:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    end.bind((device, 0))
    end.setblocking(False)
    return end


def _take(
    end: socket.socket, other: socket.socket, due_s: float, waiting: collections.deque[tuple[float, socket.socket, bytes]]
) -> None:
    while len(waiting) < _PENDING:
        try:
            frame, sender = end.recvfrom(_FRAME_BYTES)
        except BlockingIOError:
            return
        if sender[2] != socket.PACKET_OUTGOING:  # what we sent ourselves
            waiting.append((due_s, other, frame))


if __name__ == "__main__":
    sys.exit(main())
