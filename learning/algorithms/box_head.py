"""box-head: finds boxes in pictures by a small network on frozen feature maps, trained on a CPU from the serving model's weights.

Owns parameters, model and training of the detector; `box_network` computes. Must never see a picture: its rows are maps, laid out
as `learning.feature_map` says. Sources: see `box_network`, `box_confidence` and `learning.boxes`.

| given | answer |
| --- | --- |
| no box in any picture | refused: label at least one that shows something |
| pictures without a box among others | learned from: nothing is there |
| a box outside the picture, without size, NaN; a label out of range | refused, naming the item and the box |
| spans | refused |
| rows of another width than the layout | refused, naming both |
| one picture | trained on; confidence is the raw score, held out is nothing |
| NaN in a row to learn from | counts as the channel's mean; a row that is NaN throughout is refused |
| a row to predict that is NaN throughout | no box; NaN in parts counts as the mean |
| a class that no box has | never found |
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import IntegrityError
from learning.algorithms.base import Algorithm, Files, Model, Parameters, Training, check_width, need
from learning.algorithms.batches import Batches
from learning.algorithms.box_confidence import Confidence, fit_confidence
from learning.algorithms.tensors import pack, unpack
from learning.algorithms.torch_training import Group, Network, TorchTraining
from learning.boxes import check_boxes, suppress
from learning.feature_map import EFFICIENTNET, Level, parse_layout, row_size, split_levels
from learning.regions import RegionModel, Regions

if TYPE_CHECKING:
    import torch

FILE = "box-head.safetensors"
MOST_CELLS = 64  # surest cells of a picture that may become boxes
SAME_THING = 0.55  # two found boxes that overlap by more are one thing
LEAST_SCORE = 0.05  # confidence below which nothing is said to be found
_PREDICT_ROWS = 64
_CALIBRATION_SALT = b"box-head"


class BoxHeadParameters(Parameters, frozen=True, kw_only=True):
    """`held_out`: pictures are chosen by a hash of their features, so that one held out stays held out in the next training."""

    rate: Annotated[float, msgspec.Meta(gt=0, le=1, description="Largest step size.")] = 0.006
    batch: Annotated[int, msgspec.Meta(ge=1, description="Pictures in a step.")] = 8
    width: Annotated[int, msgspec.Meta(ge=8, le=256, multiple_of=8, description="Channels of the head.")] = 48
    dropout: Annotated[float, msgspec.Meta(ge=0, lt=1, description="Share of the channels left out in training.")] = 0.1
    decay: Annotated[float, msgspec.Meta(ge=0, description="Decoupled weight decay.")] = 0.05
    mirror: Annotated[bool, msgspec.Meta(description="Augmentation: half of the maps are mirrored left to right.")] = True
    held_out: Annotated[float, msgspec.Meta(ge=0, le=0.5, description="Share of the pictures kept to calibrate confidence.")] = 0.15
    layout: Annotated[str, msgspec.Meta(description="Levels of a row, channels x height x width, finest first.")] = EFFICIENTNET


class Scale(NamedTuple):
    """Of each channel of all levels, one behind the other: `z = (x - mean) * factor`, (c,) float32."""

    mean: NDArray[np.float32]
    factor: NDArray[np.float32]

    def levels(self, x: NDArray[Any], levels: Sequence[Level]) -> list[NDArray[np.float32]]:
        """Return rows (n, d) as normalised maps; what is missing counts as its channel's mean."""
        out, at = [], 0
        for one, level in zip(split_levels(x, tuple(levels)), levels, strict=True):
            part = slice(at, at + level.channels)
            z = (one - self.mean[part, None, None]) * self.factor[part, None, None]
            out.append(np.nan_to_num(z, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32, copy=False))
            at += level.channels
        return out


