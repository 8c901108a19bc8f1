"""The data worker as a process, on a real broker and datastore: batches become segments once, whatever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import celery
import msgspec
import pytest

from datastore_layout.intake_files import write_intake
from datastore_layout.labels import LabelLog, LabelRow
from datastore_layout.root import TaskFolder, create_root, task_folder
from datastore_layout.shards import ShardSet
from datastore_layout.tasks import save_spec
from labelloop.messages import Sample, SubmitRequest, TaskExtraInfo, TaskSpec
from labelloop.queues import data_queue
from labelloop.settings import Settings, environment_of, read_settings
from roles.celery_app import ALLOCATOR_ENVIRONMENT, make_app, send
from roles.hints import INTAKE_TASK, IntakeHint
from tests.support_broker import Broker, running_broker
from tests.support_worker import role_config

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


class Place:
    """One broker, one datastore with one text task, and a sender."""

    def __init__(self, broker: Broker, folder: Path) -> None:
        self.broker = broker
        self.path = folder
        self.config = role_config(broker.url, "", folder, concurrency=1)
        self.folder: TaskFolder = task_folder(create_root(folder / "root", self.config.cluster_id), "t1")
        extra = TaskExtraInfo(labels=("a", "b"), encoder="hash-ngram")
        save_spec(self.folder, TaskSpec(task="t1", category="text-classification", extra=extra))
        self.app: celery.Celery = make_app(self.config, Settings(), "sender")
        self.log = LabelLog(self.folder)

    def submit(self, batch: str, *links: str) -> None:
        samples = tuple(Sample(item_id=f"{batch}-{n}", link=link, labels=("a",)) for n, link in enumerate(links))
        write_intake(self.folder, SubmitRequest(task="t1", batch_id=batch, samples=samples))
        self.hint(batch)

    def hint(self, batch: str) -> None:
        send(self.app, INTAKE_TASK, IntakeHint(task="t1", batch_id=batch), data_queue(self.config.master_host))

    def rows(self, *batches: str) -> list[LabelRow]:
        """Wait for the segments of all `batches`; return all rows of the log."""
        wait_until(lambda: self.log.refresh() is not None and all(self.log.has_segment(b) for b in batches), f"segments {batches}")
        return [*self.log.merged().values(), *self.log.failed().values()]

    def progress(self) -> list[str]:
        path = self.folder.below("Preprocess", "progress")
        return sorted(p.name for p in path.iterdir()) if path.exists() else []


def wait_until(is_true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.02)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with running_broker(tmp_path / "broker") as broker:
        made = Place(broker, tmp_path)
        yield made
        made.app.close()


@contextmanager
def worker(place: Place, module: str = "scripts.start_data", **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    config = place.path / "config.json"
    config.write_bytes(msgspec.json.encode(place.config))
    wanted = environment_of(read_settings(None, {f"LABELLOOP_{name}": value for name, value in settings.items()}))
    environment = {**os.environ, **ALLOCATOR_ENVIRONMENT, **wanted}
    with (place.path / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(config)], cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Slow:
    """A web server that answers each path after `gate` is set."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.seen: list[str] = []
        slow = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                slow.seen.append(self.path)
                slow.gate.wait(PATIENCE_S)
                data = f"text of {self.path}".encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        self.host = f"127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def slow() -> Iterator[Slow]:
    made = Slow()
    yield made
    made.close()


def test_a_batch_becomes_a_segment_with_its_features_and_its_failures(place: Place) -> None:
    with worker(place):
        place.submit("b1", "data:,one", "http://169.254.169.254/", "data:,two")
        rows = {row.item_id: row for row in place.rows("b1")}
        place.hint("b1")  # doubled
        place.hint("never-accepted")
        place.submit("b2", "data:,three")
        place.rows("b2")
    assert set(rows) == {"b1-0", "b1-1", "b1-2"}
    assert rows["b1-1"].error_code == "unsafe_link"
    shards = ShardSet(place.folder, "hash-ngram")
    shards.refresh()
    assert shards.rows([(rows[i].shard, rows[i].row) for i in ("b1-0", "b1-2")]).shape == (2, 2048)
    assert place.progress() == []


def test_a_withdrawn_label_needs_no_download(place: Place, slow: Slow) -> None:
    sample = Sample(item_id="x", link=f"http://{slow.host}/x", labels=(), revision=2, is_deleted=True)
    write_intake(place.folder, SubmitRequest(task="t1", batch_id="undo", samples=(sample,)))
    with worker(place, INTAKE_ALLOWED_HOSTS=slow.host):
        place.hint("undo")
        place.rows("undo")
    found = place.log.state_of("x", 2)
    assert found is not None
    assert (found.is_deleted, found.shard, found.error_code) == (True, "", "")
    assert slow.seen == []


@pytest.mark.parametrize("victim", ["child", "worker"])
def test_kill_9_in_the_middle_loses_nothing_and_doubles_nothing(place: Place, slow: Slow, victim: str) -> None:
    links = [f"http://{slow.host}/{n}" for n in range(12)]
    with worker(place, INTAKE_ALLOWED_HOSTS=slow.host) as first:
        place.submit("b1", *links)
        place.submit("b2", "data:,other")
        wait_until(lambda: slow.seen, "downloads began")
        child = children(first.pid)[0]
        assert any("~try~0-12~" in name for name in place.progress())
        if victim == "child":
            os.kill(child, signal.SIGKILL)
            slow.gate.set()
            rows = place.rows("b1", "b2")
        else:
            first.kill()
            first.wait()
            slow.gate.set()
    if victim == "worker":
        with worker(place, INTAKE_ALLOWED_HOSTS=slow.host):
            place.hint("b1")  # what the sweep does
            rows = place.rows("b1", "b2")
    assert sorted(row.item_id for row in rows) == sorted([*(f"b1-{n}" for n in range(12)), "b2-0"])
    assert not any(row.error_code for row in rows)
    assert place.log.segments == {"b1", "b2"}
    assert place.progress() == []


def test_an_item_that_kills_its_worker_alone_becomes_a_failed_row(place: Place) -> None:
    links = [f"data:,text {n}" for n in range(7)]
    links[4] = "data:,KILL"
    with worker(place, "tests.support_data_worker"):
        place.submit("b1", *links)
        place.submit("b2", "data:,other")
        rows = {row.item_id: row for row in place.rows("b1", "b2")}
    assert len(rows) == 8
    assert [i for i, row in rows.items() if row.error_code] == ["b1-4"]
    assert "ended its worker" in rows["b1-4"].error_reason
    assert place.progress() == []


def test_a_batch_that_takes_longer_than_its_budget_goes_on_where_it_stopped(place: Place, slow: Slow) -> None:
    links = [f"http://{slow.host}/{n}" for n in range(4)]
    limits = {"INTAKE_ALLOWED_HOSTS": slow.host, "INTAKE_FETCH_THREADS": "1", "TRAIN_TASK_LIMIT_S": "8"}
    with worker(place, **limits):
        place.submit("b1", *links)
        wait_until(lambda: slow.seen, "the first download began")
        time.sleep(2.5)  # a quarter of the limit is the budget
        slow.gate.set()
        rows = place.rows("b1")
    assert sorted(row.item_id for row in rows) == [f"b1-{n}" for n in range(4)]
    assert "its time was up" in (place.path / "worker.log").read_text()
    assert sorted(slow.seen) == [f"/{n}" for n in range(4)]
