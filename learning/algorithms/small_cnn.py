"""small-cnn: three convolutions on pixels, trained from scratch or from the serving model's weights.

After Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document Recognition", Proc. IEEE, 1998, with
group normalisation (Y. Wu, K. He, "Group Normalization", ECCV 2018), which keeps no statistics between batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import IntegrityError
from learning.algorithms.base import Algorithm, Files, Model, Parameters, Training, need
from learning.algorithms.batches import Batches
from learning.algorithms.pixels import Pixels, fit_pixels, shift
from learning.algorithms.tensors import pack, unpack

if TYPE_CHECKING:
    import torch

FILE = "small-cnn.safetensors"
Loss = Callable[["torch.Tensor", "NDArray[np.int64]"], "torch.Tensor"]
_PREDICT_ROWS = 256


class SmallCnnParameters(Parameters, frozen=True, kw_only=True):
    """`side`: images with a longer side are averaged down to it first."""

    rate: Annotated[float, msgspec.Meta(gt=0, le=1, description="Largest step size.")] = 0.003
    batch: Annotated[int, msgspec.Meta(ge=1, description="Samples in a step.")] = 64
    width: Annotated[int, msgspec.Meta(ge=8, le=256, multiple_of=8, description="Channels of the first convolution.")] = 32
    side: Annotated[int, msgspec.Meta(ge=8, le=256, description="Longest side the network sees, pixels.")] = 64
    dropout: Annotated[float, msgspec.Meta(ge=0, lt=1, description="Share of the last features left out in training.")] = 0.3
    shift_px: Annotated[int, msgspec.Meta(ge=0, le=16, description="Augmentation: most pixels an image is moved.")] = 1
    decay: Annotated[float, msgspec.Meta(ge=0, description="Decoupled weight decay.")] = 0.01


class SmallCnnModel(Model):
    """The network in evaluation mode with the pixel scale it was trained on."""

    def __init__(
        self, weights: dict[str, NDArray[Any]], pixels: Pixels, n_labels: int, is_multilabel: bool, width: int, side: int
    ) -> None:
        from learning.algorithms.torch_training import choose_device, load_weights

        self.weights, self.pixels, self.n_labels, self.is_multilabel = weights, pixels, n_labels, is_multilabel
        self.width, self.side = width, side
        self._module = _network(pixels.shape, n_labels, width, side)
        load_weights(self._module, weights)
        self._device = choose_device()
        self._module.eval().to(self._device)

    def predict_proba(self, x: NDArray[Any]) -> NDArray[np.float32]:
        import torch

        from learning.algorithms.torch_training import to_proba

        out = np.empty((len(x), self.n_labels), dtype=np.float32)
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            for begin in range(0, len(x), _PREDICT_ROWS):
                images = self.pixels.accept(x[begin : begin + _PREDICT_ROWS], "small-cnn")
                out[begin : begin + len(images)] = to_proba(self._module(_to_tensor(images, self._device)), self.is_multilabel)
        return out

    def files(self) -> dict[str, bytes]:
        arrays = {f"weight.{name}": value for name, value in self.weights.items()}
        facts = {
            "shape": self.pixels.shape,
            "n_labels": self.n_labels,
            "is_multilabel": self.is_multilabel,
            "width": self.width,
            "side": self.side,
        }
        return {FILE: pack({**arrays, "mean": self.pixels.mean, "factor": self.pixels.factor}, facts)}


class SmallCnn(Algorithm):
    """See the module."""

    name = "small-cnn"
    title = "Small convolutional network"
    framework = "torch"
    input = "pixels"
    is_incremental = True
    sharing = "steps"
    has_multilabel = True
    has_soft_labels = True
    parameters = SmallCnnParameters
    file_names = (FILE,)

    def preload(self) -> None:
        import torch  # noqa: F401

    def _start(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        n_labels: int,
        is_multilabel: bool,
        settings: SmallCnnParameters,
        epoch: int,
        seed: int,
        start_from: Model | None,
    ) -> Training:
        return start(x, y, n_labels, is_multilabel, settings, epoch, seed, start_from)

    def _load(self, files: Files) -> Model:
        arrays, facts = unpack(need(files, FILE))
        try:
            height, width, channels = facts["shape"]
            pixels = Pixels((height, width, channels), arrays.pop("mean"), arrays.pop("factor"))
            weights = {name.removeprefix("weight."): value for name, value in arrays.items()}
            return SmallCnnModel(weights, pixels, facts["n_labels"], facts["is_multilabel"], facts["width"], facts["side"])
        except KeyError as exc:
            raise IntegrityError(f"{FILE} lacks {exc}") from exc


def start(
    x: NDArray[Any],
    y: NDArray[Any],
    n_labels: int,
    is_multilabel: bool,
    settings: SmallCnnParameters,
    epoch: int,
    seed: int,
    start_from: Model | None = None,
    loss: Loss | None = None,
) -> Training:
    """Return a training on checked images and labels; `loss(logits, rows)` stands in for the labels' cross entropy."""
    import torch

    from learning.algorithms.torch_training import Group, Network, TorchTraining, choose_device, load_weights, read, seeded

    pixels = fit_pixels(x)
    module = seeded(seed, lambda: _network(pixels.shape, n_labels, settings.width, settings.side))
    if isinstance(start_from, SmallCnnModel) and _is_kin(start_from, pixels, n_labels, is_multilabel, settings):
        pixels = start_from.pixels
        load_weights(module, start_from.weights)
    device = choose_device()
    module.to(device)

    def logits(rows: NDArray[np.int64], part: slice, rng: np.random.Generator) -> torch.Tensor:
        images = shift(pixels.normalise(x[rows[part]]), settings.shift_px, rng, len(rows), part)
        found: torch.Tensor = module[:-1](_to_tensor(images, device))
        kept = _kept(len(rows), found.shape[1], settings.dropout, rng)[part]
        return module[-1](found * torch.from_numpy(kept).to(device))

    def make_model() -> SmallCnnModel:
        weights = {name: read(value) for name, value in module.state_dict().items()}
        return SmallCnnModel(weights, pixels, n_labels, is_multilabel, settings.width, settings.side)

    groups = [Group(list(module.parameters()), settings.rate, settings.decay)]
    batches = Batches(len(x), settings.batch, seed)
    steps = batches.steps(epoch, least_steps=150)
    work = min(settings.batch, len(x)) * _work(pixels.shape, settings.width, settings.side)
    return TorchTraining(Network(module, groups, logits, None, make_model, work, loss=loss), y, batches, steps, seed)


