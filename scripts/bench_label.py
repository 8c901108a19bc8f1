"""`scripts/bench label`: how fast a label is saved and the next item comes, over HTTP, in a small and in a big project.

Two loads: many annotators at a human pace (latency), and a few without pause (throughput). The baseline, measured in the same run,
is a bare sqlite3 loop that writes the same rows without HTTP, app or checks.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import random
import sqlite3
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from labelloop.settings import Settings
from scripts import web_bench
from scripts.web_client import WebClient


class Annotator(threading.Thread):
    """One annotator with a connection of its own: `POST annotations` with `next: 1`, every `pause_s`."""

    def __init__(self, settings: Settings, token: str, pause_s: float, until_s: float) -> None:
        super().__init__()
        self._port, self._pause_s, self._until_s = settings.web.port, pause_s, until_s
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self.seconds: list[float] = []
        self.error = ""

    def run(self) -> None:
        """Label until the end."""
        link = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        rng = random.Random(self.name)
        time.sleep(rng.random() * self._pause_s)
        held = self._call(link, "next", {"n": 1})["items"]
        while held and time.monotonic() < self._until_s:
            began_s = time.perf_counter()
            item = held[0]
            body = {
                "item_id": item["item_id"],
                "lease": item["lease"],
                "labels": ["owl"],
                "key": rng.randbytes(12).hex(),
                "next": 1,
            }
            held = self._call(link, "annotations", body)["items"]
            self.seconds.append(time.perf_counter() - began_s)
            time.sleep(max(0.0, self._pause_s - (time.perf_counter() - began_s)))
        link.close()

    def _call(self, link: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> Any:
        link.request("POST", f"/api/v1/projects/bench/{path}", json.dumps(body), self._headers)
        answer = link.getresponse()
        data = json.loads(answer.read())
        if answer.status >= 400:
            raise SystemExit(f"bench label: {answer.status} {data}")
        return data


class Load(NamedTuple):
    """One load: the seconds of each call, how long it lasted, and who made it."""

    seconds: list[float]
    took_s: float
    annotators: int
    pause_s: float


def run_load(settings: Settings, token: str, annotators: int, pause_s: float, seconds: float) -> Load:
    """Let annotators label for `seconds`."""
    until_s = time.monotonic() + seconds
    people = [Annotator(settings, token, pause_s, until_s) for _ in range(annotators)]
    began_s = time.monotonic()
    for person in people:
        person.start()
    for person in people:
        person.join()
    return Load([s for person in people for s in person.seconds], time.monotonic() - began_s, annotators, pause_s)


def summary(rounds: Sequence[Load]) -> dict[str, float]:
    """Return labels a second and percentiles in milliseconds over some rounds."""
    every = [s for load in rounds for s in load.seconds]
    cuts = statistics.quantiles(every, n=100)
    return {
        "annotators": rounds[0].annotators,
        "pause_s": rounds[0].pause_s,
        "labels": len(every),
        "labels_per_s": round(len(every) / sum(load.took_s for load in rounds), 1),
        "p50_ms": round(1000 * cuts[49], 2),
        "p99_ms": round(1000 * cuts[98], 2),
    }


def baseline(folder: Path, labels: int) -> float:
    """Return labels a second of a bare sqlite3 loop: annotation, outbox row and item, one transaction each, WAL."""
    link = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    link.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; CREATE TABLE items (id INTEGER PRIMARY KEY, state INT);"
        "CREATE TABLE annotations (id INTEGER PRIMARY KEY, item INT, labels TEXT);"
        "CREATE TABLE outbox (id INTEGER PRIMARY KEY, a INT);"
    )
    link.executemany("INSERT INTO items VALUES (?, 0)", ((n,) for n in range(labels)))
    began_s = time.perf_counter()
    for n in range(labels):
        link.execute("BEGIN IMMEDIATE")
        number = link.execute("INSERT INTO annotations (item, labels) VALUES (?, ?)", (n, '["owl"]')).lastrowid
        link.execute("INSERT INTO outbox (a) VALUES (?)", (number,))
        link.execute("UPDATE items SET state = 1 WHERE id = ?", (n,))
        link.execute("COMMIT")
    took_s = time.perf_counter() - began_s
    link.close()
    return labels / took_s


class Bench:
    """One running app with a project of `n_items`. Entered as a context."""

    def __init__(self, n_items: int, args: argparse.Namespace, until: contextlib.ExitStack) -> None:
        self.n_items, self._args = n_items, args
        folder = until.enter_context(web_bench.bench_folder())
        redis_url = until.enter_context(web_bench.valkey(folder))
        self._settings = web_bench.bench_settings(folder, redis_url)
        database, _, _ = web_bench.make_project(self._settings, n_items)
        database.close()
        until.enter_context(web_bench.web_server(self._settings))
        self._client = WebClient(web_bench.url_of(self._settings))
        until.callback(self._client.close)
        body = {"name": "bench", "password": web_bench.PASSWORD}
        self._token = self._client.call("POST", "/tokens", body)["token"]
        self.paced: list[Load] = []
        self.flat_out: list[Load] = []
        run_load(self._settings, self._token, args.flat_out, 0.0, 1.0)  # warm: connections, statement caches, the queue

    def round(self, number: int) -> None:
        """Run both loads once; fresh items keep the small project from running dry."""
        self._client.with_token(self._token).call("POST", "/projects/bench/items", {"items": _more(self._args, number)})
        args = self._args
        self.paced.append(run_load(self._settings, self._token, args.annotators, args.pause, args.seconds))
        self.flat_out.append(run_load(self._settings, self._token, args.flat_out, 0.0, args.seconds / 2))

    def figures(self) -> dict[str, Any]:
        """Return both loads over all rounds."""
        return {"items": self.n_items, "paced": summary(self.paced), "flat_out": summary(self.flat_out)}


def _more(args: argparse.Namespace, number: int) -> list[dict[str, str]]:
    return [{"id": f"more-{number}-{n}", "text": f"one more text, number {n}"} for n in range(min(10_000, int(600 * args.seconds)))]


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark and return its figures; `p99_growth` is the big project's p99 over the small one's, at a human pace.

    Both apps are up at the same time and take turns, so that whatever else the machine does meets both alike.
    """
    parser = argparse.ArgumentParser(prog="scripts/bench label")
    parser.add_argument("--small", type=int, default=1000)
    parser.add_argument("--big", type=int, default=1_000_000)
    parser.add_argument("--annotators", type=int, default=100)
    parser.add_argument("--pause", type=float, default=2.0)
    parser.add_argument("--flat-out", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each paced round; a round without pause takes half")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    with contextlib.ExitStack() as until:
        benches = [Bench(n_items, args, until) for n_items in (args.small, args.big)]
        for number in range(args.rounds):
            for bench in benches if number % 2 else reversed(benches):
                bench.round(number)
        bare = baseline(until.enter_context(web_bench.bench_folder()), 5000)
        small, big = (bench.figures() for bench in benches)
    return {
        "sizes": [small, big],
        "p99_growth": round(big["paced"]["p99_ms"] / small["paced"]["p99_ms"], 3),
        "p99_growth_flat_out": round(big["flat_out"]["p99_ms"] / small["flat_out"]["p99_ms"], 3),
        "bare_labels_per_s": round(bare, 1),
        "ratio": round(bare / big["flat_out"]["labels_per_s"], 2),
    }
