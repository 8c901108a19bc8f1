"""What a task decided once and for ever: its encoder where the settings say 'auto', the columns of its tables.

Owns `Preprocess/decided/<name>`: the first writer wins, all others use what it wrote. Must never change one. Called by intake.
"""

from __future__ import annotations

from datastore_layout.envelope import seal, unseal
from datastore_layout.files import create_exclusive, read_file
from datastore_layout.root import TaskFolder
from labelloop.errors import NotFoundError
from labelloop.ids import parse_token
from labelloop.messages import Message

_WHERE = ("Preprocess", "decided")


class Decision(Message, frozen=True, kw_only=True):
    """One decided value."""

    value: str


def read_decision(folder: TaskFolder, name: str) -> str | None:
    """Return what was decided under `name`, None = nothing yet. Raises IntegrityError."""
    path = folder.below(*_WHERE, parse_token(name, "decision"))
    try:
        return unseal("decision", read_file(path), Decision, path).value
    except NotFoundError:
        return None


def decide_once(folder: TaskFolder, name: str, candidate: str) -> str:
    """Decide `candidate` under `name` unless something was decided before; return what holds.

    Raises StorageFullError, IntegrityError; NotFoundError while a mount does not show yet what another node decided.
    """
    path = folder.ready(*_WHERE) / parse_token(name, "decision")
    if create_exclusive(path, *seal("decision", Decision(value=candidate), is_text=True)):
        return candidate
    return unseal("decision", read_file(path), Decision, path).value


def resolve_encoder(folder: TaskFolder, candidate: str) -> str:
    """Return the encoder of a task whose settings say 'auto': `candidate` for the first that asks, then the same for all."""
    return decide_once(folder, "encoder", candidate)
