"""The graph of the torch networks: normalisation, resampling and layers as torch's own exporter writes them, without onnxscript.

Owns the two networks' way into a `Graph`. Resampling and adaptive pooling are linear and separable, so they become two matrix
products each: the exporter has no operator that resamples with antialiasing. Called by `onnx_export`.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn

from learning.algorithms.fine_tune import SIDE, FineTuneModel
from learning.algorithms.small_cnn import SmallCnnModel
from learning.transfer.onnx_graph import OPSET, Graph, filled

Network = SmallCnnModel | FineTuneModel
_FILLED = "labelloop_filled"


class _Whole(nn.Module):
    """Images (n, h, w, c) to probabilities: scaling, then layers on (n, c, h, w)."""

    def __init__(self, scale: Callable[[torch.Tensor], torch.Tensor], layers: nn.Module, is_multilabel: bool) -> None:
        super().__init__()
        self._scale, self.layers, self._is_multilabel = scale, layers.eval(), is_multilabel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.layers(self._scale(x).permute(0, 3, 1, 2))
        found: torch.Tensor = logits.sigmoid() if self._is_multilabel else logits.softmax(dim=1)
        return found


class _Resample(nn.Module):
    """`down` (h', h) and `across` (w', w) along the axes of (n, c, h, w)."""

    def __init__(self, down: torch.Tensor, across: torch.Tensor) -> None:
        super().__init__()
        self.down, self.across = nn.Parameter(down), nn.Parameter(across.T.contiguous())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down @ x @ self.across


class _Backbone(nn.Module):
    """What the pretrained network expects: its range, and three channels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x - 127.0) / 128.0).expand(-1, 3, -1, -1)


def on_cpu(model: Network) -> Network:
    """Return a copy that computes on the CPU in float32, whatever this machine has."""
    other = copy.copy(model)
    other._device = torch.device("cpu")
    for name in ("_module", "_trunk", "_top"):
        if hasattr(other, name):
            setattr(other, name, copy.deepcopy(getattr(other, name)).to("cpu"))
    return other


def network(graph: Graph, x: str, model: Network, shape: tuple[int, int, int]) -> str:
    """Return the probabilities of a network on images (n, *shape)."""
    import onnx

    mean: Any = model.pixels.mean if isinstance(model, SmallCnnModel) else np.float32(127.0 / model.unit)
    images = filled(graph, x, mean)
    written = onnx.load_from_string(_export(_whole(on_cpu(model), shape), shape))
    names = {_FILLED: images}
    for node in written.graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value if not value else f"network.{value}") for value in values]
    for array in written.graph.initializer:
        array.name = f"network.{array.name}"
    graph.nodes.extend(written.graph.node)
    graph.constants.extend(written.graph.initializer)
    return f"network.{written.graph.output[0].name}"


def _export(module: nn.Module, shape: tuple[int, int, int]) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the newer exporter needs onnxscript; tracing is all that fixed layers ask for
        torch.onnx.export(
            module,
            (torch.zeros(2, *shape),),
            out,
            dynamo=False,
            opset_version=OPSET,
            input_names=[_FILLED],
            output_names=["bare"],
            dynamic_axes={_FILLED: {0: "n"}, "bare": {0: "n"}},
        )
    return out.getvalue()


def _whole(model: Network, shape: tuple[int, int, int]) -> nn.Module:
    """Return a module from images (n, h, w, c) to probabilities."""
    if isinstance(model, SmallCnnModel):
        mean, factor = (torch.from_numpy(np.ascontiguousarray(part)) for part in (model.pixels.mean, model.pixels.factor))
        steps = _plain(model._module, shape)
        return _Whole(lambda x: (x - mean) * factor, steps, model.is_multilabel)
    resampled = [] if shape[:2] == (SIDE, SIDE) else [_Resample(_resampling(shape[0]), _resampling(shape[1]))]
    unit = model.unit
    steps = nn.Sequential(*resampled, _Backbone(), model._trunk, model._top)
    return _Whole(lambda x: x * unit, steps, model.is_multilabel)


def _resampling(size: int) -> torch.Tensor:
    """Return (SIDE, size): what bilinear resampling with antialiasing does along one axis."""
    found: torch.Tensor = functional.interpolate(
        torch.eye(size)[None, None], size=(SIDE, size), mode="bilinear", align_corners=False, antialias=True
    )
    return found[0, 0]


def _plain(module: nn.Sequential, shape: tuple[int, int, int]) -> nn.Sequential:
    """Return the layers with each adaptive pooling as two matrices, for images of `shape`."""
    import torch

    layers: list[nn.Module] = []
    at = torch.zeros(1, shape[2], shape[0], shape[1])
    for layer in module:
        after = layer(at)
        if isinstance(layer, nn.AdaptiveAvgPool2d):
            pools = (
                functional.adaptive_avg_pool2d(torch.eye(n)[None, None], (m, n))[0, 0]
                for n, m in zip(at.shape[2:], after.shape[2:], strict=True)
            )
            layers.append(_Resample(*pools))
        elif not isinstance(layer, nn.Identity):
            layers.append(layer)
        at = after
    return nn.Sequential(*layers)