class BoxHeadModel(RegionModel):
    """The network in evaluation mode, the scale it was trained on, and what its scores are worth."""

    def __init__(
        self, weights: dict[str, NDArray[Any]], scale: Scale, n_labels: int, layout: str, width: int, confidence: Confidence
    ) -> None:
        from learning.algorithms.box_network import make_network
        from learning.algorithms.torch_training import choose_device, load_weights

        self.weights, self.scale, self.n_labels, self.confidence = weights, scale, n_labels, confidence
        self.layout, self.width, self.levels = layout, width, parse_layout(layout)
        self._module = make_network(self.levels, n_labels, width)
        load_weights(self._module, weights)
        self._device = choose_device()
        self._module.eval().to(self._device)

    def predict_regions(self, x: NDArray[Any]) -> list[Regions]:
        """Return the boxes of each picture from a confidence of 0.05 up, falling; `confidence.shown_from` is what a draft needs.

        x: (n, d) float32 maps as in training. Raises InvalidInputError on another width.
        """
        return [regions for regions, _ in self._find(x)]

    def parts(self, x: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return what `region_uncertainty` asks of: a row of proba (p, n_labels + 1) for each found box, and part_starts.

        Rows sum to 1. The last column is that nothing is there: 1 minus the confidence. part_starts: (n + 1,), rising from 0 to p.
        """
        found = self._find(x)
        starts = np.cumsum([0, *(len(regions.labels) for regions, _ in found)], dtype=np.int64)
        rows = [np.column_stack([shares * regions.scores[:, None], 1 - regions.scores]) for regions, shares in found]
        empty = np.zeros((0, self.n_labels + 1), np.float32)
        return np.concatenate([empty, *rows]).astype(np.float32), starts

    def _find(self, x: NDArray[Any]) -> list[tuple[Regions, NDArray[np.float32]]]:
        """Return the boxes of each picture, and of each box how its confidence falls to the classes (r, n_labels)."""
        x = check_width(x, row_size(self.levels))
        out: list[tuple[Regions, NDArray[np.float32]]] = []
        for begin in range(0, len(x), _PREDICT_ROWS):
            block = x[begin : begin + _PREDICT_ROWS]
            is_known = np.isfinite(block).any(axis=1)
            boxes, proba = self._cells(block)
            scores = self.confidence.of(proba.max(axis=2))
            kept = suppress(boxes, SAME_THING)
            kept[~is_known] = False
            kept[scores < LEAST_SCORE] = False
            for row in range(len(block)):
                k = kept[row]
                regions = Regions(boxes[row][k], proba[row][k].argmax(axis=1).astype(np.int64), scores[row][k])
                out.append((regions, proba[row][k] / proba[row][k].sum(axis=1, keepdims=True)))
        return out

    def _cells(self, block: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return boxes (n, t, 4) of the surest cells and their raw scores (n, t, k) in (0, 1)."""
        import torch

        from learning.algorithms.box_network import decode_cells

        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            maps = [torch.from_numpy(one).to(self._device) for one in self.scale.levels(block, self.levels)]
            logits, sides = self._module(maps)
        boxes, found = decode_cells(logits.cpu().numpy(), sides.cpu().numpy(), MOST_CELLS)
        return boxes, (1 / (1 + np.exp(-np.clip(found, -30, 30)))).astype(np.float32)

    def files(self) -> dict[str, bytes]:
        arrays = {f"weight.{name}": value for name, value in self.weights.items()}
        facts = {
            "n_labels": self.n_labels,
            "layout": self.layout,
            "width": self.width,
            "confidence": list(self.confidence),
        }
        return {FILE: pack({**arrays, "mean": self.scale.mean, "factor": self.scale.factor}, facts)}


class BoxTraining(TorchTraining):
    """What the network answers of some rows is their loss itself, a mean over pictures: boxes are no classes to compare with."""

    def _backward(self, rows: NDArray[np.int64], part: slice, rng: np.random.Generator) -> torch.Tensor:
        import torch

        if not len(rows[part]):  # the last batch of an epoch may have fewer pictures than there are ranks
            return torch.zeros((), device=self._device)
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._device.type == "cuda"):
            loss = self._network.logits(rows, part, rng)
        loss = loss * (len(rows[part]) / len(rows))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


class BoxHead(Algorithm):
    """See the module."""

    name = "box-head"
    title = "Boxes on feature maps"
    framework = "torch"
    input = "features"
    is_incremental = True
    sharing = "steps"
    target = "regions"
    parameters = BoxHeadParameters
    file_names = (FILE,)

    def preload(self) -> None:
        import torch  # noqa: F401

    def _start(
        self,
        x: NDArray[Any],
        y: Any,
        n_labels: int,
        is_multilabel: bool,
        settings: BoxHeadParameters,
        epoch: int,
        seed: int,
        start_from: Model | None,
    ) -> Training:
        from learning.algorithms.box_network import make_network
        from learning.algorithms.torch_training import choose_device, load_weights, read, seeded

        levels, boxes = parse_layout(settings.layout), check_boxes(y)
        split_levels(x, levels)
        is_held = _held_out(x, boxes, settings.held_out)
        scale = _fit_scale(x[~is_held], levels)
        module = seeded(seed, lambda: make_network(levels, n_labels, settings.width))
        if isinstance(start_from, BoxHeadModel) and _is_kin(start_from, n_labels, settings):
            scale = start_from.scale
            load_weights(module, start_from.weights)
        module.to(choose_device())
        learned, held = np.flatnonzero(~is_held), np.flatnonzero(is_held)
        loss = _make_loss(module, x, learned, boxes, levels, scale, n_labels, settings)

        def make_model() -> BoxHeadModel:
            weights = {name: read(value) for name, value in module.state_dict().items()}
            raw = BoxHeadModel(weights, scale, n_labels, settings.layout, settings.width, Confidence())
            return _calibrated(raw, x[held], [boxes[row] for row in held])

        batches = Batches(len(learned), settings.batch, seed)
        work = float(min(settings.batch, len(learned)) * levels[0].height * levels[0].width * settings.width**2 * 18)
        groups = [Group(list(module.parameters()), settings.rate, settings.decay)]
        network = Network(module, groups, loss, None, make_model, work)
        steps = batches.steps(epoch, least_steps=800)
        return BoxTraining(network, np.zeros(len(learned), np.int64), batches, steps, seed)

    def _load(self, files: Files) -> Model:
        arrays, facts = unpack(need(files, FILE))
        try:
            scale = Scale(arrays.pop("mean"), arrays.pop("factor"))
            weights = {name.removeprefix("weight."): value for name, value in arrays.items()}
            confidence = Confidence(*facts["confidence"])
            return BoxHeadModel(weights, scale, facts["n_labels"], facts["layout"], facts["width"], confidence)
        except (KeyError, TypeError) as exc:
            raise IntegrityError(f"{FILE} lacks or spoils {exc}") from exc


