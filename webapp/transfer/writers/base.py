"""What all writers share: the plan of an export, an item's file name and picture, what may be told beside the value.

Owns the options. Must never touch the database. Called by the writers beside it and `webapp.transfer.exporter`.
"""

from __future__ import annotations

import abc
import datetime
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

import msgspec

from labelloop.errors import InvalidInputError, LabelloopError, UnreadableItemError
from webapp.db.export_jobs import Problem
from webapp.db.export_rows import Entry
from webapp.db.projects import Project
from webapp.kinds.values import Value
from webapp.media import MediaStore, image_extension
from webapp.transfer.pictures import Size, bytes_of_data_link, checked_size, size_in
from webapp.transfer.writers.parts import Parts

PAGE, PICTURE_PAGE = 5000, 200
_UNSAFE = re.compile(r"[^\w.-]+")
MOST_STEM_CHARS = 80


class Plan(NamedTuple):
    """What an export is of. `options`: `which`, and what is told beside the labels."""

    project: Project
    media: MediaStore
    options: dict[str, Any]

    def wants(self, option: str) -> bool:
        """Return whether a yes-or-no option is set."""
        return bool(self.options.get(option))


class Writer(abc.ABC):
    """One format. `write` puts entries into parts, `finish` makes one file of them; `state` goes into the checkpoint.

    An entry that the format cannot carry goes into `problems` with its reason. `name` is the format's in `webapp.transfer.formats`.
    """

    name: ClassVar[str]
    page: ClassVar[int] = PAGE

    def __init__(self, plan: Plan, parts: Parts, state: dict[str, Any]) -> None:
        self.plan = plan
        self.parts = parts
        self.kind = plan.project.kind_rules
        self.labels = {label: at for at, label in enumerate(plan.project.labels)}
        self.problems: list[Problem] = []
        self.restore(state)

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027 most formats have nothing to take up
        """Take up a checkpoint's state; {} = the beginning."""

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        return {}

    def write(self, entries: Sequence[Entry]) -> None:
        """Write a page."""
        for entry in entries:
            try:
                self.add(entry)
            except LabelloopError as exc:
                self.problems.append(Problem(entry.item_id, str(exc)[:500]))

    @abc.abstractmethod
    def add(self, entry: Entry) -> None:
        """Write one item. Raises LabelloopError when the format cannot carry it; then nothing of it was written."""

    @abc.abstractmethod
    def finish(self, out: Path) -> None:
        """Make the file. It can be called again after a kill."""


def about(plan: Plan, entry: Entry) -> dict[str, Any]:
    """Return what is told of a label beside its value, as the options wish."""
    told: dict[str, Any] = {}
    if plan.wants("with_annotator"):
        told["annotator"] = entry.source if entry.source == "rules" else entry.annotator
    if plan.wants("with_time"):
        told["labelled_at"] = moment(entry.labelled_at)
        told["seconds"] = entry.seconds
    if plan.wants("with_version"):
        told["revision"] = entry.revision
        told["draft_version"] = entry.draft_version if entry.is_draft_shown else None
    if plan.wants("with_provenance"):
        told["source"] = entry.source
    if plan.wants("with_drafts"):
        told["draft"] = draft_of(entry)
    return told


def draft_of(entry: Entry) -> dict[str, Any] | None:
    """Return an item's draft as JSON has it."""
    if entry.draft is None:
        return None
    told = flat(entry.draft)
    if entry.draft_version is not None:
        told["version"] = entry.draft_version
    if entry.draft_confidence is not None:
        told["confidence"] = round(entry.draft_confidence, 4)
    return told


def flat(value: Value) -> dict[str, Any]:
    """Return a value as the flat fields of JSON; the labels are always there."""
    return {"labels": list(value.labels), **msgspec.to_builtins(msgspec.structs.replace(value, labels=()))}


def has_nothing(entry: Entry) -> bool:
    """Return whether somebody said that there is nothing to mark in an item."""
    return entry.value is not None and not entry.value.marks


def moment(at_s: float | None) -> str | None:
    """Return a time as ISO 8601 in UTC."""
    return None if at_s is None else datetime.datetime.fromtimestamp(at_s, datetime.UTC).isoformat(timespec="milliseconds")


def stem_of(entry: Entry) -> str:
    """Return a file name, without ending, that no other item of the project has and every file system takes."""
    stem = _UNSAFE.sub("_", PurePosixPath(entry.name or entry.item_id).stem)[:MOST_STEM_CHARS].strip("._") or "item"
    return f"{stem}-{entry.position}"


def picture_of(plan: Plan, entry: Entry) -> bytes | None:
    """Return a picture that lies here or in its data: link; None = it is known by its link only. Raises LabelloopError."""
    link = entry.link or ""
    if link.startswith("data:"):
        return bytes_of_data_link(link)
    path = local_path(plan, link)
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as exc:
        raise UnreadableItemError(f"its file cannot be read: {exc.strerror}") from exc


def local_path(plan: Plan, link: str) -> Path | None:
    """Return where an uploaded file lies; None = the link leads elsewhere."""
    prefix = f"file://{plan.media.folder / plan.project.slug}/"
    return plan.media.find(plan.project.slug, link.removeprefix(prefix))[0] if link.startswith(prefix) else None


def size_of(plan: Plan, entry: Entry) -> Size:
    """Return a picture's size: as it is known, or from its header. Raises LabelloopError."""
    if entry.width and entry.height:
        return checked_size(entry.width, entry.height)
    path = local_path(plan, entry.link or "")
    if path is not None:
        return size_in(path)
    data = picture_of(plan, entry)
    if data is None:
        raise InvalidInputError("its size in pixels is not known: it is known by its link only, and came without a size")
    return size_in(data)


def picture_ending(data: bytes) -> str:
    """Return a picture's file ending, with the dot. Raises UnreadableItemError."""
    return f".{image_extension(data)}"
