"""An annotator made out of true labels: works through the app's public HTTP API, then reports how well the loop learnt.

Owns its journal (JSON lines, flushed one by one: each answer before it is sent and again when it is acknowledged), from which it
resumes after a kill. Must never touch the app's database; the datastore it only reads, to count lost and doubled labels. Called
by scripts.demo as a process.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datastore_layout.labels import LabelLog
from datastore_layout.models import read_manifest, verified_model_dir
from datastore_layout.root import TaskFolder, open_root, task_folder
from datastore_layout.shards import ShardSet
from datastore_layout.tasks import read_spec
from labelloop.errors import ConflictError, DeadlineError
from labelloop.ids import VersionId, parse_task
from labelloop.messages import Item
from labelloop.settings import IntakeSettings, TrainSettings
from learning.algorithms import find_algorithm
from scripts.curves import Reference, corrections_per_100, random_curve
from scripts.samples import Sample, SampleItem, write_upload
from scripts.web_client import WebClient

logger = logging.getLogger(__name__)

_LOOK_S = 0.05
_ROUND_TIMEOUT_S = 600.0


class Journal:
    """Append-only JSON lines; each line is on disk before the call returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("ab")
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            self._file.write(b"\n")  # a line cut short by a kill must not swallow the next one

    def write(self, **entry: Any) -> None:
        """Add one entry and flush it to disk."""
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, kind: str) -> list[dict[str, Any]]:
        """Return the entries of `kind`, oldest first; a last line cut short by a kill is left out."""
        found = []
        for line in self._path.read_bytes().split(b"\n"):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry["kind"] == kind:
                found.append(entry)
        return found


class Plan(NamedTuple):
    """What one simulation does. `say` shows progress: (labels done, labels in all, sentence)."""

    sample: Sample
    labels: int
    strategy: str
    datastore: Path
    work_dir: Path
    train: TrainSettings
    intake: IntakeSettings
    say: Callable[[int, int, str], None]


