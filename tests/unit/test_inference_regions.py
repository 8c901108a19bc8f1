"""Boxes and spans on the inference role: what a worker answers of an item, in calls, in chunks and in their halves."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import intake.encoders
import learning.algorithms
from datastore_layout.job_progress import JobDesk
from datastore_layout.jobs import ChunkSpec, JobRecord, create_job, read_result
from datastore_layout.models import Manifest, publish_model
from datastore_layout.root import Root, TaskFolder, create_root, task_folder
from datastore_layout.tasks import save_spec
from labelloop.messages import ChunkResult, Item, ItemError, Predictions, TaskExtraInfo, TaskSpec, decode, encode
from labelloop.settings import Settings
from roles.inference.asking import Asker
from roles.inference.calls import ChunkPart, ChunkWork, PredictWork, Reply
from roles.inference.chunks import ChunkWorker
from roles.inference.predicting import Interactive
from roles.inference.predictor import Predictor
from tests.support_inference import matrix, serve_version
from tests.support_regions import KINDS, Dictionary, named_texts, write_package

BOTH = Item(item_id="both", link="data:text/plain,Anna%20went%20to%20Lyon")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Root]:
    monkeypatch.syspath_prepend(str(write_package(tmp_path / "package")))
    caches = (learning.algorithms._added, intake.encoders.find_encoder)
    for cache in caches:
        cache.cache_clear()
    yield create_root(tmp_path / "root", "c1")
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def folder(root: Root) -> TaskFolder:
    made = task_folder(root, "names")
    extra = TaskExtraInfo(kind="regions", labels=KINDS, encoder="letters")
    save_spec(made, TaskSpec(task="names", category="token-classification", extra=extra))
    return made


@pytest.fixture
def worker(root: Root) -> Iterator[ChunkWorker]:
    made = ChunkWorker(Predictor(root, Settings()))
    yield made
    made.close()


def publish(folder: TaskFolder, least: float = 0.0) -> str:
    """Publish and serve a version that knows two names and shows what it is sure of by `least`."""
    manifest = Manifest(
        task="names",
        category="token-classification",
        labels=KINDS,
        algorithm="words",
        encoder="letters",
        metrics={"draft_confidence": least},
    )
    with tempfile.TemporaryDirectory() as source:
        Dictionary({"Anna": 0, "Lyon": 1}, 2).save(Path(source))
        version = publish_model(folder, manifest, Path(source))
    serve_version(folder, version)
    return version


def answer(worker: ChunkWorker, folder: TaskFolder, version: str, part: ChunkPart, job: str = "j") -> ChunkResult:
    create_job(folder, JobRecord(job_id=job, version=version, chunks=(ChunkSpec(items=part.items, shard=part.shard),)))
    order = ChunkWork(call="c", reply_to="q", task="names", job_id=job, version=version, parts=(part,))
    desk = worker.open_desk(order)
    worker.answer(desk, order, part)
    worker.drain()
    return read_result(folder, job, 0)


BAD, EMPTY = Item(item_id="bad", link="ftp://x"), Item(item_id="none", link="data:,nobody")


def test_an_answer_has_the_regions_of_each_item_and_of_a_failed_one_none(root: Root, folder: TaskFolder) -> None:
    version = publish(folder)
    found = Predictor(root, Settings()).predict("names", version, (BOTH, BAD, EMPTY))
    found = decode(Predictions, encode(found))
    assert [[(one.label, one.where) for one in regions] for regions in found.regions] == [
        [("person", (0, 4)), ("city", (13, 17))],
        [],
        [],
    ]
    assert matrix(found.proba) == pytest.approx(np.array([[0.9, 0.9], [0, 0], [0, 0]]))
    assert [error.item_id for error in found.failed] == ["bad"]


def test_what_is_less_sure_than_a_draft_must_be_is_told_by_proba_alone(root: Root, folder: TaskFolder) -> None:
    version = publish(folder, least=0.95)
    found = Predictor(root, Settings()).predict("names", version, (BOTH,))
    assert found.regions == ((),)
    assert matrix(found.proba) == pytest.approx(np.array([[0.9, 0.9]]))


def test_a_job_and_its_rescored_shard_have_the_regions_of_each_row(worker: ChunkWorker, folder: TaskFolder) -> None:
    version = publish(folder)
    items = (*(Item(item_id=one.item_id, link=one.link) for one in named_texts(6)), BAD, BOTH)
    first = answer(worker, folder, version, ChunkPart(chunk=0, items=items))
    assert len(first.regions) == len(first.item_ids) == 7
    assert [one.label for one in first.regions[-1]] == ["person", "city"]
    again = answer(worker, folder, version, ChunkPart(chunk=0, shard=first.shard), "again")
    assert again.regions == first.regions
    assert matrix(again.proba) == pytest.approx(matrix(first.proba))


def test_halves_are_joined_with_their_regions_and_a_lost_row_has_none(worker: ChunkWorker, folder: TaskFolder) -> None:
    version = publish(folder)
    items = (BOTH, EMPTY, Item(item_id="anna", link="data:,Anna"), Item(item_id="again", link=BOTH.link))
    first = answer(worker, folder, version, ChunkPart(chunk=0, items=items))
    create_job(folder, JobRecord(job_id="half", version=version, chunks=(ChunkSpec(shard=first.shard),)))
    for key in ("0", "0.0-2", "0.0-1"):
        for _ in range(2):
            JobDesk(folder, "half").record_attempt(key)
    joined = answer(worker, folder, version, ChunkPart(chunk=0, shard=first.shard), "half")
    assert [error.item_id for error in joined.failed] == ["both"]
    assert joined.regions == ((), *first.regions[1:])
    assert [len(one) for one in joined.regions] == [0, 0, 1, 2]


class OneLost(Asker):
    """Answers for workers of which the item 'both' ends every one."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def require_worker(self, queue_name: str) -> None:
        """There is one."""

    def ask_all(self, name: str, queue_name: str, works: list[PredictWork], timeout_s: float) -> list[Reply]:  # type: ignore[override]
        """Answer each order."""
        return [self._one(work) for work in works]

    def _one(self, work: PredictWork) -> Reply:
        if any(item.item_id == "both" for item in work.items):
            return Reply(call="", kind="lost")
        return Reply(call="", kind="done", body=encode(self._predictor.predict(work.task, work.version, work.items)))


@pytest.mark.parametrize("items", [(BOTH,), (Item(item_id="anna", link="data:,Anna"), BOTH, EMPTY)])
def test_a_call_has_one_entry_an_item_also_when_one_ends_its_worker(
    root: Root, folder: TaskFolder, items: tuple[Item, ...]
) -> None:
    version = publish(folder)
    call = Interactive(OneLost(Predictor(root, Settings())), "q", 1.0)
    found = call.predict("names", version, KINDS, items, has_regions=True)
    assert found.item_ids == tuple(item.item_id for item in items)
    assert [len(one) for one in found.regions] == [int(item.item_id == "anna") for item in items]
    assert [type(error) for error in found.failed] == [ItemError]
