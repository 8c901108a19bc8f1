"""The whole product for `scripts/bench team`: cluster, app and pilot as the demo starts them, the app on PostgreSQL.

Owns the processes, the project and its annotators, and the proof that no label was lost or doubled on its way out. Must never
touch the app's path while the clock runs. Called by scripts.bench_team.
"""

from __future__ import annotations

import collections
import contextlib
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cluster.supervisor import Supervisor
from datastore_layout.labels import LabelLog
from datastore_layout.root import open_root, task_folder
from labelloop.settings import Settings
from scripts import web_bench
from scripts.demo import demo_processes, demo_settings
from scripts.demo_state import prepare_state
from scripts.postgres import Postgres
from scripts.team_load import Link, Saved
from scripts.web_client import WebClient
from webapp.db import items, projects, scores, users
from webapp.db.engine import open_database
from webapp.db.items import NewItem

SLUG = "bench"
LABELS = ("owl", "tit", "jay")
DRAIN_S = 900.0
_LOOK_S = 1.0
_NEVER = 10**9  # labels until a training: trainings belong on other machines than this one


class OurDesk:
    """One annotator of ours: `POST annotations` with `next: 1`."""

    def __init__(self, port: int, token: str) -> None:
        self._link = Link(port, {"Authorization": f"Bearer {token}"})
        self._random = random.Random(token)

    async def first(self) -> Any:
        """Return the first item."""
        return _first(await self._link.call("POST", f"/api/v1/projects/{SLUG}/next", {"n": 1}))

    async def submit_and_next(self, item: Any) -> tuple[str, str, Any]:
        """Label an item."""
        said = {"item_id": item["item_id"], "lease": item["lease"], "labels": [self._random.choice(LABELS)]}
        body = {**said, "key": self._random.randbytes(12).hex(), "seconds": 2.0, "next": 1}
        answer = await self._link.call("POST", f"/api/v1/projects/{SLUG}/annotations", body)
        return answer["saved"]["item_id"], answer["saved"]["labels"][0], _first(answer)

    def close(self) -> None:
        """Hang up."""
        self._link.close()


def _first(answer: Mapping[str, Any]) -> Any:
    return answer["items"][0] if answer["items"] else None


