"""COCO in and out at a million annotations, for `scripts/bench import --format coco` and `scripts/bench export --format coco`.

The workers run as the processes that the pilot starts. The baseline, in the same run: pycocotools, which owns the format, reading
the same file whole. Called by bench_import and bench_export.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from labelloop.settings import environment_of
from scripts import web_bench
from webapp.db import export_jobs, imports, projects
from webapp.db.engine import Database
from webapp.rooms import export_dir, upload_dir
from webapp.transfer.exporter import FILE, folder_of

MIB = 2**20
MARKS = 2  # annotations a picture
LABELS = ("owl", "tit", "jay")
_READ = "import sys; from pycocotools.coco import COCO; print(len(COCO(sys.argv[1]).anns), file=sys.stderr)"


def write_coco(path: Path, rows: int) -> None:
    """Write a COCO file of `rows` annotations, `MARKS` a picture, all annotations before all pictures: the hardest order."""
    categories = json.dumps([{"id": at + 1, "name": label} for at, label in enumerate(LABELS)])
    with path.open("w", encoding="utf-8") as file:
        file.write(f'{{"categories": {categories}, "annotations": [\n')
        for n in range(rows):
            one = {"id": n + 1, "image_id": n // MARKS + 1, "category_id": n % len(LABELS) + 1, "bbox": [n % 300, 20, 100.5, 80.25]}
            file.write((",\n" if n else "") + json.dumps({**one, "area": 8065.125, "iscrowd": 0}))
        file.write('\n], "images": [\n')
        for n in range(-(-rows // MARKS)):
            told = {"id": n + 1, "file_name": f"{n}.jpg", "width": 640, "height": 480, "coco_url": f"https://example.org/{n}.jpg"}
            file.write((",\n" if n else "") + json.dumps(told))
        file.write("\n]}\n")


def read_by_pycocotools(path: Path) -> tuple[float, float]:
    """Return seconds and peak MiB of pycocotools reading a file, in a process of its own."""
    began_s = time.perf_counter()
    process = subprocess.Popen((sys.executable, "-c", _READ, str(path)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with web_bench.PeakMemory((process.pid,)) as memory:
        process.wait()
    return time.perf_counter() - began_s, memory.peak_bytes / MIB


def run_worker(settings: Any, name: str) -> float:
    """Run a worker to its end; return its peak MiB."""
    argv = (sys.executable, "-m", "webapp", f"{name}-worker")
    process = subprocess.Popen(argv, env={**os.environ, **environment_of(settings)}, stderr=subprocess.DEVNULL)
    with web_bench.PeakMemory((process.pid,)) as memory:
        process.wait()
    return memory.peak_bytes / MIB


def _detection(database: Database, user: Any, project: Any) -> Any:
    """Return a project of boxes beside the bench's own."""
    values = msgspec.structs.asdict(project)
    fixed = ("id", "is_paused", "spec_revision", "opened_revision", "next_position", "created_at")
    given = {name: value for name, value in values.items() if name not in fixed}
    given |= {"slug": "bench-coco", "category": "object-detection", "kind": "boxes", "labels": LABELS}
    with database.write() as tx:
        return projects.add_project(tx, given, user.id, time.time())


def run_coco(rows: int, database_url: str = "") -> dict[str, Any]:
    """Import and export `rows` annotations; return seconds, peaks and ratios to the baselines."""
    with web_bench.bench_folder() as folder:
        settings = web_bench.bench_settings(folder, database_url=database_url)
        database, user, own = web_bench.make_project(settings, 0)
        project = _detection(database, user, own)
        path = upload_dir(settings) / "upload-coco"
        write_coco(path, rows)
        told_s, told_mib = read_by_pycocotools(path)
        with database.write() as tx:
            job = imports.add_job(tx, project.id, user.id, "coco", "bench.json", str(path), {}, 0, time.time())
        began_s = time.perf_counter()
        in_mib = run_worker(settings, "import")
        in_s = time.perf_counter() - began_s
        with database.read() as tx:
            done = imports.find_job(tx, project.id, job.id)
        if (done.state, done.added) != ("done", -(-rows // MARKS)):
            raise SystemExit(f"bench import: {done.state} {done.reason} with {done.added} pictures of {rows} annotations")
        with database.write() as tx:
            made = export_jobs.add_job(tx, project.id, user.id, "coco", {"which": "labelled"}, time.time())
        began_s = time.perf_counter()
        out_mib = run_worker(settings, "export")
        out_s = time.perf_counter() - began_s
        back = folder_of(export_dir(settings), made.id) / FILE
        n_back = sum(line.count(b'"image_id"') for line in back.open("rb"))
        if n_back != rows:
            raise SystemExit(f"bench export: {n_back} annotations in the file, {rows} went in")
        back_s, _ = read_by_pycocotools(back)
        database.close()
    return {
        "rows": rows,
        "import": {"seconds": round(in_s, 1), "peak_mib": round(in_mib, 1), "ratio": round(in_s / told_s, 2)},
        "export": {"seconds": round(out_s, 1), "peak_mib": round(out_mib, 1), "ratio": round(out_s / back_s, 2)},
        "pycocotools": {"seconds": round(told_s, 1), "peak_mib": round(told_mib, 1)},
    }


def compare(rows: int, database_url: str = "") -> dict[str, Any]:
    """Run at a tenth and at full size: `memory_times` is the full peak over the small one, 1 = flat; pycocotools has one too."""
    small, full = run_coco(max(MARKS, web_bench.smaller(rows)), database_url), run_coco(rows, database_url)
    sides = ("import", "export", "pycocotools")
    return {**full, **{side: web_bench.beside(small[side], full[side]) for side in sides}}
