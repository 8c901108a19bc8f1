"""torch elastic's rendezvous on the signed store of an attempt: who is in a generation, and as which rank.

Owns the door to torch.distributed.elastic. Must never open an unsigned state: the rendezvous unpickles it. Called by the owner and
the ranks of an attempt once a generation, all with the same generation number and number of nodes.

Each generation has a rendezvous of its own on the one store of the attempt, so that nobody waits until a dead member of the
generation before has expired; its keep-alives are therefore long, and clocks may differ by a minute.
"""

from __future__ import annotations

import base64
import datetime
import os
from typing import Any, NamedTuple

from labelloop.messages import Message
from roles.train.board import Board
from roles.train.group import RankLostError

LAST_CALL_S = 3.0
JOIN_S = 20.0
_KEEP_ALIVE_S, _KEEP_ALIVES = 30, 2
_EMPTY = "-"
_OPEN = "open"


class Seat(NamedTuple):
    """This process's place in a generation: rank 0 is the owner; `store` is the generation's own part of the attempt's store."""

    rank: int
    size: int
    store: Any


class OwnerRank(Message, frozen=True, kw_only=True):
    """Which rank the rendezvous gave the owner; all ranks are counted from there."""

    rank: int


def preload() -> None:
    """Import what `meet` needs, before anybody counts on this process: the rendezvous waits for no one who still imports."""
    import torch.distributed.elastic.rendezvous.dynamic_rendezvous  # noqa: F401


def meet(board: Board, generation: int, n_nodes: int, ip: str, is_owner: bool) -> Seat:
    """Take part in generation `generation` with up to `n_nodes` nodes and return this one's seat.

    It begins when the owner is there, and ends when all have come, or 3 s after the owner: a generation without it is of no use.
    Raises RankLostError when it does not come about, UnreachableError when the owner is gone.
    """
    from torch.distributed import DistError, PrefixStore
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.elastic.rendezvous.dynamic_rendezvous import DynamicRendezvousHandler, RendezvousTimeout

    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # or rank 0 opens a second store, on all addresses
    store = PrefixStore(f"generation-{generation}", board.store)
    timeout = RendezvousTimeout(join=datetime.timedelta(seconds=JOIN_S), last_call=datetime.timedelta(seconds=LAST_CALL_S))
    try:
        handler = DynamicRendezvousHandler.from_backend(
            run_id=f"generation-{generation}",
            store=store,
            backend=signed_backend(board, generation),
            min_nodes=1,
            max_nodes=n_nodes,
            local_addr=ip,
            timeout=timeout,
            keep_alive_interval=_KEEP_ALIVE_S,
            keep_alive_max_attempt=_KEEP_ALIVES,
        )
        if is_owner:
            store.set(_OPEN, "1")
        else:
            store.wait([_OPEN], datetime.timedelta(seconds=JOIN_S))
        info = handler.next_rendezvous()
        owner = _owner_rank(board, generation, info.rank, is_owner, store)
    except (RendezvousError, DistError) as exc:
        raise RankLostError(f"no rendezvous of generation {generation}: {exc}") from exc
    return Seat((info.rank - owner) % info.world_size, info.world_size, PrefixStore("ranks", store))


def _owner_rank(board: Board, generation: int, rank: int, is_owner: bool, store: Any) -> int:
    key = f"owner-{generation}"
    if is_owner:
        board.put(key, OwnerRank(rank=rank))
        return rank
    board.store.wait([key], datetime.timedelta(seconds=LAST_CALL_S + 2))
    found = board.find(key, OwnerRank)
    if found is None:
        raise RankLostError(f"the owner is not in generation {generation}")
    return found.rank


def signed_backend(board: Board, generation: int) -> Any:
    """Return the RendezvousBackend that keeps a generation's state on `board`, signed."""
    from torch.distributed.elastic.rendezvous import RendezvousConnectionError
    from torch.distributed.elastic.rendezvous.dynamic_rendezvous import RendezvousBackend

    key = f"rendezvous-{generation}"

    class SignedBackend(RendezvousBackend):
        """A state is (bytes, token); the token is what lies in the store, for compare-and-set."""

        @property
        def name(self) -> str:
            return "labelloop"

        def get_state(self) -> tuple[bytes, Any] | None:
            try:
                return self._opened(bytes(board.store.get(key))) if board.store.check([key]) else None
            except RuntimeError as exc:
                raise RendezvousConnectionError(f"the attempt's store is gone: {exc}") from exc

        def set_state(self, state: bytes, token: Any = None) -> tuple[bytes, Any, bool] | None:
            sealed = base64.b64encode(board.seal(key, state)).decode()
            try:
                board.store.compare_set(key, "", _EMPTY)  # an entry must exist to be compared with
                now = bytes(board.store.compare_set(key, token.decode() if token else _EMPTY, sealed))
            except RuntimeError as exc:
                raise RendezvousConnectionError(f"the attempt's store is gone: {exc}") from exc
            found = self._opened(now)
            return None if found is None else (*found, now == sealed.encode())

        def _opened(self, stored: bytes) -> tuple[bytes, Any] | None:
            if stored == _EMPTY.encode():
                return None
            try:
                state = board.open(key, base64.b64decode(stored, validate=True))
            except ValueError:
                state = None
            if state is None:
                raise RendezvousConnectionError(f"the state of generation {generation} was not written by this attempt")
            return state, stored

    return SignedBackend()
