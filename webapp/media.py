"""Uploaded files: stored once by content, found by name, served with the right type.

Owns the media folder, `<folder>/<project>/<sha256>.<ext>`, which the nodes may read. Must never use a name that a person chose as a
path. Called by `webapp.transfer` (store) and the media view (find).
"""

from __future__ import annotations

import contextlib
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
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
}
_NAME = re.compile(rf"[0-9a-f]{{64}}\.({'|'.join(TYPES)})")
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


def audio_extension(data: bytes) -> str:
    """Return the extension for the bytes of a sound, told from their first bytes. Raises UnreadableItemError for what is none."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "wav"
    if data.startswith(b"fLaC"):
        return "flac"
    if data.startswith(b"OggS"):
        return "ogg"
    if data.startswith(b"ID3") or (len(data) > 2 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2):  # a frame of layer III
        return "mp3"
    raise UnreadableItemError("not a sound: WAV, MP3, FLAC and Ogg are read")


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
        if link.startswith(("http://", "https://", "data:image/", "data:audio/")):
            return link
        prefix = f"file://{self.folder / project}/"
        return f"/media/{project}/{link.removeprefix(prefix)}" if link.startswith(prefix) else None

    def take_over(self, source: str, target: str, link: str | None) -> str | None:
        """Return the link of an item for a copy of its project: an upload becomes the copy's own, as a second name of one file.

        Raises StorageFullError.
        """
        prefix = f"file://{self.folder / source}/"
        if link is None or not link.startswith(prefix):
            return link
        name = link.removeprefix(prefix)
        if not _NAME.fullmatch(name):
            return link  # no upload: a person wrote it
        path = self.folder / target / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() and (self.folder / source / name).is_file():
                with contextlib.suppress(FileExistsError):
                    os.link(self.folder / source / name, path)
        except OSError as exc:
            raise StorageFullError(f"cannot keep an upload in {self.folder}: {exc.strerror}") from exc
        return f"file://{path}"

    def drop(self, project: str) -> None:
        """Delete all uploads of a project."""
        shutil.rmtree(self.folder / project, ignore_errors=True)
