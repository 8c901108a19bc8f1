"""What a spare child does before its order: import, and train once on a few numbers.

Owns the list of what must be in memory so that no import stands on the path from a label to a model. Called by the child alone.
"""

from __future__ import annotations

import logging

import numpy as np

from labelloop.errors import LabelloopError
from labelloop.messages import CATEGORIES, REGION_CATEGORIES
from learning.algorithms import default_algorithm, find_algorithm
from roles.train.attempt import library_versions

logger = logging.getLogger(__name__)

_ROWS, _COLUMNS, _CLASSES = 24, 8, 3
_TRAINED = ("logistic-regression", "svm")  # they train without starting a thread, which a fork would lose
DEFAULT = "default"
_ENCODERS = ("raw-pixels-8g", "efficientnet-lite0")


def expand(names: list[str]) -> list[str]:
    """Return `names` with 'default' replaced by the algorithms that tasks of classes get which name none.

    Those of regions cost more memory and are kept warm from their first order on.
    """
    classes = [category for category in CATEGORIES if category not in REGION_CATEGORIES]
    defaults = [default_algorithm(category, encoder, False) for category in classes for encoder in _ENCODERS]
    return list(dict.fromkeys(name for one in names for name in (defaults if one == DEFAULT else [one])))


def warm(algorithms: list[str]) -> None:
    """Import each algorithm's libraries and train once what may be trained before a fork; an unknown one is left out."""
    chance = np.random.default_rng(0)
    x = chance.normal(size=(_ROWS, _COLUMNS)).astype(np.float32)
    y = np.arange(_ROWS) % _CLASSES
    for name in algorithms:
        try:
            algorithm = find_algorithm(name)
            if algorithm.framework == "tensorflow":  # starts threads when imported, which a fork would lose
                continue
            algorithm.preload()
            library_versions(algorithm.framework)
            if name in _TRAINED:
                algorithm.start(x, y, _CLASSES).advance()
        except LabelloopError as exc:
            logger.warning("algorithm %s is not kept warm: %s", name, exc)
