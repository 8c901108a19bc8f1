"""The ways to learn: one file an algorithm, found by name; users add theirs by entry point.

Owns the table and the default. Must never import scikit-learn, torch or tensorflow by itself: names and parameters are listed in
processes that never train. Called by the train role (start), the inference role (load) and pages (list).

A package adds an algorithm by an entry point in the group `labelloop.algorithms` that names an `Algorithm` instance:
`[project.entry-points."labelloop.algorithms"] my-algorithm = "my_package.my_module:ALGORITHM"`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import logging

from labelloop.errors import NotFoundError
from learning.algorithms.base import Algorithm, Model, Training

GROUP = "labelloop.algorithms"
_BUILT_IN: dict[str, str] = {  # module, with ":NAME" where the instance is not its ALGORITHM
    "best-of": "learning.algorithms.best_of",
    "best-of-pixels": "learning.algorithms.best_of:OF_PIXELS",
    "best-of-regions": "learning.algorithms.best_of:OF_REGIONS",
    "box-head": "learning.algorithms.box_head",
    "distilled": "learning.algorithms.distilled",
    "fine-tune": "learning.algorithms.fine_tune",
    "gradient-boosting": "learning.algorithms.gradient_boosting",
    "keras-cnn": "learning.algorithms.keras_cnn",
    "linear-head": "learning.algorithms.linear_head",
    "logistic-regression": "learning.algorithms.logistic_regression",
    "random-forest": "learning.algorithms.random_forest",
    "small-cnn": "learning.algorithms.small_cnn",
    "svm": "learning.algorithms.svm",
    "token-head": "learning.algorithms.token_head",
}
_OF_REGIONS = {"object-detection": "box-head", "token-classification": "token-head"}

__all__ = ["Algorithm", "Model", "Training", "default_algorithm", "find_algorithm", "list_algorithms"]

logger = logging.getLogger(__name__)


def find_algorithm(name: str) -> Algorithm:
    """Return the algorithm called `name`; a built-in one wins over a package's of the same name. Raises NotFoundError."""
    if name in _BUILT_IN:
        module, _, instance = _BUILT_IN[name].partition(":")
        found: Algorithm = getattr(importlib.import_module(module), instance or "ALGORITHM")
        return found
    added = _added()
    if name in added:
        return added[name]
    known = ", ".join(sorted({*_BUILT_IN, *added}))
    raise NotFoundError(f"algorithm {name!r} is unknown: use one of {known}")


def list_algorithms() -> tuple[Algorithm, ...]:
    """Return all algorithms in the order of their names."""
    return tuple(find_algorithm(name) for name in sorted({*_BUILT_IN, *_added()}))


def default_algorithm(category: str, encoder: str, is_multilabel: bool) -> str:
    """Return the algorithm a task gets that names none. Measured: docs/developer/learning.md.

    Raw pixels of tiny pictures are not linearly separable: support vectors with a radial kernel need fewer labels there. Features
    of an encoder and tables are served best by a linear model at the few hundred labels where drafts matter most. A task that
    names a `pixels-...` encoder asks for a network and gets the small one. Boxes and spans have one algorithm each.
    """
    if category in _OF_REGIONS:
        return _OF_REGIONS[category]
    if encoder.startswith("pixels-"):
        return "small-cnn"
    if encoder.startswith("raw-pixels") and not is_multilabel:
        return "svm"
    return "logistic-regression"


@functools.cache
def _added() -> dict[str, Algorithm]:
    found: dict[str, Algorithm] = {}
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            algorithm = point.load()
        except (ImportError, AttributeError) as exc:
            logger.error("entry point %s of group %s does not load and is left out: %s", point.name, GROUP, exc)
            continue
        if not isinstance(algorithm, Algorithm):
            logger.error("entry point %s of group %s is no Algorithm and is left out: %r", point.name, GROUP, algorithm)
            continue
        found[algorithm.name] = algorithm
    return found
