"""Boxes and spans on their way between messages and mathematics.

Owns the translation and how wide an outline is in each category. Must never judge a region: `roles.train.validation` does.
Called by the train and the inference role.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from labelloop.messages import Region
from learning.regions import Regions

DRAFT_CONFIDENCE = "draft_confidence"  # the metric of a manifest: from which confidence up a region is shown
WIDTH_OF: Mapping[str, int] = {"object-detection": 4, "token-classification": 2}


def to_arrays(regions: Sequence[Region], number_of: Mapping[str, int], width: int) -> Regions:
    """Return the regions of one item as arrays; `number_of` gives each label its class number. Raises KeyError on another label."""
    return Regions(
        where=np.array([one.where for one in regions], dtype=np.float32).reshape(-1, width),
        labels=np.array([number_of[one.label] for one in regions], dtype=np.int64),
        scores=np.array([one.confidence for one in regions], dtype=np.float32),
    )


def to_messages(found: Regions, labels: Sequence[str], least: float = 0.0) -> tuple[Region, ...]:
    """Return what was found with a confidence of at least `least`, in the order given; `labels` names the classes.

    Spans are whole numbers again.
    """
    is_span = found.where.shape[1] == WIDTH_OF["token-classification"]
    wheres = np.rint(found.where).astype(np.int64).tolist() if is_span else found.where.tolist()
    rows = zip(wheres, found.labels.tolist(), found.scores.tolist(), strict=True)
    return tuple(Region(label=labels[k], where=tuple(where), confidence=score) for where, k, score in rows if score >= least)
