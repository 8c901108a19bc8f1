"""The life of a project and what its status page says, on both databases and before a cluster stand-in."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from tests.contract.projects_world import Shop, shop
from tests.contract.web_world import Client
from webapp.db import projects
from webapp.db.items import NewDraft
from webapp.kinds.values import Value

__all__ = ["shop"]


# ---------------------------------------------------------------- archive, deletion, copies


def slugs(client: Client) -> list[str]:
    return [one["slug"] for one in client.call("GET", "/projects")["projects"]]


def test_an_archived_project_is_read_only_out_of_the_list_and_comes_back(shop: Shop) -> None:
    slug = shop.world.project(texts=2)
    [item] = shop.admin.call("POST", f"/projects/{slug}/next", {"n": 1})["items"]
    shop.admin.call("POST", f"/projects/{slug}/archive", {})
    assert slugs(shop.admin) == []
    assert [one["slug"] for one in shop.admin.call("GET", "/archive")["archived"]] == [slug]
    assert shop.admin.call("GET", f"/projects/{slug}")["is_archived"]
    for method, path, body in (
        ("POST", "next", {"n": 1}),
        ("POST", "annotations", {"item_id": item["item_id"], "lease": item["lease"], "labels": ["owl"]}),
        ("POST", "items", {"items": [{"text": "more"}]}),
        ("PATCH", "", {"title": "other"}),
        ("POST", "labels/rename", {"label": "owl", "name": "x"}),
        ("POST", "archive", {}),
    ):
        told = shop.admin.call(method, f"/projects/{slug}/{path}".rstrip("/"), body, 409)
        assert "is archived" in told["message"], path
    shop.admin.call("DELETE", f"/projects/{slug}/archive")
    assert slugs(shop.admin) == [slug]
    assert shop.admin.answer(slug, item, "owl")["saved"]["labels"] == ["owl"]


def test_labels_of_an_archived_project_still_arrive(shop: Shop) -> None:
    from webapp.pilot.watch import Watch

    slug = shop.world.project(texts=2)
    shop.label(slug, i0="owl")
    shop.admin.call("POST", f"/projects/{slug}/archive", {})
    shop.send()
    Watch(shop.world.database, shop.cluster, shop.relay, shop.world.settings.pilot).cycle()
    assert shop.admin.call("GET", f"/projects/{slug}/status")["outbox"] == 0
    assert shop.cluster.merged(slug)["i0"].labels == ("owl",)


def test_a_deleted_project_is_gone_from_every_list_at_once_and_can_be_restored(shop: Shop) -> None:
    slug = shop.world.project(texts=3)
    eve = shop.world.person("eve", slug)
    shop.label(slug, i0="owl")
    shop.admin.call("DELETE", f"/projects/{slug}", None, 204)
    for client in (shop.admin, eve):
        assert slugs(client) == []
        client.call("GET", f"/projects/{slug}", None, 404)
        client.call("GET", f"/projects/{slug}/export", None, 404)
    assert [one["slug"] for one in shop.admin.call("GET", "/archive")["deleted"]] == [slug]
    assert eve.call("GET", "/archive")["deleted"] == []
    eve.call("POST", f"/projects/{slug}/restore", {}, 403)
    stranger = shop.world.person("mallory")
    stranger.call("POST", f"/projects/{slug}/restore", {}, 404)
    told = shop.admin.call("POST", "/projects", {"slug": slug, "category": "tables", "labels": ["a", "b"]}, 409)
    assert "was deleted and can still be brought back" in told["message"]
    shop.work()
    shop.admin.call("POST", f"/projects/{slug}/restore", {})
    assert slugs(shop.admin) == [slug] and shop.history(slug, "i0")[0]["labels"] == ["owl"]


def test_after_its_time_a_deleted_project_is_really_dropped_with_its_files(shop: Shop, tmp_path: Path) -> None:
    slug, other = shop.world.project(texts=3), shop.world.project("fish", texts=2)
    shop.label(slug, i0="owl", i1="tit")
    shop.label(other, i0="owl")
    media = shop.world.rooms.media
    link = media.save(slug, b"\x89PNG\r\n\x1a\n", "png")
    shop.admin.call("DELETE", f"/projects/{slug}", None, 204)
    shop.work(keep_s=0.0)
    assert not Path(link.removeprefix("file://")).exists()
    with shop.world.database.read() as tx:
        for table, left in (("projects", 1), ("items", 2), ("annotations", 1), ("outbox", 1), ("members", 1)):
            assert tx.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() == left, table
    assert shop.admin.call("GET", "/archive") == {"archived": [], "deleted": []}
    shop.world.project(slug)


def test_a_copy_has_the_settings_and_on_wish_items_and_labels(shop: Shop) -> None:
    slug = shop.world.project(texts=5, instructions="look twice", budget=7)
    eve = shop.world.person("eve", slug)
    body = {"item_id": "i1", "labels": ["tit"], "seconds": 3.5}
    eve.call("POST", f"/projects/{slug}/annotations", body)
    rules = [{"name": "hoots", "kind": "keywords", "label": "owl", "words": ["hoot"]}]
    shop.admin.call("PUT", f"/projects/{slug}/rules", {"rules": rules, "revision": 0})
    wishes = {"bare": (False, False), "full": (True, False), "all": (True, True)}
    for name, (with_items, with_labels) in wishes.items():
        made = shop.admin.call("POST", f"/projects/{slug}/copy", {"slug": name, "items": with_items, "labels": with_labels}, 201)
        work = shop.admin.call("GET", f"/projects/{name}/status")["work"]
        assert work == ({"kind": "copy", "share": 0.0} if with_items or with_labels else None)
        assert (made["instructions"], made["budget"], made["labels"]) == ("look twice", 7, ["owl", "tit", "jay"])
        shop.work()
        shop.work()
        count = shop.admin.call("GET", f"/projects/{name}")
        assert (count["items"], count["labels_done"]) == (5 if with_items else 0, 1 if with_labels else 0), name
        assert len(shop.admin.call("GET", f"/projects/{name}/rules")["rules"]) == 1
    [said] = shop.history("all", "i1")
    assert (said["labels"], said["seconds"]) == (["tit"], 3.5)
    line = shop.admin.raw("GET", "/projects/all/export?format=jsonl").get_data(as_text=True)
    assert msgspec.json.decode(line)["annotator"] == "eve"
    eve.call("GET", "/projects/all", None, 404)


def test_an_upload_of_a_copied_project_outlives_its_source(shop: Shop) -> None:
    slug = shop.world.project(category="image-classification")
    media = shop.world.rooms.media
    link = media.save(slug, b"\x89PNG\r\n\x1a\n", "png")
    from webapp.db import items
    from webapp.db.items import NewItem

    with shop.world.database.write() as tx:
        items.add_items(tx, projects.find_project(tx, slug), [NewItem("i0", link=link)], 1, time.time())
    shop.admin.call("POST", f"/projects/{slug}/copy", {"slug": "twin"}, 201)
    shop.work()
    shop.admin.call("DELETE", f"/projects/{slug}", None, 204)
    shop.work(keep_s=0.0)
    [item] = shop.admin.call("GET", "/projects/twin/items")["items"]
    assert item["media"].startswith("/media/twin/")
    assert media.find("twin", item["media"].rpartition("/")[2])[0].read_bytes().startswith(b"\x89PNG")
    assert not Path(media.folder / slug).exists()


def test_a_copy_whose_source_is_gone_says_so(shop: Shop) -> None:
    slug = shop.world.project(texts=2)
    shop.admin.call("POST", f"/projects/{slug}/copy", {"slug": "twin"}, 201)
    shop.admin.call("DELETE", f"/projects/{slug}", None, 204)
    shop.work()
    said = [event["text"] for event in shop.admin.call("GET", "/projects/twin/events")["events"]]
    assert any("the project that was to be copied is gone" in text for text in said)


# ---------------------------------------------------------------- status


def test_the_status_tells_pace_time_left_spread_and_seconds_by_version(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from webapp.db import items, scores
    from webapp.projects import outlook

    monkeypatch.setattr(outlook, "PACE_KEPT_S", 0.0)
    monkeypatch.setattr(outlook, "SPREAD_KEPT_S", 0.0)
    monkeypatch.setattr(outlook, "SPREAD_SHARE", 0.0)
    slug = shop.world.project(texts=20)
    status = shop.admin.call("GET", f"/projects/{slug}/status")
    assert (status["labels_per_hour"], status["left_s"], status["chance"]) == (None, None, 0.3333)
    with shop.world.database.write() as tx:
        project = projects.find_project(tx, slug)
        numbers = [item.number for item in items.items_by_id(tx, project.id, [f"i{n}" for n in range(3)]).values()]
        scores.save_head(tx, project.id, 1, [(number, NewDraft(Value(("owl",)), "v1", 0.9)) for number in numbers])
    for item in shop.admin.call("POST", f"/projects/{slug}/next", {"n": 6})["items"]:
        label = "tit" if item["item_id"] == "i0" else "owl"
        shop.admin.answer(slug, item, label, seconds=500.0 if item["item_id"] == "i5" else 4.0)
    shop.change(slug, "rename", {"label": "owl", "name": "barn owl"})
    status = shop.admin.call("GET", f"/projects/{slug}/status")
    assert status["spread"] == [["barn owl", 5], ["tit", 1], ["jay", 0]]
    assert status["labels_per_hour"] > 0 and status["left_s"] == pytest.approx(3600 * 14 / status["labels_per_hour"], abs=1)
    assert status["corrections_by_version"] == [
        {"version": "", "drafted": 0, "corrected": 0, "timed": 3, "seconds": 128.0},
        {"version": "v1", "drafted": 3, "corrected": 1, "timed": 3, "seconds": 12.0},
    ]
    shop.admin.call("DELETE", f"/projects/{slug}/annotations/i0")
    [_, after] = shop.admin.call("GET", f"/projects/{slug}/status")["corrections_by_version"]
    assert after == {"version": "v1", "drafted": 2, "corrected": 0, "timed": 2, "seconds": 8.0}


@pytest.mark.parametrize(
    ("share", "n", "low", "high"),
    [(0.9, 10, 0.5958, 0.9821), (1.0, 20, 0.8389, 1.0), (0.0, 20, 0.0, 0.1611), (0.5, 0, 0.0, 1.0), (0.93, 1000, 0.9125, 0.9442)],
)
def test_the_bounds_of_a_share_are_wilsons(share: float, n: int, low: float, high: float) -> None:
    from webapp.projects.outlook import wilson

    assert wilson(share, n) == (pytest.approx(low, abs=2e-4), pytest.approx(high, abs=2e-4))


def test_labels_of_imports_do_not_make_the_pace(shop: Shop) -> None:
    slug = shop.world.project()
    rows = [{"id": f"k{n}", "text": f"text {n}", "label": "owl"} for n in range(30)]
    shop.admin.call("POST", f"/projects/{slug}/items", {"items": rows})
    status = shop.admin.call("GET", f"/projects/{slug}/status")
    assert (status["labels"], status["labels_per_hour"]) == (30, None)


def test_a_budget_that_is_used_up_and_an_archived_project_say_why_labelling_stops(shop: Shop) -> None:
    slug = shop.world.project(texts=3, budget=1)
    shop.label(slug, i0="owl")
    assert shop.admin.call("GET", f"/projects/{slug}/status")["stop"] == "the labelling budget of 1 labels is reached"
    shop.admin.call("POST", f"/projects/{slug}/archive", {})
    assert "is archived" in shop.admin.call("GET", f"/projects/{slug}/status")["stop"]
