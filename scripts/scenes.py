"""The sample project `scenes`: pictures composed of drawings on varied backgrounds, so that every box is known.

Owns the composition; pure but for reading the drawings. Must never fetch anything: `scripts.samples` unpacks Debian's
tuxpaint-stamps-default and passes its folder. Each drawing is either in pool scenes or in test scenes, never in both, so that a
detector is measured on drawings it has not seen. A scene is a function of its number alone.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelloop.errors import NotFoundError
from labelloop.messages import Region

VERSION = 1  # of the composition: a change of it makes other scenes
WIDTH, HEIGHT = 320, 240
N_SCENES = 900
TEST_DRAWINGS = 0.3
MOST_OBJECTS = 5
LEAST_VISIBLE = 0.6
_LONGEST_PX = (56, 150)
_TRIES = 20
_GROUPS: dict[str, tuple[str, ...]] = {
    "bird": ("animals/birds",),
    "clothes": ("clothes",),
    "fish": ("animals/fish",),
    "flower": ("plants/flowers",),
    "fruit": ("food/fruit",),
    "house": ("town/houses",),
    "insect": ("animals/insects",),
    "mammal": ("animals/mammals",),
}
LABELS = tuple(_GROUPS)


class Scene(NamedTuple):
    """One picture as JPEG bytes and what is in it, from the back to the front."""

    item_id: str
    content: bytes
    regions: tuple[Region, ...]


class _Placed(NamedTuple):
    """A drawing in its place: `mask` (HEIGHT, WIDTH) bool where it is opaque, `box` in pixels (x0, y0, x1, y1)."""

    label: str
    picture: Image.Image
    at: tuple[int, int]
    mask: NDArray[np.bool_]
    box: tuple[int, int, int, int]


def compose_scenes(stamps: Path, is_test: Callable[[str], bool], n: int = N_SCENES) -> tuple[Scene, ...]:
    """Return `n` scenes; one whose id `is_test` calls a test scene is made of test drawings alone.

    stamps: the package's folder of drawings. Raises NotFoundError when a class has fewer than two drawings there.
    """
    pool, test = split_drawings(stamps)
    opened: dict[Path, Image.Image] = {}
    names = (f"scene-{number:04d}.jpg" for number in range(n))
    return tuple(_scene(name, number, test if is_test(name) else pool, opened) for number, name in enumerate(names))


def split_drawings(stamps: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Return the drawings of each class for pool scenes and for test scenes; by a hash of the name, the same for ever."""
    pool: dict[str, list[Path]] = {}
    test: dict[str, list[Path]] = {}
    for label, folders in _GROUPS.items():
        found = [path for folder in folders for path in (stamps / folder).rglob("*.png") if not path.stem.endswith("_mirror")]
        if len(found) < 2:
            raise NotFoundError(f"{len(found)} drawings of class {label!r} below {stamps}: delete the folder and fetch it again")
        ordered = sorted(found, key=lambda path: hashlib.blake2b(str(path.relative_to(stamps)).encode()).digest())
        n_test = max(1, round(TEST_DRAWINGS * len(ordered)))
        test[label], pool[label] = ordered[:n_test], ordered[n_test:]
    return pool, test


def _scene(name: str, number: int, drawings: dict[str, list[Path]], opened: dict[Path, Image.Image]) -> Scene:
    rng = np.random.default_rng([number, 2026])
    placed: list[_Placed] = []
    for _ in range(int(rng.integers(1, MOST_OBJECTS + 1))):
        for _ in range(_TRIES):
            candidate = _place(rng, drawings, opened)
            if candidate is not None and all(_is_visible(below, [*placed[i + 1 :], candidate]) for i, below in enumerate(placed)):
                placed.append(candidate)
                break
    canvas = Image.fromarray(_background(rng))
    for one in placed:
        canvas.paste(one.picture, one.at, one.picture)
    out = io.BytesIO()
    canvas.save(out, "JPEG", quality=88)
    return Scene(name, out.getvalue(), tuple(_region(one) for one in placed))


def _place(rng: np.random.Generator, drawings: dict[str, list[Path]], opened: dict[Path, Image.Image]) -> _Placed | None:
    """Return a drawing at a random size, side and place wholly inside the picture; None when it is too thin to see."""
    label = LABELS[int(rng.integers(len(LABELS)))]
    path = drawings[label][int(rng.integers(len(drawings[label])))]
    drawing = opened.get(path) or opened.setdefault(path, _open(path))
    factor = rng.uniform(*_LONGEST_PX) / max(drawing.size)
    size = (max(1, round(drawing.width * factor)), max(1, round(drawing.height * factor)))
    picture = drawing.resize(size, Image.Resampling.BOX if factor < 1 else Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    x, y = int(rng.integers(0, WIDTH - size[0] + 1)), int(rng.integers(0, HEIGHT - size[1] + 1))
    opaque = np.asarray(picture)[:, :, 3] >= 128
    if min(size) < 16 or opaque.mean() < 0.1:
        return None
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[y : y + size[1], x : x + size[0]] = opaque
    return _Placed(label, picture, (x, y), mask, (x, y, x + size[0], y + size[1]))


def _open(path: Path) -> Image.Image:
    """Return a drawing in RGBA, cut to what is opaque, at most 400 pixels long."""
    with Image.open(path) as file:
        picture = file.convert("RGBA")
    picture.thumbnail((400, 400), Image.Resampling.BOX)
    box = picture.getchannel("A").point(lambda value: 255 if value >= 128 else 0).getbbox()
    return picture if box is None else picture.crop(box)


def _is_visible(below: _Placed, above: Sequence[_Placed]) -> bool:
    """Return whether enough of `below` stays in sight."""
    hidden = np.zeros_like(below.mask)
    for other in above:
        hidden |= other.mask
    return float((below.mask & ~hidden).sum()) >= LEAST_VISIBLE * float(below.mask.sum())


def _region(placed: _Placed) -> Region:
    x0, y0, x1, y1 = placed.box
    return Region(placed.label, (x0 / WIDTH, y0 / HEIGHT, (x1 - x0) / WIDTH, (y1 - y0) / HEIGHT))


def _background(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return (HEIGHT, WIDTH, 3): two or three colours mixed by smooth noise of random fineness, some with stripes or grain."""
    colours = rng.uniform(40, 250, (3, 3))
    mix = sum(_noise(rng, cells) / 2**i for i, cells in enumerate(rng.integers(2, 9, 2) * np.array([1, 4])))
    share = (mix - mix.min()) / (np.ptp(mix) + 1e-9)
    picture = colours[0] + share[:, :, None] * (colours[1] - colours[0])
    if rng.random() < 0.4:
        angle, period = rng.uniform(0, np.pi), rng.uniform(12, 60)
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        is_stripe = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period) > rng.uniform(-0.5, 0.9)
        picture = np.where(is_stripe[:, :, None], 0.6 * picture + 0.4 * colours[2], picture)
    if rng.random() < 0.5:
        picture = picture + rng.normal(0, rng.uniform(3, 14), picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator, cells: int) -> NDArray[np.float64]:
    """Return (HEIGHT, WIDTH) smooth noise: `cells` by `cells` random values, enlarged."""
    small = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
    return np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.float64)
