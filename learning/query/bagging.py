"""A committee where none is at hand: ridge heads on bootstrap samples of the labelled items.

N. Abe, H. Mamitsuka, "Query Learning Strategies Using Boosting and Bagging", ICML 1998 (query by bagging). Owns the committee's
probabilities, which `select` takes as `committee`; a caller that has dropout samples or an ensemble has no use for it. Must never
be served as a model: the heads are linear and cut at 0, so their votes say more than their confidence (`committee_vote`). Called by
whoever has labels and features and no ensemble.

| given | answer |
| --- | --- |
| labels of one class | every member is sure of it: no disagreement |
| fewer than 2 members, labels out of range, or not one for each row | refused |
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.query.error_reduction import Ridge
from learning.scaling import fit_scaling

_BLOCK_ROWS = 8192


def bagged_committee(
    labelled_features: NDArray[np.float32],
    labels: NDArray[np.int64],
    features: NDArray[np.float32],
    n_labels: int,
    n_members: int = 8,
    seed: int = 0,
    penalty: float = 1.0,
) -> NDArray[np.float32]:
    """Return the probabilities (n_members, n, n_labels) of as many ridge heads, each on a bootstrap sample of the labelled items.

    labelled_features (m, d), labels (m,) in [0, n_labels), or (m, n_labels) of 0/1 where items have several labels (each label's
    probability then stands alone), features (n, d). Raises InvalidInputError naming what does not fit.
    """
    if n_members < 2 or not len(labels) or len(labels) != len(labelled_features):
        raise InvalidInputError(
            f"a committee needs 2 members or more and one label for each of the labelled items, got {n_members} members, "
            f"{len(labels)} labels and {len(labelled_features)} rows"
        )
    most = n_labels - 1 if labels.ndim == 1 else 1
    if labels.min() < 0 or labels.max() > most:
        raise InvalidInputError(f"labels lie in {labels.min()} to {labels.max()}: they must be 0 to {most}")
    rng = np.random.default_rng(seed)
    x = np.asarray(labelled_features, dtype=np.float32)
    scaling = fit_scaling(x)
    z = scaling.apply(x)
    drawn = [rng.integers(len(z), size=len(z)) for _ in range(n_members)]
    heads = [Ridge(z[rows], labels[rows], n_labels, penalty) for rows in drawn]
    out = np.empty((n_members, len(features), n_labels), dtype=np.float32)
    for begin in range(0, len(features), _BLOCK_ROWS):
        block = scaling.apply(np.asarray(features[begin : begin + _BLOCK_ROWS], dtype=np.float32))
        for member, head in enumerate(heads):
            out[member, begin : begin + _BLOCK_ROWS] = head.proba(block)
    return out
