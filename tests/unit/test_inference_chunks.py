"""Chunks on a real datastore: one shard in item order, attempts and halving, slow links put off, models refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from datastore_layout.job_progress import JobDesk
from datastore_layout.jobs import ChunkSpec, JobRecord, create_job, done_chunks, read_result
from datastore_layout.root import Root, TaskFolder, create_root, task_folder
from datastore_layout.shards import ShardSet
from datastore_layout.tasks import save_spec
from intake.encoders.hash_ngram import DIM
from labelloop.errors import IntegrityError, RetryableError
from labelloop.messages import ChunkResult, Item
from labelloop.settings import InferenceSettings, Settings
from roles.inference import chunks as chunks_module
from roles.inference.calls import ChunkPart, ChunkWork
from roles.inference.chunks import ChunkWorker
from roles.inference.predictor import Predictor, Scored
from tests.support_inference import matrix, publish_version, signed, text_items, text_spec

ENCODER = "hash-ngram"


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return create_root(tmp_path / "root", "c1")


@pytest.fixture
def folder(root: Root) -> TaskFolder:
    folder = task_folder(root, "t1")
    save_spec(folder, text_spec("t1", ENCODER))
    return folder


@pytest.fixture
def predictor(root: Root) -> Predictor:
    return Predictor(root, Settings(inference=InferenceSettings(warm_models=2)))


@pytest.fixture
def worker(predictor: Predictor) -> Iterator[ChunkWorker]:
    made = ChunkWorker(predictor)
    yield made
    made.close()


def make_order(folder: TaskFolder, version: str, *parts: ChunkPart, job_id: str = "j") -> ChunkWork:
    chunks = tuple(ChunkSpec(items=part.items, shard=part.shard) for part in parts)
    create_job(folder, JobRecord(job_id=job_id, version=version, chunks=chunks))
    return ChunkWork(call="c", reply_to="q", task=str(folder.task), job_id=job_id, version=version, parts=parts)


def answer(worker: ChunkWorker, folder: TaskFolder, order: ChunkWork) -> list[ChunkResult]:
    desk = worker.open_desk(order)
    for part in order.parts:
        worker.answer(desk, order, part)
    worker.drain()
    return [read_result(folder, order.job_id, part.chunk) for part in order.parts]


def lose(folder: TaskFolder, key: str, times: int = 2) -> None:
    """Leave what workers leave behind that died over `key`."""
    for _ in range(times):
        JobDesk(folder, "j").record_attempt(key)


def test_a_chunk_of_items_becomes_one_shard_of_exactly_its_rows(worker: ChunkWorker, folder: TaskFolder) -> None:
    version = publish_version(folder, ENCODER, DIM, 1.0)
    (result,) = answer(worker, folder, make_order(folder, version, ChunkPart(chunk=0, items=text_items(5))))
    shards = ShardSet(folder, ENCODER)
    assert shards.ids(result.shard) == result.item_ids == tuple(item.item_id for item in text_items(5))
    np.testing.assert_allclose(matrix(result.proba), [signed(1.0)] * 5, atol=1e-6)


def test_a_chunk_whose_items_lie_in_other_shards_gets_a_shard_of_its_own(worker: ChunkWorker, folder: TaskFolder) -> None:
    version = publish_version(folder, ENCODER, DIM, 1.0)
    answer(worker, folder, make_order(folder, version, ChunkPart(chunk=0, items=text_items(6)), job_id="before"))
    items = text_items(6)[::-2]
    (result,) = answer(worker, folder, make_order(folder, version, ChunkPart(chunk=0, items=items)))
    shards = ShardSet(folder, ENCODER)
    assert shards.ids(result.shard) == result.item_ids == tuple(item.item_id for item in items)
    again = answer(worker, folder, make_order(folder, version, ChunkPart(chunk=0, items=items), job_id="again"))
    assert again[0].shard == result.shard


def test_failed_items_are_left_out_of_the_shard_and_named(worker: ChunkWorker, folder: TaskFolder) -> None:
    version = publish_version(folder, ENCODER, DIM, 1.0)
    items = (*text_items(2), Item(item_id="bad", link="http://127.0.0.1/x"), *text_items(2, start=2))
    (result,) = answer(worker, folder, make_order(folder, version, ChunkPart(chunk=0, items=items)))
    assert [(error.item_id, error.code) for error in result.failed] == [("bad", "unsafe_link")]
    assert ShardSet(folder, ENCODER).ids(result.shard) == ("calm-0", "calm-1", "calm-2", "calm-3")


def test_a_shard_is_scored_in_its_order_and_an_answered_chunk_is_not_computed_again(
    worker: ChunkWorker, folder: TaskFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = publish_version(folder, ENCODER, DIM, 1.0)
    (first,) = answer(worker, folder, make_order(folder, version, ChunkPart(chunk=0, items=text_items(5)), job_id="embed"))
    order = make_order(folder, version, ChunkPart(chunk=0, shard=first.shard))
    (result,) = answer(worker, folder, order)
    assert (result.shard, result.item_ids, result.n_items) == (first.shard, (), 5)
    monkeypatch.setattr(Predictor, "score_rows", lambda *_: pytest.fail("computed twice"))
    assert answer(worker, folder, order) == [result]


def test_an_item_lost_twice_alone_fails_and_the_others_are_answered(worker: ChunkWorker, folder: TaskFolder) -> None:
    version = publish_version(folder, ENCODER, DIM, 1.0)
    order = make_order(folder, version, ChunkPart(chunk=0, items=text_items(4)))
    for key in ("0", "0.0-2", "0.1-2"):
        lose(folder, key)
    (result,) = answer(worker, folder, order)
    assert [error.item_id for error in result.failed] == ["calm-1"]
    assert result.item_ids == ("calm-0", "calm-2", "calm-3")
    assert ShardSet(folder, ENCODER).ids(result.shard) == result.item_ids
    assert matrix(result.proba).shape == (3, 5)


def test_a_row_of_a_shard_lost_twice_alone_keeps_its_place_as_zeros(worker: ChunkWorker, folder: TaskFolder) -> None:
    version = publish_version(folder, ENCODER, DIM, 1.0)
    (first,) = answer(worker, folder, make_order(folder, version, ChunkPart(chunk=0, items=text_items(2)), job_id="embed"))
    order = make_order(folder, version, ChunkPart(chunk=0, shard=first.shard))
    for key in ("0", "0.0-1"):
        lose(folder, key)
    (result,) = answer(worker, folder, order)
    assert (result.shard, result.n_items, [error.item_id for error in result.failed]) == (first.shard, 2, ["calm-0"])
    np.testing.assert_allclose(matrix(result.proba), [np.zeros(5), signed(1.0)], atol=1e-6)


def test_one_lost_attempt_is_no_poison(worker: ChunkWorker, folder: TaskFolder) -> None:
    version = publish_version(folder, ENCODER, DIM, 1.0)
    order = make_order(folder, version, ChunkPart(chunk=0, items=text_items(1)))
    lose(folder, "0", times=1)
    (result,) = answer(worker, folder, order)
    assert not result.failed


def test_an_attempt_that_its_worker_survived_does_not_count_as_lost(
    worker: ChunkWorker, folder: TaskFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = publish_version(folder, ENCODER, DIM, 1.0)
    order = make_order(folder, version, ChunkPart(chunk=0, items=text_items(1)))
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "score_items", lambda *_, **__: (_ for _ in ()).throw(RetryableError("not now")))
        for _ in range(4):
            with pytest.raises(RetryableError):
                worker.answer(worker.open_desk(order), order, order.parts[0])
    assert done_chunks(folder, "j") == frozenset()
    (result,) = answer(worker, folder, order)
    assert not result.failed


def test_a_half_that_was_answered_is_not_computed_again_after_a_later_death(worker: ChunkWorker, folder: TaskFolder) -> None:
    version = publish_version(folder, ENCODER, DIM, 1.0)
    order = make_order(folder, version, ChunkPart(chunk=0, items=text_items(2)))
    lose(folder, "0")
    kept = ChunkResult(chunk=0, shard="", version=version, item_ids=(), n_items=0, failed=())
    JobDesk(folder, "j").write_piece("0.0-1", kept)
    (result,) = answer(worker, folder, order)
    assert result.item_ids == ("calm-1",)


def test_a_version_with_a_flipped_byte_answers_its_items_with_the_reason(worker: ChunkWorker, folder: TaskFolder) -> None:
    version = publish_version(folder, ENCODER, DIM, 1.0, is_flipped=True)
    (result,) = answer(worker, folder, make_order(folder, version, ChunkPart(chunk=0, items=text_items(2))))
    assert [(error.item_id, error.code) for error in result.failed] == [("calm-0", "integrity"), ("calm-1", "integrity")]


def test_slow_links_are_put_off_and_those_that_failed_are_not_tried_again(
    worker: ChunkWorker, folder: TaskFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks_module, "BUDGET_S", 0.0)
    version = publish_version(folder, ENCODER, DIM, 1.0)
    order = make_order(folder, version, ChunkPart(chunk=0, items=(*text_items(40), Item(item_id="bad", link="ftp://x"))))
    turns = 0
    while not done_chunks(folder, "j"):
        turns += 1
        assert turns < 100
        try:
            answer(worker, folder, order)
        except RetryableError:
            monkeypatch.setattr(chunks_module, "BUDGET_S", 0.02 * turns)
    result = read_result(folder, "j", 0)
    assert len(result.item_ids) == 40
    assert [error.item_id for error in result.failed] == ["bad"]


def test_the_cache_of_warm_models_is_bounded_and_drops_the_one_used_longest_ago(predictor: Predictor, folder: TaskFolder) -> None:
    versions = [publish_version(folder, ENCODER, DIM, float(n)) for n in range(3)]
    first = predictor.warm("t1", versions[0])
    predictor.warm("t1", versions[1])
    assert predictor.warm("t1", versions[0]) is first
    predictor.warm("t1", versions[2])
    assert predictor.warm("t1", versions[0]) is first
    assert predictor.warm("t1", versions[1]) is not None
    assert len(predictor._models) == 2


def test_a_flipped_byte_refuses_to_load(predictor: Predictor, folder: TaskFolder) -> None:
    version = publish_version(folder, ENCODER, DIM, 1.0, is_flipped=True)
    with pytest.raises(IntegrityError, match="SHA-256"):
        predictor.warm("t1", version)


def test_an_answer_to_a_person_writes_nothing(predictor: Predictor, folder: TaskFolder) -> None:
    version = publish_version(folder, ENCODER, DIM, 1.0)
    reply = predictor.predict("t1", version, text_items(3))
    np.testing.assert_allclose(matrix(reply.proba), [signed(1.0)] * 3, atol=1e-6)
    shards = ShardSet(folder, ENCODER)
    shards.refresh()
    assert shards.names() == ()


def test_scored_rows_name_their_version(predictor: Predictor, folder: TaskFolder) -> None:
    version = publish_version(folder, ENCODER, DIM, 1.0)
    scored = predictor.score_items("t1", version, text_items(1), write_shard=False)
    assert isinstance(scored, Scored)
    assert scored.version == version
