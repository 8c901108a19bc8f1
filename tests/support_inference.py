"""What the inference tests share: a text task, versions that can be told by their answers, and an encoder with bad habits.

Owns no process. The encoder is a real plug-in: a folder with its module and metadata that goes onto PYTHONPATH.
"""

from __future__ import annotations

import tempfile
import urllib.parse
from pathlib import Path

import numpy as np

from datastore_layout.models import Manifest, advance, current, publish_model
from datastore_layout.root import TaskFolder
from labelloop.messages import Array, Item, TaskExtraInfo, TaskSpec
from learning.algorithms.linear_model import LinearModel

LABELS = tuple(f"label-{i}" for i in range(5))
MOODY = "moody-text"
MOODY_DIM = 8
_MODULE = """
import os
import signal
import time

import numpy as np

from intake.encoders.base import Encoder


class Moody(Encoder):
    name = "moody-text"
    dim = 8
    category = "text-classification"

    def embed(self, prepared):
        out = np.zeros((len(prepared), self.dim), np.float32)
        for row, text in zip(out, prepared):
            if "poison" in text:
                os.kill(os.getpid(), signal.SIGKILL)
            if "slow" in text:
                time.sleep(0.004)
            row[:] = np.frombuffer((text.encode() * 8)[:8], np.uint8)
        return out
"""


def write_moody_encoder(folder: Path) -> str:
    """Install the plug-in `moody-text` into `folder` and return the folder for PYTHONPATH."""
    (folder / "moody_encoder.py").write_text(_MODULE)
    info = folder / "moody-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: moody\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[labelloop.encoders]\nmoody-text = moody_encoder:Moody\n")
    return str(folder)


def text_spec(task: str, encoder: str) -> TaskSpec:
    """Return a text task with five labels."""
    extra = TaskExtraInfo(labels=LABELS, encoder=encoder)
    return TaskSpec(task=task, category="text-classification", extra=extra)


def text_items(n: int, mood: str = "calm", start: int = 0) -> tuple[Item, ...]:
    """Return `n` texts as data: links."""
    return tuple(
        Item(item_id=f"{mood}-{i}", link=f"data:text/plain,{urllib.parse.quote(f'{i} {mood} text')}")
        for i in range(start, start + n)
    )


def publish_version(
    folder: TaskFolder, encoder: str, dim: int, signature: float, *, is_flipped: bool = False, is_served: bool = True
) -> str:
    """Publish and serve a version whose every answer is `signed(signature)`; return its name. `is_flipped` damages one byte."""
    model = LinearModel(np.zeros((dim, len(LABELS)), np.float32), signed_logits(signature), np.zeros(dim, np.float32), False)
    manifest = Manifest(
        task=str(folder.task),
        category="text-classification",
        labels=LABELS,
        algorithm="logistic-regression",
        encoder=encoder,
        parameters={"signature": signature},
    )
    with tempfile.TemporaryDirectory() as source:
        model.save(Path(source))
        version = publish_model(folder, manifest, Path(source))
    if is_flipped:
        weights = next((folder.path / "Inference" / version).glob("*.safetensors"))
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    if is_served:
        serve_version(folder, version)
    return version


def serve_version(folder: TaskFolder, version: str) -> None:
    """Move the pointer to `version`."""
    pointer = current(folder)
    assert advance(folder, pointer.number if pointer else 0, version, "test")


def signed_logits(signature: float) -> np.ndarray:
    """Return the logits by which a version is told."""
    return np.array([signature, 0.0, 0.0, 0.0, 0.0], np.float32)


def signed(signature: float) -> np.ndarray:
    """Return the probabilities that a version of this signature answers."""
    logits = np.exp(signed_logits(signature))
    return np.asarray(logits / logits.sum(), np.float32)


def matrix(array: Array | None) -> np.ndarray:
    """Return the array of a message."""
    assert array is not None
    return np.frombuffer(array.data, array.dtype).reshape(array.shape)