def _is_kin(model: SmallCnnModel, pixels: Pixels, n_labels: int, is_multilabel: bool, settings: SmallCnnParameters) -> bool:
    mine = (pixels.shape, n_labels, is_multilabel, settings.width, settings.side)
    return mine == (model.pixels.shape, model.n_labels, model.is_multilabel, model.width, model.side)


def _work(shape: tuple[int, int, int], width: int, side: int) -> float:
    """Return about how many multiply-adds one image takes forward."""
    return float(min(shape[0], side) * min(shape[1], side) * 9 * (shape[2] * width + width * width / 2 + width * width / 4))


def _to_tensor(images: NDArray[np.float32], device: torch.device) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(device)


def _kept(n: int, width: int, share: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return dropout's factors (n, width) for a whole batch: a sample loses the same features whoever computes it.

    After N. Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR, 2014.
    """
    return (rng.random((n, width), dtype=np.float32) >= share).astype(np.float32) / np.float32(1 - share)


def _network(shape: tuple[int, int, int], n_labels: int, width: int, side: int) -> torch.nn.Sequential:
    from torch import nn

    height, breadth, channels = shape
    longest = max(height, breadth)
    layers: list[nn.Module] = []
    if longest > side:
        height, breadth = max(1, height * side // longest), max(1, breadth * side // longest)
        layers.append(nn.AdaptiveAvgPool2d((height, breadth)))
    for inside, outside in ((channels, width), (width, 2 * width), (2 * width, 2 * width)):
        layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.GroupNorm(8, outside), nn.ReLU()]
        if min(height, breadth) >= 4:
            layers.append(nn.MaxPool2d(2))
            height, breadth = height // 2, breadth // 2
    height, breadth = min(height, 4), min(breadth, 4)
    layers += [nn.AdaptiveAvgPool2d((height, breadth)), nn.Flatten(), nn.Identity()]  # where dropout is, in training
    return nn.Sequential(*layers, nn.Linear(2 * width * height * breadth, n_labels))


ALGORITHM = SmallCnn()
