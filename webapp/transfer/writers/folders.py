"""A zip of folders named like the labels: single labels of pictures, texts and rows.

Owns the names in it. Called by `webapp.transfer.exporter`; the import of a zip with labels by folder reads it back.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from labelloop.errors import InvalidInputError
from webapp.db.export_rows import Entry
from webapp.kinds.catalogue import data_of
from webapp.transfer.writers.base import picture_ending, picture_of, stem_of
from webapp.transfer.writers.boxes import ZipWriter

_RESERVED = re.compile(r'[\\:*?"<>|]')  # no file name everywhere; a backslash leads out of the folder where it parts folders
_ENDINGS = {"text": ".txt", "row": ".json"}


class FoldersWriter(ZipWriter):
    """LABEL/FILE."""

    name = "folders"

    def add(self, entry: Entry) -> None:
        """Write one file."""
        label = entry.value.labels[0] if entry.value and entry.value.labels else ""
        if not label:
            raise InvalidInputError("it has no label, so there is no folder for it")
        if label in (".", "..") or "/" in label or "\\" in label or "\0" in label:
            raise InvalidInputError(f"label {label!r} cannot be the name of a folder: use another format")
        kind = data_of(self.plan.project.category)
        if kind == "image":
            data = picture_of(self.plan, entry)
            if data is None:
                raise InvalidInputError("it is known by its link only, so its file is not here")
            self.zip.add(_path(entry, label, picture_ending(data)), data, is_packed=False)
            return
        if entry.content is None or kind not in _ENDINGS:
            raise InvalidInputError("it is known by its link only, so its file is not here")
        self.zip.add(_path(entry, label, _ENDINGS[kind]), entry.content.encode())


def _path(entry: Entry, label: str, ending: str) -> str:
    """Return where a file goes: where it came from, if that is a folder of this label."""
    given = PurePosixPath(entry.item_id)
    if given.parts[:-1] == (label,) and given.suffix and not _RESERVED.search(given.name) and not given.name.startswith("."):
        return str(given)
    return f"{label}/{stem_of(entry)}{ending}"
