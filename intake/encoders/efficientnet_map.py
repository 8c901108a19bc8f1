"""`efficientnet-map`: where things are in a photograph, as two maps of the frozen EfficientNet-lite0, for detectors.

Owns the picture size and the row. The picture is squashed to 256 x 256, whatever its shape, so that shares of the map are shares
of the picture. A row is 32 channels of 16 x 16 (stride 16) and 128 of 8 x 8 (stride 32), channels first: 16,384 numbers, 64 KiB.
The channels are those directions of the network's maps that its own next convolution reads most strongly (the leading right
singular vectors of its weights), so that no data chose them. Called through `intake.encoders`. Sources: see `efficientnet`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from intake.decode import Decoded
from intake.encoders.base import Encoder, Features, map_on_cores
from intake.encoders.efficientnet import cache_folder, model_file, to_network
from intake.encoders.onnx_session import open_session
from intake.encoders.pixels import to_square
from learning.feature_map import EFFICIENTNET, parse_layout, row_size

SIDE = 256
LAYOUT = EFFICIENTNET


class EfficientNetMap(Encoder):
    """Two levels of the network before its head, fp32, flat."""

    name = "efficientnet-map"
    dim = row_size(parse_layout(LAYOUT))
    category = "object-detection"
    wanted_px = SIDE

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or cache_folder()

    @functools.cached_property
    def _session(self) -> Any:
        return open_session(model_file(self._folder, "map"))

    def prepare(self, decoded: Decoded) -> npt.NDArray[np.uint8]:
        """Return the picture as (256, 256, 3) uint8."""
        return to_square(decoded, SIDE, is_gray=False)

    def embed(self, prepared: Sequence[Any]) -> Features:
        """Return (n, 16384) maps, laid out as `record` says."""
        if not prepared:
            return np.empty((0, self.dim), np.float32)
        session = self._session
        return np.stack(map_on_cores(lambda picture: _maps(session, picture), prepared))

    def record(self) -> dict[str, Any]:
        """Return name, width and the layout: channels x height x width of each level, one behind the other."""
        return {**super().record(), "layout": LAYOUT}


def _maps(session: Any, picture: npt.NDArray[np.uint8]) -> Features:
    levels = session.run(None, {"pixels": to_network(picture)})
    return np.concatenate([level.reshape(-1) for level in levels])
