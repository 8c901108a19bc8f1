"""The ranks of one generation as a torch process group: gloo on CPUs, nccl on GPUs, bound to the node's cluster address.

Owns the process group. Must never decide who is in it (see `rendezvous`), nor what follows when a rank is lost. Called by a rank's
one training thread. A group that has failed once is of no further use.
"""

from __future__ import annotations

import ctypes
import datetime
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from labelloop.errors import RetryableError

if TYPE_CHECKING:
    import torch

_SIOCGIFCONF = 0x8912
_INTERFACE = struct.Struct("16s4x4s16x")  # struct ifreq of 64-bit Linux with an IPv4 address
_HOLD, _LEAVE = 0, 1  # places in the tail of each sum; behind them one count a rank


class RankLostError(RetryableError):
    """A rank of the group is gone or silent: the step did not happen, those who are left form a new group."""

    code = "unreachable"


class ProcessGroup(Protocol):
    """What is used of torch's process groups."""

    def allreduce(self, tensors: list[Any]) -> Any: ...
    def broadcast(self, tensor: Any, root: int) -> Any: ...
    def abort(self) -> None: ...


class Group:
    """A `Collective` of `size` ranks. `wants_hold` and `wants_leave` (rank 0 sets them) reach all ranks with the next sum and show
    in `is_held` and `is_leaving` there; `counts` are the samples each rank computed on in the last step."""

    def __init__(self, process_group: ProcessGroup, rank: int, size: int, device: torch.device) -> None:
        self._process_group, self.rank, self.size, self._device = process_group, rank, size, device
        self.wants_hold = self.wants_leave = False
        self.is_held = self.is_leaving = False
        self.counts: tuple[int, ...] = (0,) * size

    def sum_(self, tensors: Sequence[Any], n_samples: int) -> None:
        import torch

        tail = torch.zeros(2 + self.size, device=self._device)
        tail[_HOLD], tail[_LEAVE], tail[2 + self.rank] = float(self.wants_hold), float(self.wants_leave), float(n_samples)
        flat = torch.cat([*(tensor.reshape(-1).float() for tensor in tensors), tail])
        self._guarded(lambda: self._process_group.allreduce([flat]))
        at = 0
        for tensor in tensors:
            tensor.copy_(flat[at : at + tensor.numel()].reshape(tensor.shape))
            at += tensor.numel()
        said = flat[at:].tolist()
        self.is_held, self.is_leaving = said[_HOLD] > 0, said[_LEAVE] > 0
        self.counts = tuple(round(count) for count in said[2:])

    def newest_state(self, step: int, pack: Callable[[], bytes]) -> bytes | None:
        """Return the state of the rank with the highest step (of several, the lowest rank), None on that rank itself.

        `pack` gives this rank's own state. Raises RankLostError.
        """
        import torch

        steps = torch.zeros(self.size, dtype=torch.int64, device=self._device)
        steps[self.rank] = step
        self._guarded(lambda: self._process_group.allreduce([steps]))
        source = max(range(self.size), key=lambda rank: (int(steps[rank]), -rank))
        mine = pack() if source == self.rank else b""
        length = torch.tensor([len(mine)], dtype=torch.int64, device=self._device)
        self._guarded(lambda: self._process_group.broadcast(length, source))
        data = torch.zeros(int(length), dtype=torch.uint8)
        if mine:
            data = torch.frombuffer(bytearray(mine), dtype=torch.uint8)
        data = data.to(self._device)
        self._guarded(lambda: self._process_group.broadcast(data, source))
        return None if source == self.rank else data.cpu().numpy().tobytes()

    def _guarded(self, begin: Callable[[], Any]) -> None:
        try:
            begin().wait()
        except RuntimeError as exc:  # what gloo and nccl raise when a peer is gone, or silent for the timeout
            raise RankLostError(f"rank {self.rank} of {self.size} lost its peers: {str(exc).splitlines()[0]}") from exc

    def close(self) -> None:
        """Give up the connections, whatever waits on them."""
        if self._device.type == "cuda":
            self._process_group.abort()
        del self._process_group


def make_group(store: Any, rank: int, size: int, ip: str, timeout_s: float) -> Group:
    """Connect the ranks of one generation through `store` and return the group; gloo listens on `ip` alone.

    Raises RankLostError when they do not all come within `timeout_s`, which is also how long a silent peer is waited for later.
    """
    from torch import distributed

    from learning.algorithms.torch_training import choose_device

    device = choose_device()
    timeout = datetime.timedelta(seconds=timeout_s)
    try:
        if device.type == "cuda":
            return Group(_nccl(distributed, store, rank, size, ip, timeout), rank, size, device)
        options = distributed.ProcessGroupGloo._Options()
        options._timeout = timeout
        options._devices = [distributed.ProcessGroupGloo.create_device(hostname=ip)]
        return Group(distributed.ProcessGroupGloo(store, rank, size, options), rank, size, device)
    except RuntimeError as exc:
        raise RankLostError(f"rank {rank} of {size} could not connect to its peers: {str(exc).splitlines()[0]}") from exc


def interface_of(ip: str) -> str:
    """Return the name of the network interface that has the IPv4 address `ip`, '' when none has."""
    room = bytearray(64 * _INTERFACE.size)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        view = (ctypes.c_char * len(room)).from_buffer(room)
        asked = struct.pack("iL", len(room), ctypes.addressof(view))
        size = struct.unpack("iL", fcntl.ioctl(probe, _SIOCGIFCONF, asked))[0]
    for name, address in _INTERFACE.iter_unpack(room[:size]):
        if socket.inet_ntoa(address) == ip:
            return name.split(b"\0")[0].decode()
    return ""


def _nccl(distributed: Any, store: Any, rank: int, size: int, ip: str, timeout: datetime.timedelta) -> ProcessGroup:
    """Return an nccl group whose waits raise in this thread, so that a lost peer does not end the process.

    Left alone, nccl takes the first interface it finds, which need not be the cluster's.
    """
    if name := interface_of(ip):
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")
    os.environ["TORCH_NCCL_BLOCKING_WAIT"] = "1"
    os.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"] = "0"
    options = distributed.ProcessGroupNCCL.Options()
    options._timeout = timeout
    made: ProcessGroup = distributed.ProcessGroupNCCL(store, rank, size, options)
    return made
