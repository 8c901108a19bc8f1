"""What no client of ours would send, on SQLite and on PostgreSQL: each was answered 500 once."""

from __future__ import annotations

import pytest

from tests.contract.web_world import World


@pytest.mark.parametrize(("method", "path"), [("POST", "/next"), ("PATCH", ""), ("POST", "/annotations"), ("PUT", "/rules")])
def test_json_that_is_nested_ten_thousand_deep_is_refused(world: World, method: str, path: str) -> None:
    url = f"/projects/{world.project(texts=1)}{path}"
    said = world.admin.call(method, url, status=422, data=b"[" * 10_000, headers={"Content-Type": "application/json"})
    assert "nested" in said["message"]


def test_an_item_id_with_half_a_character_is_that_rows_error(world: World) -> None:
    slug = world.project()
    rows = [{"id": "\ud800", "text": "one"}, {"id": "good", "text": "two"}]
    said = world.admin.call("POST", f"/projects/{slug}/items", {"items": rows})
    assert said["added"] == 1 and [(row["line"], row["name"]) for row in said["failed"]] == [(1, "?")]


@pytest.mark.parametrize("last", ["²", "9" * 50, "-1"])
def test_a_stream_begun_behind_an_event_that_is_no_number_begins_at_the_newest(world: World, last: str) -> None:
    slug = world.project()
    headers = {"Accept": "text/event-stream", "Last-Event-ID": last}
    answer = world.admin.raw("GET", f"/projects/{slug}/events", headers=headers, buffered=False)
    pieces = iter(answer.response)
    assert answer.status_code == 200 and b"retry" in next(pieces) and b"created the project" in next(pieces)
    answer.close()
