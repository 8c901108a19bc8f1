"""The store of an attempt: it listens on one address, and nothing is read, still less unpickled, that the attempt did not sign."""

from __future__ import annotations

import base64
import pickle
import socket
from pathlib import Path

import pytest
from torch.distributed.elastic.rendezvous import RendezvousConnectionError

from labelloop.errors import UnreachableError
from roles.train.board import join_board, open_board
from roles.train.rendezvous import signed_backend
from roles.train.sharing import Go, Opened
from tests.support_ranks import SECRET, ip_of

PATIENCE_S = 20.0


def test_an_entry_is_read_by_whoever_knows_the_secret_and_by_nobody_else() -> None:
    owner = open_board(ip_of(1), SECRET, PATIENCE_S)
    owner.put("opened", Opened(number=3, pids={"n2": 7}))
    rank = join_board(owner.host, owner.port, SECRET, PATIENCE_S)
    stranger = join_board(owner.host, owner.port, "a guess", PATIENCE_S)
    assert rank.find("opened", Opened) == Opened(number=3, pids={"n2": 7})
    assert stranger.find("opened", Opened) is None
    stranger.put("opened", Opened(number=4, pids={}))
    assert rank.find("opened", Opened) is None
    owner.remove("opened")
    assert owner.find("opened", Opened) is None


def test_an_entry_cannot_be_moved_to_another_name() -> None:
    owner = open_board(ip_of(1), SECRET, PATIENCE_S)
    owner.put("go/1/10", Go())
    owner.store.set("go/1/20", owner.store.get("go/1/10"))
    assert owner.find("go/1/20", Go) is None
    assert owner.find("go/1/10", Go) == Go()


class Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_a_rendezvous_state_that_a_stranger_wrote_is_never_unpickled(tmp_path: Path) -> None:
    owner = open_board(ip_of(1), SECRET, PATIENCE_S)
    backend = signed_backend(owner, 1)
    assert backend.get_state() is None
    state, token, is_mine = backend.set_state(b"our own state", None)
    assert (state, is_mine) == (b"our own state", True)
    assert backend.get_state() == (b"our own state", token)
    assert backend.set_state(b"too late", None)[2] is False
    stranger = join_board(owner.host, owner.port, "a guess", PATIENCE_S)
    bomb = stranger.seal("rendezvous-1", pickle.dumps(Bomb(tmp_path / "exploded")))
    stranger.store.set("rendezvous-1", base64.b64encode(bomb))
    with pytest.raises(RendezvousConnectionError, match="not written by this attempt"):
        backend.get_state()
    stranger.store.set("rendezvous-1", base64.b64encode(pickle.dumps(Bomb(tmp_path / "exploded"))))
    with pytest.raises(RendezvousConnectionError, match="not written by this attempt"):
        backend.get_state()
    assert not (tmp_path / "exploded").exists()


def test_the_store_listens_on_the_nodes_address_alone() -> None:
    owner = open_board(ip_of(1), SECRET, PATIENCE_S)
    socket.create_connection((owner.host, owner.port), timeout=PATIENCE_S).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((ip_of(2), owner.port), timeout=PATIENCE_S)


def test_an_address_of_another_machine_is_refused_with_its_name() -> None:
    with pytest.raises(UnreachableError, match=r"cannot listen on 192\.0\.2\.1"):
        open_board("192.0.2.1", SECRET, PATIENCE_S)
