"""What a cycle keeps: one folder, immutable files a round, never a pickle.

Owns the files' names and how they get there: written beside, synced, renamed, so that a reader, or a cycle that goes on after a
kill, finds each one whole or not at all. Must never hold a time or a host name: equal cycles leave equal bytes. Called by
`learning.cycle.cycle`.

    cycle.json          what was asked for; another cycle's folder is refused
    asked-<r>.npy       rows that round r asks people, in order; written at the end of round r - 1
    labels-<r>.npy      their labels; an answer that is here is never asked again
    round-<r>.json      what came of round r; its presence ends the round
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import ConflictError, IntegrityError

_DIGITS = 5


class Round(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One turn of the cycle. `labels` given so far; `score` of the serving model where the cycle has a judge, else None.

    `drafts_right` of `drafts` items asked had been answered right by the model that served. `step`: of the checkpoint chosen, 0 =
    no training. `serving`: the round whose model serves now, -1 = none. `reasons`: one sentence each of train, select, compare,
    query.
    """

    number: int
    labels: int
    score: float | None
    drafts: int
    drafts_right: int
    step: int
    serving: int
    reasons: dict[str, str]
    schema: int = 1


class CycleFolder:
    """The files of one cycle below an existing or a new `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, asked_for: msgspec.Struct) -> None:
        """Record what the cycle is, or check that it is the same. Raises ConflictError when the folder is another cycle's."""
        self.path.mkdir(parents=True, exist_ok=True)
        wanted = msgspec.json.format(msgspec.json.encode(asked_for), indent=1)
        known = self._read("cycle.json")
        if known is None:
            self._write("cycle.json", wanted)
        elif known != wanted:
            raise ConflictError(f"{self.path} holds a cycle with other settings: give another folder, or delete it")

    def rounds(self) -> list[Round]:
        """Return the rounds that are over, in order. Raises IntegrityError when one cannot be read."""
        found: list[Round] = []
        while (data := self._read(f"round-{len(found):0{_DIGITS}d}.json")) is not None:
            try:
                found.append(msgspec.json.decode(data, type=Round))
            except msgspec.DecodeError as exc:
                raise IntegrityError(f"round {len(found)} in {self.path} cannot be read: {exc}; delete the folder") from exc
        return found

    def end_round(self, done: Round) -> None:
        """Record a round as over."""
        self._write(f"round-{done.number:0{_DIGITS}d}.json", msgspec.json.encode(done) + b"\n")

    def asked(self, number: int) -> NDArray[np.int64] | None:
        """Return the rows that round `number` asks, None when nobody chose them yet."""
        return self._array(f"asked-{number:0{_DIGITS}d}.npy")

    def ask(self, number: int, rows: NDArray[np.int64]) -> None:
        """Record the rows that round `number` asks."""
        self._write_array(f"asked-{number:0{_DIGITS}d}.npy", rows)

    def labels(self, number: int) -> NDArray[Any] | None:
        """Return the labels given in round `number`, None when they were not given yet."""
        return self._array(f"labels-{number:0{_DIGITS}d}.npy")

    def label(self, number: int, labels: NDArray[Any]) -> None:
        """Record the labels given in round `number`."""
        self._write_array(f"labels-{number:0{_DIGITS}d}.npy", labels)

    def _array(self, name: str) -> NDArray[Any] | None:
        data = self._read(name)
        if data is None:
            return None
        try:
            return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
        except (ValueError, EOFError) as exc:
            raise IntegrityError(f"{self.path / name} cannot be read: {exc}; delete the folder") from exc

    def _write_array(self, name: str, array: NDArray[Any]) -> None:
        out = io.BytesIO()
        np.save(out, array, allow_pickle=False)
        self._write(name, out.getvalue())

    def _read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def _write(self, name: str, data: bytes) -> None:
        beside = self.path / f".beside-{secrets.token_hex(8)}"
        try:
            with beside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path / name)
        finally:
            with contextlib.suppress(FileNotFoundError):
                beside.unlink()
