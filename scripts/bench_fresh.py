"""`bench fresh`: seconds from the label that starts a training to the first fresh draft at the annotator, on a running demo.

Owns one demo in a folder of its own and the clock: everything runs on this machine, so that the bench's times, the logs' and the
run records' are one clock's. The baseline, in the same run: fit and predict over the pool in one process, features in memory.
Called by `scripts/bench fresh`.

    scripts/bench fresh [--rounds N] [--project NAME] [--json FILE]
"""

from __future__ import annotations

import argparse
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from datastore_layout.intake_files import list_intake
from datastore_layout.models import read_manifest
from datastore_layout.root import TaskFolder, open_root, task_folder
from datastore_layout.runs import Attempt, latest_attempt, read_run
from datastore_layout.shards import ShardSet
from labelloop.errors import DeadlineError, UnreachableError
from labelloop.ids import VersionId, parse_task
from learning.algorithms import find_algorithm
from scripts.annotator import create_project, import_sample
from scripts.demo import READY_TIMEOUT_S, Access
from scripts.samples import Sample, load_sample
from scripts.web_client import WebClient

HERE = Path(__file__).resolve().parent.parent
LOOK_S = 0.005
ROUND_TIMEOUT_S = 60.0
_TRAINING = ("load", "fit", "evaluate", "publish", "gate")
STEPS = ("outbox relay", "intake and data worker", "policy and queue", *_TRAINING, "swap", "rescore begins", "drafts and order")


@contextmanager
def running_demo(state: Path) -> Iterator[Access]:
    """Start the demo on `state`, return how to enter it, and stop it at the end. Raises UnreachableError when it ends by itself."""
    output = state.with_suffix(".out")
    with output.open("wb") as said:
        argv = (sys.executable, "-m", "scripts.cli", "demo", "--state", str(state), "--project", "cancer")
        demo = subprocess.Popen(argv, cwd=HERE, stdout=said, stderr=subprocess.STDOUT)
    try:
        until_s = time.monotonic() + READY_TIMEOUT_S
        while "Ctrl-C stops everything" not in output.read_text():
            if demo.poll() is not None or time.monotonic() > until_s:
                raise UnreachableError(f"the demo did not start: {output.read_text()}")
            time.sleep(0.1)
        yield msgspec.json.decode((state / "access.json").read_bytes(), type=Access)
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait()


class IntakeWatch:
    """Notes when the next intake batch of a task is durable, seen in the datastore itself."""

    def __init__(self, folder: TaskFolder) -> None:
        self._folder = folder
        self._known = len(list_intake(folder))
        self._ended = threading.Event()
        self.seen_at = 0.0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(LOOK_S):
            if len(list_intake(self._folder)) > self._known:
                self.seen_at = time.time()
                return

    def close(self) -> float:
        """Return when it was seen, 0 = never."""
        self._ended.set()
        self._thread.join()
        return self.seen_at


