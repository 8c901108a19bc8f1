"""Uploaded files: stored once by content, found by name, served with the right type.

Owns the media folder, `<folder>/<project>/<sha256>.<ext>`, which the nodes may read. Must never use a name that a person chose as a
path. Called by `webapp.transfer` (store) and the media view (find).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

from labelloop.errors import NotFoundError, StorageFullError, UnreadableItemError

TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "bmp": "image/bmp",
    "tif": "image/tiff",
}
_NAME = re.compile(r"[0-9a-f]{64}\.(png|jpg|gif|webp|bmp|tif)")
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
)


def image_extension(data: bytes) -> str:
    """Return the extension for image bytes, told from their first bytes. Raises UnreadableItemError for what is no image."""
    for magic, extension in _MAGIC:
        if data.startswith(magic):
            return extension
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    raise UnreadableItemError("not an image: PNG, JPEG, GIF, WebP, BMP and TIFF are read")


class MediaStore:
    """The media folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, project: str, data: bytes, extension: str) -> str:
        """Keep `data` under its own hash and return its link; the same bytes twice are one file. Raises StorageFullError."""
        path = self.folder / project / f"{hashlib.sha256(data).hexdigest()}.{extension}"
        if not path.exists():
            beside = path.with_name(f".{path.name}.{os.getpid()}")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                beside.write_bytes(data)
                beside.rename(path)
            except OSError as exc:
                raise StorageFullError(f"cannot keep an upload in {self.folder}: {exc.strerror}") from exc
        return f"file://{path}"

    def find(self, project: str, name: str) -> tuple[Path, str]:
        """Return file and media type of an upload. Raises NotFoundError."""
        found = _NAME.fullmatch(name)
        path = self.folder / project / name
        if not found or not path.is_file():
            raise NotFoundError(f"project {project!r} has no uploaded file {name[:80]!r}")
        return path, TYPES[found.group(1)]

    def url_of(self, project: str, link: str) -> str | None:
        """Return where a browser finds `link`: uploads below /media, web addresses and data: as they are, None for other files."""
        if link.startswith(("http://", "https://", "data:image/")):
            return link
        prefix = f"file://{self.folder / project}/"
        return f"/media/{project}/{link.removeprefix(prefix)}" if link.startswith(prefix) else None

    def drop(self, project: str) -> None:
        """Delete all uploads of a project."""
        shutil.rmtree(self.folder / project, ignore_errors=True)
