"""Label Studio as a client of a project: what Label Studio 1.23 really sends (recorded), and what must not come through."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labelloop.errors import InvalidInputError
from labelloop.settings import Settings
from tests.contract.test_web_pilot import Flight
from tests.contract.web_world import Client
from webapp.kinds.values import Mark, Value
from webapp.labelstudio import config, results

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "label_studio_requests.json").read_text())
CONFIG = RECORDED["setup"]["schema"]
ANOTHER = {**RECORDED["created"]["annotation"], "id": 1_000_000}


class Studio:
    """Label Studio's side of the wire: sends what was recorded, with an API token as the password of basic auth."""

    def __init__(self, flight: Flight, slug: str, token: str) -> None:
        self._app, self._base = flight.world.app, f"/projects/{slug}/label-studio"
        self._basic = base64.b64encode(f"label-studio:{token}".encode()).decode()

    def send(self, path: str, body: Any = None, status: int = 200, headers: dict[str, str] | None = None) -> Any:
        """Send one call."""
        method = "GET" if body is None else "POST"
        own = {"Authorization": f"Basic {self._basic}", "User-Agent": "heartex/1.23.2"}
        return Client(self._app).call(method, f"{self._base}/{path}", body, status, headers=headers or own)

    def hook(self, name: str, **changes: Any) -> Any:
        """Send a recorded webhook."""
        return self.send("webhook", {**RECORDED[name], **changes})


@pytest.fixture
def flight(web_settings: Settings) -> Iterator[Flight]:
    made = Flight(web_settings)
    yield made
    made.world.close()


@pytest.fixture
def studio(flight: Flight) -> Studio:
    flight.world.project(labels=["owl", "tit"])
    token = flight.admin.call("POST", "/tokens", {"label": "label studio"}, 201)["token"]
    return Studio(flight, "birds", token)


def test_label_studio_connects_with_a_token_as_the_password_of_basic_auth(studio: Studio) -> None:
    assert studio.send("health") == {"status": "UP", "model_class": "labelloop"}
    assert studio.send("setup", RECORDED["setup"]) == {"model_version": ""}
    wrong = {"Authorization": "Basic " + base64.b64encode(b"label-studio:llp_wrong").decode()}
    assert studio.send("health", status=401, headers=wrong)["code"] == "unauthenticated"


def test_a_prediction_for_each_task_comes_in_their_order(flight: Flight, studio: Studio) -> None:
    flight.admin.call("POST", "/projects/birds/items", {"items": [{"id": "i0", "text": "an owl"}]})
    flight.label("birds", 1)
    flight.turn("birds")
    version = flight.cluster.publish("birds")
    found = studio.send("predict", RECORDED["predict"])["results"]
    assert len(found) == len(RECORDED["predict"]["tasks"])
    for one in found:
        assert one["model_version"] == version and 0 < one["score"] <= 1
        [entry] = one["result"]
        assert (entry["from_name"], entry["to_name"], entry["type"]) == ("kind", "text", "choices")
        assert entry["value"]["choices"] in (["owl"], ["tit"])


def test_a_task_without_the_field_has_an_empty_prediction_and_the_reason(flight: Flight, studio: Studio) -> None:
    body = {**RECORDED["predict"], "tasks": [{"id": 1, "data": {"other": "x"}}]}
    [one] = studio.send("predict", body)["results"]
    assert one["result"] == [] and "'text'" in one["error"]


def test_an_annotation_there_becomes_a_label_here_and_goes_out_to_the_cluster(flight: Flight, studio: Studio) -> None:
    assert studio.hook("created") == {"saved": 1, "withdrawn": 0, "ignored": []}
    [line] = flight.admin.raw("GET", "/projects/birds/export?format=jsonl").get_data(as_text=True).splitlines()
    assert json.loads(line)["labels"] == ["tit"]
    flight.turn("birds")
    assert len(flight.cluster.merged("birds")) == 1


def test_the_same_webhook_twice_saves_once_and_a_correction_replaces_it(flight: Flight, studio: Studio) -> None:
    for _ in range(2):
        studio.hook("created")
    studio.hook("updated")
    late = studio.hook("created")
    assert late["saved"] == 0 and "newer state" in late["ignored"][0]
    [item] = flight.admin.call("GET", "/projects/birds/items?state=labelled")["items"]
    history = flight.admin.call("GET", f"/projects/birds/items/{item['item_id']}")["history"]
    assert [(one["revision"], one["labels"]) for one in history] == [(1, ["tit"]), (2, ["owl"])]


def test_a_deleted_annotation_takes_its_label_back_and_no_other(flight: Flight, studio: Studio) -> None:
    studio.hook("created")
    studio.hook("updated")
    assert studio.hook("deleted")["withdrawn"] == 1
    assert flight.status("birds")["labels"] == 0
    assert studio.hook("deleted")["withdrawn"] == 0
    studio.hook("created", annotation=ANOTHER)
    [item] = flight.admin.call("GET", "/projects/birds/items?state=labelled")["items"]
    body = {"item_id": item["item_id"], "labels": ["owl"]}
    flight.admin.call("POST", "/projects/birds/annotations", body)
    assert studio.hook("deleted", annotations=[{"id": ANOTHER["id"]}])["withdrawn"] == 0
    assert flight.status("birds")["labels"] == 1


def test_a_label_from_there_ends_a_lease_here(flight: Flight, studio: Studio) -> None:
    studio.hook("created")
    studio.hook("deleted")
    bob = flight.world.person("bob", "birds")
    [item] = bob.call("POST", "/projects/birds/next", {"n": 1})["items"]
    assert studio.hook("created", annotation=ANOTHER)["saved"] == 1
    assert flight.status("birds")["labels"] == 1
    assert bob.answer("birds", item, "owl", 409)["code"] == "conflict"


