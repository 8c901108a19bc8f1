"""`scripts/bench export`: rows a second over HTTP and the server's memory while all labels stream out.

The baseline, measured in the same run, is a bare sqlite3 read of the same columns into csv.writer.
"""

from __future__ import annotations

import argparse
import csv
import http.client
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labelloop.settings import Settings
from scripts import web_bench
from scripts.web_client import WebClient

MIB = 2**20


def bare_read(folder: Path) -> float:
    """Return rows a second of one plain query into csv.writer."""
    link = sqlite3.connect(folder / "web.sqlite")
    query = (
        "SELECT items.item_id, annotations.labels, users.name, items.content FROM items "
        "JOIN annotations ON annotations.id = items.annotation_id JOIN users ON users.id = annotations.user_id"
    )
    began_s = time.perf_counter()
    with (folder / "bare.csv").open("w", encoding="utf-8", newline="") as file:
        writer, n = csv.writer(file), 0
        for row in link.execute(query):
            writer.writerow(row)
            n += 1
    took_s = time.perf_counter() - began_s
    link.close()
    return n / took_s


def download(settings: Settings, token: str, form: str) -> tuple[int, float]:
    """Return lines and seconds of one export, read without keeping it."""
    link = http.client.HTTPConnection("127.0.0.1", settings.web.port, timeout=600)
    began_s = time.perf_counter()
    link.request("GET", f"/api/v1/projects/bench/export?format={form}", headers={"Authorization": f"Bearer {token}"})
    answer = link.getresponse()
    lines = 0
    while piece := answer.read(MIB):
        lines += piece.count(b"\n")
    took_s = time.perf_counter() - began_s
    link.close()
    return lines, took_s


def run_lines(rows: int) -> dict[str, Any]:
    """Return rate and memory of the server for both formats, beside the bare read."""
    with web_bench.bench_folder() as folder:
        settings = web_bench.bench_settings(folder)
        database, _, _ = web_bench.make_project(settings, rows, is_labelled=True)
        database.close()
        bare = bare_read(folder)
        with web_bench.web_server(settings) as server:
            entry = {"name": "bench", "password": web_bench.PASSWORD}
            token = WebClient(web_bench.url_of(settings)).call("POST", "/tokens", entry)["token"]
            found = {form: measure(settings, token, form, rows, server.pid) for form in ("csv", "jsonl")}
    return {"rows": rows, **found, "bare_rows_per_s": round(bare)}


def measure(settings: Settings, token: str, form: str, rows: int, server: int) -> dict[str, Any]:
    """Return the figures of one export. Raises SystemExit when a row is missing."""
    with web_bench.PeakMemory(web_bench.children_of(server)) as memory:
        lines, took_s = download(settings, token, form)
    if lines - (form == "csv") != rows:
        raise SystemExit(f"bench export: {lines} lines for {rows} labels")
    return {
        "seconds": round(took_s, 2),
        "rows_per_s": round(rows / took_s),
        "peak_mib": round(memory.peak_bytes / MIB, 1),
        "memory_growth_mib": round((memory.peak_bytes - memory.start_bytes) / MIB, 1),
    }


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark; `memory_times` is the servers' peak at full size over the peak at a tenth of it, 1 = flat."""
    parser = argparse.ArgumentParser(prog="scripts/bench export")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--format", choices=("lines", "coco"), default="lines", help="coco: in and out again, see bench_formats")
    args = parser.parse_args(argv)
    if args.format == "coco":
        from scripts.bench_formats import compare

        return compare(args.rows)
    small, full = run_lines(web_bench.smaller(args.rows)), run_lines(args.rows)
    found = {form: web_bench.beside(small[form], full[form]) for form in ("csv", "jsonl")}
    return {**full, **found, "ratio": round(full["bare_rows_per_s"] / full["csv"]["rows_per_s"], 2)}
