"""linear-head: the regression of logistic-regression, trained by mini-batches on cached features from the serving model's weights.

For many labels or a GPU: a step costs the same however many samples there are. Adam with decoupled decay: I. Loshchilov, F. Hutter,
"Decoupled Weight Decay Regularization", ICLR 2019 (the decay itself is off here: the L2 penalty is part of the loss, as in logistic
regression, so both have the same optimum). The model is the linear one, so that predicting needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from learning.algorithms import linear_model
from learning.algorithms.base import Algorithm, Files, Model, Parameters, Training, is_soft
from learning.algorithms.batches import Batches
from learning.algorithms.linear_model import UNSEEN, LinearModel, fold
from learning.algorithms.logistic_regression import strength
from learning.scaling import Scaling, fit_scaling

if TYPE_CHECKING:
    import torch


class LinearHeadParameters(Parameters, frozen=True, kw_only=True):
    """`l2`: strength of the penalty, 1 / c of logistic-regression."""

    rate: Annotated[float, msgspec.Meta(gt=0, le=1, description="Largest step size.")] = 0.03
    batch: Annotated[int, msgspec.Meta(ge=1, description="Samples in a step.")] = 128
    l2: Annotated[float, msgspec.Meta(ge=0, description="Strength of the L2 penalty, per 64 features.")] = 1.0


class LinearHead(Algorithm):
    """See the module."""

    name = "linear-head"
    title = "Linear head (mini-batches)"
    framework = "torch"
    input = "features"
    is_incremental = True
    sharing = "steps"
    has_multilabel = True
    has_soft_labels = True
    parameters = LinearHeadParameters
    file_names = (linear_model.FILE,)

    def preload(self) -> None:
        import torch  # noqa: F401

    def _start(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        n_labels: int,
        is_multilabel: bool,
        settings: LinearHeadParameters,
        epoch: int,
        seed: int,
        start_from: Model | None,
    ) -> Training:
        import torch

        from learning.algorithms.torch_training import Group, Network, TorchTraining, choose_device, read

        device = choose_device()
        scaling = fit_scaling(x)
        z = torch.from_numpy(scaling.apply(x)).to(device)
        is_seen = _seen(y, n_labels)
        layer = torch.nn.Linear(z.shape[1], n_labels)
        with torch.no_grad():
            layer.weight.zero_()
            layer.bias.copy_(torch.from_numpy(np.where(is_seen, 0, UNSEEN)))
            if _is_kin(start_from, x.shape[1], n_labels, is_multilabel):
                _take_over(layer, start_from, scaling, is_seen)
        layer.to(device)

        def make_model() -> LinearModel:
            model = fold(read(layer.weight).T, read(layer.bias), scaling, is_multilabel)
            model.bias[~is_seen] = UNSEEN
            return model

        network = Network(
            module=layer,
            groups=[Group([layer.weight, layer.bias], settings.rate, 0.0)],
            logits=lambda rows, part, _rng: layer(z[torch.from_numpy(rows[part]).to(device)]),
            penalty=lambda: (
                settings.l2 * strength(x.shape[1]) / (2 * len(y) * (n_labels if is_multilabel else 1)) * layer.weight.square().sum()
            ),
            make_model=make_model,
            work=float(min(settings.batch, len(x)) * x.shape[1] * n_labels),
        )
        batches = Batches(len(x), settings.batch, seed)
        return TorchTraining(network, y, batches, batches.steps(epoch), seed)

    def _load(self, files: Files) -> Model:
        return linear_model.load(files)


def _seen(y: NDArray[Any], n_labels: int) -> NDArray[np.bool_]:
    """Return which classes have a sample: those without one get probability 0 (several labels an item: all have their own bias)."""
    if is_soft(y):
        seen: NDArray[np.bool_] = y.sum(axis=0) > 0
        return seen
    return np.ones(n_labels, dtype=np.bool_) if y.ndim == 2 else np.isin(np.arange(n_labels), y)


def _is_kin(model: Model | None, d: int, n_labels: int, is_multilabel: bool) -> bool:
    return isinstance(model, LinearModel) and model.weights.shape == (d, n_labels) and model.is_multilabel == is_multilabel


def _take_over(layer: torch.nn.Linear, model: Any, scaling: Scaling, is_seen: NDArray[np.bool_]) -> None:
    """Start from a served model on raw features: the same function, expressed on features scaled by `scaling`."""
    import torch

    wide = model.weights.astype(np.float64)
    factor = np.where(scaling.factor > 0, scaling.factor, 1.0)
    weight = wide / factor[:, None] * (scaling.factor > 0)[:, None]
    bias = model.bias + scaling.mean @ wide
    was_seen = model.bias > UNSEEN / 2
    bias = np.where(is_seen & was_seen, bias, np.where(is_seen, 0.0, np.float64(UNSEEN)))
    layer.weight.copy_(torch.from_numpy(weight.T.astype(np.float32)))
    layer.bias.copy_(torch.from_numpy(bias.astype(np.float32)))


ALGORITHM = LinearHead()