class Annotator:
    """One simulation; `run` may be called again after a kill and goes on where it was."""

    def __init__(self, app: WebClient, plan: Plan) -> None:
        self._app = app
        self._plan = plan
        self._truth = {item.item_id: item.label for item in plan.sample.items}
        self._journal = Journal(plan.work_dir / "journal.jsonl")
        self._slug = self._find_slug()
        self._due_at = 0

    def run(self) -> dict[str, Any]:
        """Import, label, wait for each round of the loop; return the report."""
        began_s = time.time()
        began = self._journal.read("began")
        if began:
            began_s = float(began[0]["at"])
        else:
            self._journal.write(kind="began", at=began_s)
        self._prepare()
        self._label()
        report = self._report(time.time() - began_s)
        self._journal.close()
        return report

    # ------------------------------------------------------------ the work

    def _find_slug(self) -> str:
        known = self._journal.read("project")
        if known:
            return str(known[0]["slug"])
        slug = f"{self._plan.sample.name}-{time.strftime('%m%d-%H%M%S')}"
        self._journal.write(kind="project", slug=slug)
        return slug

    def _path(self, rest: str = "") -> str:
        return f"/projects/{self._slug}{rest}"

    def _prepare(self) -> None:
        sample = self._plan.sample
        create_project(self._app, sample, self._slug, f"{sample.title} (simulated)", self._plan.strategy)
        status = self._status()
        if status["items"] < len(sample.pool()):
            self._plan.say(0, self._plan.labels, f"importing {len(sample.pool())} items")
            import_sample(self._app, sample, self._slug, self._plan.work_dir)
        self._wait(lambda s: s["items"] >= len(sample.pool()), "the import")

    def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = self._app.call("GET", self._path("/status"))
        return status

    def _wait(self, is_done: Callable[[dict[str, Any]], bool], what: str, limit_s: float = _ROUND_TIMEOUT_S) -> dict[str, Any]:
        until_s = time.monotonic() + limit_s
        while not is_done(status := self._status()):
            if time.monotonic() > until_s:
                raise DeadlineError(f"{what} took longer than {limit_s:.0f} s; the project says: {status.get('trouble') or status}")
            time.sleep(_LOOK_S)
        return status

    def _label(self) -> None:
        self._repeat_last()
        done = len({entry["item_id"] for entry in self._journal.read("label")})
        wanted = min(self._plan.labels, len(self._plan.sample.pool()))
        status = self._wait(lambda s: bool(s["is_ordered"]), "the first order of the queue")
        self._due_at = status["next_training_at"] or done + 1
        while done < wanted:
            items = self._app.call("POST", self._path("/next"), {"n": 1, "holding": []})["items"]  # one's own leases come first
            if not items:
                time.sleep(_LOOK_S)
                continue
            done += self._answer(items[0])
            self._come_round(done, wanted)

    def _answer(self, item: dict[str, Any]) -> int:
        """Answer one item; return how many labels that added."""
        draft = item.get("draft")
        body = {
            "item_id": item["item_id"],
            "lease": item["lease"],
            "labels": [self._truth[item["item_id"]]],
            "seconds": 1.0,
            "key": uuid.uuid4().hex,
            "next": 0,
        }
        shown = draft["labels"] if draft else None
        self._journal.write(kind="answer", body=body, draft=shown)
        return self._send(body, shown)

    def _send(self, body: dict[str, Any], shown: list[str] | None) -> int:
        """Send an answer that is in the journal; 0 = its lease had ended, so nothing was saved and the item is not acknowledged."""
        try:
            self._app.call("POST", self._path("/annotations"), body)
        except ConflictError as exc:
            logger.warning("answer to %s was not taken: %s", body["item_id"], exc)
            return 0
        corrected = shown is not None and shown != body["labels"]
        self._journal.write(kind="label", item_id=body["item_id"], key=body["key"], draft=shown, corrected=corrected)
        return 1

    def _repeat_last(self) -> None:
        """Send an answer again whose acknowledgement a kill may have cut off; its key makes that harmless."""
        acknowledged = {entry["key"] for entry in self._journal.read("label")}
        for entry in self._journal.read("answer")[-1:]:
            if entry["body"]["key"] not in acknowledged:
                self._send(entry["body"], entry["draft"])

    def _come_round(self, done: int, wanted: int) -> None:
        """When these labels start a training, wait until its drafts order the queue, as a person's pace would."""
        if done < self._due_at:
            if done % 5 == 0:
                self._plan.say(done, wanted, f"next training at {self._due_at} labels")
            return
        began_s = time.monotonic()
        status = self._wait(lambda s: s["labels_sent"] >= done and _is_decided(s, done) and self._is_settled(s), f"round {done}")
        self._due_at = status["next_training_at"] or done + 1
        self._plan.say(done, wanted, status["next_training"] or status["trouble"])
        self._measure(status["serving"], done, time.monotonic() - began_s)

    def _is_settled(self, status: dict[str, Any]) -> bool:
        is_fresh = status["drafts_version"] == status["serving"] and status["is_ordered"]
        return bool(not status["outbox"] and not _is_training(status) and is_fresh)

    # ------------------------------------------------------------ the report

    def _measure(self, version: str, labels: int, seconds: float) -> None:
        """Record the accuracy of the published `version` on the fixed fifth that was never imported."""
        if not version or any(entry["version"] == version for entry in self._journal.read("version")):
            return
        accuracy = self._accuracy(version)
        self._journal.write(kind="version", version=version, labels=labels, accuracy=accuracy, seconds=round(seconds, 3))

    def _accuracy(self, version: str) -> float:
        """Return how often the published version, loaded from the datastore as a node loads it, is right on the test fifth."""
        folder = self._folder()
        manifest = read_manifest(folder, VersionId(version))
        model = find_algorithm(manifest.algorithm).load(verified_model_dir(folder, VersionId(version)))
        chosen = model.predict_proba(self._test_features(folder, manifest.encoder)).argmax(axis=1)
        return float(np.mean([manifest.labels[n] == item.label for n, item in zip(chosen, self._plan.sample.test(), strict=True)]))

    def _report(self, seconds: float) -> dict[str, Any]:
        self._wait(lambda s: not s["outbox"] and not _is_training(s), "the last labels")
        status = self._status()
        labels = self._journal.read("label")
        self._measure(status["serving"], len(labels), 0.0)
        versions = self._journal.read("version")
        curve = [[entry["labels"], round(entry["accuracy"], 4)] for entry in versions]
        drafted = [bool(entry["corrected"]) for entry in labels if entry["draft"] is not None]
        lost, doubled = self._lost_and_doubled({entry["item_id"] for entry in labels})
        self._plan.say(len(labels), len(labels), "measuring the random reference")
        return {
            "project": self._slug,
            "labels": len(labels),
            "curve": curve,
            "random_curve": self._random_curve([int(point[0]) for point in curve]),
            "corrections_per_100": corrections_per_100(drafted),
            "corrections_first_100": sum(drafted[:100]),
            "corrections_last_100": sum(drafted[-100:]),
            "drafted": len(drafted),
            "versions": [entry["version"] for entry in versions],
            "seconds_per_version": [entry["seconds"] for entry in versions if entry["seconds"]],
            "lost": lost,
            "doubled": doubled,
            "stop": status["stop"],
            "seconds": round(seconds, 1),
        }

    def _lost_and_doubled(self, acknowledged: set[str]) -> tuple[int, int]:
        """Count ids that got a 2xx against a fresh export and against the label log read from its files."""
        rows = (json.loads(line) for line in self._app.lines(self._path("/export?format=jsonl")))
        exported = Counter(str(row["id"]) for row in rows if row["labels"])
        log = LabelLog(self._folder())
        log.refresh()
        merged = Counter({str(item_id): int(row.revision) for item_id, row in log.merged().items()})  # labelled once = revision 1
        lost = acknowledged - set(exported) | acknowledged - set(merged)
        doubled = {item for seen in (exported, merged) for item, count in seen.items() if count > 1 or item not in acknowledged}
        return len(lost), len(doubled)

    def _random_curve(self, counts: Sequence[int]) -> list[list[float]]:
        if not counts:
            return []
        models = self._app.call("GET", self._path("/versions"))["versions"]
        algorithm, encoder = models[0]["algorithm"], models[0]["encoder"]
        folder = self._folder()
        sample = self._plan.sample
        pool, pool_x = self._pool_features(ShardSet(folder, encoder))
        test, test_x = sample.test(), self._test_features(folder, encoder)
        column = {label: n for n, label in enumerate(sample.labels)}
        reference = Reference(
            pool_x,
            np.array([column[item.label] for item in pool]),
            [item.item_id for item in pool],
            test_x,
            np.array([column[item.label] for item in test]),
            len(sample.labels),
            algorithm,
            {},
            0,
            self._plan.train.held_out_share,
        )
        return [[n, *(round(v, 4) for v in band)] for n, *band in random_curve(reference, counts)]

    def _pool_features(self, shards: ShardSet) -> tuple[list[SampleItem], np.ndarray]:
        shards.refresh()
        places = {item_id: (name, row) for name in shards.names() for row, item_id in enumerate(shards.ids(name))}
        found = [item for item in self._plan.sample.pool() if item.item_id in places]
        return found, shards.rows([places[item.item_id] for item in found])

    def _test_features(self, folder: TaskFolder, encoder: str) -> np.ndarray:
        """Embed the test fifth as the cluster would, once, without leaving it in the datastore."""
        from intake.pipeline import Pipeline

        path = self._plan.work_dir / f"test-{encoder}.npy"
        if not path.exists():
            items = [Item(item_id=item.item_id, link=item.link) for item in self._plan.sample.test()]
            with contextlib.closing(Pipeline(folder, read_spec(folder), encoder, self._plan.intake)) as pipeline:
                found = pipeline.features(items, write_shard=False).features
            beside = path.with_suffix(".part.npy")
            np.save(beside, found, allow_pickle=False)
            beside.rename(path)
        return np.asarray(np.load(path, allow_pickle=False))

    def _folder(self) -> TaskFolder:
        return task_folder(open_root(self._plan.datastore), parse_task(self._slug))


