"""`bench rescore`: drafts for N pre-embedded items through inference_rpc against one bare numpy pass over the same matrix.

Owns the comparison: predict_async over feature shards and paging of the results, with the real broker, workers, RPC and TLS,
against `softmax(X @ W + b)` on the whole matrix in memory, in turns, in the same run. Called by
`scripts/bench rescore` and by hand.

    scripts/bench rescore [--items N] [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datastore_layout.jobs import ChunkSpec, JobRecord, create_job
from datastore_layout.models import Manifest, advance, list_versions, publish_model
from datastore_layout.root import TaskFolder
from datastore_layout.shards import ShardSet
from labelloop.messages import JobRequest, ResultsRequest, TaskExtraInfo, TaskSpec
from labelloop.settings import Settings
from learning.algorithms.linear_model import LinearModel, softmax
from roles.inference.calls import ChunkPart, ChunkWork
from roles.inference.chunks import ChunkWorker
from roles.inference.predictor import Predictor
from scripts.inference_node import InferenceNode

N_LABELS = 10
SHARD_ROWS = 4096
ENCODERS = {1280: "efficientnet-lite0", 64: "raw-pixels-8g"}
LABELS = tuple(f"label-{i}" for i in range(N_LABELS))


def _make_task(node: InferenceNode, dim: int, n_items: int) -> tuple[TaskFolder, list[str], NDArray[np.float32], LinearModel]:
    encoder = ENCODERS[dim]
    spec = TaskSpec(task=f"bench-{dim}", category="image-classification", extra=TaskExtraInfo(labels=LABELS, encoder=encoder))
    folder = node.open_task(spec)
    rng = np.random.default_rng(dim)
    x = rng.standard_normal((n_items, dim), dtype=np.float32)
    shards, names = ShardSet(folder, encoder), []
    for start in range(0, n_items, SHARD_ROWS):
        rows = range(start, min(start + SHARD_ROWS, n_items))
        ids = [f"item-{row}" for row in rows]
        names.append(shards.write(ids, [f"http://x/{i}" for i in ids], [f"hash-{i}" for i in ids], x[rows.start : rows.stop]))
    weights = rng.standard_normal((dim, N_LABELS), dtype=np.float32) / dim**0.5
    model = LinearModel(weights, np.zeros(N_LABELS, np.float32), np.zeros(dim, np.float32), False)
    _publish(folder, model, encoder)
    return folder, names, x, model


def _publish(folder: TaskFolder, model: LinearModel, encoder: str) -> None:
    manifest = Manifest(
        task=str(folder.task), category="image-classification", labels=LABELS, algorithm="logistic-regression", encoder=encoder
    )
    with tempfile.TemporaryDirectory() as source:
        model.save(Path(source))
        advance(folder, 0, publish_model(folder, manifest, Path(source)), "benchmark")


def rescore(node: InferenceNode, task: str, job_id: str, names: Sequence[str]) -> tuple[dict[str, float], NDArray[np.float32]]:
    """Run one job over `names` and page its results; return seconds by step and the probabilities in order."""
    begin_s = time.perf_counter()
    node.client.predict_async(JobRequest(task=task, job_id=job_id, shards=tuple(names)))
    accepted_s = first_s = time.perf_counter()
    parts: list[NDArray[np.float32]] = []
    after, is_complete, n_pages = -1, False, 0
    while not is_complete:
        reply = node.client.results(ResultsRequest(task=task, job_id=job_id, after=after, limit=64, with_ids=False))
        n_pages += 1
        if reply.chunks and after < 0:
            first_s = time.perf_counter()
        for chunk in reply.chunks:
            assert chunk.proba is not None and not chunk.failed
            parts.append(np.frombuffer(chunk.proba.data, np.float32).reshape(chunk.proba.shape))
            after = chunk.chunk
        is_complete = reply.is_complete
    end_s = time.perf_counter()
    steps = {"total_s": end_s - begin_s, "accept_s": accepted_s - begin_s, "first_page_s": first_s - accepted_s}
    return {**steps, "other_pages_s": end_s - first_s, "pages": float(n_pages)}, np.concatenate(parts)


def bare_pass(x: NDArray[np.float32], model: LinearModel) -> Callable[[], NDArray[np.float32]]:
    """Return the whole of the baseline: one matrix product and a softmax."""
    return lambda: softmax(x @ model.weights + model.bias)


def worker_alone(node: InferenceNode, folder: TaskFolder, names: Sequence[str], rounds: int) -> tuple[float, float]:
    """Return the median seconds of (products alone, products with attempts and results on disk), as the bulk worker does them."""
    predictor = Predictor(node.root, Settings())
    chunks = ChunkWorker(predictor)
    version = list_versions(folder)[0]
    parts = tuple(ChunkPart(chunk=number, shard=name) for number, name in enumerate(names))
    specs = tuple(ChunkSpec(shard=name) for name in names)
    product_s, whole_s = [], []
    for number in range(rounds + 1):  # the first one maps and checks the shards
        begin_s = time.perf_counter()
        for name in names:
            predictor.score_rows(str(folder.task), version, name, slice(None))
        product_s.append(time.perf_counter() - begin_s)
        job_id = f"alone-{number}"
        create_job(folder, JobRecord(job_id=job_id, version=version, chunks=specs))
        order = ChunkWork(call="", reply_to="", task=str(folder.task), job_id=job_id, version=version, parts=parts)
        begin_s = time.perf_counter()
        desk = chunks.open_desk(order)
        for part in parts:
            chunks.answer(desk, order, part)
        chunks.drain()
        whole_s.append(time.perf_counter() - begin_s)
    chunks.close()
    return statistics.median(product_s[1:]), statistics.median(whole_s[1:])


def _measure(node: InferenceNode, dim: int, n_items: int, rounds: int) -> dict[str, Any]:
    folder, names, x, model = _make_task(node, dim, n_items)
    bare = bare_pass(x, model)
    expected = bare()
    first, _ = rescore(node, str(folder.task), f"first-{dim}", names)
    seconds: list[dict[str, float]] = []
    bare_s: list[float] = []
    for number in range(rounds):
        begin_s = time.perf_counter()
        bare()
        bare_s.append(time.perf_counter() - begin_s)
        steps, found = rescore(node, str(folder.task), f"round-{dim}-{number}", names)
        seconds.append(steps)
        if not np.allclose(found, expected, atol=1e-5):
            raise AssertionError("the answers differ from the bare pass")
    product_s, worker_s = worker_alone(node, folder, names, rounds)
    through_s = statistics.median(step["total_s"] for step in seconds)
    bare_median_s = statistics.median(bare_s)
    shares = {
        "products": product_s / through_s,
        "attempts_and_results_on_disk": max(0.0, worker_s - product_s) / through_s,
        "accept": statistics.median(step["accept_s"] for step in seconds) / through_s,
    }
    shares["broker_rpc_and_paging"] = max(0.0, 1.0 - sum(shares.values()))
    return {
        "items": n_items,
        "shards": len(names),
        "bare_s": round(bare_median_s, 4),
        "through_rpc_s": round(through_s, 4),
        "ratio": round(through_s / bare_median_s, 2),
        "ratio_best": round(min(s["total_s"] for s in seconds) / min(bare_s), 2),
        "cold_first_s": round(first["total_s"], 4),
        "pages": statistics.median(step["pages"] for step in seconds),
        "shares": {key: round(value, 3) for key, value in shares.items()},
    }


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark and return its figures."""
    parser = argparse.ArgumentParser(prog="bench rescore")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(list(argv))
    with tempfile.TemporaryDirectory(prefix="bench-rescore-") as folder, InferenceNode(Path(folder)) as node:
        figures = {f"dim_{dim}": _measure(node, dim, args.items, args.rounds) for dim in ENCODERS}
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return {"ratio": figures["dim_1280"]["ratio"], **figures}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:]), indent=2))
