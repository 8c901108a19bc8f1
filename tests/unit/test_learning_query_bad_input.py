"""The documented answers of the query strategies to bad or thin input, and their parameters by schema."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.query import ALL, STRATEGIES, check_parameters, cold_start, needs, select
from learning.query.table import BUILT_IN

HALF = [[0.5, 0.5], [0.5, 0.5]]
ROWS = [[1.0, 2.0], [3.0, 4.0]]
INTEGERS = ("labels", "part_starts")

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("bald", {"committee": [HALF]}, "2 members or more"),
    ("bald", {"proba": HALF}, "needs a committee"),
    ("committee_kl", {"proba": HALF}, "needs a committee"),
    ("committee_vote", {"committee": [HALF, [[0.5, 0.4], [0.5, 0.5]]]}, "row 0 of committee sums to 0.9"),
    ("committee_vote", {"committee": HALF}, "committee must be"),
    ("committee_vote", {"committee": [HALF, HALF], "features": [[1.0]]}, "same items"),
    ("density_weighted", {"proba": HALF}, "needs features"),
    ("density_weighted", {"features": ROWS}, "no model serves yet"),
    ("badge", {"proba": HALF}, "needs features"),
    ("core_set", {"proba": HALF}, "needs features"),
    ("kmeans", {"proba": HALF}, "needs features"),
    ("kmeans", {"features": ROWS, "parameters": {"prefilter": 2}}, "no model serves yet"),
    ("expected_gradient_length", {"proba": HALF}, "needs features"),
    ("expected_error_reduction", {"features": ROWS}, "needs labelled features"),
    ("expected_error_reduction", {"features": ROWS, "labelled_features": ROWS, "labels": [0, 0]}, "all labels are of one class"),
    ("expected_error_reduction", {"features": ROWS, "labelled_features": ROWS, "labels": [0]}, "1 labels for 2"),
    ("expected_error_reduction", {"features": ROWS, "is_multilabel": True}, "not defined for several labels"),
    ("class_balanced", {"proba": HALF, "is_multilabel": True}, "not defined for several labels"),
    ("class_balanced", {"proba": HALF, "labels": [0, 2]}, "labels lie in 0 to 2: they must be 0 to 1"),
    ("class_balanced", {"proba": HALF, "labels": [-1]}, "labels lie in -1"),
    ("class_balanced", {"proba": HALF, "labels": [[0]]}, "must be 1-d integers"),
    ("region_uncertainty", {"proba": HALF}, "pass `parts`"),
    ("region_uncertainty", {"proba": HALF, "parts": HALF}, "go together"),
    ("region_uncertainty", {"parts": HALF, "part_starts": [0, 3]}, "part_starts must rise"),
    ("region_uncertainty", {"parts": HALF, "part_starts": [0, 2, 1, 2]}, "part_starts must rise"),
    ("span_uncertainty", {"parts": [[0.5, 0.6]], "part_starts": [0, 1]}, "row 0 of parts sums to 1.1"),
    ("margin", {"proba": HALF, "costs": [1.0, 0.0]}, "the cost of item 1 is 0"),
    ("margin", {"proba": HALF, "costs": [1.0, np.nan]}, "the cost of item 1 is nan"),
    ("margin", {"proba": HALF, "costs": [1.0]}, "same items"),
    ("core_set", {"features": ROWS, "costs": [1.0, 2.0]}, "takes no costs"),
    (
        "density_weighted",
        {"proba": HALF, "features": ROWS, "parameters": {"beta": float("inf")}},
        "beta is inf: numbers are finite",
    ),
    ("mixture", {"proba": HALF, "features": ROWS, "parameters": {"shares": {"margin": np.nan}}}, "numbers are finite"),
    ("mixture", {"proba": HALF, "features": ROWS, "parameters": {"shares": {"guess": 1}}}, "name 'guess'"),
    ("mixture", {"proba": HALF, "features": ROWS, "parameters": {"shares": {"mixture": 1}}}, "name 'mixture'"),
    ("mixture", {"proba": HALF, "features": ROWS, "parameters": {"shares": {"margin": 0}}}, "shares"),
    ("mixture", {"proba": HALF, "features": ROWS, "parameters": {"shares": {}}}, "shares"),
    ("margin", {"proba": HALF, "parameters": {"beta": 1}}, "unknown field `beta`; it has none"),
    ("density_weighted", {"proba": HALF, "features": ROWS, "parameters": {"beta": -1}}, "beta"),
    ("density_weighted", {"proba": HALF, "features": ROWS, "parameters": {"measure": "guess"}}, "measure"),
    ("region_uncertainty", {"parts": HALF, "part_starts": [0, 2], "parameters": {"gather": "sequence"}}, "gather"),
]


def call(given: dict[str, Any]) -> dict[str, Any]:
    arrays = ("proba", "features", "labelled_features", "committee", "parts", "costs", *INTEGERS)
    made = {name: np.array(v, np.int64 if name in INTEGERS else np.float32) if name in arrays else v for name, v in given.items()}
    return {"proba": None, "features": None, **made}


@pytest.mark.parametrize(("strategy", "given", "message"), REFUSED)
def test_bad_input_is_refused_by_name(strategy: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        select(strategy, **call(given))


def everything(n: int, k: int = 3, is_multilabel: bool = False) -> dict[str, Any]:
    """Return all that any built-in strategy needs, for n items of k classes."""
    rng = np.random.default_rng(n)

    def proba(*shape: int) -> NDArray[np.float32]:
        return (rng.random((*shape, k)) if is_multilabel else rng.dirichlet(np.ones(k), shape)).astype(np.float32)

    return {
        "proba": proba(n),
        "features": rng.standard_normal((n, 4)).astype(np.float32),
        "labelled_features": rng.standard_normal((8, 4)).astype(np.float32),
        "labels": rng.integers(0, 2, (8, k)) if is_multilabel else np.arange(8) % k,
        "committee": proba(3, n),
        "parts": proba(2 * n),
        "part_starts": np.arange(0, 2 * n + 1, 2),
        "is_multilabel": is_multilabel,
    }


KINDS = [(name, False) for name in BUILT_IN] + [(name, True) for name, row in BUILT_IN.items() if row.has_multilabel]


@pytest.mark.parametrize(("strategy", "is_multilabel"), KINDS)
@pytest.mark.parametrize("n", [0, 1, 7, 60, 99])
def test_every_strategy_answers_min_of_asked_and_pool_with_falling_scores(strategy: str, n: int, is_multilabel: bool) -> None:
    given = everything(60, is_multilabel=is_multilabel)
    before = {name: value.copy() for name, value in given.items() if isinstance(value, np.ndarray)}
    got = select(strategy, **given, n=n)
    assert len(set(got.indices.tolist())) == len(got.indices) == min(n or 60, 60)
    assert (np.diff(got.scores) <= 0).all()
    assert got.strategy == strategy
    assert ("the pool has 60" in got.reason) == (n == 99)
    assert select(strategy, **given, n=n).indices.tolist() == got.indices.tolist()
    for name, value in before.items():
        assert np.array_equal(given[name], value), f"{name} is the caller's"


@pytest.mark.parametrize("strategy", BUILT_IN)
def test_when_all_items_are_labelled_nothing_is_asked(strategy: str) -> None:
    got = select(strategy, **everything(0), n=5)
    assert (len(got.indices), got.reason) == (0, "the pool is empty")


@pytest.mark.parametrize("strategy", BUILT_IN)
def test_a_model_of_one_class_and_labels_of_one_class_give_an_order_or_a_sentence(strategy: str) -> None:
    given = {**everything(20, k=1), "labels": np.zeros(8, dtype=np.int64)}
    if strategy == "expected_error_reduction":
        with pytest.raises(InvalidInputError, match="one class"):
            select(strategy, **given, n=5)
        return
    assert len(set(select(strategy, **given, n=5).indices.tolist())) == 5


@pytest.mark.parametrize("strategy", [name for name, row in BUILT_IN.items() if "features" in row.needs])
def test_rows_without_any_known_value_do_no_harm(strategy: str) -> None:
    given = everything(40)
    given["features"][3] = np.nan
    given["features"][4, 1] = np.inf
    got = select(strategy, **given, n=40)
    assert sorted(got.indices.tolist()) == list(range(40))
    assert np.isfinite(got.scores).all()


@pytest.mark.parametrize("strategy", BUILT_IN)
def test_a_strategy_refuses_when_any_of_its_needs_is_missing(strategy: str) -> None:
    for name in set(needs(strategy)) - {"part_starts"}:
        given = {**everything(30), name: None, **({"part_starts": None} if name == "parts" else {})}
        with pytest.raises(InvalidInputError, match="needs"):
            select(strategy, **given, n=3)


def test_auto_says_why_it_asks_typical_items_while_labels_are_of_one_class() -> None:
    given = everything(30)
    assert select("auto", **given, n=3).strategy == "region_uncertainty"
    given |= {"parts": None, "part_starts": None, "annotator_labels": None}
    given |= {"labelled_features": np.ones((40, given["features"].shape[1]), dtype=np.float32)}
    assert select("auto", **{**given, "labels": np.arange(40) % 2}, n=3).strategy == "margin"
    got = select("auto", **{**given, "labels": np.ones(40, dtype=np.int64)}, n=3)
    assert (got.strategy, "one class" in got.reason) == ("typiclust", True)


def test_auto_asks_typical_items_until_there_are_four_labels_a_class() -> None:
    given = everything(30)
    n_classes = given["proba"].shape[1]
    enough = cold_start.enough_labels(n_classes)
    for n_labelled, strategy in ((1, "typiclust"), (enough - 1, "typiclust"), (enough, "margin")):
        known = {"labelled_features": np.ones((n_labelled, given["features"].shape[1]), dtype=np.float32)}
        known["labels"] = np.arange(n_labelled) % n_classes if n_labelled > 1 else np.zeros(1, dtype=np.int64)
        got = select("auto", **{**given, **known, "annotator_labels": None, "parts": None, "part_starts": None}, n=3)
        assert got.strategy == strategy
        assert cold_start.wants_features(given["proba"], n_labelled, False) is (strategy == "typiclust")
    assert cold_start.enough_labels(1000) == cold_start.MOST_LABELS
    assert cold_start.enough_labels(n_classes, is_multilabel=True) == 0


def test_a_list_of_strategies_tells_what_each_takes() -> None:
    for name, row in ALL.items():
        assert row.name == name
        assert row.summary.endswith(".")
        schema = msgspec.json.decode(msgspec.json.encode(row.schema()))
        fields = schema["$defs"][row.parameters.__name__]["properties"]
        assert all(field.get("description") for field in fields.values()), f"{name}: a page shows what each parameter means"
        row.read_parameters({})  # every parameter has a default
    assert set(STRATEGIES) == {"auto"} | {name for name, row in BUILT_IN.items() if set(row.needs) <= {"proba", "features"}}


def test_parameters_can_be_checked_by_name_before_any_pool_exists() -> None:
    check_parameters("density_weighted", {"beta": 2})
    check_parameters("auto", {})
    for strategy, values in (("density_weighted", {"beta": "x"}), ("auto", {"beta": 1}), ("guess", {})):
        with pytest.raises(InvalidInputError):
            check_parameters(strategy, values)


def test_work_that_would_take_hours_is_refused_before_it_begins() -> None:
    x = np.zeros((20_000, 2), dtype=np.float32)
    known = {"labelled_features": x[:2], "labels": np.array([0, 1])}
    most = {"candidates": 10_000, "references": 10_000}
    with pytest.raises(InvalidInputError, match="10000 candidates by 10000 references for 2 classes: lower"):
        select("expected_error_reduction", proba=None, features=x, n=5, parameters=most, **known)
    many = np.full((4000, 1000), 0.001, dtype=np.float32)
    with pytest.raises(InvalidInputError, match="4000 candidates by 300 references for 1000 classes: lower"):
        select(
            "expected_error_reduction", proba=many, features=x[:4000], n=5, parameters={"candidates": 4000, "classes": 50}, **known
        )
    wide = np.zeros((3, 4097), dtype=np.float32)
    with pytest.raises(InvalidInputError, match="takes up to 4096 features, got 4097"):
        select("expected_error_reduction", proba=None, features=wide, n=1, labelled_features=wide[:2], labels=np.array([0, 1]))
