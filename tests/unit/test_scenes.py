"""Scenes composed of drawings: known boxes, the same for ever, and no drawing in both pool and test."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from labelloop.errors import NotFoundError
from scripts.samples import Sample, SampleItem, is_test
from scripts.scenes import _GROUPS, HEIGHT, LABELS, MOST_OBJECTS, WIDTH, Scene, compose_scenes, split_drawings


@pytest.fixture(scope="module")
def stamps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawings like the package's: a few of each class, opaque in the middle of a transparent border."""
    base = tmp_path_factory.mktemp("stamps")
    for folders in _GROUPS.values():
        for folder in folders:
            (base / folder).mkdir(parents=True)
            for n in range(4):
                shade = hashlib.blake2b(f"{folder}{n}".encode(), digest_size=3).digest()
                picture = Image.new("RGBA", (60, 50))
                ImageDraw.Draw(picture).rectangle((10, 5, 49, 44), fill=(shade[0], shade[1], shade[2], 255))
                picture.save(base / folder / f"{n}.png")
                picture.save(base / folder / f"{n}_mirror.png")
    return base


@pytest.fixture(scope="module")
def composed(stamps: Path) -> tuple[Scene, ...]:
    return compose_scenes(stamps, is_test, 40)


def test_a_scene_is_the_same_for_ever_and_unlike_the_next(stamps: Path, composed: tuple[Scene, ...]) -> None:
    assert compose_scenes(stamps, is_test, 5) == composed[:5]
    assert len({one.content for one in composed}) == len(composed)


def test_boxes_lie_inside_and_outline_what_was_drawn(composed: tuple[Scene, ...]) -> None:
    assert {len(one.regions) for one in composed} <= set(range(1, MOST_OBJECTS + 1))
    assert len({len(one.regions) for one in composed}) >= 3
    for one in composed:
        assert Image.open(io.BytesIO(one.content)).size == (WIDTH, HEIGHT)
        for region in one.regions:
            x, y, width, height = region.where
            assert 0 <= x < x + width <= 1 + 1e-9
            assert 0 <= y < y + height <= 1 + 1e-9
            assert region.label in LABELS
    scene = next(one for one in composed if len(one.regions) == 1)
    x, y, width, height = scene.regions[0].where
    pixels = np.asarray(Image.open(io.BytesIO(scene.content)).convert("RGB")).astype(int)
    left, top, right, low = round(x * WIDTH), round(y * HEIGHT), round((x + width) * WIDTH), round((y + height) * HEIGHT)
    inside = pixels[top + 4 : low - 4, left + 4 : right - 4].reshape(-1, 3)
    assert inside.std(axis=0).max() < 8  # one shade: wholly the drawing
    assert np.abs(pixels[0, 0] - inside.mean(axis=0)).max() > 8


def test_no_drawing_is_in_both_pool_and_test_and_each_class_is_in_both(stamps: Path) -> None:
    pool, test = split_drawings(stamps)
    assert set(pool) == set(test) == set(LABELS)
    for label in LABELS:
        assert pool[label]
        assert test[label]
        assert not set(pool[label]) & set(test[label])
        assert not any("_mirror" in path.stem for path in [*pool[label], *test[label]])


def test_missing_drawings_are_refused_by_class(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="0 drawings of class 'bird'"):
        split_drawings(tmp_path)


def test_items_of_scenes_split_as_their_drawings_do(composed: tuple[Scene, ...]) -> None:
    items = tuple(SampleItem(one.item_id, one.content, "image/jpeg", "", one.regions) for one in composed)
    sample = Sample("scenes", "Scenes", "object-detection", LABELS, 0.5, items)
    assert {item.item_id for item in sample.test()} == {one.item_id for one in composed if is_test(one.item_id)}
    assert 0 < len(sample.test()) < len(sample.pool())
