"""From a link to its bytes, within the limits of the settings.

Owns what a link may be: http and https (`intake.web`), file below an allowed folder, data: (RFC 2397); all else is refused.
Must never decode what it fetched. Called by `intake.pipeline` from several threads: a `Fetcher` is safe to share.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import mimetypes
import os
import stat
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from intake.limits import Fetched, check_size, shown
from intake.web import WebFetcher
from labelloop.errors import InvalidInputError, NotFoundError, UnreachableError, UnreadableItemError, UnsafeLinkError
from labelloop.settings import IntakeSettings

__all__ = ["Fetched", "Fetcher", "fetch", "shown"]


def fetch(link: str, settings: IntakeSettings) -> Fetched:
    """Return the bytes behind `link`; for many links use one `Fetcher`, which keeps connections."""
    with contextlib.closing(Fetcher(settings)) as fetcher:
        return fetcher.fetch(link)


class Fetcher:
    """Downloads links under one set of limits, keeping idle connections."""

    def __init__(self, settings: IntakeSettings) -> None:
        self._settings = settings
        self._folders = tuple(f"{os.path.realpath(folder).rstrip('/')}/" for folder in settings.allowed_folders)
        self._web = WebFetcher(settings)

    def close(self) -> None:
        """Close all idle connections."""
        self._web.close()

    def fetch(self, link: str) -> Fetched:
        """Return the bytes behind `link`.

        Raises UnsafeLinkError (not allowed), TooLargeError (size or time), NotFoundError, UnreachableError (may work later),
        InvalidInputError (malformed); each names the link and the way out.
        """
        scheme = link.partition(":")[0].lower()
        source = {"data": self._from_data, "file": self._from_file, "http": self._web.fetch, "https": self._web.fetch}.get(scheme)
        if source is None:
            raise UnsafeLinkError(f"link {shown(link)!r} is refused: use http, https, data: or a file below an allowed folder")
        try:
            return source(link)
        except ValueError as exc:  # what the URL parsers of Python raise
            raise InvalidInputError(f"link {shown(link)!r} is malformed: {exc}") from exc

    # ---- data: (RFC 2397)

    def _from_data(self, link: str) -> Fetched:
        head, comma, body = link[5:].partition(",")
        if not comma:
            raise InvalidInputError(f"link {shown(link)!r} is no data: URL: it has no comma (RFC 2397)")
        is_base64 = head.lower().endswith(";base64")
        media_type = head[: -len(";base64")] if is_base64 else head
        raw = (
            body.encode("ascii", "surrogateescape") if is_base64 and "%" not in body and body.isascii() else unquote_to_bytes(body)
        )
        check_size(len(raw) * 3 // 4 if is_base64 else len(raw), self._settings.max_item_bytes, link)
        if is_base64:
            try:
                raw = base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
            except binascii.Error as exc:
                raise UnreadableItemError(f"link {shown(link)!r} has broken base64: {exc}") from exc
        if media_type.startswith(";") or not media_type:
            media_type = f"text/plain{media_type or ';charset=us-ascii'}"
        return Fetched(raw, media_type)

    # ---- file:

    def _from_file(self, link: str) -> Fetched:
        parts = urlsplit(link)
        path = unquote(parts.path)
        if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path or parts.query or parts.fragment:
            raise UnsafeLinkError(f"link {shown(link)!r} is refused: write file:///absolute/path, with ? and # percent-encoded")
        self._check_folder(os.path.realpath(path), link)
        try:
            number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as exc:
            raise NotFoundError(f"file of link {shown(link)!r} cannot be opened: {exc.strerror}") from exc
        try:
            # what was opened, whatever was swapped since
            self._check_folder(os.readlink(f"/proc/self/fd/{number}"), link)  # noqa: PTH115 - a hot path
            status = os.fstat(number)
            if not stat.S_ISREG(status.st_mode):
                raise UnsafeLinkError(f"link {shown(link)!r} is refused: not a regular file")
            check_size(status.st_size, self._settings.max_item_bytes, link)
            with open(number, "rb", closefd=False) as stream:
                data = stream.read(status.st_size + 1)
        except OSError as exc:
            raise UnreachableError(f"file of link {shown(link)!r} cannot be read: {exc.strerror}") from exc
        finally:
            os.close(number)
        check_size(len(data), self._settings.max_item_bytes, link)
        return Fetched(data, mimetypes.guess_type(path)[0] or "")

    def _check_folder(self, real: str, link: str) -> None:
        if not f"{real}/".startswith(self._folders):
            raise UnsafeLinkError(
                f"link {shown(link)!r} is refused: its file is not below an allowed folder; "
                "put it there or add its folder to intake.allowed_folders"
            )
