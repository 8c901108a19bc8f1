"""A lab made for chaos: up, formed, and taken down at the end.

Owns the folder of the lab. Called by the benchmarks and by tests/cluster.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from cluster.lab.lab import Lab, take_down
from labelloop import messages as m
from labelloop.errors import InvalidInputError
from labelloop.settings import Settings
from scripts.chaos import poison
from scripts.chaos.ground import LabGround, chaos_settings


class Stage(msgspec.Struct, frozen=True):
    """A lab that is up, and the ground of trials on it."""

    lab: Lab
    ground: LabGround


def parse_nodes(words: str) -> tuple[int, int]:
    """Return (train, inference) of '3+4'. Raises InvalidInputError."""
    train, plus, inference = words.partition("+")
    if not (plus and train.isdecimal() and inference.isdecimal() and int(train) and int(inference)):
        raise InvalidInputError(f"--nodes {words!r}: say train+inference, 3+4")
    return int(train), int(inference)


def roles_of(nodes: tuple[str, ...], train: int) -> dict[str, m.Role]:
    """Return the roles of a lab's nodes: the first `train` of them train, the others infer."""
    return {name: "train" if number < train else "inference" for number, name in enumerate(nodes)}


@contextlib.contextmanager
def staged(
    train: int,
    inference: int,
    *,
    folder: Path | None = None,
    settings: Settings | None = None,
    datastore_bytes: int = 0,
    is_formed: bool = True,
) -> Iterator[Stage]:
    """Yield a lab of `train` + `inference` dockers that has formed; everything is removed at the end, however it ends."""
    where = folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    poison.write_plugin(where)
    try:
        lab = Lab.up(
            train + inference,
            where,
            settings=settings or chaos_settings(),
            datastore_bytes=datastore_bytes,
            until_pid=os.getpid(),
            environment=poison.environment(),
        )
        with LabGround(lab, roles_of(lab.nodes, train)) as ground:
            if is_formed:
                ground.form()
            yield Stage(lab, ground)
    finally:
        take_down(where)
        shutil.rmtree(where, ignore_errors=True)
