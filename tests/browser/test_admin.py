"""The admin's pages: what is missing stands there in words, both languages, no accessibility violation, no console error."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from labelloop import messages as m
from tests.browser.conftest import App, Visitor, wait_until
from tests.browser.test_every_page import inspect
from webapp.admin import backup
from webapp.admin.troubles import Reading
from webapp.db import outbox, projects, readings
from webapp.pilot import survey
from webapp.rooms import open_rooms

GIB = 2**30
PATHS = {
    "/admin/cluster": "#nodes tr",
    "/admin/runs": "#past tr",
    "/admin/letters": "#letters article",
    "/admin/projects": "#projects tr",
    "/admin/log": "#operations tr",
    "/admin/disk": "#rooms tr",
    "/admin/webhooks": "#hooks-empty",
    "/projects/refusals/webhooks": "#hooks tr",
}


def node(name: str, ip: str, role: m.Role, is_alive: bool = True, **more: object) -> m.NodeView:
    """Return a node as the registry tells of it."""
    broker = m.BrokerView(state="running", queues={f"{role}.{name}.run": 3}, consumers={f"{role}.{name}.run": 1})
    process = m.ProcessView(name=f"{role}-worker", pid=7, state="running", restarts=1)
    told = {"cores": 16, "memory_bytes": 128 * GIB, "memory_free_bytes": 90 * GIB, "load": 2.5, "disk_free_bytes": 900 * GIB}
    status = m.NodeStatus(
        hostname=name, ip=ip, port=7001, role=role, broker=broker, processes=(process,), gpus=("NVIDIA H100",) * 2,
        versions={"labelloop": "1.0", "torch": "2.13"}, **{"is_master": True, **told, **more},  # type: ignore[arg-type]
    )  # fmt: skip
    return m.NodeView(status=status, age_s=1.0 if is_alive else 90.0, is_alive=is_alive)


def run(number: int, state: m.RunState, reason: str, **more: object) -> m.RunView:
    """Return a training."""
    fixed = {"attempt": 1, "algorithm": "logistic-regression", "encoder": "raw-pixels", "labels": 40, "seconds": 12.0}
    return m.RunView(run=number, state=state, reason=reason, **{**fixed, **more})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def installation(app: App, sessions: object) -> App:
    """A cluster with a dead train node, runs, a refused label and a webhook, all as the pilot would have written them."""
    app.texts("refusals", 3)
    item = app.call("POST", "/projects/refusals/next", {"n": 1})["items"][0]
    body = {"item_id": item["item_id"], "lease": item["lease"], "labels": ["owl"]}
    app.call("POST", "/projects/refusals/annotations", body)
    alive = node("gpu-2", "10.0.0.10", "inference")
    dead = node("gpu-1", "10.0.0.9", "train", is_alive=False)
    action = m.Action(at="2026-01-02T03:04:05Z", what="form", reason="1 train and 1 inference node asked for")
    topology = m.Topology(epoch=4, train_rpc="", inference_rpc=("10.0.0.10:7002",))
    reading = Reading(m.NodesReply(nodes=(dead, alive), epoch=4, cluster_id="c1"), topology, (action,))
    with app.database.write() as tx:
        project = projects.find_project(tx, "refusals")
        readings.save_reading(tx, "cluster", reading, "", time.time() + 3600)
        row = outbox.rows_in(tx, project.id, 0, 1)[0]
        outbox.mark_failed(tx, [(row.id, "this item ended its worker 2 times")])
        now = time.time()
        readings.save_runs(
            tx, project.id, (run(1, "running", ""), run(2, "running", "first training", step=30, steps=50, loss=0.3)), now
        )
        readings.save_runs(tx, project.id, (run(1, "failed", "out of memory on gpu-1"),), now)
    rooms = open_rooms(app.settings)
    survey.read_disk(rooms)
    rooms.close()
    return app


def test_no_page_of_admins_has_a_violation_in_either_language(
    visitor: Visitor, installation: App, screenshots: Path | None
) -> None:
    for language in ("en", "zh"):
        page = visitor.context(locale="zh-CN" if language == "zh" else "en-US").new_page()
        page.goto("/projects/refusals/webhooks")
        if language == "en":
            page.get_by_label("Address").fill("http://127.0.0.1:9/refused")
            visitor.expected.append("422")
            page.get_by_role("button", name="Add a webhook").click()
            page.get_by_text("whoever runs the app can allow its network").wait_for()
            page.get_by_label("Address").fill("https://1.1.1.1/hook")
            page.get_by_role("button", name="Add a webhook").click()
            page.locator("#secret-text", has_text="whsec_").wait_for()
        for path, ready in PATHS.items():
            page.goto(path)
            page.wait_for_selector(ready, state="attached")
            assert page.locator("html").get_attribute("lang") == language
            inspect(page, f"{path.strip('/').replace('/', '-')}-{language}", screenshots)


def test_a_missing_worker_is_a_red_sentence_with_its_way_out(
    visitor: Visitor, installation: App, screenshots: Path | None, tmp_path: Path
) -> None:
    page = visitor.open("/admin/cluster")
    said = page.locator("#troubles li")
    said.first.wait_for()
    first = "no train worker is online, so no label is learned boot a node, then `labelloop assign NODE=train`"
    assert (" ".join(said.first.inner_text().split()), said.count()) == (first, 2)
    assert "node gpu-1 has been silent for" in said.nth(1).inner_text()
    chinese = visitor.open("/admin/cluster", locale="zh-CN")
    chinese.locator("#troubles li").first.wait_for()
    assert chinese.locator("#troubles li strong").first.inner_text() == "没有在线的训练节点，因此标签不会被学习"
    for name, shown in (("en", page), ("zh", chinese)):
        shown.screenshot(path=(screenshots or tmp_path) / f"cluster-{name}.png")
    with installation.database.write() as tx:
        readings.save_reading(tx, "cluster", None, "no answer in 3 s", time.time())
    page.get_by_text("the registry does not answer: no answer in 3 s").wait_for()
    with installation.database.write() as tx:
        readings.save_reading(tx, "cluster", None, "", time.time())


def test_a_refused_label_goes_out_again_by_the_keyboard_alone(visitor: Visitor, installation: App) -> None:
    page = visitor.open("/admin/letters")
    button = page.get_by_role("button", name="Send them again refusals")
    button.wait_for()
    assert "this item ended its worker 2 times" in page.locator("#letters").inner_text()
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => !document.getElementById('letters').textContent.includes('ended its worker')")
    assert installation.call("GET", "/projects/refusals/status")["failed"] == []


def test_trainings_show_why_they_ended_and_a_log_that_cannot_be_had_says_so(visitor: Visitor, installation: App) -> None:
    visitor.expected.append("503")
    page = visitor.open("/admin/runs")
    page.locator("#past tr").first.wait_for()
    assert "out of memory on gpu-1" in page.locator("#past").inner_text()
    live = page.locator("#live-refusals-2").inner_text()
    assert "30 / 50" in live and "0.300" in live and "8 s" in live
    page.locator("#past").get_by_role("button", name="Log").click()
    page.get_by_text("the app was started without a cluster").wait_for()


def test_a_backup_is_asked_for_made_and_downloaded(visitor: Visitor, installation: App) -> None:
    page = visitor.open("/admin/disk")
    page.get_by_role("button", name="Back up now").click()
    page.get_by_text("waits for the pilot").wait_for()
    assert backup.make_next(installation.database, installation.settings)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    path = download.value.path()
    assert path is not None and path.stat().st_size > 10_000


def test_the_log_is_filtered_and_only_admins_see_it(visitor: Visitor, installation: App) -> None:
    page = visitor.open("/admin/log")
    page.get_by_label("Kind").select_option("login")
    page.get_by_role("button", name="Show").click()
    kinds = set(page.locator("#operations tr td:nth-child(3)").all_inner_texts())
    assert kinds == {"Login"}
    visitor.expected.append("403")
    other = visitor.open("/admin/log", "bob")
    other.get_by_text("only an admin may do this").wait_for()
    wait_until(lambda: other.locator("#operations").count() == 0, "no row for bob")
