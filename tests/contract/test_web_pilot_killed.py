"""The pilot killed with SIGKILL while it accepts drafts, renames, copies and exports: each goes on where it was, and ends once."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from labelloop.settings import environment_of
from tests.contract.web_world import World
from webapp.db import items, outbox, projects, scores
from webapp.db.items import NewDraft, NewItem
from webapp.kinds.values import Value

N = 3000  # several steps of each kind of work
PATIENCE_S = 120.0


def fill(world: World) -> str:
    """Create a project of `N` texts, each with a draft that is sure."""
    slug = world.project()
    with world.database.write() as tx:
        project = projects.find_project(tx, slug)
        items.add_items(tx, project, [NewItem(f"i{n}", content=f"text {n}") for n in range(N)], 1, time.time())
        stored = items.items_by_id(tx, project.id, [f"i{n}" for n in range(N)])
        drafts = [(item.number, NewDraft(Value(("owl",)), "model-1", 0.99)) for item in stored.values()]
        scores.save_head(tx, project.id, 1, drafts)
    return slug


def end_by_killing(world: World, how_far: Callable[[], tuple[bool, object]]) -> int:
    """Start the pilot until `how_far` says that all has ended, and kill it each time it has come further; return how many died."""
    killed, until_s = 0, time.monotonic() + PATIENCE_S
    has_ended, place = how_far()
    while not has_ended:
        argv = (sys.executable, "-m", "webapp", "pilot")
        pilot = subprocess.Popen(argv, env={**os.environ, **environment_of(world.settings)}, stderr=subprocess.DEVNULL)
        try:
            before = place
            while place == before and not has_ended:
                assert time.monotonic() < until_s, f"stands still at {place}"
                assert pilot.poll() is None
                time.sleep(0.005)
                has_ended, place = how_far()
        finally:
            pilot.kill()
            pilot.wait(10)
        killed += 1
    return killed


def exported(world: World, slug: str) -> dict[str, list[str]]:
    """Return the labels of a project's export by item; fails where an item is there twice."""
    lines = world.admin.raw("GET", f"/projects/{slug}/export?format=jsonl").get_data(as_text=True).splitlines()
    found = {row["id"]: row["labels"] for row in map(json.loads, lines)}
    assert len(found) == len(lines)
    return found


@pytest.mark.slow
def test_what_a_killed_pilot_was_at_goes_on_and_ends_once(world: World) -> None:
    slug, call = fill(world), world.admin.call

    def accepting() -> tuple[bool, object]:
        [job] = call("GET", f"/projects/{slug}/bulk")["jobs"]
        return job["state"] == "done", job["done"]

    call("POST", f"/projects/{slug}/bulk", {"least_confidence": 0.9, "audit": 10}, 202)
    assert end_by_killing(world, accepting) > 2
    assert exported(world, slug) == {f"i{n}": ["owl"] for n in range(N)}
    [job] = call("GET", f"/projects/{slug}/bulk")["jobs"]
    labels = call("GET", f"/projects/{slug}/status")["labels"]
    with world.database.read() as tx:
        on_their_way = outbox.waiting(tx, projects.find_project(tx, slug).id, outbox.OF_RULES)
    assert (job["accepted"], job["error"]["drawn"], labels, on_their_way) == (N, 10, N, N)

    def renaming() -> tuple[bool, object]:
        work = call("GET", f"/projects/{slug}/labels")["job"]
        return work["state"] == "done", work["done"]

    call("POST", f"/projects/{slug}/labels/rename", {"label": "owl", "name": "barn owl"}, 202)
    assert end_by_killing(world, renaming) > 2
    assert set(map(tuple, exported(world, slug).values())) == {("barn owl",)}

    def copying() -> tuple[bool, object]:
        there = call("GET", "/projects/again/status")
        return there["labels"] == N, there["labels"]

    call("POST", f"/projects/{slug}/copy", {"slug": "again", "items": True, "labels": True}, 201)
    assert end_by_killing(world, copying) > 2
    assert exported(world, "again") == exported(world, slug)

    def exporting() -> tuple[bool, object]:
        [one] = call("GET", f"/projects/{slug}/exports")["exports"]
        return one["state"] == "done", one["items"]

    made = call("POST", f"/projects/{slug}/exports", {"format": "jsonl", "which": "all"}, 202)
    assert end_by_killing(world, exporting) >= 1
    with contextlib.closing(world.admin.raw("GET", f"/projects/{slug}/exports/{made['id']}/file")) as answer:
        text = answer.get_data(as_text=True)
    assert sorted(json.loads(line)["id"] for line in text.splitlines()) == sorted(f"i{n}" for n in range(N))