class Desk:
    """One annotator by true labels who stops at each training and looks until a fresh draft comes."""

    def __init__(self, app: WebClient, sample: Sample, slug: str, state: Path) -> None:
        self._app, self._slug, self._state = app, slug, state
        self._truth = {item.item_id: item.label for item in sample.items}

    def status(self) -> dict[str, Any]:
        """Return the project's status."""
        found: dict[str, Any] = self._app.call("GET", f"/projects/{self._slug}/status")
        return found

    def next_item(self) -> dict[str, Any]:
        """Return the item in hand, with its newest draft."""
        until_s = time.monotonic() + ROUND_TIMEOUT_S
        while time.monotonic() < until_s:
            items = self._app.call("POST", f"/projects/{self._slug}/next", {"n": 1, "holding": []})["items"]
            if items:
                return dict(items[0])
            time.sleep(LOOK_S)
        raise DeadlineError(f"project {self._slug!r} gives no item: {self.status()['trouble']}")

    def label(self) -> None:
        """Answer the item in hand."""
        item = self.next_item()
        body = {"item_id": item["item_id"], "lease": item["lease"], "labels": [self._truth[item["item_id"]]], "next": 0}
        self._app.call("POST", f"/projects/{self._slug}/annotations", {**body, "key": uuid.uuid4().hex})

    def settle(self) -> dict[str, Any]:
        """Wait until every label is in the log, nothing trains and the drafts are the serving version's; return the status."""
        until_s = time.monotonic() + ROUND_TIMEOUT_S
        while time.monotonic() < until_s:
            found = self.status()
            is_training = found["run"] is not None and found["run"]["state"] in ("queued", "running")
            is_ordered = found["is_ordered"] and found["drafts_version"] == found["serving"]
            if found["labels_sent"] == found["labels"] and not found["outbox"] and not is_training and is_ordered:
                return found
            time.sleep(0.02)
        raise DeadlineError(f"project {self._slug!r} does not settle: {found['trouble'] or found['next_training']}")

    def fresh(self, folder: TaskFolder) -> tuple[dict[str, float], str]:
        """Label up to the next training; return the marks from its label to the first fresh draft, and the version."""
        found = self.settle()
        while found["labels"] + 1 < found["next_training_at"]:
            for _ in range(found["next_training_at"] - found["labels"] - 1):
                self.label()
            found = self.settle()
        watch = IntakeWatch(folder)
        began = time.time()
        try:
            self.label()
            until_s = time.monotonic() + ROUND_TIMEOUT_S
            while (draft := self.next_item()["draft"]) is None or draft["version"] == found["serving"]:
                if time.monotonic() > until_s:
                    raise DeadlineError(f"no fresh draft after {ROUND_TIMEOUT_S:.0f} s: {self.status()['next_training']}")
                time.sleep(LOOK_S)
            ended = time.time()
        finally:
            seen_at = watch.close()
        return {"began": began, "intake": seen_at, "ended": ended}, str(draft["version"])


def log_times(files: Iterable[Path], words: str) -> list[float]:
    """Return the times of the log lines that hold `words`, sorted."""
    found = []
    for line in (line for file in files for line in file.read_text(errors="replace").splitlines() if words in line):
        stamp = line.split(" ", 1)[0].rstrip("Z")
        found.append(datetime.fromisoformat(stamp).replace(tzinfo=UTC).timestamp())
    return sorted(found)


def steps_of(state: Path, folder: TaskFolder, marks: dict[str, float], version: str) -> dict[str, float]:
    """Return the seconds of each of STEPS: consecutive marks on one clock, so that they sum to the whole."""
    run = read_manifest(folder, VersionId(version)).run
    created = read_run(folder, run).created
    slug = str(folder.task)
    train, pilot = state / "train-1" / "logs", state / "logs"
    segments = log_times(train.glob("data-worker.log"), f"task={slug} ")
    text = Attempt(folder, run, latest_attempt(folder, run)).read_log()
    took = {name: float(seconds) for name, seconds in re.findall(r"(\w+) ([\d.]+) s", text.partition("(")[2])}
    claimed = re.search(
        rf"run {run} done after [\d.]+ s \(([\d.]+) s until claimed", _text(train / "train-rpc.log", f"task={slug} ")
    )
    points = [
        marks["intake"],
        max((at for at in segments if at <= created + 0.001), default=created),
        created + float(claimed[1] if claimed else 0.0),
    ]
    for name in _TRAINING:
        points.append(points[-1] + took.get(name, 0.0))
    points.append(min(log_times((state / "inference-1" / "logs").glob("inference-rpc.log"), f"{version} serves now"), default=0.0))
    points.append(min(log_times(pilot.glob("pilot.log"), f"version {version} serves"), default=0.0))
    points.append(marks["ended"])
    last, seconds = marks["began"], {}
    for name, point in zip(STEPS, points, strict=True):
        point = min(max(point, last), marks["ended"])
        seconds[name], last = point - last, point
    return seconds


