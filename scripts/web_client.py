"""A person's hands on the labelling app: its public HTTP API with a token, patient while the app restarts.

Owns one connection pool. Must never touch the database, the cluster or the datastore. Called by scripts.annotator, scripts.demo
and the benchmarks.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import urllib3

from labelloop.errors import DeadlineError, LabelloopError, from_code

_RETRY_PAUSE_S = 0.2


class WebClient:
    """Calls below `/api/v1` of the app at `url`. Repeating is safe: a repeated key gets the same answer."""

    def __init__(self, url: str, token: str = "", patience_s: float = 60.0) -> None:
        self._base = url.rstrip("/") + "/api/v1"
        self._token = token
        self._patience_s = patience_s
        self._pool = urllib3.PoolManager(maxsize=8, retries=False, timeout=urllib3.Timeout(connect=5, read=120))

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def with_token(self, token: str) -> WebClient:
        """Return a client of the same app that acts under `token`."""
        return WebClient(self._base.removesuffix("/api/v1"), token, self._patience_s)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON answer. Waits out an app that is down or overloaded for `patience_s`.

        Raises the error the app named (`labelloop.errors`), DeadlineError when it stayed away.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers() | ({"Content-Type": "application/json"} if data is not None else {})
        answer = self._patiently(method, path, body=data, headers=headers)
        return json.loads(answer.data) if answer.data else None

    def upload(self, path: str, file: Path, fields: dict[str, str]) -> Any:
        """Send `file` as multipart field `file` with `fields` beside it; return the JSON answer."""
        parts: dict[str, Any] = {**fields, "file": (file.name, file.read_bytes(), "application/octet-stream")}
        answer = self._patiently("POST", path, fields=parts, headers=self._headers())
        return json.loads(answer.data)

    def lines(self, path: str) -> Iterator[bytes]:
        """Yield the lines of a streamed answer; one that breaks off is asked for again and the lines already given are skipped."""
        given, until_s = 0, time.monotonic() + self._patience_s
        while True:
            try:
                for line in itertools.islice(self._stream(path), given, None):
                    given += 1
                    yield line
                return
            except (urllib3.exceptions.HTTPError, LabelloopError) as exc:
                error = exc if isinstance(exc, LabelloopError) else DeadlineError(f"{self._base}{path} broke off: {exc}")
            if not error.is_retryable or time.monotonic() >= until_s:
                raise error
            time.sleep(_RETRY_PAUSE_S)

    def _stream(self, path: str) -> Iterator[bytes]:
        answer = self._pool.request("GET", self._base + path, headers=self._headers(), preload_content=False)
        try:
            if answer.status >= 400:
                raise _error(answer.status, answer.read())
            rest = b""
            for piece in answer.stream(1 << 16):
                *whole, rest = (rest + piece).split(b"\n")
                yield from whole
            if rest:
                yield rest
        finally:
            answer.release_conn()

    def _headers(self) -> dict[str, str]:
        return {"Accept": "application/json"} | ({"Authorization": f"Bearer {self._token}"} if self._token else {})

    def _patiently(self, method: str, path: str, **kwargs: Any) -> urllib3.BaseHTTPResponse:
        until_s = time.monotonic() + self._patience_s
        while True:
            try:
                answer = self._pool.request(method, self._base + path, **kwargs)
                if answer.status < 400:
                    return answer
                error = _error(answer.status, answer.data)
                if not error.is_retryable:
                    raise error
            except urllib3.exceptions.HTTPError as exc:
                error = DeadlineError(f"{self._base} does not answer: {exc}")
            if time.monotonic() >= until_s:
                raise error
            time.sleep(_RETRY_PAUSE_S)


def _error(status: int, data: bytes) -> LabelloopError:
    try:
        body = json.loads(data)
        return from_code(str(body["code"]), str(body["message"]))
    except (ValueError, KeyError, TypeError):
        if status in (429, 502, 503, 504):
            return DeadlineError(f"the app answers {status}")
        return from_code("internal", f"the app answers {status}: {data[:200]!r}")
