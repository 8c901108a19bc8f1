"""The pipeline on a real datastore: embedded once, bit-equal for every caller, errors stay with their item."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datastore_layout.root import TaskFolder, create_root, task_folder
from intake import loading
from intake.pipeline import Pipeline, encoder_of, preprocess_record
from labelloop.errors import InvalidInputError
from labelloop.messages import Item, TaskExtraInfo, TaskSpec
from labelloop.settings import IntakeSettings

SETTINGS = IntakeSettings()


@pytest.fixture
def folder(tmp_path: Path) -> TaskFolder:
    return task_folder(create_root(tmp_path / "root", "c1"), "t1")


def spec(category: str, encoder: str = "auto", **parameters: object) -> TaskSpec:
    extra = TaskExtraInfo(labels=("a", "b"), encoder=encoder, parameters=parameters)
    return TaskSpec(task="t1", category=category, extra=extra)  # type: ignore[arg-type]


def picture(shade: int, side: int = 8) -> str:
    out = io.BytesIO()
    Image.new("L", (side, side), shade).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def items(*links: str) -> list[Item]:
    return [Item(item_id=f"i{n}", link=link) for n, link in enumerate(links)]


IMAGES = spec("image-classification", "raw-pixels-8g")


def count_fetches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    real: Callable[[object, str], object] = loading.Fetcher.fetch

    def fetch(self: object, link: str) -> object:
        seen.append(link)
        return real(self, link)

    monkeypatch.setattr(loading.Fetcher, "fetch", fetch)
    return seen


def test_a_batch_answers_item_by_item(folder: TaskFolder) -> None:
    links = [picture(1), "http://127.0.0.1/x", picture(2), "data:image/png;base64,AAAA", "file:///etc/passwd", picture(3)]
    batch = Pipeline(folder, IMAGES, "raw-pixels-8g", SETTINGS).features(items(*links))
    assert batch.item_ids == ("i0", "i2", "i5")
    assert batch.indices == (0, 2, 5)
    assert batch.features.shape == (3, 64)
    assert [(e.item_id, e.code) for e in batch.failed] == [("i1", "unsafe_link"), ("i3", "unreadable_item"), ("i4", "unsafe_link")]
    assert batch.failed_indices == (1, 3, 4)
    assert batch.unfinished == ()


def test_what_was_embedded_once_is_neither_fetched_nor_embedded_again(folder: TaskFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = count_fetches(monkeypatch)
    wanted = items(picture(1), picture(2))
    first = Pipeline(folder, IMAGES, "raw-pixels-8g", SETTINGS).features(wanted)
    again = Pipeline(folder, IMAGES, "raw-pixels-8g", SETTINGS).features(wanted[::-1])
    assert len(fetched) == 2
    assert again.features[::-1].tobytes() == first.features.tobytes()
    assert again.places == first.places[::-1]


def test_places_lead_to_the_very_features(folder: TaskFolder) -> None:
    pipeline = Pipeline(folder, IMAGES, "raw-pixels-8g", IntakeSettings(shard_rows=2))
    wanted = items(*(picture(n) for n in range(5)))
    batch = pipeline.features([*wanted, wanted[0]])
    assert pipeline.shards is not None
    assert pipeline.shards.rows(batch.places).tobytes() == batch.features.tobytes()
    assert batch.places[0] == batch.places[5]
    assert sorted(len(pipeline.shards.features(name)) for name in pipeline.shards.names()) == [1, 2, 2]


def test_equal_content_under_other_ids_and_links_is_decoded_once(folder: TaskFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[object] = []
    real = loading.decode
    monkeypatch.setattr(loading, "decode", lambda *a: decoded.append(a) or real(*a))
    pipeline = Pipeline(folder, IMAGES, "raw-pixels-8g", SETTINGS)
    pipeline.features([Item(item_id="a", link=picture(1))])
    link = picture(1).replace("data:image/png;", "data:image/x-png;")
    batch = pipeline.features([Item(item_id="b", link=link), Item(item_id="c", link=picture(1))])
    assert len(decoded) == 1
    assert batch.item_ids == ("b", "c")
    assert batch.features[0].tobytes() == batch.features[1].tobytes()
    count = count_fetches(monkeypatch)
    assert pipeline.features([Item(item_id="b", link=link)]).places == batch.places[:1]
    assert count == []


def test_the_same_item_behind_another_link_is_another_thing(folder: TaskFolder) -> None:
    pipeline = Pipeline(folder, IMAGES, "raw-pixels-8g", SETTINGS)
    batch = pipeline.features([Item(item_id="a", link=picture(1)), Item(item_id="a", link=picture(2))])
    assert not np.array_equal(batch.features[0], batch.features[1])


def test_reading_without_a_shard_writes_nothing_and_gives_equal_bits(folder: TaskFolder) -> None:
    wanted = items(picture(1), picture(9))
    light = Pipeline(folder, IMAGES, "raw-pixels-8g", SETTINGS).features(wanted, write_shard=False)
    assert light.places == (("", -1), ("", -1))
    assert not folder.below("Preprocess", "shards").exists()
    full = Pipeline(folder, IMAGES, "raw-pixels-8g", SETTINGS).features(wanted)
    assert light.features.tobytes() == full.features.tobytes()


@pytest.mark.parametrize("encoder", ["minilm-l6", "hash-ngram"])
def test_training_and_inference_get_bit_equal_features_whatever_the_batch(tmp_path: Path, encoder: str) -> None:
    root = create_root(tmp_path / "root", "c1")
    texts = [f"data:text/plain;charset=utf-8,text number {n} {'word ' * n}" for n in range(1, 8)]
    kind = spec("text-classification", encoder)
    train = Pipeline(task_folder(root, "t1"), kind, encoder, SETTINGS).features(items(*texts))
    other = Pipeline(task_folder(root, "t2"), kind, encoder, SETTINGS)
    for n, item in enumerate(items(*texts)):
        assert other.features([item], write_shard=False).features.tobytes() == train.features[n].tobytes()


def test_auto_is_decided_once_for_all_however_many_ask(folder: TaskFolder) -> None:
    kind = spec("text-classification")
    batches = [items("data:,plain english words"), items("data:;charset=utf-8,这家餐厅很好吃")] * 4
    start = threading.Barrier(len(batches))

    def one(batch: list[Item]) -> str | None:
        pipeline = Pipeline(folder, kind, "auto", SETTINGS)
        start.wait()
        pipeline.features(batch)
        return pipeline.encoder_name

    with ThreadPoolExecutor(len(batches)) as pool:
        names = set(pool.map(one, batches))
    assert len(names) == 1
    assert encoder_of(folder, kind) in names
    assert Pipeline(folder, kind, "auto", SETTINGS).encoder_name in names


def test_auto_waits_for_the_first_readable_item(folder: TaskFolder) -> None:
    kind = spec("image-classification")
    pipeline = Pipeline(folder, kind, "auto", SETTINGS)
    nothing = pipeline.features(items("data:,broken", "file:///etc/passwd"))
    assert [e.code for e in nothing.failed] == ["unreadable_item", "unsafe_link"]
    assert (nothing.item_ids, pipeline.encoder_name, encoder_of(folder, kind)) == ((), None, None)
    batch = pipeline.features(items("data:,broken", picture(3)))
    assert (batch.item_ids, pipeline.encoder_name) == (("i1",), "raw-pixels-8g")


def test_pixels_go_with_the_encoder_of_the_task(folder: TaskFolder) -> None:
    kind = spec("image-classification")
    Pipeline(folder, kind, "auto", SETTINGS).features(items(picture(7)))
    pixels = Pipeline(folder, kind, "pixels", SETTINGS)
    assert pixels.features(items(picture(7))).features.tolist() == [[7.0] * 64]
    assert pixels.encoder_name == "pixels-8g"


def test_a_table_keeps_the_columns_of_its_first_batch(folder: TaskFolder) -> None:
    kind = spec("tables")
    rows = ['data:application/json,{"age":3,"colour":"red"}', 'data:application/json,{"age":4,"colour":"blue"}']
    first = Pipeline(folder, kind, "auto", SETTINGS).features(items(*rows))
    assert first.features.shape == (2, 34)
    later = Pipeline(folder, kind, "auto", SETTINGS).features(
        [Item(item_id="n", link='data:application/json,{"colour":"red","new":1,"age":3}')]
    )
    assert later.features[0].tobytes() == first.features[0].tobytes()
    assert [c["name"] for c in preprocess_record(kind, "table-columns", folder)["encoding"]["columns"]] == ["age", "colour"]


def test_a_table_may_declare_its_columns(folder: TaskFolder) -> None:
    kind = spec("tables", columns=[{"name": "age", "kind": "number"}])
    batch = Pipeline(folder, kind, "auto", SETTINGS).features(items('data:application/json,{"colour":"red","age":"5"}'))
    assert batch.features.tolist() == [[5.0, 0.0]]


def test_an_encoder_of_another_category_is_refused(folder: TaskFolder) -> None:
    with pytest.raises(InvalidInputError, match="minilm-l6"):
        Pipeline(folder, IMAGES, "minilm-l6", SETTINGS)


def test_a_used_up_budget_leaves_the_rest_unfinished(folder: TaskFolder) -> None:
    pipeline = Pipeline(folder, IMAGES, "raw-pixels-8g", SETTINGS)
    pipeline.features(items(picture(1)))
    batch = pipeline.features(items(picture(1), picture(2), picture(3)), budget_s=-1.0)
    assert (batch.indices, batch.unfinished) == ((0,), (1, 2))
    assert pipeline.features(items(picture(1), picture(2), picture(3))).unfinished == ()


def test_an_absurd_item_id_fails_alone(folder: TaskFolder) -> None:
    batch = Pipeline(folder, IMAGES, "raw-pixels-8g", SETTINGS).features(
        [Item(item_id="bad\nid", link=picture(1)), Item(item_id="good", link=picture(1))]
    )
    assert batch.item_ids == ("good",)
    assert [e.code for e in batch.failed] == ["invalid_input"]


def test_more_items_than_one_slice_keep_their_order(folder: TaskFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "SLICE", 4)
    monkeypatch.setattr(loading, "_WORTH_A_THREAD_PX", 0)
    batch = Pipeline(folder, IMAGES, "raw-pixels-8g", SETTINGS).features(items(*(picture(n % 30) for n in range(50))))
    assert np.rint(batch.features[:, 0] * 255).tolist() == [n % 30 for n in range(50)]


def test_two_tasks_never_exchange_features(tmp_path: Path) -> None:
    root = create_root(tmp_path / "root", "c1")
    one, two = task_folder(root, "t1"), task_folder(root, "t2")
    Pipeline(one, IMAGES, "raw-pixels-8g", SETTINGS).features(items(picture(1)))
    assert Pipeline(two, IMAGES, "raw-pixels-8g", SETTINGS).features(items("data:,x")).item_ids == ()
    other = Pipeline(two, IMAGES, "raw-pixels-8g", SETTINGS).features(items(picture(2)))
    assert other.features[0, 0] == np.float32(2) * np.float32(1 / 255)
