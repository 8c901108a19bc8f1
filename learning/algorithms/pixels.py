"""What every pixel algorithm does to images before the first convolution.

Owns normalisation and the declared augmentation (random shifts). Must never import torch or tensorflow. Called by small-cnn and
keras-cnn.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.algorithms.base import check_pixels


class Pixels(NamedTuple):
    """Shape of one image and the scale of the training set: `z = (x - mean) * factor`, per channel (c,) float32."""

    shape: tuple[int, int, int]
    mean: NDArray[np.float32]
    factor: NDArray[np.float32]

    def normalise(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Return checked images (n, h, w, c) as float32 around 0."""
        return (x.astype(np.float32) - self.mean) * self.factor

    def accept(self, x: NDArray[Any], name: str) -> NDArray[np.float32]:
        """Return images to predict on, normalised; what is missing counts as the mean.

        Raises InvalidInputError on another shape than in training.
        """
        x = np.asarray(x)
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            flat = x.reshape(len(x), -1, self.shape[2])
            x = np.where(np.isfinite(flat), flat, self.mean).reshape(x.shape)
        images = check_pixels(x, name)
        if images.shape[1:] != self.shape:
            raise InvalidInputError(f"the model was trained on images {self.shape}, got {images.shape[1:]}: use the same encoder")
        return self.normalise(images)


def fit_pixels(x: NDArray[Any]) -> Pixels:
    """Return the scale of checked images (n, h, w, c), from at most 1,024 of them."""
    part = x[:: max(1, len(x) // 1024)].astype(np.float64)
    mean, spread = part.mean(axis=(0, 1, 2)), part.std(axis=(0, 1, 2))
    factor = np.where(spread > 1e-6, 1.0 / np.maximum(spread, 1e-6), 0.0)
    height, width, channels = x.shape[1:]
    return Pixels((height, width, channels), mean.astype(np.float32), factor.astype(np.float32))


def shift(
    x: NDArray[np.float32], most_px: int, rng: np.random.Generator, n_batch: int = 0, part: slice = slice(None)
) -> NDArray[np.float32]:
    """Return images (n, h, w, c) each moved by up to `most_px` pixels along both axes; the border repeats.

    The moves are drawn for a whole batch of `n_batch` images (0 = x is the batch), of which x is `part`: an image moves alike
    whoever computes it.
    """
    if most_px == 0:
        return x
    n, height, width, _ = x.shape
    down, right = (rng.integers(-most_px, most_px + 1, (n_batch or n, 1))[part] for _ in range(2))
    rows = np.clip(np.arange(height) + down, 0, height - 1)
    columns = np.clip(np.arange(width) + right, 0, width - 1)
    return x[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
