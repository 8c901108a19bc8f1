"""`scripts/bench import`: rows a second and peak memory of taking in a CSV and a JSONL file.

The importer runs as the process that the pilot starts. The baseline, measured in the same run, is a bare csv.reader over the same
file.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labelloop.settings import environment_of
from scripts import web_bench
from webapp.db import imports
from webapp.rooms import upload_dir

MIB = 2**20


def write_file(path: Path, kind: str, rows: int) -> None:
    """Write a file of `rows` texts with an id."""
    with path.open("w", encoding="utf-8", newline="") as file:
        if kind == "csv":
            file.write("id,text\n")
            file.writelines(f'r{n},"the text of row {n}, with a comma and some more words in it"\n' for n in range(rows))
        else:
            file.writelines(
                f'{{"id": "r{n}", "text": "the text of row {n}, with a comma and some more words in it"}}\n' for n in range(rows)
            )


def bare_parse(path: Path) -> float:
    """Return rows a second of csv.reader alone."""
    began_s = time.perf_counter()
    with path.open(encoding="utf-8", newline="") as file:
        n = sum(1 for _ in csv.reader(file))
    return n / (time.perf_counter() - began_s)


def run_kind(kind: str, rows: int, database_url: str) -> dict[str, Any]:
    """Return rate and memory of one import."""
    with web_bench.bench_folder() as folder:
        settings = web_bench.bench_settings(folder, database_url=database_url)
        database, user, project = web_bench.make_project(settings, 0)
        path = upload_dir(settings) / f"upload-{kind}"
        write_file(path, kind, rows)
        bare = bare_parse(path)
        with database.write() as tx:
            job = imports.add_job(tx, project.id, user.id, kind, f"bench.{kind}", str(path), {}, path.stat().st_size, time.time())
        argv = (sys.executable, "-m", "webapp", "import-worker")
        process = subprocess.Popen(argv, env={**os.environ, **environment_of(settings)}, stderr=subprocess.DEVNULL)
        with web_bench.PeakMemory((process.pid,)) as memory:
            process.wait()
        with database.read() as tx:
            done = imports.find_job(tx, project.id, job.id)
        database.close()
    if (done.state, done.added) != ("done", rows):
        raise SystemExit(f"bench import: {done.state} {done.reason} with {done.added} of {rows} rows")
    took_s = done.updated_at - done.created_at
    return {
        "rows": rows,
        "seconds": round(took_s, 2),
        "rows_per_s": round(rows / took_s),
        "peak_mib": round(memory.peak_bytes / MIB, 1),
        "bare_rows_per_s": round(bare),
        "ratio": round(bare / (rows / took_s), 2),
    }


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark; `memory_times` is the peak at full size over the peak at a tenth of it, 1 = flat."""
    parser = argparse.ArgumentParser(prog="scripts/bench import")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--database-url", default="")
    parser.add_argument("--format", choices=("lines", "coco"), default="lines", help="coco: in and out again, see bench_formats")
    args = parser.parse_args(argv)
    if args.format == "coco":
        from scripts.bench_formats import compare

        return compare(args.rows, args.database_url)
    kinds = ("csv", "jsonl")
    small = {kind: run_kind(kind, web_bench.smaller(args.rows), args.database_url) for kind in kinds}
    found = {kind: web_bench.beside(small[kind], run_kind(kind, args.rows, args.database_url)) for kind in kinds}
    return {**found, "ratio": found["csv"]["ratio"]}
