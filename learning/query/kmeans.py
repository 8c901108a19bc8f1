"""kmeans: ask for the item nearest to the centre of each of n clusters, larger clusters first; of use without any model.

F. Zhdanov, "Diverse mini-batch Active Learning", 2019: with `prefilter` b only the b * n most uncertain items are clustered.
Called through `learning.query.select`.

| given | answer |
| --- | --- |
| fewer distinct rows than asked | one item of each first, the others follow |
| missing values | they count as the mean of their column |
| prefilter without probabilities, or no features | refused by name |
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from learning.query.clustering import MAX_CLUSTERS, deal_rounds, kmeans, sample_rows
from learning.query.measures import Measure, uncertainty
from learning.query.pool import Pool, chosen_first, falling, features_of, proba_of
from learning.query.strategy import Parameters
from learning.scaling import fit_scaling


class KmeansParameters(Parameters, frozen=True, kw_only=True):
    """Which items are clustered."""

    prefilter: Annotated[
        float, msgspec.Meta(ge=0, description="Cluster only this many times n of the most uncertain; 0 = all.")
    ] = 0.0
    measure: Measure = "margin"


def kmeans_scores(pool: Pool, n: int, parameters: KmeansParameters) -> NDArray[np.float32]:
    """Return (n_items,) float32: picks in (1, 2], one a cluster and then the next nearest; the rest random in [0, 1)."""
    features = features_of(pool, "kmeans")
    n_wanted = min(n or MAX_CLUSTERS, pool.n_items)
    rng = np.random.default_rng(pool.seed)
    rows = np.arange(pool.n_items)
    if parameters.prefilter:
        scores = uncertainty(parameters.measure, proba_of(pool, "kmeans"), pool.is_multilabel)
        rows = np.sort(falling(scores, max(n_wanted, int(parameters.prefilter * n_wanted))))
    k = min(n_wanted, MAX_CLUSTERS, len(rows))
    rows = rows[sample_rows(len(rows), features.shape[1], k, rng)]
    x = np.asarray(features[rows], dtype=np.float32)
    z = fit_scaling(x).apply(x)
    centres, place = kmeans(z, k, rng)
    gaps = np.einsum("ij,ij->i", z - centres[place], z - centres[place])
    groups = []
    for cluster in np.unique(place):
        members = np.flatnonzero(place == cluster)
        groups.append((members[np.argsort(gaps[members], kind="stable")], 0))
    return chosen_first(rows[deal_rounds(groups, n_wanted)], pool.n_items, rng)
