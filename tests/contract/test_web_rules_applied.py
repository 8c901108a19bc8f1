"""Rules applied in the app on both databases, and withdrawn; people's labels are never touched."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from labelloop import messages as m
from labelloop.errors import RetryableError
from tests.contract.rules_world import ALL, BLUE, NIGHT, OWL, TIT, TRUE, Rule, rule
from webapp.pilot import rules as running
from webapp.pilot.process import Scoring
from webapp.pilot.rules import RuleRunner
from webapp.pilot.upkeep import Upkeep

__all__ = ["rule"]


def test_rules_label_all_items_with_probabilities_and_the_cluster_gets_them_as_rules(rule: Rule) -> None:
    job = rule.apply(ALL)
    assert (job["state"], job["share"], job["labelled"]) == ("done", 1.0, 40)
    status = rule.admin.call("GET", "/projects/birds/status")
    assert (status["labels"], status["rule_labels"], status["outbox"], status["rules_outbox"]) == (0, 40, 0, 40)
    assert rule.labels("labelled") == {}
    assert rule.labels("rules") == {f"i{n:03d}": TRUE[n % 5] for n in range(50) if n % 5 != 3}
    rule.send()
    sent = rule.cluster.merged("birds")
    assert len(sent) == 40
    sample = sent["i000"]
    assert (sample.annotator, sample.labels, sample.revision, sample.draft) == ("rules", ("owl",), 1, None)
    assert sum(sample.proba) == pytest.approx(1) and max(sample.proba) == sample.proba[0] > 0.7
    history = rule.admin.call("GET", "/projects/birds/items/i000")["history"]
    assert [(past["source"], past["labels"]) for past in history] == [("rules", ["owl"])]


def test_people_are_never_overwritten_and_teach_the_label_model(rule: Rule) -> None:
    rule.label("i000", "jay")
    rule.apply(ALL)
    assert rule.labels("labelled") == {"i000": "jay"} and "i000" not in rule.labels("rules")
    request = rule.cluster.weighed[-1]
    assert request.known is not None
    rule.apply()
    rule.send()
    assert rule.cluster.merged("birds")["i000"].annotator == "ada"


def test_applying_again_changes_only_what_changed_and_withdraws_what_falls_away(rule: Rule) -> None:
    rule.apply(ALL)
    again = rule.apply()
    assert (again["labelled"], again["kept"], again["withdrawn"]) == (0, 40, 0)
    rule.send()
    fewer = rule.apply([OWL, NIGHT, TIT, BLUE])
    assert fewer["withdrawn"] == 10 and rule.call("GET", "/state")["rule_labels"] == 30
    assert {item for item, label in rule.labels("rules").items() if label == "jay"} == set()
    rule.send()
    log = rule.cluster.log
    assert log["birds", "i002", 2].is_deleted and log["birds", "i002", 2].annotator == "rules"
    assert "i002" not in rule.cluster.merged("birds")
    back = rule.apply(ALL)
    rule.send()
    assert back["labelled"] >= 10 and rule.cluster.merged("birds")["i002"].revision == 3


def test_items_below_the_least_confidence_get_no_label(rule: Rule) -> None:
    job = rule.apply(ALL, least_confidence=1.0)
    sure = len(rule.labels("rules"))
    assert sure < 40 and job["unsure"] == 40 - sure


def test_all_labels_of_rules_can_be_withdrawn(rule: Rule) -> None:
    rule.label("i001", "tit")
    rule.apply(ALL)
    rule.call("POST", "/withdraw", status=202)
    rule.runner.cycle(rule.project)
    state = rule.call("GET", "/state")
    assert (state["rule_labels"], state["labels"], state["job"]["withdrawn"]) == (0, 1, 39)
    rule.send()
    assert set(rule.cluster.merged("birds")) == {"i001"}


class Killed(BaseException):
    """The process ends here."""


def test_an_application_that_is_killed_goes_on_where_it_was(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "VOTED_AT_ONCE", 8)
    monkeypatch.setattr(running, "WRITTEN_AT_ONCE", 7)
    rule.save(ALL)
    rule.call("POST", "/apply", status=202)

    def die(request: m.RulesRequest) -> None:
        if len(rule.cluster.rule_calls) == 4:
            raise Killed

    rule.cluster.on_rules = die
    with pytest.raises(Killed):
        rule.runner.cycle(rule.project)
    half = rule.call("GET", "/state")["job"]
    assert half["state"] == "running" and 0 < half["share"] < 0.5
    with pytest.raises(Killed):
        monkeypatch.setattr(running.rule_sets, "move_job", _dies_at("labels", running.rule_sets.move_job))
        RuleRunner(rule.world.database, rule.cluster, threading.Event()).cycle(rule.project)
    monkeypatch.undo()
    written = rule.call("GET", "/state")["job"]
    assert written["phase"] == "labels" and 0 < written["labelled"] < 40
    RuleRunner(rule.world.database, rule.cluster, threading.Event()).cycle(rule.project)
    job = rule.call("GET", "/state")["job"]
    assert (job["state"], job["labelled"], job["kept"]) == ("done", 40, 0)
    asked = [item.item_id for call in rule.cluster.rule_calls for item in call.items]
    assert len(asked) == 50 + 8 and len(set(asked)) == 50
    rule.send()
    assert len(rule.cluster.log) == 40


def _dies_at(phase: str, real: Any) -> Any:
    calls: list[int] = []

    def move(tx: Any, job_id: int, now: float, **changes: Any) -> Any:
        if "labelled" in changes:
            calls.append(1)
            if len(calls) == 3:
                raise Killed
        return real(tx, job_id, now, **changes)

    return move


def test_an_application_waits_for_the_cluster_and_can_be_cancelled(rule: Rule) -> None:
    rule.save(ALL)
    job = rule.call("POST", "/apply", status=202)
    assert "already" in rule.call("POST", "/apply", status=409)["message"]
    rule.cluster.is_down = True
    with pytest.raises(RetryableError):
        rule.runner.cycle(rule.project)
    assert rule.call("GET", "/state")["job"]["reason"] == "waits: the cluster is down"
    assert rule.call("POST", "/cancel", {"id": job["id"]})["state"] == "cancelled"
    rule.call("POST", "/cancel", {"id": job["id"]}, 409)
    rule.call("POST", "/cancel", {"id": 12345}, 404)
    assert rule.runner.cycle(rule.project) is False
    rule.cluster.is_down = False
    assert rule.apply()["state"] == "done"


def test_a_job_that_is_cancelled_under_way_writes_no_more(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "VOTED_AT_ONCE", 8)
    rule.save(ALL)
    job = rule.call("POST", "/apply", status=202)
    rule.cluster.on_rules = lambda _request: (
        rule.call("POST", "/cancel", {"id": job["id"]}) if len(rule.cluster.rule_calls) == 3 else None
    )
    rule.runner.cycle(rule.project)
    assert len(rule.cluster.rule_calls) == 3 and rule.call("GET", "/state")["rule_labels"] == 0


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([{**OWL, "field": "body"}], "there is no column 'body'"),
        ([{**OWL, "words": ["unheard"]}], "no rule votes for any item"),
        ([OWL, {"kind": "model", "name": "m", "source": "elsewhere"}], ""),
    ],
)
def test_rules_that_cannot_be_applied_fail_with_the_clusters_words(rule: Rule, rules: list[dict[str, Any]], said: str) -> None:
    if not said:
        rule.cluster.publish("birds")
        said = "elsewhere"
    job = rule.apply(rules)
    assert job["state"] == "failed" and said in job["reason"]
    assert rule.call("GET", "/state")["rule_labels"] == 0


def test_nothing_is_applied_without_a_rule_or_where_items_take_several_labels(rule: Rule) -> None:
    assert "no rule to apply" in rule.call("POST", "/apply", status=422)["message"]
    rule.save([{**OWL, "label": "eagle"}])
    assert "'eagle'" in rule.call("POST", "/apply", status=422)["message"]
    rule.world.project("many", kind="multilabel")
    rule.admin.call("PUT", "/projects/many/rules", {"revision": 0, "rules": [OWL]})
    assert "several labels" in rule.admin.call("POST", "/projects/many/rules/apply", None, 409)["message"]


def test_a_label_added_before_the_relay_has_probability_zero(rule: Rule) -> None:
    rule.apply(ALL)
    rule.admin.call("PATCH", "/projects/birds", {"labels": ["owl", "tit", "jay", "hen"]})
    rule.send()
    proba = rule.cluster.merged("birds")["i000"].proba
    assert len(proba) == 4 and proba[3] == 0 and sum(proba) == pytest.approx(1)


def test_peoples_labels_go_out_before_those_of_rules(rule: Rule) -> None:
    rule.apply(ALL)
    rule.label("i003", "jay")
    rule.relay.cycle()
    first = rule.cluster.batches["birds", rule.cluster.submits[0]].samples
    assert [sample.annotator for sample in first] == ["ada"]
    rule.send()
    assert len(rule.cluster.merged("birds")) == 41


def test_a_refused_label_of_rules_is_sent_again_as_one_of_rules(rule: Rule) -> None:
    rule.apply(ALL)
    rule.cluster.refused["i000"] = "broken"
    rule.send()
    assert [one["item_id"] for one in rule.admin.call("GET", "/projects/birds/status")["failed"]] == ["i000"]
    rule.cluster.refused.clear()
    rule.admin.call("POST", "/projects/birds/resend")
    status = rule.admin.call("GET", "/projects/birds/status")
    assert (status["outbox"], status["rules_outbox"]) == (0, 1)


def test_the_pilot_runs_what_waits_and_a_dropped_project_leaves_nothing(rule: Rule) -> None:
    rule.save(ALL)
    rule.call("POST", "/apply", status=202)
    ended = threading.Event()
    scoring = Scoring(rule.world.rooms, rule.cluster, ended)
    scoring.cycle()
    scoring.close()
    assert rule.call("GET", "/state")["job"]["state"] == "done"
    rule.admin.call("DELETE", "/projects/birds", None, 204)
    Upkeep(rule.world.database, rule.world.rooms.media, 0.0, ended).cycle()
    with rule.world.database.read() as tx:
        for table in ("rule_sets", "rule_jobs", "rule_votes", "annotations"):
            assert tx.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() == 0