def test_a_cancelled_annotation_is_no_label(flight: Flight, studio: Studio) -> None:
    annotation = {**RECORDED["created"]["annotation"], "was_cancelled": True}
    assert studio.hook("created", annotation=annotation)["saved"] == 0
    assert flight.status("birds")["labels"] == 0


@pytest.mark.parametrize(
    "annotation",
    [
        {"result": [{"from_name": "kind", "type": "choices", "value": {"choices": ["penguin"]}}]},
        {"result": [{"from_name": "kind", "type": "choices", "value": 5}]},
        {"updated_at": "yesterday"},
        {"id": "one"},
        {"id": 2**80},
    ],
)
def test_what_a_webhook_brings_that_is_no_label_is_ignored_by_name(studio: Studio, annotation: dict[str, Any]) -> None:
    said = studio.hook("created", annotation={**RECORDED["created"]["annotation"], **annotation})
    assert said["saved"] == 0 and len(said["ignored"]) == 1


@pytest.mark.parametrize("annotations", [[{"id": "x"}], [{"id": -1}]])
def test_a_deletion_that_names_no_number_is_refused(studio: Studio, annotations: list[Any]) -> None:
    studio.send("webhook", {"action": "ANNOTATIONS_DELETED", "annotations": annotations}, 422)


def test_actions_that_say_nothing_of_labels_are_let_go(studio: Studio) -> None:
    assert "TASKS_CREATED" in studio.send("webhook", {"action": "TASKS_CREATED", "tasks": []})["ignored"][0]


def test_a_body_over_the_limit_is_refused_unread(studio: Studio) -> None:
    said = studio.send("setup", {"schema": "x" * (33 * 2**20)}, 413)
    assert said["code"] == "too_large"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<View", "no XML"),
        ('<!DOCTYPE x [<!ENTITY a "aaaa">]><View>&a;</View>', "document type"),
        ("<View/>", "no <Choices>"),
        (CONFIG.replace("$text", "text"), "no <Choices>"),
        (CONFIG.replace('"tit"', '"hawk"'), "only in Label Studio ['hawk']"),
        ("x" * 200_001, "Longer than"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_by_what_is_wrong(studio: Studio, text: str, why: str) -> None:
    assert why in studio.send("setup", {"schema": text}, 422)["message"]


_TAG = '<RectangleLabels name="box" toName="img"><Label value="owl"/></RectangleLabels>'
BOXES = f'<View><Image name="img" value="$image"/>{_TAG}</View>'
CORNER = (0.0, 0.0, 0.5, 0.0, 0.5, 1.0)
SPANS = '<View><Text name="t" value="$text"/><Labels name="ner" toName="t"><Label value="owl"/></Labels></View>'
POLYGONS = BOXES.replace("RectangleLabels", "PolygonLabels")
POINTS = BOXES.replace("RectangleLabels", "KeyPointLabels")


@pytest.mark.parametrize(
    ("text", "category", "kind", "mark", "their"),
    [
        (BOXES, "object-detection", "boxes", ("box", (0.1, 0.2, 0.3, 0.4)), {"x": 10.0, "y": 20.0, "width": 30.0, "height": 40.0}),
        (
            POLYGONS,
            "object-detection",
            "polygons",
            ("polygon", CORNER),
            {"points": [[0, 0], [50, 0], [50, 100]]},
        ),
        (POINTS, "object-detection", "keypoints", ("point", (0.25, 0.75)), {"x": 25.0, "y": 75.0}),
        (SPANS, "token-classification", "spans", ("span", (2.0, 5.0)), {"start": 3, "end": 6, "text": "owl"}),
    ],
)
def test_marks_go_there_and_come_back_the_same(
    text: str, category: str, kind: str, mark: tuple[Any, Any], their: dict[str, Any]
) -> None:
    control = config.find_control(text, category, kind)
    words = "\U0001f426 owl"  # the bird is one code point and two of a browser's units
    value = Value(labels=("owl",), marks=(Mark("m1", "owl", *mark),))
    sent = results.result_of(control, value, words)
    assert {key: sent[0]["value"][key] for key in their} == their
    back = results.value_of(control, sent, words)
    assert back.labels == ("owl",) and back.marks[0].shape == mark[0] and back.marks[0].where == pytest.approx(mark[1])


def test_a_rotated_box_is_refused() -> None:
    control = config.find_control(BOXES, "object-detection", "boxes")
    value = {"x": 1, "y": 1, "width": 5, "height": 5, "rotation": 30, "rectanglelabels": ["owl"]}
    with pytest.raises(InvalidInputError, match="rotated"):
        results.value_of(control, [{"from_name": "box", "type": "rectanglelabels", "value": value}])


@pytest.mark.parametrize("link", ["/data/upload/1/a.png", "s3://bucket/a.png", "file:///etc/passwd", "gopher://x/"])
def test_links_that_the_cluster_does_not_fetch_are_refused_here(flight: Flight, link: str) -> None:
    flight.world.project(slug="pictures", category="image-classification", labels=["owl", "tit"])
    token = flight.admin.call("POST", "/tokens", {"label": "label studio"}, 201)["token"]
    text = CONFIG.replace("Text", "Image").replace("$text", "$image")
    body = {"tasks": [{"id": 1, "data": {"image": link}}], "label_config": text}
    [one] = Studio(flight, "pictures", token).send("predict", body)["results"]
    assert one["result"] == [] and "cannot be fetched" in one["error"]
