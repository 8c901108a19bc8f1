"""Other libraries' strategies through their adapters: they run where they can, else they say why not."""

from __future__ import annotations

import importlib.util
import types
from typing import Any

import numpy as np
import pytest

from labelloop.errors import InvalidInputError
from learning.query import ALL, select
from learning.query import rivals as rivals_module

ALIPY = [name for name in ALL if name.startswith("alipy_")]
SKACTIVEML = [name for name in ALL if name.startswith("skactiveml_")]
LACKING = "install the extra"


def given(strategy: str, n: int = 40) -> dict[str, Any]:
    """Return a pool of two classes that are easy to tell apart, with what the strategy needs."""
    rng = np.random.default_rng(1)
    side = rng.integers(0, 2, n + 14)
    side[:2] = (0, 1)
    x = (rng.standard_normal((n + 14, 4)) + 3 * side[:, None]).astype(np.float32)
    pool: dict[str, Any] = {"proba": None, "features": x[14:], "labelled_features": x[:14], "labels": side[:14], "seed": 3}
    if strategy == "alipy_audi":
        return {**pool, "labels": rng.integers(0, 2, (14, 3)), "is_multilabel": True}
    if strategy == "alipy_ceal":
        p = rng.random(n, dtype=np.float32)
        return {**pool, "proba": np.stack([p, 1 - p], axis=1), "annotator_labels": np.stack([side[:14], 1 - side[:14]], axis=1)}
    return pool


@pytest.mark.parametrize("strategy", ALIPY + SKACTIVEML)
def test_a_strategy_of_another_library_that_is_not_installed_names_the_extra(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidInputError, match=LACKING):
        select(strategy, **given(strategy), n=5)


@pytest.mark.parametrize("strategy", ALIPY + SKACTIVEML)
def test_a_strategy_of_another_library_answers(strategy: str) -> None:
    state = str(np.random.get_state())
    got = select(strategy, **given(strategy), n=5)
    assert len(set(got.indices.tolist())) == 5
    assert (np.diff(got.scores) <= 0).all()
    assert got.indices.max() < 40
    assert select(strategy, **given(strategy), n=5).indices.tolist() == got.indices.tolist()
    assert str(np.random.get_state()) == state, "the global generator is the caller's"
    few = {} if strategy == "alipy_ceal" else {"most_picks": 3}
    assert sorted(select(strategy, **given(strategy), parameters=few).indices.tolist()) == list(range(40))


@pytest.mark.parametrize("strategy", ["alipy_quire", "alipy_bmdr", "alipy_spal"])
def test_what_is_binary_only_says_so(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals_module, "_lacks", lambda package, extra: None)
    pool = given(strategy)
    pool["labels"][0] = 2
    with pytest.raises(InvalidInputError, match="two classes with a label each only, here are 3"):
        select(strategy, **pool, n=5)
    with pytest.raises(InvalidInputError, match="two classes with a label each only, here are 1 with 1"):
        select(strategy, **{**pool, "labels": np.zeros(14, dtype=np.int64)}, n=5)
    with pytest.raises(InvalidInputError, match="at most 300 items, the pool has 400"):
        select(strategy, **given(strategy, n=400), n=5)


def test_the_multi_label_strategy_refuses_one_label_an_item() -> None:
    with pytest.raises(InvalidInputError, match="several labels an item only"):
        select("alipy_audi", **given("alipy_quire"), n=5)


def test_alipys_committee_picks_what_its_trees_disagree_on() -> None:
    pool = given("alipy_qbc", n=200)
    pool["features"][:100] = pool["labelled_features"][0]
    got = select("alipy_qbc", **pool, n=10)
    assert (got.indices >= 100).all(), "copies of a labelled item are never in doubt"


