"""`bench infer-cluster`: items a second through inference_rpc over 1, 2 and 4 inference dockers against a bare model loop.

Owns two comparisons, each in turns in the same run and with equal answers: fresh 224-pixel images (read, decoded, embedded, scored)
against a loop in this process on the same cores, and pre-embedded rows, sent as shard references, against one numpy pass. All
dockers share the cores of this machine, so more of them cannot be faster: the figure is what cluster, broker and datastore cost.

    scripts/bench infer-cluster [--nodes 1,2,4] [--images N] [--rows N] [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cluster.lab.plan import SHARED
from datastore_layout.models import Manifest, advance, publish_model
from datastore_layout.root import TaskFolder, open_root, task_folder
from datastore_layout.shards import ShardSet
from intake.encoders import Encoder, find_encoder
from intake.encoders.efficientnet import cache_folder, model_file
from intake.images import decode_image
from labelloop import messages as m
from labelloop.errors import LabelloopError
from labelloop.settings import ClusterSettings, IntakeSettings, Settings
from learning.algorithms.linear_model import LinearModel, softmax
from scripts.chaos.stage import Stage, staged
from scripts.chaos.trial import until

ENCODER = "efficientnet-lite0"
PICTURES = "token/pictures"  # of the lab, and below SHARED in its dockers
DIM = 1280
SIDE_PX = 224
BATCH = 64
SHARD_ROWS = 4096
LABELS = tuple(f"label-{i}" for i in range(10))
FORM_S = 240.0
Proba = NDArray[np.float32]


def draw(folder: Path, n: int, seed: int) -> list[Path]:
    """Write `n` JPEG files of 224 by 224 pixels, each another smooth picture, and return their paths."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    paths = []
    for number in range(n):
        coarse = rng.integers(0, 256, (14, 14, 3), dtype=np.uint8)
        path = folder / f"{number}.jpg"
        Image.fromarray(coarse).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC).save(path, quality=90)
        paths.append(path)
    return paths


def bare_images(paths: Sequence[Path], encoder: Encoder, model: LinearModel) -> Proba:
    """Return the baseline: read, decode, embed and score in batches, on all cores of this process."""

    def prepare(path: Path) -> Any:
        return encoder.prepare(decode_image(path.read_bytes(), IntakeSettings().max_image_pixels, encoder.wanted_px))

    parts = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for start in range(0, len(paths), BATCH):
            parts.append(encoder.embed(list(pool.map(prepare, paths[start : start + BATCH]))))
    return softmax(np.concatenate(parts) @ model.weights + model.bias)


def open_task(stage: Stage, model: LinearModel) -> TaskFolder:
    """Open the benchmark's task by the registry, publish `model` and serve it."""
    extra = m.TaskExtraInfo(labels=LABELS, encoder=ENCODER)
    spec = m.TaskSpec(task="bench", category="image-classification", extra=extra)
    stage.ground.registry.open_task(m.OpenTaskRequest(spec=spec), deadline_s=60.0)
    folder = task_folder(open_root(stage.lab.datastore), spec.task)
    manifest = Manifest(task="bench", category=spec.category, labels=LABELS, algorithm="logistic-regression", encoder=ENCODER)
    with tempfile.TemporaryDirectory() as source:
        model.save(Path(source))
        advance(folder, 0, publish_model(folder, manifest, Path(source)), "benchmark")
    return folder


def write_shards(folder: TaskFolder, x: Proba) -> tuple[str, ...]:
    """Write the rows as feature shards and return their names, in order."""
    shards, names = ShardSet(folder, ENCODER), []
    for start in range(0, len(x), SHARD_ROWS):
        ids = [f"row-{row}" for row in range(start, min(start + SHARD_ROWS, len(x)))]
        links, hashes = [f"http://x/{i}" for i in ids], [f"hash-{i}" for i in ids]
        names.append(shards.write(ids, links, hashes, x[start : start + SHARD_ROWS]))
    return tuple(names)


def run_job(stage: Stage, request: m.JobRequest) -> Proba:
    """Run one job and page its results; return the probabilities in the order of the request. A failed item is an error."""
    client = stage.ground.cluster.inference()
    client.predict_async(request, deadline_s=60.0)
    parts: list[Proba] = []
    after, is_complete = -1, False
    while not is_complete:
        page = m.ResultsRequest(task=request.task, job_id=request.job_id, after=after, limit=64, with_ids=False)
        reply = client.results(page, deadline_s=60.0)
        for chunk in reply.chunks:
            if chunk.failed or chunk.proba is None:
                raise AssertionError(f"chunk {chunk.chunk} failed: {chunk.failed[:1]}")
            parts.append(np.frombuffer(chunk.proba.data, np.float32).reshape(chunk.proba.shape))
            after = chunk.chunk
        is_complete = reply.is_complete
    return np.concatenate(parts)


def compared(bare: Callable[[], Proba], cluster: Callable[[], Proba]) -> tuple[float, float]:
    """Return the seconds of both. Raises AssertionError when their answers differ."""
    begin_s = time.perf_counter()
    expected = bare()
    bare_s = time.perf_counter() - begin_s
    begin_s = time.perf_counter()
    found = cluster()
    cluster_s = time.perf_counter() - begin_s
    if not np.allclose(found, expected, atol=1e-5):
        raise AssertionError("the answers of the cluster differ from those of the bare loop")
    return bare_s, cluster_s


