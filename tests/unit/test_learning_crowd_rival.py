"""The same answers as crowd-kit on the same data, and no worse ones on real labels with gold.

crowd-kit's warnings about pandas are its own. Its MACE mixes up workers and classes unless both first appear in sorted order, so
the shared data is numbered by appearance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from learning.crowd import aggregate, crowd_labels
from scripts.bench_learning_crowd import DATA, Crowd, load_crowd, simulate_crowd

pytestmark = [pytest.mark.filterwarnings("ignore")]
NO_DATA = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/crowd")


def numbered_by_appearance(crowd: Crowd) -> Crowd:
    def again(values: NDArray[np.int64]) -> NDArray[np.int64]:
        _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[inverse]

    return Crowd(again(crowd.items), again(crowd.workers), again(crowd.classes), crowd.truth)


def frame_of(crowd: Crowd) -> Any:
    import pandas

    return pandas.DataFrame({"task": crowd.items, "worker": crowd.workers, "label": crowd.classes})


def table(probabilities: Any) -> NDArray[np.float64]:
    return np.asarray(probabilities.sort_index().sort_index(axis=1).to_numpy(dtype=np.float64))


SMALL = numbered_by_appearance(simulate_crowd(60, 4, 8, 3, seed=1))
SAME: list[tuple[str, dict[str, Any], str, dict[str, Any], float]] = [
    ("majority", {}, "MajorityVote", {}, 1e-12),
    ("one-coin", {"n_iter": 12}, "OneCoinDawidSkene", {"n_iter": 12, "tol": -1e9}, 1e-9),
    ("dawid-skene", {"n_iter": 12, "smoothing": 0.0}, "DawidSkene", {"n_iter": 12, "tol": -1e9}, 1e-9),
    ("mace", {"n_iter": 21, "n_restarts": 1}, "MACE", {"n_iter": 20, "n_restarts": 1}, 1e-9),
    ("mace", {"n_iter": 21, "n_restarts": 1, "inference": "em"}, "MACE", {"n_iter": 20, "n_restarts": 1, "method": "em"}, 1e-9),
    ("glad", {"n_iter": 2}, "GLAD", {"n_iter": 2, "tol": -1e9}, 1e-8),
]


@pytest.mark.parametrize(("method", "options", "rival", "rival_options", "tolerance"), SAME)
def test_posteriors_equal_those_of_crowd_kit_after_as_many_steps(
    method: str, options: dict[str, Any], rival: str, rival_options: dict[str, Any], tolerance: float
) -> None:
    import crowdkit.aggregation

    wanted = getattr(crowdkit.aggregation, rival)(**rival_options).fit(frame_of(SMALL)).probas_
    tol = {} if method == "majority" else {"tol": 0.0}
    got = aggregate(method, crowd_labels(SMALL.items, SMALL.workers, SMALL.classes), options={**options, **tol})
    np.testing.assert_allclose(got.posteriors, table(wanted), atol=tolerance)


def test_confusion_matrices_and_weighted_votes_equal_those_of_crowd_kit() -> None:
    from crowdkit.aggregation import DawidSkene, MajorityVote

    labels = crowd_labels(SMALL.items, SMALL.workers, SMALL.classes)
    errors = DawidSkene(8, tol=-1e9).fit(frame_of(SMALL)).errors_.sort_index().sort_index(axis=1)
    got = aggregate("dawid-skene", labels, options={"n_iter": 8, "smoothing": 0.0, "tol": 0.0}).confusion
    for worker, given in errors.index:
        np.testing.assert_allclose(got[worker, :, given], errors.loc[(worker, given)].to_numpy(), atol=1e-8)
    skills = MajorityVote().fit(frame_of(SMALL)).skills_
    wanted = MajorityVote().fit(frame_of(SMALL), skills).probas_
    np.testing.assert_allclose(aggregate("weighted-majority", labels).posteriors, table(wanted), atol=1e-9)


@NO_DATA
@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("SP", {"majority": 0.889, "one-coin": 0.916, "dawid-skene": 0.914, "glad": 0.916, "mace": 0.916}),
        ("CF", {"majority": 0.89, "one-coin": 0.88, "dawid-skene": 0.88, "glad": 0.87, "mace": 0.88}),
        ("MS", {"majority": 0.70, "one-coin": 0.79, "dawid-skene": 0.76, "glad": 0.79, "mace": 0.79}),
    ],
)
def test_accuracy_on_real_labels_stays_where_it_was_measured(name: str, least: dict[str, float]) -> None:
    crowd = load_crowd(DATA / f"act_{name}.csv")
    labels = crowd_labels(crowd.items, crowd.workers, crowd.classes, n_classes=int(crowd.truth.max()) + 1)
    accuracy = {method: float((aggregate(method, labels).labels == crowd.truth).mean()) for method in least}
    assert all(accuracy[method] >= floor for method, floor in least.items()), accuracy


@NO_DATA
@pytest.mark.parametrize("name", ["CF", "MS", "SP"])
def test_dawid_skene_is_no_worse_than_that_of_crowd_kit_on_real_labels(name: str) -> None:
    from crowdkit.aggregation import DawidSkene

    crowd = load_crowd(DATA / f"act_{name}.csv")
    found = DawidSkene().fit_predict(frame_of(crowd))
    theirs = float((found.to_numpy() == crowd.truth[found.index.to_numpy()]).mean())
    ours = aggregate("dawid-skene", crowd_labels(crowd.items, crowd.workers, crowd.classes))
    one_error = np.sqrt(theirs * (1 - theirs) / len(crowd.truth))
    assert float((ours.labels == crowd.truth).mean()) >= theirs - 0.2 * one_error
