"""The network of box-head: what it computes, what it should compute, and how far it is from that.

Owns targets, loss and decoding. Must never keep statistics of a batch, nor import torch at module level. Called by box-head.

Anchor-free and dense: each cell of the finest map says which class is there and how far the sides of its box are (Z. Tian, C. Shen,
H. Chen, T. He, "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019); cells near a middle are punished less for saying
so (X. Zhou, D. Wang, P. Krahenbuhl, "Objects as Points", arXiv 1904.07850, 2019); outlines are judged by generalised overlap
(H. Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learning.feature_map import Level
from learning.regions import Regions

if TYPE_CHECKING:
    import torch

_MIDDLE = 0.25  # a cell within this share of a box's size from its middle answers for the box
_FALL = 0.23  # standard deviation of the softened middle, as a share of the box's size
_NOTHING = -4.0  # logit of each class before training: most cells show nothing
_SIDE = 0.15  # distance of each side before training, share of the picture
_OUTLINE = 2.0  # weight of the outline's loss beside the class's
Array = NDArray[np.float32]


class Targets(NamedTuple):
    """What the cells should say.

    heat: (n, k, h, w) in [0, 1], 1 = answers for a box of that class. sides: (n, 4, h, w) distances from the cell to left, top,
    right and bottom of its box, shares of the picture. answers: (n, h, w) bool, cells that have a box.
    """

    heat: Array
    sides: Array
    answers: NDArray[np.bool_]


def make_targets(boxes: Sequence[Regions], n_labels: int, height: int, width: int) -> Targets:
    """Return the targets of each picture; where boxes overlap the smaller one has the cell."""
    n = len(boxes)
    out = Targets(
        np.zeros((n, n_labels, height, width), np.float32),
        np.zeros((n, 4, height, width), np.float32),
        np.zeros((n, height, width), np.bool_),
    )
    for row, regions in enumerate(boxes):
        for i in np.argsort(-regions.where[:, 2:].prod(axis=1), kind="stable"):
            _draw(out, row, regions.where[i], int(regions.labels[i]))
    return out


def _draw(targets: Targets, row: int, box: Array, label: int) -> None:
    height, width = targets.answers.shape[1:]
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    centre, size = box[:2] + box[2:] / 2, box[2:]
    reach = np.maximum(size * _MIDDLE, [0.5 / width + 1e-6, 0.5 / height + 1e-6])  # the nearest cell, however small the box
    inside = (np.abs(y - centre[1]) <= reach[1])[:, None] & (np.abs(x - centre[0]) <= reach[0])
    soft = np.exp(-(((y - centre[1]) / (size[1] * _FALL)) ** 2)[:, None] / 2 - (((x - centre[0]) / (size[0] * _FALL)) ** 2) / 2)
    heat = targets.heat[row]
    heat[:, inside] = 0
    np.maximum(heat[label], np.where(soft > 0.01, soft, 0), out=heat[label])
    heat[label, inside] = 1
    targets.answers[row] |= inside
    rows, columns = np.nonzero(inside)
    far = [x[columns] - box[0], y[rows] - box[1], box[0] + box[2] - x[columns], box[1] + box[3] - y[rows]]
    targets.sides[row][:, inside] = np.array(far)


def make_network(levels: Sequence[Level], n_labels: int, width: int) -> torch.nn.Module:
    """Return the head on normalised levels: forward(levels, dropped) -> logits (b, k, h, w), sides (b, 4, h, w) above 0.

    `dropped`, where given, are two factors (b, width, 1, 1) that leave whole channels out.
    """
    from torch import nn
    from torch.nn import functional

    fine = (levels[0].height, levels[0].width)

    class BoxNetwork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter = nn.ModuleList(nn.Conv2d(level.channels, width, 1) for level in levels)
            layers: list[nn.Module] = [nn.GroupNorm(8, width), nn.ReLU()]
            for _ in range(2):
                layers += [nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU()]
            self.body = nn.Sequential(*layers)
            self.label, self.sides = nn.Conv2d(width, n_labels, 1), nn.Conv2d(width, 4, 1)
            for layer, bias in ((self.label, _NOTHING), (self.sides, float(np.log(_SIDE)))):
                nn.init.normal_(layer.weight, 0, 0.01)
                nn.init.constant_(layer.bias, bias)

        def forward(
            self, maps: Sequence[torch.Tensor], dropped: tuple[torch.Tensor, torch.Tensor] | None = None
        ) -> tuple[torch.Tensor, torch.Tensor]:
            entered = [enter(one) for enter, one in zip(self.enter, maps, strict=True)]
            z = entered[0]
            for coarse in entered[1:]:
                z = z + functional.interpolate(coarse, size=fine, mode="bilinear", align_corners=False)
            z = self.body(z if dropped is None else z * dropped[0])
            if dropped is not None:
                z = z * dropped[1]
            return self.label(z).float(), self.sides(z).float().clamp(-6, 1).exp()

    return BoxNetwork()


def loss_of_boxes(
    logits: torch.Tensor, sides: torch.Tensor, heat: torch.Tensor, wanted: torch.Tensor, answers: torch.Tensor, scale: float
) -> torch.Tensor:
    """Return the sum over pictures of what is wrong, divided by pictures times `scale`, the answering cells of a usual picture.

    Of pictures alone, so that the parts of a batch add up to the whole whoever computes them.
    """
    import torch.nn.functional as functional

    p = logits.sigmoid()
    said = functional.logsigmoid(logits) * (1 - p) ** 2
    silent = functional.logsigmoid(-logits) * p**2 * (1 - heat) ** 4
    is_there = heat == 1
    wrong = -(said * is_there + silent * ~is_there).sum()
    outline = ((1 - _generalised_overlap(sides, wanted)) * answers).sum()
    return (wrong + _OUTLINE * outline) / (len(logits) * scale)


def _generalised_overlap(said: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return generalised intersection over union of boxes around the same cells: (b, 4, h, w) twice -> (b, h, w) in [-1, 1]."""
    import torch

    area = (said[:, 0] + said[:, 2]) * (said[:, 1] + said[:, 3])
    goal = (wanted[:, 0] + wanted[:, 2]) * (wanted[:, 1] + wanted[:, 3])
    least, most = torch.minimum(said, wanted), torch.maximum(said, wanted)
    inner = (least[:, 0] + least[:, 2]).clamp(min=0) * (least[:, 1] + least[:, 3]).clamp(min=0)
    hull = (most[:, 0] + most[:, 2]) * (most[:, 1] + most[:, 3])
    union = (area + goal - inner).clamp(min=1e-9)
    return inner / union - (hull - union) / hull.clamp(min=1e-9)


def decode_cells(logits: Array, sides: Array, most: int) -> tuple[Array, Array]:
    """Return the `most` surest cells of each picture, surest first: boxes (n, t, 4) inside the picture and class logits (n, t, k).

    logits: (n, k, h, w); sides: (n, 4, h, w).
    """
    n, k, height, width = logits.shape
    flat = logits.reshape(n, k, -1)
    order = np.argsort(-flat.max(axis=1), axis=1, kind="stable")[:, :most]
    x, y = (order % width + 0.5) / width, (order // width + 0.5) / height
    far = np.take_along_axis(sides.reshape(n, 4, -1), order[:, None], axis=2)
    corners = np.clip(np.stack([x - far[:, 0], y - far[:, 1], x + far[:, 2], y + far[:, 3]], axis=2), 0, 1)
    boxes = np.concatenate([corners[..., :2], corners[..., 2:] - corners[..., :2]], axis=2).astype(np.float32)
    return boxes, np.ascontiguousarray(np.take_along_axis(flat, order[:, None], axis=2).transpose(0, 2, 1))
