"""HTTP to the labelling app: one kept connection, errors by name, patience, bodies from and into files.

Owns the socket. Must never know a call of the API. Called by `labelloop.web_client`. Not for several threads at once: make a
client a thread.
"""

from __future__ import annotations

import http.client
import secrets
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from labelloop.errors import InvalidInputError, LabelloopError, UnreachableError, from_code

TIMEOUT_S = 120.0
PIECE_BYTES = 1 << 18
_PAUSE_S = 0.25
_IDLE_S = 1.0  # below what a server keeps an idle connection open, so that no call meets one that is just being closed
_SHORT = {408: "deadline", 429: "busy", 502: "unreachable", 503: "not_ready", 504: "deadline"}


class _Problem(msgspec.Struct):
    code: str
    message: str
    way_out: str = ""


class Connection:
    """Calls below `/api/v1` of the app at `url` under `token`; a call that may be repeated is tried for `patience_s`."""

    def __init__(self, url: str, token: str, patience_s: float) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInputError(f"address {url!r}: use http://HOST[:PORT] or https://HOST[:PORT]")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._link = kind(parts.hostname, parts.port, timeout=TIMEOUT_S)
        self._base = parts.path.rstrip("/") + "/api/v1"
        self._url, self._patience_s, self._used_s = url, patience_s, 0.0
        self._headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})

    def close(self) -> None:
        """Close the socket."""
        self._link.close()

    def call(self, method: str, path: str, body: Any = None, may_repeat: bool = False) -> bytes:
        """Return the answer's body. Raises the error that the app named, UnreachableError when it stayed away."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        sent = None if body is None else msgspec.json.encode(body)
        done: bytes = self._patiently(lambda: self._once(method, path, sent, headers), may_repeat or method == "GET")
        return done

    def download(self, path: str, file: Path) -> int:
        """Write the answer's body into `file`, which appears when it is whole; return its bytes. Memory stays flat."""
        part = file.with_name(f".{file.name}.part")
        return int(self._patiently(lambda: self._into(path, part, file), True))

    def upload(self, path: str, files: list[Path], fields: dict[str, str]) -> bytes:
        """Send files as multipart field `file`, read piece by piece; return the answer's body. Never repeated by itself."""
        boundary = secrets.token_hex(16)
        heads = [_head(boundary, "file", file.name) for file in files]
        texts = b"".join(_head(boundary, name) + value.encode() + b"\r\n" for name, value in fields.items())
        end = f"--{boundary}--\r\n".encode()
        size = len(texts) + len(end) + sum(len(h) + f.stat().st_size + 2 for h, f in zip(heads, files, strict=True))
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(size)}
        return self._once("POST", path, _pieces(texts, heads, files, end), headers)

    def lines(self, path: str, headers: dict[str, str]) -> Iterator[str]:
        """Yield the lines of a streamed answer until it ends."""
        answer = self._open("GET", path, None, headers)
        try:
            for line in answer:
                yield line.decode().rstrip("\r\n")
        except (OSError, http.client.HTTPException) as exc:
            raise self._away(exc) from exc
        finally:
            self._link.close()

    def _patiently(self, do: Any, may_repeat: bool) -> Any:
        until_s = time.monotonic() + self._patience_s
        while True:
            try:
                return do()
            except LabelloopError as exc:
                if not (may_repeat and exc.is_retryable) or time.monotonic() >= until_s:
                    raise
            time.sleep(_PAUSE_S)

    def _once(self, method: str, path: str, body: Any, headers: dict[str, str]) -> bytes:
        answer = self._open(method, path, body, headers)
        try:
            return answer.read()
        except (OSError, http.client.HTTPException) as exc:
            raise self._away(exc) from exc

    def _into(self, path: str, part: Path, file: Path) -> int:
        answer = self._open("GET", path, None, {})
        try:
            with part.open("wb") as out:
                size = _copy(answer, out)
        except http.client.HTTPException as exc:
            raise self._away(exc) from exc
        part.replace(file)
        return size

    def _open(self, method: str, path: str, body: Any, headers: dict[str, str]) -> http.client.HTTPResponse:
        if time.monotonic() - self._used_s > _IDLE_S:
            self._link.close()
        try:
            self._link.request(method, self._base + path, body, {**self._headers, **headers})
            answer = self._link.getresponse()
            self._used_s = time.monotonic()
            if answer.status >= 400:
                raise _error(answer.status, answer.read())
        except (OSError, http.client.HTTPException) as exc:
            raise self._away(exc) from exc
        return answer

    def _away(self, exc: Exception) -> UnreachableError:
        self._link.close()
        return UnreachableError(f"{self._url} does not answer: {exc or type(exc).__name__}")


def _copy(answer: http.client.HTTPResponse, out: IO[bytes]) -> int:
    size = 0
    while piece := answer.read(PIECE_BYTES):
        out.write(piece)
        size += len(piece)
    return size


def _head(boundary: str, name: str, file_name: str = "") -> bytes:
    quoted = urllib.parse.quote(file_name, safe=" .-_()[]{}+,;=@!") if not file_name.isascii() or '"' in file_name else file_name
    named = f'; filename="{quoted}"\r\nContent-Type: application/octet-stream' if file_name else ""
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode()


def _pieces(texts: bytes, heads: list[bytes], files: list[Path], end: bytes) -> Iterator[bytes]:
    yield texts
    for head, file in zip(heads, files, strict=True):
        yield head
        with file.open("rb") as source:
            while piece := source.read(PIECE_BYTES):
                yield piece
        yield b"\r\n"
    yield end


def _error(status: int, body: bytes) -> LabelloopError:
    try:
        told = msgspec.json.decode(body, type=_Problem)
    except msgspec.MsgspecError:
        return from_code(_SHORT.get(status, "internal"), f"the app answers {status}: {body[:200]!r}")
    return from_code(told.code, f"{told.message} {told.way_out}".strip())
