"""Encoders: names, shapes, and that a row never depends on its neighbours or on the number of cores."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from intake.encoders import default_encoder, find_encoder, list_encoders, pixels_encoder
from intake.encoders.base import set_threads
from intake.encoders.table_columns import TableColumns
from intake.tables import Column, Row
from labelloop.errors import InvalidInputError, NotReadyError
from learning.feature_map import parse_layout, split_levels

RNG = np.random.default_rng(0)
TEXTS = ["a", "Great film, would watch again!", "这家餐厅很好吃", "word " * 400, "don't", "ÄÖÜ ß", "x y z", "🙂 ok"]
PHOTOS = [Image.fromarray(RNG.integers(0, 255, (50 + 40 * i, 70, 3), np.uint8)) for i in range(4)]
GRAYS = [Image.fromarray(RNG.integers(0, 255, (8, 8), np.uint8)) for _ in range(5)]
ITEMS = {
    "minilm-l6": TEXTS,
    "minilm-tokens": TEXTS,
    "hash-ngram": TEXTS,
    "efficientnet-lite0": PHOTOS,
    "efficientnet-map": PHOTOS,
    "raw-pixels-8g": GRAYS,
    "raw-pixels-32": PHOTOS,
    "pixels-28g": GRAYS,
}


@pytest.fixture
def cores() -> Iterator[None]:
    yield
    set_threads(1)


@pytest.mark.parametrize("name", list(ITEMS))
def test_a_row_is_bit_equal_alone_in_a_batch_reversed_and_on_any_number_of_cores(name: str, cores: None) -> None:
    encoder, items = find_encoder(name), ITEMS[name]
    set_threads(1)
    batch = encoder.encode(items)
    assert batch.shape == (len(items), encoder.dim)
    assert batch.dtype == np.float32
    assert np.isfinite(batch).all()
    assert len(np.unique(batch, axis=0)) == len(items)
    alone = np.concatenate([encoder.encode([item]) for item in items])
    set_threads(3)
    turned = encoder.encode(items[::-1])[::-1]
    assert alone.tobytes() == batch.tobytes() == np.ascontiguousarray(turned).tobytes()


@pytest.mark.parametrize("name", list(ITEMS))
def test_no_items_give_no_rows(name: str) -> None:
    encoder = find_encoder(name)
    assert encoder.encode([]).shape == (0, encoder.dim)


@pytest.mark.parametrize("name", ["minilm-l6", "hash-ngram"])
def test_text_rows_have_length_one(name: str) -> None:
    assert np.linalg.norm(find_encoder(name).encode(TEXTS), axis=1) == pytest.approx(1, abs=1e-5)


def test_minilm_puts_texts_of_one_meaning_side_by_side() -> None:
    a, b, c = find_encoder("minilm-l6").encode(["The film was wonderful", "I loved this movie", "Interest rates rose in March"])
    assert a @ b > a @ c + 0.3


def test_efficientnet_tells_a_turned_picture_from_another() -> None:
    """Real features, not noise: a slightly brighter copy is nearer than another picture."""
    x = np.linspace(0, 1, 96)
    first = (255 * np.stack([np.outer(x, x), np.outer(1 - x, x), np.outer(x, 1 - x)], axis=2)).astype(np.uint8)
    brighter, other = np.minimum(first.astype(int) + 8, 255).astype(np.uint8), RNG.integers(0, 255, (96, 96, 3), np.uint8)
    a, b, c = find_encoder("efficientnet-lite0").encode([Image.fromarray(p) for p in (first, brighter, other)])
    assert np.linalg.norm(a - b) < 0.5 * np.linalg.norm(a - c)


def test_hash_ngram_sees_shared_characters() -> None:
    a, b, c = find_encoder("hash-ngram").encode(["这家餐厅很好吃", "这家餐厅不好吃", "股市今天大跌了"])
    assert a @ b > 0.5 > a @ c


def test_pixels_are_exact_for_a_picture_of_that_side() -> None:
    rows = find_encoder("pixels-8g").encode(GRAYS)
    assert np.array_equal(rows.astype(np.uint8), np.stack([np.asarray(g).reshape(-1) for g in GRAYS]))
    assert find_encoder("pixels-8g").is_pixels
    raw = find_encoder("raw-pixels-8g").encode(GRAYS)
    assert 0 <= raw.min() <= raw.max() <= 1
    assert not find_encoder("raw-pixels-8g").is_pixels


def test_a_table_row_is_laid_out_by_its_columns() -> None:
    encoder = TableColumns((Column("age", "number"), Column("colour", "category")))
    rows = encoder.encode(
        [Row({"age": 3.0, "colour": "red"}), Row({"colour": "blue", "extra": 1.0}), Row({"age": "n?", "colour": None})]
    )
    assert rows.shape == (3, encoder.dim) == (3, 34)
    assert rows[:, :2].tolist() == [[3.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    assert rows[0, 2:].sum() in (1, 2)
    assert not np.array_equal(rows[0, 2:], rows[1, 2:])
    assert rows[2, 2:].sum() == 0


def test_a_table_bounds_absurd_numbers_and_asks_for_columns() -> None:
    rows = TableColumns((Column("a", "number"),)).encode([Row({"a": float("inf")}), Row({"a": -1e300})])
    assert np.isfinite(rows).all()
    with pytest.raises(NotReadyError, match="columns"):
        TableColumns().encode([Row({"a": 1.0})])


@pytest.mark.parametrize(
    ("category", "samples", "name"),
    [
        ("image-classification", GRAYS, "raw-pixels-8g"),
        ("image-classification", [Image.new("RGB", (28, 20))], "raw-pixels-28"),
        ("image-classification", [Image.new("L", (30, 30)), Image.new("RGB", (8, 8))], "raw-pixels-32"),
        ("image-classification", [Image.new("L", (33, 8))], "efficientnet-lite0"),
        ("text-classification", ["Nice day", "Schöne Grüße"], "minilm-l6"),
        ("text-classification", ["这家餐厅很好吃", "ok"], "hash-ngram"),
        ("text-classification", ["12345 !?"], "minilm-l6"),
        ("tables", [Row({"a": 1.0})], "table-columns"),
    ],
)
def test_the_encoder_fits_the_first_items(category: str, samples: list[object], name: str) -> None:
    assert default_encoder(category, samples) == name
    assert find_encoder(name).category == category


def test_boxes_and_spans_have_one_encoder_each() -> None:
    assert default_encoder("object-detection", [Image.new("RGB", (640, 480))]) == "efficientnet-map"
    assert default_encoder("token-classification", ["Anna met Bob"]) == "minilm-tokens"


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    for name in ("auto", "pixels-0", "raw-pixels-999", "pixels-8x", "bert"):
        with pytest.raises(InvalidInputError, match="minilm-l6"):
            find_encoder(name)
    assert "hash-ngram" in list_encoders()


def test_the_pictures_that_go_with_an_encoder() -> None:
    assert pixels_encoder("raw-pixels-8g") == "pixels-8g"
    assert pixels_encoder("efficientnet-lite0") == "pixels-64"
    assert pixels_encoder("pixels-32") == "pixels-32"


def test_importing_the_encoders_imports_no_model_library() -> None:
    code = "import sys, intake.pipeline; print(sorted({'torch', 'onnxruntime', 'tokenizers', 'tensorflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_map_says_where_a_thing_is_and_its_record_how_the_row_is_laid_out() -> None:
    encoder = find_encoder("efficientnet-map")
    assert encoder.category == "object-detection"
    assert encoder.dim * 4 <= 64 * 1024
    plain = Image.new("RGB", (300, 200), (90, 120, 90))
    patched = plain.copy()
    patched.paste(PHOTOS[0].resize((60, 40)), (225, 20))  # right of the middle, at the top
    levels = parse_layout(encoder.record()["layout"])
    for without, given in zip(*(split_levels(encoder.encode([picture]), levels) for picture in (plain, patched)), strict=True):
        change = np.square(given - without).sum(axis=(0, 1))
        row, column = np.unravel_index(change.argmax(), change.shape)
        assert row < change.shape[0] * 0.3
        assert column > change.shape[1] * 0.7
