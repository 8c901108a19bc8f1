"""The Python client over real HTTP: each call, its retries, streams, files, errors, and the example of the docs."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from labelloop.errors import (
    BusyError,
    ConflictError,
    DeadlineError,
    InvalidInputError,
    NotFoundError,
    UnauthenticatedError,
    UnreachableError,
)
from labelloop.web_client import Event, WebClient
from tests.contract.web_world import Valkey, World, make_settings
from webapp.transfer.importer import Importer

DOCS = Path(__file__).resolve().parents[2] / "docs" / "api.md"


class Served:
    """An app that is served by HTTP. `failures` are the statuses that the next calls of it get, after the app has done its work."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.failures: Iterator[int] = iter(())
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _serve(self, environ: Any, start_response: Any) -> Any:
        response = Response.from_app(self.world.app, environ)
        status = next(self.failures, None)
        if status is not None:
            response.close()
            response = Response("gone wrong on the way", status)
        return response(environ, start_response)

    def stop(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._thread.join()


@pytest.fixture
def served(tmp_path: Path, valkey: Valkey) -> Iterator[Served]:
    world = World(make_settings(tmp_path / "state", "", valkey.url))
    made = Served(world)
    yield made
    made.stop()
    world.close()


@pytest.fixture
def app(served: Served) -> Iterator[WebClient]:
    with WebClient.log_in(served.url, "ada", "correct horse") as client:
        yield client


def test_the_example_of_the_docs_runs(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    found = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found is not None
    monkeypatch.chdir(tmp_path)
    exec(compile(found[1].replace("http://localhost:8080", served.url), "docs/api.md", "exec"), {})
    assert capsys.readouterr().out == "2 2\n"
    assert '"labels":["tit"]' in (tmp_path / "birds.jsonl").read_text()


def test_a_project_is_made_labelled_and_exported(app: WebClient, tmp_path: Path) -> None:
    birds = app.create_project("birds", "text-classification", ["owl", "tit"], title="Birds")
    added = birds.add_items([{"id": "a/1", "text": "hoots"}, {"id": "b", "text": "sings"}, {"id": "c", "text": " "}])
    assert (added.added, added.known, [row.line for row in added.failed]) == (2, 0, [3])
    first, second = birds.take(2)
    assert (first.item_id, first.text, first.draft) == ("a/1", "hoots", None)
    assert birds.answer(first, ["owl"], seconds=1.5).revision == 1
    again = birds.undo("a/1")
    assert again is not None and again.lease != first.lease
    birds.skip(second)
    assert birds.answer(again, ["tit"]).revision == 3
    assert birds.change(title="All birds").title == "All birds"
    info = birds.info()
    assert (info.items, info.labels_done, info.role) == (2, 1, "owner")
    assert birds.status()["labels"] == 1 and [one.slug for one in app.projects()] == ["birds"]
    file = tmp_path / "out.csv"
    assert birds.export(file, format="csv") == file.stat().st_size > 0
    assert [path.name for path in tmp_path.glob("*.part")] == [] and birds.versions() == ()
    birds.delete()
    with pytest.raises(NotFoundError, match="birds"):
        birds.info()


def test_an_answer_whose_reply_is_lost_is_sent_again_and_saved_once(served: Served, app: WebClient) -> None:
    birds = app.create_project("birds", "text-classification", ["owl", "tit"])
    birds.add_items([{"id": "a", "text": "hoots"}])
    [item] = birds.take()
    served.failures = iter([502, 503])
    saved = birds.answer(item, ["owl"])
    assert saved.is_repeat and saved.revision == 1


def test_a_call_that_may_not_be_repeated_tells_of_the_lost_reply(served: Served, app: WebClient) -> None:
    birds = app.create_project("birds", "text-classification", ["owl", "tit"])
    served.failures = iter([502])
    with pytest.raises(UnreachableError):
        birds.undo("a")


@pytest.mark.parametrize(("status", "error"), [(429, BusyError), (504, DeadlineError), (502, UnreachableError)])
def test_patience_ends(served: Served, status: int, error: type[Exception]) -> None:
    with WebClient(served.url, patience_s=0.3) as client:
        served.failures = itertools.repeat(status)
        with pytest.raises(error):
            client.projects()


def test_errors_come_by_name_with_the_way_out(served: Served, app: WebClient) -> None:
    birds = app.create_project("birds", "text-classification", ["owl", "tit"])
    birds.add_items([{"id": "a", "text": "hoots"}])
    with pytest.raises(InvalidInputError, match=r"'penguin'.*Correct the named value"):
        birds.answer("a", ["penguin"])
    with pytest.raises(ConflictError):
        app.create_project("birds", "text-classification", ["owl", "tit"])
    with pytest.raises(UnauthenticatedError), WebClient(served.url, "llp_none") as stranger:
        stranger.projects()
    with pytest.raises(InvalidInputError, match="ftp"):
        WebClient("ftp://somewhere")


def test_nobody_there_is_unreachable() -> None:
    with pytest.raises(UnreachableError, match="does not answer"), WebClient("http://127.0.0.1:1", patience_s=0) as client:
        client.projects()


def test_files_are_imported_with_progress(served: Served, app: WebClient, tmp_path: Path) -> None:
    birds = app.create_project("birds", "text-classification", ["owl", "tit"])
    one, two = tmp_path / "one.csv", tmp_path / 'tw"o \u732b.jsonl'
    one.write_text("id,text,label\n1,hoots,owl\n2,sings,penguin\n")
    two.write_text('{"id": "3", "text": "hangs"}\n')
    jobs = birds.upload(one, two, delimiter=",")
    assert [job.state for job in jobs] == ["waiting", "waiting"]
    Importer(served.world.database, served.world.rooms.media, 10**6).run_all()
    over = birds.wait_for(jobs[0])
    assert (over.rows_added, over.rows_failed, over.errors[0].line) == (1, 1, 3)
    assert birds.wait_for(jobs[1]).rows_added == 1
    with pytest.raises(DeadlineError):
        birds.wait_for(birds.upload(one)[0], deadline_s=0)


def test_events_and_each_new_status_stream_in(app: WebClient) -> None:
    birds = app.create_project("birds", "text-classification", ["owl", "tit"])
    got: list[Event] = list(itertools.islice(birds.events(), 2))
    assert [one.kind for one in got] == ["happened", "status"]
    assert "created the project" in got[0].data["text"] and got[1].data["labels"] == 0
    assert got[0].id >= 0


def test_people_are_made_and_put_into_a_project(app: WebClient) -> None:
    birds = app.create_project("birds", "text-classification", ["owl", "tit"])
    app.add_person("bob", "correct horse")
    birds.set_member("bob", "annotator")
    assert app.people() == ("ada", "bob") and [(one.name, one.role) for one in birds.members()] == [
        ("ada", "owner"),
        ("bob", "annotator"),
    ]
    birds.drop_member("bob")
    assert [one.name for one in birds.members()] == ["ada"]
