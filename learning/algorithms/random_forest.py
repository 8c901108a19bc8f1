"""random-forest: averaged randomised trees; asks nothing of the features' scale.

L. Breiman, "Random Forests", Machine Learning, 2001; grown by scikit-learn, kept and run as ONNX.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from learning.algorithms import tree_model
from learning.algorithms.base import Algorithm, Files, Model, OneStepTraining, Parameters, Training, is_soft
from learning.algorithms.linear_model import log_loss
from learning.algorithms.soft_labels import weighted_samples
from learning.algorithms.tree_model import TreeModel, build, column_means, fill, read_tree


class RandomForestParameters(Parameters, frozen=True, kw_only=True):
    """`max_depth` 0 = until pure."""

    trees: Annotated[int, msgspec.Meta(ge=1, le=2000, description="Number of trees.")] = 100
    max_depth: Annotated[int, msgspec.Meta(ge=0, description="Deepest level of a tree; 0 = until pure.")] = 0
    min_leaf: Annotated[int, msgspec.Meta(ge=1, description="Fewest samples in a leaf.")] = 1


class RandomForest(Algorithm):
    """See the module."""

    name = "random-forest"
    title = "Random forest"
    framework = "sklearn"
    input = "features"
    has_multilabel = True
    has_soft_labels = True
    parameters = RandomForestParameters
    file_names = (tree_model.FILE,)

    def preload(self) -> None:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import sklearn.ensemble  # noqa: F401

    def _start(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        n_labels: int,
        is_multilabel: bool,
        settings: RandomForestParameters,
        epoch: int,
        seed: int,
        start_from: Model | None,
    ) -> Training:
        def fit() -> tuple[Model, float]:
            model = _grow(x, y, n_labels, settings, seed)
            return model, log_loss(model.predict_proba(x), y)

        return OneStepTraining(fit, tree_model.load)

    def _load(self, files: Files) -> Model:
        return tree_model.load(files)


def _grow(x: NDArray[np.float32], y: NDArray[Any], n_labels: int, settings: RandomForestParameters, seed: int) -> TreeModel:
    from sklearn.ensemble import RandomForestClassifier

    mean = column_means(x)
    weights = None
    if is_soft(y):
        rows, y, weights = weighted_samples(y)
        x = x[rows]
    forest = RandomForestClassifier(
        settings.trees, max_depth=settings.max_depth or None, min_samples_leaf=settings.min_leaf, random_state=seed % 2**32
    ).fit(fill(x, mean), y, weights)
    trees = []
    for grown in forest.estimators_:
        shares = grown.tree_.value  # (nodes, outputs, classes), each row a distribution
        leaves = np.zeros((len(shares), n_labels))
        if y.ndim == 1:
            leaves[:, forest.classes_.astype(np.int64)] = shares[:, 0, :]
        else:
            for label, classes in enumerate(forest.classes_):
                positive = np.flatnonzero(classes == 1)
                leaves[:, label] = shares[:, label, positive[0]] if len(positive) else 0.0
        trees.append(read_tree(grown.tree_, leaves / settings.trees))
    return build(trees, np.zeros(n_labels), mean, "mean" if y.ndim == 1 else "independent")


ALGORITHM = RandomForest()
