"""gradient-boosting: small trees, each fitted to what the sum of the earlier ones still gets wrong.

J. H. Friedman, "Greedy Function Approximation: A Gradient Boosting Machine", Annals of Statistics, 2001. One tree a round answers
for all classes at once, as in Z. Zhang, C. Jung, "GBDT-MO: Gradient-Boosted Decision Trees for Multiple Outputs", TNNLS 2021; the
trees are scikit-learn's, kept and run as ONNX. A probability of a label is its target as it is. A step is a few rounds; samples
of a round depend on (seed, round) only.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import IntegrityError, InvalidInputError
from learning.algorithms import tree_model
from learning.algorithms.base import Algorithm, Files, Model, Parameters, Training, is_soft, need
from learning.algorithms.tensors import pack, unpack
from learning.algorithms.tree_model import Tree, build, column_means, fill, read_tree

_STATE = "state.safetensors"
_ROUNDS_A_STEP = 5
_LEAST_HESSIAN = 1e-6
_MOST_LEAF = 4.0


class GradientBoostingParameters(Parameters, frozen=True, kw_only=True):
    """`subsample`: share of the samples that each round sees."""

    rounds: Annotated[int, msgspec.Meta(ge=1, le=5000, description="Trees in all.")] = 150
    rate: Annotated[float, msgspec.Meta(gt=0, le=1, description="Share of each tree that is added.")] = 0.1
    max_depth: Annotated[int, msgspec.Meta(ge=1, le=32, description="Deepest level of a tree.")] = 4
    min_leaf: Annotated[int, msgspec.Meta(ge=1, description="Fewest samples in a leaf.")] = 2
    subsample: Annotated[float, msgspec.Meta(gt=0, le=1, description="Share of the samples a round sees.")] = 0.7
    feature_share: Annotated[float, msgspec.Meta(gt=0, le=1, description="Share of the features a split looks at.")] = 0.3


class GradientBoosting(Algorithm):
    """See the module."""

    name = "gradient-boosting"
    title = "Gradient boosting"
    framework = "sklearn"
    input = "features"
    has_soft_labels = True
    parameters = GradientBoostingParameters
    file_names = (tree_model.FILE,)

    def preload(self) -> None:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import sklearn.tree  # noqa: F401

    def _start(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        n_labels: int,
        is_multilabel: bool,
        settings: GradientBoostingParameters,
        epoch: int,
        seed: int,
        start_from: Model | None,
    ) -> Training:
        return BoostingTraining(x, y, n_labels, settings, seed)

    def _load(self, files: Files) -> Model:
        return tree_model.load(files)


class BoostingTraining(Training):
    """Holds the trees so far and their sum (n, k) float64 over the training samples."""

    def __init__(
        self, x: NDArray[np.float32], y: NDArray[Any], n_labels: int, settings: GradientBoostingParameters, seed: int
    ) -> None:
        self._settings, self._seed = settings, seed
        self._mean = column_means(x)
        self._x = fill(x, self._mean)
        self._target = y.astype(np.float64) if is_soft(y) else np.eye(n_labels)[y]
        self._base = np.log((self._target.sum(axis=0) + 1e-3) / (len(y) + 1e-3 * n_labels))
        self._sum = np.tile(self._base, (len(y), 1))
        self._trees: list[Tree] = []
        self.steps = -(-settings.rounds // _ROUNDS_A_STEP)

    def advance(self) -> float:
        if self.step >= self.steps:
            raise InvalidInputError(f"this training is done: its {self.steps} steps are taken")
        for _ in range(min(_ROUNDS_A_STEP, self._settings.rounds - len(self._trees))):
            self._grow()
        self.step += 1
        said = np.log(np.maximum(_softmax(self._sum), 1e-12))
        return float(-(said * self._target).sum(axis=1).mean())

    def _grow(self) -> None:
        from sklearn.tree import DecisionTreeRegressor

        rng = np.random.default_rng([self._seed, len(self._trees)])
        n, k = self._target.shape
        rows = np.sort(rng.choice(n, max(1, round(n * self._settings.subsample)), replace=False))
        proba = _softmax(self._sum)
        residual = self._target - proba
        grown = DecisionTreeRegressor(
            max_depth=self._settings.max_depth,
            min_samples_leaf=min(self._settings.min_leaf, len(rows)),
            max_features=self._settings.feature_share,
            random_state=int(rng.integers(2**31)),
        ).fit(self._x[rows], residual[rows])
        leaf = grown.tree_.apply(self._x)
        size = grown.tree_.node_count
        value = np.zeros((size, k))
        np.add.at(value, leaf[rows], residual[rows])
        hessian = np.zeros((size, k))
        np.add.at(hessian, leaf[rows], proba[rows] * (1 - proba[rows]))
        newton = (k - 1) / k * value / np.maximum(hessian, _LEAST_HESSIAN)
        value = (self._settings.rate * np.clip(newton, -_MOST_LEAF, _MOST_LEAF)).astype(np.float32)
        self._sum += value[leaf]
        self._trees.append(read_tree(grown.tree_, value))

    def state(self) -> dict[str, bytes]:
        arrays: dict[str, NDArray[Any]] = {"sum": self._sum, "sizes": np.array([len(t.left) for t in self._trees], dtype=np.int64)}
        for name in Tree._fields if self._trees else ():
            arrays[name] = np.concatenate([getattr(tree, name) for tree in self._trees])
        return {_STATE: pack(arrays, {"step": self.step})}

    def restore(self, state: Files) -> None:
        arrays, facts = unpack(need(state, _STATE))
        if arrays["sum"].shape != self._target.shape:
            raise IntegrityError(f"the state is of {arrays['sum'].shape} samples and labels, this training of {self._target.shape}")
        ends = np.cumsum(arrays["sizes"])
        self._trees = [
            Tree(*(arrays[name][end - size : end] for name in Tree._fields))
            for end, size in zip(ends, arrays["sizes"], strict=True)
        ]
        self._sum, self.step = arrays["sum"].copy(), int(facts["step"])

    def model(self) -> Model:
        if not self._trees:
            raise InvalidInputError("no model yet: call advance first")
        return build(self._trees, self._base, self._mean, "softmax")


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


ALGORITHM = GradientBoosting()
