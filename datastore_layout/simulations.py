"""Simulations that the cluster works: data that all nodes read, and how far each cell is.

Owns `<root>/_simulations/<name>/`, which no task can be called: `data/` published once, `cells/<cell>/<n>` a cell's files after n
rounds, each a new immutable file of which the highest number counts, `cells/<cell>/tries-<n>/` how often somebody began there, and
`cells/<cell>/failed` why nobody shall again. Must never hold what cannot be made again. Called by roles.simulate.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from datastore_layout.envelope import seal, unseal
from datastore_layout.files import (
    beside_name,
    claim_dir,
    create_exclusive,
    discard_tree,
    ensure_dir,
    exists,
    list_numbers,
    publish_dir,
    read_file,
    remove_dir,
    write_new,
)
from datastore_layout.root import Root
from labelloop.errors import NotFoundError
from labelloop.ids import parse_token
from labelloop.messages import Message

_TOP = "_simulations"


class CellFiles(Message, frozen=True, kw_only=True):
    """A cell's folder as it was after some rounds: content by file name."""

    files: dict[str, bytes]


class CellFailure(Message, frozen=True, kw_only=True):
    """Why a cell is not worked any more."""

    reason: str


class SimulationFolder:
    """One simulation by name. Nothing is created before the first write; threads and nodes may share it."""

    def __init__(self, root: Root, name: str) -> None:
        self._root = root
        self.path = root.path / _TOP / parse_token(name, "simulation")

    @property
    def data(self) -> Path:
        """The folder of the data, for reading."""
        return self.path / "data"

    def is_there(self) -> bool:
        """Return whether the data is published; a simulation that is over has been removed."""
        return exists(self.data)

    def publish_data(self, files: Mapping[str, Path]) -> None:
        """Copy local files into `data`, unless it is there already. Raises StorageFullError, NotReadyError."""
        if self.is_there():
            return
        self._root.check()
        staged = beside_name(ensure_dir(self._root.path, self.path))
        try:
            ensure_dir(self.path, staged)
            for name, source in files.items():
                write_new(staged / parse_token(name, "file"), [source.read_bytes()])
            publish_dir(staged, self.data)
        except BaseException:
            discard_tree(staged)
            raise

    def cell(self, cell: str) -> tuple[int, dict[str, bytes]]:
        """Return how many rounds of `cell` are over, and its files; (0, {}) before the first. Raises IntegrityError."""
        rounds = self.rounds(cell)
        if not rounds:
            return 0, {}
        path = self._cell(cell) / str(rounds)
        return rounds, unseal("cell", read_file(path), CellFiles, path).files

    def rounds(self, cell: str) -> int:
        """Return how many rounds of `cell` are over."""
        return max(list_numbers(self._cell(cell)), default=0)

    def publish_cell(self, cell: str, rounds: int, files: Mapping[str, bytes]) -> bool:
        """Record the files of `cell` after `rounds`; False when somebody else did. Raises StorageFullError, NotReadyError."""
        path = self._ready(cell) / str(rounds)
        return create_exclusive(path, *seal("cell", CellFiles(files=dict(files))))

    def begin(self, cell: str, rounds: int, most: int) -> bool:
        """Record that somebody begins after `rounds`, before the work; False when `most` did and none came further."""
        place = ensure_dir(self._root.path, self._ready(cell) / f"tries-{rounds}")
        return any(claim_dir(place / str(number)) for number in range(1, most + 1))

    def fail(self, cell: str, reason: str) -> None:
        """Record that `cell` shall not be worked any more."""
        create_exclusive(self._ready(cell) / "failed", *seal("failure", CellFailure(reason=reason), is_text=True))

    def failure(self, cell: str) -> str | None:
        """Return why `cell` is not worked any more; None when it may be."""
        path = self._cell(cell) / "failed"
        try:
            return unseal("failure", read_file(path), CellFailure, path).reason
        except NotFoundError:
            return None

    def remove(self) -> None:
        """Remove the whole simulation."""
        remove_dir(self.path)

    def _cell(self, cell: str) -> Path:
        return self.path / "cells" / parse_token(cell, "cell")

    def _ready(self, cell: str) -> Path:
        self._root.check()
        return ensure_dir(self._root.path, self._cell(cell))
