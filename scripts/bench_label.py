"""`scripts/bench label`: how fast a label is saved and the next item comes, over HTTP, in a small and in a big project.

Two loads: many annotators at a human pace (latency), and a few without pause (throughput). The baseline, measured in the same run,
is a bare sqlite3 loop that writes the same rows without HTTP, app or checks.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sqlite3
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def run_load(settings: Settings, token: str, annotators: int, pause_s: float, seconds: float) -> dict[str, float]:
    """Return labels a second and percentiles in milliseconds."""
    until_s = time.monotonic() + seconds
    people = [Annotator(settings, token, pause_s, until_s) for _ in range(annotators)]
    began_s = time.monotonic()
    for person in people:
        person.start()
    for person in people:
        person.join()
    took_s = time.monotonic() - began_s
    every = sorted(s for person in people for s in person.seconds)
    cuts = statistics.quantiles(every, n=100)
    return {
        "annotators": annotators,
        "pause_s": pause_s,
        "labels": len(every),
        "labels_per_s": round(len(every) / took_s, 1),
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


def run_size(n_items: int, args: argparse.Namespace) -> dict[str, Any]:
    """Return both loads at one size of project."""
    with web_bench.bench_folder() as folder, web_bench.valkey(folder) as redis_url:
        settings = web_bench.bench_settings(folder, redis_url, args.database_url)
        database, _, _ = web_bench.make_project(settings, n_items)
        database.close()
        with web_bench.web_server(settings):
            client = WebClient(web_bench.url_of(settings))
            body = {"name": "bench", "password": web_bench.PASSWORD}
            token = client.call("POST", "/tokens", body)["token"]
            run_load(settings, token, 10, 0.0, 1.0)  # warm: connections, statement caches, the queue
            paced = run_load(settings, token, args.annotators, args.pause, args.seconds)
            client.with_token(token).call("POST", "/projects/bench/items", {"items": _more(args)})
            flat_out = run_load(settings, token, args.flat_out, 0.0, args.seconds / 2)
            client.close()
    return {"items": n_items, "paced": paced, "flat_out": flat_out}


def _more(args: argparse.Namespace) -> list[dict[str, str]]:
    """Return fresh items, so that the small project does not run dry during the load without pause."""
    return [{"id": f"more-{n}", "text": f"one more text, number {n}"} for n in range(min(10_000, int(1000 * args.seconds)))]


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark and return its figures; `p99_growth` is the big project's p99 over the small one's, at a human pace."""
    parser = argparse.ArgumentParser(prog="scripts/bench label")
    parser.add_argument("--small", type=int, default=1000)
    parser.add_argument("--big", type=int, default=1_000_000)
    parser.add_argument("--annotators", type=int, default=100)
    parser.add_argument("--pause", type=float, default=2.0)
    parser.add_argument("--flat-out", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--database-url", default="", help="'' = SQLite; for PostgreSQL name an empty database, and one size twice")
    args = parser.parse_args(argv)
    small, big = run_size(args.small, args), run_size(args.big, args)
    with web_bench.bench_folder() as folder:
        bare = baseline(folder, 5000)
    return {
        "sizes": [small, big],
        "p99_growth": round(big["paced"]["p99_ms"] / small["paced"]["p99_ms"], 3),
        "p99_growth_flat_out": round(big["flat_out"]["p99_ms"] / small["flat_out"]["p99_ms"], 3),
        "bare_labels_per_s": round(bare, 1),
        "ratio": round(bare / big["flat_out"]["labels_per_s"], 2),
    }
