"""`bench detection`: box-head on scenes with known boxes: mAP50 by the number of boxes, corrections in the loop, speed.

Owns the protocol. The test scenes are made of drawings that no pool scene shows. Each seed draws one order of the pool and grows
along it; the baselines of `scripts.detection_baselines` learn from the same pictures. Called by `scripts/bench detection`.

    scripts/bench detection [--only curve|loop|speed] [--seeds 0,1,2] [--boxes 50,100,200,400,800] [--samples FOLDER] [--json FILE]
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intake.encoders import find_encoder
from intake.encoders.base import threads
from learning.algorithms import find_algorithm
from learning.algorithms.box_head import BoxHeadModel
from learning.feature_map import parse_layout
from learning.metrics_regions import corrections, mean_average_precision, surer_than
from learning.regions import Regions
from scripts.detection_baselines import find_windows, fit_windows, usual_box
from scripts.samples import SampleItem, load_sample

ENCODER = "efficientnet-map"
RETRAIN_BOXES, LOOP_BOXES = 200, 1200
_TIMED_PICTURES = 60
Array = NDArray[np.float32]


class Scenes(NamedTuple):
    """Maps (n, d) and boxes of the pool and of the test scenes."""

    x: Array
    boxes: list[Regions]
    test_x: Array
    test_boxes: list[Regions]
    n_labels: int


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Measure what --only asks, or all of it."""
    parser = argparse.ArgumentParser(prog="bench detection")
    parser.add_argument("--only", choices=("curve", "loop", "speed"), action="append")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--boxes", default="50,100,200,400,800")
    parser.add_argument("--samples", type=Path, default=Path.home() / ".cache" / "labelloop" / "samples")
    args = parser.parse_args(list(argv))
    seeds, counts = ([int(value) for value in text.split(",")] for text in (args.seeds, args.boxes))
    scenes, figures = _load(args.samples)
    parts = args.only or ("curve", "loop", "speed")
    if "curve" in parts:
        figures["curve"] = [_at(scenes, count, seeds) for count in counts]
    if "loop" in parts:
        figures["loop"] = [_loop(scenes, seed) for seed in seeds]
    if "speed" in parts:
        figures["speed"] = _speed(scenes)
    return figures


def _load(folder: Path) -> tuple[Scenes, dict[str, Any]]:
    """Return the scenes as maps, embedded once and kept, and how fast the encoder is now."""
    sample = load_sample("scenes", folder)
    pool, test = sample.pool(), sample.test()
    kept = folder / "scenes" / f"{ENCODER}-{len(sample.items)}.npy"
    if not kept.is_file():
        np.save(kept, _embed([*pool, *test]))
    x = np.load(kept)
    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    _embed(pool[:_TIMED_PICTURES])
    took_s, cpu_s = time.perf_counter() - begin_s, time.process_time() - begin_cpu_s
    boxes = [_regions(item, sample.labels) for item in (*pool, *test)]
    facts = {"pool": len(pool), "test": len(test), "test_boxes": sum(len(one.labels) for one in boxes[len(pool) :])}
    speed = {"pictures_per_s": round(_TIMED_PICTURES / took_s, 1), "pictures_per_cpu_s": round(_TIMED_PICTURES / cpu_s, 1)}
    found = Scenes(x[: len(pool)], boxes[: len(pool)], x[len(pool) :], boxes[len(pool) :], len(sample.labels))
    return found, {"scenes": facts, "encoder": {"name": ENCODER, "threads": threads(), **speed}}


def _embed(items: Sequence[SampleItem]) -> Array:
    encoder = find_encoder(ENCODER)
    blocks = (items[begin : begin + 32] for begin in range(0, len(items), 32))
    return np.concatenate(
        [encoder.encode([Image.open(io.BytesIO(item.content)).convert("RGB") for item in block]) for block in blocks]
    )


def _regions(item: SampleItem, labels: Sequence[str]) -> Regions:
    where = np.array([region.where for region in item.regions], np.float32).reshape(-1, 4)
    numbers = np.array([labels.index(region.label) for region in item.regions], np.int64)
    return Regions(where, numbers, np.ones(len(numbers), np.float32))


def _order(scenes: Scenes, seed: int, count: int) -> NDArray[np.int64]:
    """Return the first pictures of this seed's order that together show `count` boxes or just more."""
    order = np.random.default_rng(seed).permutation(len(scenes.boxes))
    total = np.cumsum([len(scenes.boxes[row].labels) for row in order])
    return order[: int(np.searchsorted(total, count)) + 1]


def _train(scenes: Scenes, rows: NDArray[np.int64], seed: int, start_from: BoxHeadModel | None = None) -> BoxHeadModel:
    boxes = [scenes.boxes[row] for row in rows]
    training = find_algorithm("box-head").start(scenes.x[rows], boxes, scenes.n_labels, seed=seed, start_from=start_from)
    while training.step < training.steps:
        training.advance()
    return cast(BoxHeadModel, training.model())


