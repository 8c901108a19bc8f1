"""Rules at the edge of the app: names and numbers of labels, whose an error is, and what a label model's answer means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from labelloop.errors import InvalidInputError
from tests.unit.test_web_decisions import project as make_project
from webapp.pilot.rules import verdict_of
from webapp.rules import wording

SENT = [{"name": "a"}, {"name": "it's"}, {"name": "a"}, {"name": "rule 'a'"}]


@pytest.mark.parametrize(
    ("said", "at"),
    [
        ("rule \"it's\": there is no column 'x': use one of 'text'", 1),
        ("rule 'a': there are two rules called 'a'", 2),
        ("rule \"rule 'a'\": a label", 3),
        ("rule 'a' asks the serving model, and no version of 'birds' serves yet", 2),
        ("not a list of rules: Object missing required field `words` - at `$[1]`", 1),
        ("not a list of rules: Expected `str`, got `int` - at `$[0].words[3]`", 0),
        ("not a list of rules: - at `$[7]`", None),
        ("the cluster is down", None),
        ("rule 'b': nobody sent it", None),
    ],
)
def test_an_error_of_the_cluster_is_put_to_the_rule_it_names(said: str, at: int | None) -> None:
    assert wording.rule_at_fault(said, SENT) == at


def test_an_error_beside_its_rule_does_not_repeat_the_name() -> None:
    assert wording.without_name("rule 'a': no such column", {"name": "a"}) == "no such column"
    assert wording.without_name("rule 'b': no such column", {"name": "a"}) == "rule 'b': no such column"


@pytest.mark.parametrize(
    ("rule", "sent"),
    [
        ({"kind": "keywords", "label": "jay", "enabled": True}, {"kind": "keywords", "label": 2}),
        ({"label": 1}, {"label": 1}),
        ({"entries": {"x": "owl", "y": 1}}, {"entries": {"x": 0, "y": 1}}),
        ({"labels": ["jay", None, "owl"]}, {"labels": [2, -1, 0]}),
        ({"entries": [1], "labels": "owl"}, {"entries": [1], "labels": "owl"}),
    ],
)
def test_labels_by_name_become_numbers(rule: dict[str, Any], sent: dict[str, Any]) -> None:
    assert wording.to_cluster(make_project(), rule) == sent


def test_a_label_that_the_project_lacks_is_named_with_its_rule() -> None:
    with pytest.raises(InvalidInputError, match=r"rule 'x': label 'eagle' is not in project .*owl, tit, jay"):
        wording.encode_rules(make_project(), [{"name": "x", "label": "eagle"}])
    assert wording.encode_rules(make_project(), [{"name": "x", "label": "eagle", "enabled": False}]) == b"[]"


@pytest.mark.parametrize(("rules", "said"), [([1], "list of objects"), ({}, "list of objects"), ([{}] * 201, "201 rules")])
def test_only_lists_of_objects_are_stored(rules: Any, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        wording.check_stored(rules)


@pytest.mark.parametrize("text", ["\ud800", "x" * (2 * 2**20 + 1)])
def test_rules_that_cannot_be_stored_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^rules"):
        wording.check_stored([{"name": text}])


@pytest.mark.parametrize(
    ("proba", "least", "said"),
    [([0.2, 0.8, 0.0], 0.7, 1), ([0.2, 0.8, 0.0], 0.9, None), ([0, 0, 0], 0.0, None), ([0.5, 0.5, 0], 0.5, 0)],
)
def test_only_a_likely_enough_label_is_given(proba: list[float], least: float, said: int | None) -> None:
    found = verdict_of(np.array(proba, np.float32), least)
    assert (found.said if found else None) == said
    if found:
        assert np.frombuffer(found.proba, "<f4").sum() == pytest.approx(1)