def figures_of(n: int, seconds: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Return items a second of both and the median of the rounds' ratios."""
    bare_s, cluster_s = (statistics.median(column) for column in zip(*seconds, strict=True))
    ratio = statistics.median(bare / cluster for bare, cluster in seconds)
    return {"bare_per_s": round(n / bare_s, 1), "cluster_per_s": round(n / cluster_s, 1), "ratio": round(ratio, 3)}


class Bench:
    """The task, its model and its shards on one lab."""

    def __init__(self, stage: Stage, n_images: int, n_rows: int) -> None:
        rng = np.random.default_rng(7)
        self._stage, self._n_images = stage, n_images
        weights = rng.standard_normal((DIM, len(LABELS)), dtype=np.float32) / DIM**0.5
        self._model = LinearModel(weights, np.zeros(len(LABELS), np.float32), np.zeros(DIM, np.float32), False)
        self._encoder = find_encoder(ENCODER)
        self._lend_model()
        self._x = rng.standard_normal((n_rows, DIM), dtype=np.float32)
        self._folder: TaskFolder | None = None
        self._shards: tuple[str, ...] = ()
        self._drawn = 0

    def _lend_model(self) -> None:
        """Give each docker this machine's exported encoder: the export, once a machine, is not what is measured."""
        made = model_file(cache_folder())
        for node in self._stage.lab.nodes:
            folder = self._stage.lab.disk(node) / "root/.cache/labelloop"
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(made, folder / made.name)

    def form(self, n_nodes: int) -> None:
        """Give the first `n_nodes` dockers their role and return when their RPC answers; opens the task the first time."""
        ground = self._stage.ground
        roles: dict[str, m.Role] = dict.fromkeys(self._stage.lab.nodes[:n_nodes], "inference")
        ground.registry.form(m.FormRequest(roles=roles), deadline_s=FORM_S)
        until(lambda: self._why_not_formed(n_nodes), f"{n_nodes} inference nodes", FORM_S, steady_s=2.5)
        if self._folder is None:
            self._folder = open_task(self._stage, self._model)
            self._shards = write_shards(self._folder, self._x)
        until(lambda: self._why_not_warm(n_nodes), "warm workers", FORM_S)

    def _why_not_formed(self, n_nodes: int) -> str:
        found = len(self._stage.ground.registry.topology(deadline_s=10.0).inference_rpc)
        return "" if found == n_nodes else f"{found} inference_rpc answer"

    def _why_not_warm(self, n_nodes: int) -> str:
        """Have every bulk worker embed something, several at a time, so that libraries and weights are in memory."""
        jobs = [self._new_images(4) for _ in range(3 * n_nodes)]
        try:
            with ThreadPoolExecutor(len(jobs)) as pool:
                list(pool.map(self._score, jobs))
        except LabelloopError as exc:
            return str(exc)
        return ""

    def _new_images(self, n: int) -> list[Path]:
        self._drawn += 1
        return draw(self._stage.lab.folder / PICTURES / str(self._drawn), n, self._drawn)

    def _score(self, paths: Sequence[Path]) -> Proba:
        job_id = f"images-{os.getpid()}-{time.monotonic_ns()}"
        items = tuple(
            m.Item(item_id=f"{job_id}-{i}", link=f"file://{SHARED}/{path.relative_to(self._stage.lab.folder)}")
            for i, path in enumerate(paths)
        )
        return run_job(self._stage, m.JobRequest(task="bench", job_id=job_id, items=items))

    def _rescore(self) -> Proba:
        return run_job(self._stage, m.JobRequest(task="bench", job_id=f"rows-{time.monotonic_ns()}", shards=self._shards))

    def images(self, rounds: int) -> dict[str, float]:
        """Measure fresh pictures."""
        seconds = []
        for _ in range(rounds):
            paths = self._new_images(self._n_images)
            seconds.append(compared(lambda: bare_images(paths, self._encoder, self._model), lambda: self._score(paths)))  # noqa: B023
        return figures_of(self._n_images, seconds)

    def rows(self, rounds: int) -> dict[str, float]:
        """Measure pre-embedded rows, by reference."""
        bare = lambda: softmax(self._x @ self._model.weights + self._model.bias)  # noqa: E731
        seconds = [compared(bare, self._rescore) for _ in range(rounds + 1)]
        return figures_of(len(self._x), seconds[1:])  # the first one maps and checks the shards


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark and return its figures."""
    parser = argparse.ArgumentParser(prog="bench infer-cluster")
    parser.add_argument("--nodes", default="1,2,4", help="numbers of inference dockers, rising (default 1,2,4)")
    parser.add_argument("--images", type=int, default=768)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(list(argv))
    sizes = [int(word) for word in args.nodes.split(",")]
    figures: dict[str, Any] = {"images": args.images, "rows": args.rows}
    with staged(0, max(sizes), settings=settings(), is_formed=False) as stage:
        bench = Bench(stage, args.images, args.rows)
        for n in sizes:
            bench.form(n)
            found = {"images": bench.images(args.rounds), "pre_embedded": bench.rows(args.rounds)}
            figures[f"nodes_{n}"] = found
            print(json.dumps({n: found}), file=sys.stderr, flush=True)
        figures["memory_mib"] = stage.lab.memory_bytes() // 2**20
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


def settings() -> Settings:
    """Return the settings of the lab: one process a role, the pictures' folder readable."""
    return Settings(
        cluster=ClusterSettings(inference_processes=1, concurrency=1),
        intake=msgspec.structs.replace(IntakeSettings(), allowed_folders=(f"{SHARED}/{PICTURES}",)),
    )


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:]), indent=2))