def test_ceal_multiplies_uncertainty_by_how_near_the_annotator_is_right() -> None:
    pool = given("alipy_ceal")
    got = select("alipy_ceal", **pool, n=0)
    by_hand = []
    x = np.concatenate([pool["labelled_features"], pool["features"]])
    from learning.scaling import fit_scaling

    z = fit_scaling(x).apply(x).astype(np.float64)
    for row in range(40):
        gaps = np.sort(np.linalg.norm(z[:14] - z[14 + row], axis=1))[:10]
        by_hand.append(gaps.sum() / 10 * (1 - pool["proba"][row].max()))  # the first annotator is always right, the second never
    np.testing.assert_allclose(got.scores, np.sort(by_hand)[::-1], rtol=1e-4)
    costly = select("alipy_ceal", **pool, n=0, parameters={"annotator_costs": [4, 1]})
    np.testing.assert_allclose(costly.scores, np.sort(by_hand)[::-1] / 4, rtol=1e-4)
    with pytest.raises(InvalidInputError, match="one cost each"):
        select("alipy_ceal", **pool, parameters={"annotator_costs": [1]})


def test_the_shim_leaves_python_and_numpy_as_they_are() -> None:
    import collections

    from learning.query.alipy_adapter import shimmed

    with shimmed(0) as alipy:
        inside = alipy.query_strategy.query_labels
        assert inside.np.infty == float("inf")
        assert not hasattr(collections, "Iterable")
        assert not hasattr(np, "infty")
    assert isinstance(inside.np, types.ModuleType)
    assert inside.np is np


def test_core_set_picks_are_those_of_scikit_activeml() -> None:
    from skactiveml.pool import CoreSet

    rng = np.random.default_rng(2)
    x = rng.standard_normal((600, 8)).astype(np.float32)
    y = np.full(600, np.nan)
    y[:9] = 0
    wanted = CoreSet(random_state=0).query(x, y, batch_size=40)
    got = select("core_set", proba=None, features=x[9:], labelled_features=x[:9], n=40)
    assert (got.indices + 9).tolist() == wanted.tolist()


def test_committee_scores_order_as_those_of_scikit_activeml() -> None:
    from skactiveml.pool import average_kl_divergence, vote_entropy

    committee = np.random.default_rng(4).dirichlet(np.ones(3), (5, 80)).astype(np.float32)
    kl = select("committee_kl", proba=None, features=None, committee=committee)
    np.testing.assert_allclose(kl.scores, np.sort(average_kl_divergence(committee.astype(np.float64)))[::-1], atol=1e-4)
    votes = select("committee_vote", proba=None, features=None, committee=committee)
    theirs = vote_entropy(committee.argmax(axis=2).T, [0, 1, 2])
    np.testing.assert_allclose(votes.scores * np.log(3), np.sort(theirs)[::-1], atol=1e-4)


def test_a_program_that_the_solver_gives_up_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(*args: Any, **options: Any) -> None:
        raise RuntimeError("no convergence")

    monkeypatch.setattr("alipy.query_strategy.QueryInstanceBMDR.select", give_up)
    with pytest.raises(InvalidInputError, match="'alipy_bmdr' found no solution"):
        select("alipy_bmdr", **given("alipy_bmdr"), n=5)


@pytest.mark.parametrize(
    ("strategy", "kind", "said"),
    [
        ("alipy_quire", (False, 3, False), "defined for 2 labels only, this project has 3"),
        ("alipy_quire", (False, 2, False), None),
        ("alipy_audi", (False, 3, False), "several labels an item only"),
        ("alipy_audi", (True, 3, False), None),
        ("class_balanced", (True, 3, False), "not defined for several labels"),
        ("region_uncertainty", (False, 3, False), "boxes or spans"),
        ("region_uncertainty", (False, 3, True), None),
        ("alipy_ceal", (False, 2, False), "what each annotator answered"),
        ("margin", (False, 2, False), None),
    ],
)
def test_what_no_pool_of_a_project_can_be_ordered_by_says_so_before_there_is_one(
    strategy: str, kind: tuple[bool, int, bool], said: str | None
) -> None:
    reason = ALL[strategy].why_never(*kind)
    assert reason is None if said is None else said in str(reason)
