"""A team of annotators as one asyncio process with a kept-alive connection each: light, so that the client is no bottleneck.

Owns the connections and the clock. Must never know whose API it calls: a `Desk` does. Called by scripts.bench_team.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class RefusedError(Exception):
    """The server answered a status of 400 or more."""


class Link:
    """One kept-alive connection to 127.0.0.1. Not for two tasks at once."""

    def __init__(self, port: int, headers: Mapping[str, str]) -> None:
        self._port = port
        lines = {"Host": "127.0.0.1", "Content-Type": "application/json", "Accept": "application/json", **headers}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON of an answer. Raises RefusedError, OSError, EOFError."""
        data = b"" if body is None else json.dumps(body).encode()
        request = f"{method} {path} HTTP/1.1\r\n{self._head}Content-Length: {len(data)}\r\n\r\n".encode() + data
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        status, headers = read_head(await reader.readuntil(b"\r\n\r\n"))
        said = await _read_body(reader, status, headers)
        if headers.get("connection", "").lower() == "close":
            self.close()
        if status >= 400:
            raise RefusedError(f"{method} {path}: {status} {said[:300]!r}")
        return json.loads(said) if said else None

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def read_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Return status and headers (names in small letters) of an answer's head."""
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(first.split(" ", 2)[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _read_body(reader: asyncio.StreamReader, status: int, headers: Mapping[str, str]) -> bytes:
    if status in (204, 304):
        return b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        pieces = []
        while size := int((await reader.readline()).split(b";")[0], 16):
            pieces.append((await reader.readexactly(size + 2))[:-2])
        await reader.readline()
        return b"".join(pieces)
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read()


class Desk(Protocol):
    """One annotator's way through an API. `item` is what is in hand, whatever that is to the API; None = nothing is left."""

    async def first(self) -> Any:
        """Return the first item."""

    async def submit_and_next(self, item: Any) -> tuple[str, str, Any]:
        """Label `item`; return its id, the label that the server acknowledged, and the next item."""

    def close(self) -> None:
        """Hang up."""


class Saved(NamedTuple):
    """One acknowledged label: when it was sent, how long until the next item was there."""

    item_id: str
    label: str
    at_s: float
    took_s: float


class Load(NamedTuple):
    """What a team did between `began_s` and `ended_s`; what came before (the warm-up) is in `saved` too."""

    saved: list[Saved]
    errors: list[str]
    began_s: float
    ended_s: float

    @property
    def measured(self) -> list[Saved]:
        """Return the labels that count: sent and answered within the measured seconds."""
        return [one for one in self.saved if one.at_s >= self.began_s and one.at_s + one.took_s <= self.ended_s]


async def _work(desk: Desk, pause_s: float, until_s: float, seed: str, load: Load) -> None:
    wait_s = random.Random(seed).random() * pause_s
    await asyncio.sleep(wait_s)
    try:
        item = await desk.first()
        due_s = time.monotonic()
        while item is not None and time.monotonic() < until_s:
            at_s = time.monotonic()
            item_id, label, item = await desk.submit_and_next(item)
            load.saved.append(Saved(item_id, label, at_s, time.monotonic() - at_s))
            due_s = max(due_s + pause_s, time.monotonic() - pause_s)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        if item is None:
            load.errors.append("no item was left")
    except (RefusedError, OSError, EOFError) as exc:
        load.errors.append(f"{type(exc).__name__}: {exc}")
    finally:
        desk.close()


async def _team(desks: Sequence[Desk], pause_s: float, warm_s: float, seconds: float, say: Callable[[str], None]) -> Load:
    began_s = time.monotonic() + warm_s
    load = Load([], [], began_s, began_s + seconds)
    people = asyncio.gather(*(_work(desk, pause_s, load.ended_s, str(n), load) for n, desk in enumerate(desks)))
    while not people.done():
        await asyncio.wait([people], timeout=10.0)
        say(f"{len(load.saved)} labels, {len(load.errors)} errors, {max(0.0, load.ended_s - time.monotonic()):.0f} s to go")
    await people
    return load


def run_team(desks: Sequence[Desk], pause_s: float, warm_s: float, seconds: float, say: Callable[[str], None]) -> Load:
    """Let each desk label one item every `pause_s` seconds (0 = without pause); the first `warm_s` seconds do not count.

    An annotator whose answer comes late sends the next at once, until back in step by at most one pause. One that meets an error
    stops, and the error is in the answer.
    """
    return asyncio.run(_team(desks, pause_s, warm_s, seconds, say))


def summary(load: Load) -> dict[str, float]:
    """Return labels a second and percentiles in milliseconds of the measured seconds. Raises SystemExit where nothing was done."""
    took = [one.took_s for one in load.measured]
    if len(took) < 2:
        raise SystemExit(f"bench team: {len(took)} labels in {load.ended_s - load.began_s:.0f} s: {load.errors[:3]}")
    cuts = statistics.quantiles(took, n=100, method="inclusive")
    return {
        "labels": len(took),
        "labels_per_s": round(len(took) / (load.ended_s - load.began_s), 2),
        "p50_ms": round(1000 * cuts[49], 1),
        "p99_ms": round(1000 * cuts[98], 1),
        "max_ms": round(1000 * max(took), 1),
        "errors": len(load.errors),
    }