def _text(path: Path, words: str) -> str:
    return "\n".join(line for line in path.read_text(errors="replace").splitlines() if words in line)


def bare_pass(folder: TaskFolder, sample: Sample, version: str, rounds: int) -> float:
    """Return the median seconds of the same fit and the prediction over the whole pool, in this process, features in memory."""
    manifest = read_manifest(folder, VersionId(version))
    shards = ShardSet(folder, manifest.encoder)
    shards.refresh()
    truth = {item.item_id: sample.labels.index(item.label) for item in sample.items}
    places = {item: (name, row) for name in shards.names() for row, item in enumerate(shards.ids(name)) if item in truth}
    x = np.asarray(shards.rows(list(places.values())))
    y = np.array([truth[item] for item in places])
    chosen = np.random.default_rng(0).permutation(len(x))[: manifest.n_labels]
    seconds = []
    for _ in range(rounds + 1):  # the first one imports libraries
        since_s = time.perf_counter()
        training = find_algorithm(manifest.algorithm).start(
            x[chosen], y[chosen], len(sample.labels), False, manifest.parameters, 0, 0, None
        )
        while training.step < training.steps:
            training.advance()
        training.model().predict_proba(x)
        seconds.append(time.perf_counter() - since_s)
    return statistics.median(seconds[1:])


def measure(state: Path, access: Access, name: str, rounds: int) -> dict[str, Any]:
    """Return the figures of `rounds` trainings on a fresh project of the sample `name`."""
    sample = load_sample(name, state / "samples")._replace(target=1.0)  # an unreached target: each round trains
    slug = f"fresh-{name}"
    app = WebClient(access.url, access.token)
    create_project(app, sample, slug, sample.title, "auto")
    import_sample(app, sample, slug, state / "uploads")
    desk = Desk(app, sample, slug, state)
    until_s = time.monotonic() + READY_TIMEOUT_S
    while not (found := desk.status())["is_ordered"] or found["items"] < len(sample.pool()):
        if time.monotonic() > until_s:
            raise DeadlineError(f"the import of {name} is not done: {found['trouble']}")
        time.sleep(0.05)
    while not desk.status()["serving"]:  # the first version also embeds the pool; it is no round
        desk.label()
    folder = task_folder(open_root(state / "datastore"), parse_task(slug))
    total_s, steps, version = [], [], ""
    for _ in range(rounds):
        marks, version = desk.fresh(folder)
        total_s.append(marks["ended"] - marks["began"])
        desk.settle()
        steps.append(steps_of(state, folder, marks, version))
    bare_s = bare_pass(folder, sample, version, rounds)
    app.close()
    step_s = {step: statistics.median(one[step] for one in steps) for step in STEPS}
    whole_s = sum(sum(one.values()) for one in steps)
    median_s = statistics.median(total_s)
    return {
        "ratio": round(median_s / bare_s, 1),
        "project": name,
        "rounds": rounds,
        "median_s": round(median_s, 3),
        "max_s": round(max(total_s), 3),
        "is_below_5_s": max(total_s) < 5.0,
        "bare_s": round(bare_s, 4),
        "pool_items": len(sample.pool()),
        "labels_at_end": desk.status()["labels"],
        "median_s_of_step": {step: round(seconds, 4) for step, seconds in step_s.items()},
        "share_of_step": {step: round(sum(one[step] for one in steps) / whole_s, 3) for step in STEPS},
        "seconds": [round(seconds, 3) for seconds in total_s],
    }


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark and return its figures."""
    parser = argparse.ArgumentParser(prog="bench fresh")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--project", default="digits")
    args = parser.parse_args(list(argv))
    with tempfile.TemporaryDirectory(prefix="bench-fresh-") as folder, running_demo(Path(folder) / "state") as access:
        return measure(Path(folder) / "state", access, args.project, args.rounds)