def _at(scenes: Scenes, count: int, seeds: Sequence[int]) -> dict[str, Any]:
    """Return one line of the curve, mean over `seeds` with the lowest and the highest."""
    lines = [_once(scenes, _order(scenes, seed, count), seed) for seed in seeds]
    line = {name: round(float(np.mean([one[name] for one in lines])), 3) for name in lines[0]}
    maps = [round(one["map50"], 3) for one in lines]
    print(f"{count} boxes: {line}", file=sys.stderr, flush=True)
    return {"boxes": count, **line, "map50_band": [min(maps), max(maps)]}


def _once(scenes: Scenes, rows: NDArray[np.int64], seed: int) -> dict[str, float]:
    boxes = [scenes.boxes[row] for row in rows]

    def score(found: Sequence[Regions]) -> float:
        return mean_average_precision(scenes.test_boxes, found, scenes.n_labels)

    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    model = _train(scenes, rows, seed)
    took_s, cpu_s = time.perf_counter() - begin_s, time.process_time() - begin_cpu_s
    found = model.predict_regions(scenes.test_x)
    shown = surer_than(found, model.confidence.shown_from)
    windows = fit_windows(scenes.x[rows], boxes, parse_layout(model.layout), scenes.n_labels, seed)
    hits = np.concatenate([one.scores for one in shown])
    return {
        "pictures": float(len(rows)),
        "map50": score(found),
        "any_class_map50": mean_average_precision(_one_class(scenes.test_boxes), _one_class(found), 1),
        "corrections_per_100": corrections(scenes.test_boxes, shown).per_100,
        "shown_from": model.confidence.shown_from,
        "shown_confidence": float(hits.mean()) if len(hits) else 0.0,
        "shown_right": _share_right(scenes.test_boxes, shown),
        "usual_box_map50": score(usual_box(boxes, len(scenes.test_boxes))),
        "sliding_windows_map50": score(find_windows(windows, scenes.test_x)),
        "train_s": took_s,
        "train_cpu_s": cpu_s,
    }


def _one_class(found: Sequence[Regions]) -> list[Regions]:
    return [one._replace(labels=np.zeros_like(one.labels)) for one in found]


def _share_right(truth: Sequence[Regions], shown: Sequence[Regions]) -> float:
    left = corrections(truth, shown)
    n_shown = sum(len(one.labels) for one in shown)
    return (n_shown - left.wrong - left.extra) / max(n_shown, 1)


def _loop(scenes: Scenes, seed: int) -> dict[str, Any]:
    """Label the pool in a random order, each picture from the drafts of a model that is trained anew every 200 boxes.

    Return the corrections per 100 boxes of each run of 200; the first run has no drafts, and every box is drawn: 100.
    """
    order = np.random.default_rng(seed).permutation(len(scenes.boxes))
    total = np.cumsum([len(scenes.boxes[row].labels) for row in order])
    ends = np.searchsorted(total, np.arange(RETRAIN_BOXES, min(LOOP_BOXES, total[-1]) + 1, RETRAIN_BOXES)) + 1
    model: BoxHeadModel | None = None
    per_100: list[float] = []
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        if begin:
            model = _train(scenes, order[:begin], seed, model)
        rows = order[begin:end]
        nothing = [Regions(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))] * len(rows)
        drafts = nothing if model is None else surer_than(model.predict_regions(scenes.x[rows]), model.confidence.shown_from)
        per_100.append(round(corrections([scenes.boxes[row] for row in rows], drafts).per_100, 1))
        print(f"seed {seed}, up to {total[end - 1]} boxes: {per_100[-1]} corrections per 100", file=sys.stderr, flush=True)
    return {"seed": seed, "retrained_every": RETRAIN_BOXES, "corrections_per_100": per_100}


def _speed(scenes: Scenes) -> dict[str, Any]:
    """Measure finding boxes beside a bare loop of the same network's forward pass, in turns, the best of 5."""
    import torch

    rows = _order(scenes, 0, 50)
    training = find_algorithm("box-head").start(scenes.x[rows], [scenes.boxes[row] for row in rows], scenes.n_labels)
    training.advance()  # how fast it is does not depend on what it has learned: 64 cells are looked at in any case
    model = cast(BoxHeadModel, training.model())
    x = scenes.test_x[:128]
    blocks = [[torch.from_numpy(one) for one in model.scale.levels(x[at : at + 64], model.levels)] for at in range(0, len(x), 64)]

    def bare() -> None:
        with torch.inference_mode():
            for block in blocks:
                model._module(block)

    took = [(_took(bare), _took(lambda: model.predict_regions(x))) for _ in range(6)][1:]
    bare_s, own_s = (min(seconds) for seconds in zip(*took, strict=True))
    return {
        "pictures_per_s": round(len(x) / own_s, 1),
        "baseline": "bare torch loop of the same head's forward pass",
        "baseline_pictures_per_s": round(len(x) / bare_s, 1),
        "ratio": round(own_s / bare_s, 2),
    }


def _took(call: Callable[[], Any]) -> float:
    """Return the processor seconds of a call: on a machine with other work the clock says little."""
    begin_s = time.process_time()
    call()
    return time.process_time() - begin_s