def _calibrated(raw: BoxHeadModel, x: NDArray[np.float32], truth: Sequence[Regions]) -> BoxHeadModel:
    """Return the model with confidence instead of raw scores, by held-out pictures; as it is when there are none."""
    if not truth:
        return raw
    confidence = fit_confidence(truth, raw.predict_regions(x))
    return BoxHeadModel(raw.weights, raw.scale, raw.n_labels, raw.layout, raw.width, confidence)


def _is_kin(model: BoxHeadModel, n_labels: int, settings: BoxHeadParameters) -> bool:
    return (model.n_labels, model.layout, model.width) == (n_labels, settings.layout, settings.width)


def _held_out(x: NDArray[np.float32], boxes: Sequence[Regions], share: float) -> NDArray[np.bool_]:
    """Return which pictures calibrate: by a hash of their features; none when what is left would show no box."""
    limit = share * 2**32
    is_held = np.array([zlib.crc32(_CALIBRATION_SALT + row.tobytes()) < limit for row in x])
    has_box = np.array([len(one.labels) > 0 for one in boxes])
    return is_held if (has_box & ~is_held).any() else np.zeros(len(x), np.bool_)


def _fit_scale(x: NDArray[np.float32], levels: Sequence[Level]) -> Scale:
    """Return mean and spread of each channel, from at most 256 rows."""
    mean, spread = [], []
    for one in split_levels(x[:: max(1, len(x) // 256)], tuple(levels)):
        wide = one.astype(np.float64)
        known = np.maximum(np.isfinite(wide).sum(axis=(0, 2, 3)), 1)
        middle = np.nansum(wide, axis=(0, 2, 3)) / known
        mean.append(middle)
        spread.append(np.sqrt(np.nansum((wide - middle[:, None, None]) ** 2, axis=(0, 2, 3)) / known))
    wide_spread = np.concatenate(spread)
    factor = np.where(wide_spread > 1e-6, 1 / np.maximum(wide_spread, 1e-6), 0.0)
    return Scale(np.concatenate(mean).astype(np.float32), factor.astype(np.float32))


def _make_loss(
    module: torch.nn.Module,
    x: NDArray[np.float32],
    learned: NDArray[np.int64],
    boxes: Sequence[Regions],
    levels: Sequence[Level],
    scale: Scale,
    n_labels: int,
    settings: BoxHeadParameters,
) -> Any:
    """Return the loss of a step's rows (places in `learned`): mirrored and thinned alike whoever computes a picture."""
    import torch

    from learning.algorithms.box_network import loss_of_boxes, make_targets

    device = next(module.parameters()).device
    targets = make_targets([boxes[row] for row in learned], n_labels, levels[0].height, levels[0].width)
    usual = max(1.0, float(targets.answers.sum()) / len(learned))

    def loss(rows: NDArray[np.int64], part: slice, rng: np.random.Generator) -> torch.Tensor:
        turned = (rng.random(len(rows)) < 0.5)[part] & settings.mirror
        kept = (rng.random((2, len(rows), settings.width), dtype=np.float32) >= settings.dropout)[:, part]
        mine = rows[part]
        maps = [mirror(one, turned) for one in scale.levels(x[learned[mine]], levels)]
        heat, sides, answers = (mirror(one[mine], turned) for one in targets)
        sides[turned] = sides[turned][:, [2, 1, 0, 3]]
        first, second = torch.from_numpy(kept.astype(np.float32)[..., None, None] / (1 - settings.dropout)).to(device)
        logits, said = module([torch.from_numpy(one).to(device) for one in maps], (first, second))
        there, wanted, asked = (torch.from_numpy(one).to(device) for one in (heat, sides, answers))
        return loss_of_boxes(logits, said, there, wanted, asked, usual)

    return loss


def mirror(maps: NDArray[Any], is_turned: NDArray[np.bool_]) -> NDArray[Any]:
    """Return a copy of maps (n, ..., w) in which those of `is_turned` (n,) are mirrored left to right."""
    out = maps.copy()
    out[is_turned] = maps[is_turned][..., ::-1]
    return out


ALGORITHM = BoxHead()
