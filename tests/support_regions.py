"""Boxes and spans for tests: pictures of coloured spots, texts with names, and small methods that really learn them.

Owns the made-up data, two encoders and two algorithms, offered to other processes as an installed package would offer them. Holds
no test.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import find_objects, label

from intake.decode import Decoded
from intake.encoders.base import Encoder, Features
from intake.encoders.pixels import to_square
from labelloop.errors import IntegrityError
from labelloop.messages import Region
from learning.algorithms.base import Algorithm, Files, Model, OneStepTraining, Parameters, Training
from learning.algorithms.logistic_regression import ALGORITHM as REGRESSION
from learning.regions import RegionModel, Regions
from scripts.region_loop import TrueItem

SIDE = 16
COLOURS = {"red": (200, 60, 50), "blue": (60, 70, 200)}
SHAPES = tuple(COLOURS)
NAMES = {
    kind: [start + middle + end for start in starts for middle in ("ra", "li", "mo", "nu") for end in ("", "n")]
    for kind, starts in {"person": ("An", "Bo", "Ca", "Di", "El"), "city": ("Ly", "Os", "Qui", "Ri", "Tu")}.items()
}
KINDS = tuple(NAMES)
WORDS = ["the", "a", "was", "seen", "met", "in", "near", "with", "and", "after", "before", "old", "new", "train", "house", "river"]


def spotted_pictures(n: int, seed: int = 0) -> list[TrueItem]:
    """Return `n` pictures of 64 by 64 pixels with up to three spots on noisy ground, as data: links, with their boxes."""
    chance = np.random.default_rng(seed)
    return [_picture(f"p{i:03d}", chance) for i in range(n)]


def _picture(item_id: str, chance: np.random.Generator) -> TrueItem:
    pixels = chance.normal(130, 25, (64, 64, 3))
    taken = np.zeros((SIDE + 2, SIDE + 2), dtype=bool)  # spots keep a cell of ground between them
    regions = []
    for _ in range(int(chance.integers(0, 4))):
        name = SHAPES[int(chance.integers(len(SHAPES)))]
        width, height = (int(v) for v in chance.integers(3, 7, 2))
        x, y = int(chance.integers(0, SIDE - width + 1)), int(chance.integers(0, SIDE - height + 1))
        if taken[y : y + height + 2, x : x + width + 2].any():
            continue
        taken[y + 1 : y + height + 1, x + 1 : x + width + 1] = True
        spot = pixels[4 * y : 4 * (y + height), 4 * x : 4 * (x + width)]
        spot[:] = np.array(COLOURS[name]) + chance.normal(0, 55, 3) + chance.normal(0, 25, spot.shape)
        regions.append(Region(label=name, where=(x / SIDE, y / SIDE, width / SIDE, height / SIDE)))
    png = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(png, "PNG")
    return TrueItem(item_id, f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}", tuple(regions))


def named_texts(n: int, seed: int = 0) -> list[TrueItem]:
    """Return `n` texts with up to three names of persons and cities, as data: links, with their spans."""
    chance = np.random.default_rng(seed)
    return [_text(f"t{i:03d}", chance) for i in range(n)]


def _text(item_id: str, chance: np.random.Generator) -> TrueItem:
    words: list[str] = []
    regions, length = [], 0
    for _ in range(int(chance.integers(6, 12))):
        word, kind = str(chance.choice(WORDS)), ""
        if chance.random() < 0.25:
            kind = KINDS[int(chance.integers(2))]
            word = str(chance.choice(NAMES[kind]))
            regions.append(Region(label=kind, where=(length, length + len(word))))
        words.append(word)
        length += len(word) + 1
    return TrueItem(item_id, f"data:text/plain,{'%20'.join(words)}", tuple(regions))


class SpotsMap(Encoder):
    """A picture as the colours of 16 by 16 places."""

    name = "spots-map"
    category = "object-detection"
    dim = SIDE * SIDE * 3
    wanted_px = SIDE

    def embed(self, prepared: Sequence[Any]) -> Features:
        """Return (n, 768) in [0, 1]."""
        rows = [to_square(picture, SIDE, is_gray=False).reshape(-1) for picture in prepared]
        return np.stack(rows).astype(np.float32) / 255 if rows else np.empty((0, self.dim), np.float32)


class Letters(Encoder):
    """A text as its first 128 code points, 0 behind its end."""

    name = "letters"
    category = "token-classification"
    dim = 128

    def embed(self, prepared: Sequence[Decoded]) -> Features:
        """Return (n, 128) code points."""
        rows = np.zeros((len(prepared), self.dim), np.float32)
        for row, text in zip(rows, prepared, strict=True):
            points = [ord(c) for c in str(text)[: self.dim]]
            row[: len(points)] = points
        return rows


class Spots(RegionModel):
    """The kind of each place by regression; places of one kind that touch are a box."""

    def __init__(self, places: Model) -> None:
        self._places, self.n_labels = places, places.n_labels - 1

    def predict_regions(self, x: NDArray[Any]) -> list[Regions]:
        """Return the boxes of each row."""
        proba = self._places.predict_proba(_colours(x).reshape(-1, 6)).reshape(len(x), SIDE, SIDE, -1)
        return [self._boxes(one) for one in proba]

    def _boxes(self, proba: NDArray[np.float32]) -> Regions:
        rows = []
        for kind in range(self.n_labels):
            where, _ = label(proba.argmax(axis=2) == kind)
            for i, (down, right) in enumerate(find_objects(where), 1):
                box = (right.start, down.start, right.stop - right.start, down.stop - down.start)
                rows.append((float(proba[..., kind][where == i].mean()), kind, box))
        rows.sort(reverse=True)
        return Regions(
            np.array([box for _, _, box in rows], np.float32).reshape(-1, 4) / SIDE,
            np.array([kind for _, kind, _ in rows], np.int64),
            np.array([score for score, _, _ in rows], np.float32),
        )

    def files(self) -> dict[str, bytes]:
        """Return those of the regression."""
        return self._places.files()


def _colours(x: NDArray[Any]) -> NDArray[np.float32]:
    """Return colours and their squares: (n, 256, 6)."""
    colours = np.asarray(x, np.float32).reshape(len(x), SIDE * SIDE, 3)
    return np.concatenate([colours, colours**2], axis=2)


class NoParameters(Parameters, frozen=True, kw_only=True):
    """There are none."""


class SpotsAlgorithm(Algorithm):
    """Learns which place of a picture is ground, and which a spot of which label."""

    name = "spots"
    title = "Coloured spots"
    framework = "sklearn"
    input = "features"
    target = "regions"
    parameters = NoParameters
    file_names = REGRESSION.file_names

    def _start(self, x: NDArray[Any], y: Any, n_labels: int, *_: Any) -> Training:
        kinds = np.full((len(x), SIDE, SIDE), n_labels)
        for picture, regions in zip(kinds, y, strict=True):
            for (left, top, width, height), kind in zip(np.rint(regions.where * SIDE).astype(int), regions.labels, strict=True):
                picture[top : top + height, left : left + width] = kind
        flat = kinds.reshape(-1)
        kept = (flat < n_labels) | (np.arange(len(flat)) % 7 == 0)  # some of the ground tells as much as all of it
        places = REGRESSION.start(_colours(x).reshape(-1, 6)[kept], flat[kept], n_labels + 1)

        def fit() -> tuple[Model, float]:
            loss = places.advance()
            return Spots(places.model()), loss

        return OneStepTraining(fit, self._load)

    def _load(self, files: Files) -> Model:
        return Spots(REGRESSION._load(files))


class Dictionary(RegionModel):
    """Finds the words that it knows. `kinds`: how often each word had which label, '' = none."""

    def __init__(self, known: dict[str, int], n_labels: int) -> None:
        self._known, self.n_labels = known, n_labels

    def predict_regions(self, x: NDArray[Any]) -> list[Regions]:
        """Return the spans of each row."""
        return [self._spans("".join(chr(int(c)) for c in row if c)) for row in x]

    def _spans(self, text: str) -> Regions:
        found = [(start, end, self._known[text[start:end]]) for start, end in _words(text) if text[start:end] in self._known]
        return Regions(
            np.array([(start, end) for start, end, _ in found], np.float32).reshape(-1, 2),
            np.array([kind for _, _, kind in found], np.int64),
            np.full(len(found), 0.9, np.float32),
        )

    def files(self) -> dict[str, bytes]:
        """Return one line a word."""
        lines = [f"{self.n_labels}", *(f"{word} {kind}" for word, kind in self._known.items())]
        return {"words.txt": "\n".join(lines).encode()}


def _words(text: str) -> list[tuple[int, int]]:
    starts = [0, *(i + 1 for i, c in enumerate(text) if c == " ")]
    return [(start, end) for start, end in zip(starts, [s - 1 for s in starts[1:]] + [len(text)], strict=True) if end > start]


class WordsAlgorithm(Algorithm):
    """Remembers the words that were labelled."""

    name = "words"
    title = "Known words"
    framework = "sklearn"
    input = "features"
    target = "regions"
    parameters = NoParameters
    file_names = ("words.txt",)

    def _start(self, x: NDArray[Any], y: Any, n_labels: int, *_: Any) -> Training:
        known: dict[str, int] = {}
        for row, regions in zip(x, y, strict=True):
            text = "".join(chr(int(c)) for c in row if c)
            for (start, end), kind in zip(regions.where.astype(int), regions.labels, strict=True):
                known[text[start:end]] = int(kind)
        return OneStepTraining(lambda: (Dictionary(known, n_labels), 0.0), self._load)

    def _load(self, files: Files) -> Model:
        try:
            head, *lines = files["words.txt"].decode().split("\n")
            return Dictionary({word: int(kind) for word, kind in (line.split() for line in lines)}, int(head))
        except ValueError as exc:
            raise IntegrityError(f"words.txt is malformed: {exc}") from exc


SPOTS, KNOWN_WORDS = SpotsAlgorithm(), WordsAlgorithm()

_ENTRY_POINTS = f"""[labelloop.encoders]
spots-map = {__name__}:SpotsMap
letters = {__name__}:Letters
[labelloop.algorithms]
spots = {__name__}:SPOTS
words = {__name__}:KNOWN_WORDS
"""


def write_package(folder: Path) -> Path:
    """Write what an installed package with these entry points leaves on the path; return the folder to put on it."""
    info = folder / "spots-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: spots\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(_ENTRY_POINTS)
    return folder