def _is_decided(status: dict[str, Any], done: int) -> bool:
    """Return whether the policy has looked at all `done` labels and says what comes next."""
    return bool(status["next_training_at"] > done or status["next_training"].startswith(("resting", "blocked")))


def _is_training(status: dict[str, Any]) -> bool:
    return status["run"] is not None and status["run"]["state"] in ("queued", "running")


# ---------------------------------------------------------------- sample projects through the API


def create_project(app: WebClient, sample: Sample, slug: str, title: str, strategy: str) -> None:
    """Create the project of `sample` unless it is there."""
    if _has_project(app, slug):
        return
    body = {
        "slug": slug,
        "title": title,
        "category": sample.category,
        "labels": list(sample.labels),
        "target": sample.target,
        "strategy": strategy,
    }
    try:
        app.call("POST", "/projects", body)
    except ConflictError:  # made by a call whose answer was lost
        if not _has_project(app, slug):
            raise


def _has_project(app: WebClient, slug: str) -> bool:
    return any(project["slug"] == slug for project in app.call("GET", "/projects")["projects"])


def import_sample(app: WebClient, sample: Sample, slug: str, folder: Path) -> None:
    """Upload the pool of `sample` as a person would; importing it twice adds nothing."""
    app.upload(f"/projects/{slug}/imports", write_upload(sample, folder), {})
