"""The demo's folder: one demo at a time, ports that are free, files that are whole."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from labelloop.errors import ConflictError
from scripts.demo_state import LOCK, empty_state, hold_state, prepare_state


def test_a_second_demo_on_one_folder_is_refused_and_told_the_way_out(tmp_path: Path) -> None:
    lock = hold_state(tmp_path)
    with pytest.raises(ConflictError, match="--state"):
        hold_state(tmp_path)
    os.close(lock)
    os.close(hold_state(tmp_path))


def test_a_remembered_port_is_kept_until_somebody_else_listens_there(tmp_path: Path) -> None:
    prepare_state(tmp_path, 0)
    port = int((tmp_path / "port").read_text())
    prepare_state(tmp_path, 0)
    assert int((tmp_path / "port").read_text()) == port
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        prepare_state(tmp_path, 0)
    assert int((tmp_path / "port").read_text()) != port


def test_tokens_are_secret_and_stay(tmp_path: Path) -> None:
    prepare_state(tmp_path, 0)
    tokens = {path.name: path.read_text() for path in tmp_path.glob("*.token")}
    assert set(tokens) == {"node.token", "client.token", "ops.token"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.glob("*.token"))
    prepare_state(tmp_path, 0)
    assert {path.name: path.read_text() for path in tmp_path.glob("*.token")} == tokens


def test_a_fresh_start_leaves_nothing_but_the_lock(tmp_path: Path) -> None:
    lock = hold_state(tmp_path)
    prepare_state(tmp_path, 0)
    empty_state(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    os.close(lock)