class Stack:
    """The running product with one project. `settings` are those its processes were started with."""

    def __init__(self, state: Path, settings: Settings, postgres: Postgres, say: Callable[[str], None]) -> None:
        self._state, self._settings, self._postgres, self._say = state, settings, postgres, say
        self._admin = WebClient(web_bench.url_of(settings), patience_s=180.0)
        entry = {"name": "bench", "password": web_bench.PASSWORD}
        self._admin.call("POST", "/users", entry)
        self._admin = self._admin.with_token(self._admin.call("POST", "/tokens", entry)["token"])

    def fill(self, n_items: int) -> None:
        """Create the project and its texts.

        The cluster is not asked to embed the pool nor to train: on this machine that would measure the encoder. Every label goes
        out to it all the same and is embedded there on its way into the label log.
        """
        body = {"slug": SLUG, "category": "text-classification", "labels": list(LABELS), "encoder": "hash-ngram"}
        self._admin.call("POST", "/projects", {**body, "retrain_labels": _NEVER})
        database = open_database(self._settings, pool=2)
        with database.read() as tx:
            project, owner = projects.find_project(tx, SLUG), users.find_user(tx, "bench")
        assert project is not None and owner is not None
        with database.write() as tx:
            scores.change_scored(tx, project.id, position=n_items)
        for start in range(0, n_items, web_bench.CHUNK):
            numbers = range(start, min(n_items, start + web_bench.CHUNK))
            new = [NewItem(f"item-{n}", content=f"the text of item number {n}, long enough to be one") for n in numbers]
            with database.write() as tx:
                items.add_items(tx, project, new, owner.id, time.time())
            if start % 100_000 == 0:
                self._say(f"{start} of {n_items} items are in")
        database.close()
        self._postgres.analyze(SLUG)

    def hire(self, n_people: int) -> list[OurDesk]:
        """Return desks of `n_people` annotators, each with an account and a token of their own."""
        return [OurDesk(self._settings.web.port, self._token(f"person-{n}")) for n in range(n_people)]

    def _token(self, name: str) -> str:
        entry = {"name": name, "password": web_bench.PASSWORD}
        self._admin.call("POST", "/users", entry)
        self._admin.call("POST", f"/projects/{SLUG}/members", {"name": name, "role": "annotator"})
        return str(self._admin.call("POST", "/tokens", entry)["token"])

    def warm(self) -> None:
        """Have the queue built and the task opened before the clock runs."""
        lease = _first(self._admin.call("POST", f"/projects/{SLUG}/next", {"n": 1}))["lease"]
        self._admin.call("POST", f"/projects/{SLUG}/skip", {"lease": lease})
        self.await_status("the ranked queue", lambda status: bool(status["queued"]))

    def await_status(self, what: str, is_there: Callable[[Mapping[str, Any]], bool]) -> float:
        """Wait until the project's status says so; return the seconds it took. Raises SystemExit."""
        began_s = time.monotonic()
        while not is_there(status := self._admin.call("GET", f"/projects/{SLUG}/status")):
            if time.monotonic() - began_s > DRAIN_S:
                raise SystemExit(
                    f"bench team: {what} did not come in {DRAIN_S:.0f} s: outbox {status['outbox']}, {status['trouble']}"
                )
            time.sleep(_LOOK_S)
        return time.monotonic() - began_s

    def outbox(self) -> int:
        """Return how many labels are not in the cluster's log yet."""
        return int(self._admin.call("GET", f"/projects/{SLUG}/status")["outbox"])

    def check(self, saved: Sequence[Saved]) -> dict[str, Any]:
        """Wait until the outbox is empty, then count what is not exactly once in the export and in the cluster's label log."""
        waiting = self.outbox()
        drained_s = self.await_status("an empty outbox", lambda status: status["outbox"] == 0)
        lines = map(json.loads, self._admin.lines(f"/projects/{SLUG}/export?format=jsonl"))
        exported = [(line["id"], line["labels"][0]) for line in lines]
        log = LabelLog(task_folder(open_root(self._state / "datastore"), SLUG))
        log.refresh()
        arrived = [(str(row.item_id), row.labels[0]) for row in log.merged().values() if not row.is_deleted]
        acknowledged = [(one.item_id, one.label) for one in saved]
        return {
            "outbox_at_the_end": waiting,
            "drained_s": round(drained_s, 1),
            "export": differences(acknowledged, exported),
            "cluster": differences(acknowledged, arrived),
        }


def differences(acknowledged: Sequence[tuple[str, str]], found: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Return how many pairs of item and label there are, are missing, are there too often, or were never acknowledged."""
    wanted, seen = collections.Counter(acknowledged), collections.Counter(found)
    return {
        "labels": len(found),
        "lost": sum((wanted - seen).values()),
        "doubled": sum(n - 1 for n in collections.Counter(item_id for item_id, _ in found).values()),
        "unknown": len(seen.keys() - wanted.keys()),
    }


@contextlib.contextmanager
def running_stack(state: Path, postgres: Postgres, say: Callable[[str], None]) -> Iterator[Stack]:
    """Yield the whole product below `state`, on a database of its own; all of it is stopped at the end."""
    state.mkdir()
    prepare_state(state, web_bench.free_port())
    settings = demo_settings(state)
    web = msgspec.structs.replace(settings.web, database_url=postgres.new_database(SLUG), login_rate_limit="100000 per minute")
    settings = msgspec.structs.replace(settings, web=web)
    supervisor = Supervisor(demo_processes(state, settings), settings.cluster)
    supervisor.start()
    try:
        WebClient(web_bench.url_of(settings), patience_s=180.0).call("GET", "/openapi.json")
        yield Stack(state, settings, postgres, say)
    finally:
        supervisor.stop()
