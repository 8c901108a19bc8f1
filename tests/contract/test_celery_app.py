"""The Celery factory on a real valkey-server and real worker processes."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import celery
import kombu.exceptions
import msgspec
import pytest

from labelloop.errors import DeadlineError, InternalError, SettingsError, UnreachableError
from labelloop.messages import Item, encode
from labelloop.settings import BrokerSettings, Settings, TrainSettings
from roles.celery_app import call, make_app, send, threads_for
from tests.support_broker import Broker, running_broker
from tests.support_worker import role_config

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0


def wait_until(is_true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.02)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with running_broker(tmp_path / "broker") as made:
        yield made


@pytest.fixture
def app(broker: Broker, tmp_path: Path) -> Iterator[celery.Celery]:
    made = make_app(role_config(broker.url, broker.result_url, tmp_path), Settings(), "sender")
    yield made
    made.close()
    made.backend.result_consumer.stop()
    made.backend.client.connection_pool.disconnect()


@contextmanager
def worker(broker: Broker, folder: Path, pool: str = "prefork", concurrency: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    config = folder / "config.json"
    config.write_bytes(msgspec.json.encode(role_config(broker.url, broker.result_url, folder, concurrency)))
    command = [sys.executable, "-m", "tests.support_worker", str(config), pool, str(concurrency)]
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
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


def calls(folder: Path) -> list[str]:
    path = folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


def item(text: str) -> Item:
    return Item(item_id=text, link="")


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_bytes_go_to_a_worker_and_back_small_and_large(broker: Broker, app: celery.Celery, tmp_path: Path, pool: str) -> None:
    with worker(broker, tmp_path, pool):
        for size in (1, 5_000_000):
            message = item("x" * size)
            assert call(app, "echo", message, "first", PATIENCE_S) == encode(message)


def test_the_broker_holds_no_pickle_and_only_our_content_type(broker: Broker, app: celery.Celery) -> None:
    send(app, "echo", item("a"), "first")
    raw = broker.command("LRANGE", "first", "0", "-1")
    envelope = json.loads(raw[raw.index(b"{") : raw.rindex(b"}") + 1])
    assert envelope["content-type"] == "application/x-labelloop"
    assert envelope["headers"]["eta"] is None
    assert envelope["headers"]["expires"] is None
    with app.connection_for_write() as connection, connection.Producer(serializer="pickle") as producer:
        producer.publish({"a": 1}, routing_key="pickled")
        with (
            connection.Consumer(kombu_queue("pickled"), accept=app.conf.accept_content) as consumer,
            pytest.raises(kombu.exceptions.ContentDisallowed),
        ):
            consumer.callbacks = [lambda *_: None]
            connection.drain_events(timeout=5)


def kombu_queue(name: str) -> kombu.Queue:
    return kombu.Queue(name, kombu.Exchange(""), routing_key=name)


def test_a_child_killed_in_its_task_loses_nothing(broker: Broker, app: celery.Celery, tmp_path: Path) -> None:
    with worker(broker, tmp_path):
        assert call(app, "fall_once", item("a"), "first", PATIENCE_S) == encode(item("a"))
    assert len({line.split()[1] for line in calls(tmp_path)}) == 2


def test_a_worker_killed_whole_leaves_its_message_to_the_next_and_no_orphan(
    broker: Broker, app: celery.Celery, tmp_path: Path
) -> None:
    with worker(broker, tmp_path) as first:
        send(app, "sleep", item("60"), "first")
        wait_until(lambda: calls(tmp_path), "the task runs")
        child = int(calls(tmp_path)[0].split()[1])
        first.kill()
        first.wait()
        wait_until(lambda: not is_running(child), "the child dies with its parent")
    held = broker.command("HLEN", "unacked")
    assert held.startswith(b":1"), "the message is still there, for the next worker to restore"


def is_running(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_an_unacknowledged_message_comes_back_after_the_visibility_timeout(broker: Broker, tmp_path: Path) -> None:
    """Kombu as we set it up: restored by any other consumer, not after kombu's hour."""
    settings = Settings(train=TrainSettings(task_limit_s=4), broker=BrokerSettings(visibility_timeout_s=5))
    app = make_app(role_config(broker.url, "", tmp_path), settings, "t")
    send(app, "echo", item("a"), "first")
    seen: list[str] = []
    with app.connection_for_read() as lost, lost.Consumer(kombu_queue("first"), accept=["labelloop"]) as consumer:
        consumer.register_callback(lambda *_: seen.append("lost"))
        lost.drain_events(timeout=5)
        lost.default_channel.qos._delivered.clear()  # as if killed: nothing is given back on close
        consumer.channel.qos._delivered.clear()
    with worker(broker, tmp_path):
        wait_until(lambda: calls(tmp_path), "the message comes back")
    assert seen == ["lost"]
    app.close()


def test_workers_wait_for_a_broker_that_is_not_there_yet_and_come_back_to_a_restarted_one(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker")
    app = make_app(role_config(broker.url, broker.result_url, tmp_path), Settings(), "sender")
    with pytest.raises(UnreachableError, match="does not take messages"):
        send(app, "echo", item("nobody"), "first")
    try:
        with worker(broker, tmp_path) as process:
            wait_until(lambda: b"does not answer" in (tmp_path / "worker.log").read_bytes(), "the worker meets no broker")
            for name in ("one", "two", "three"):
                broker.start()
                wait_until(functools.partial(is_sent, app, name), "the sender comes back")
                wait_until(functools.partial(was_called, tmp_path, name), f"the worker took {name}")
                broker.kill()
            assert process.poll() is None
    finally:
        broker.kill()
        app.close()


def test_a_task_that_ends_while_the_broker_is_away_does_not_block_its_worker(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker")
    broker.start()
    app = make_app(role_config(broker.url, broker.result_url, tmp_path), Settings(), "sender")
    try:
        with worker(broker, tmp_path):
            send(app, "sleep", item("0.5"), "first")
            wait_until(lambda: calls(tmp_path), "the task runs")
            broker.kill()
            log = tmp_path / "worker.log"
            wait_until(lambda: b"did not take the acknowledgement" in log.read_bytes(), "the acknowledgement fails")
            broker.start()
            wait_until(functools.partial(is_sent, app, "after"), "the sender comes back")
            wait_until(functools.partial(was_called, tmp_path, "after"), "the worker takes another")
    finally:
        broker.kill()
        app.close()


def was_called(folder: Path, name: str) -> bool:
    return any(f" {name} " in line for line in calls(folder))


def is_sent(app: celery.Celery, name: str) -> bool:
    try:
        send(app, "echo", item(name), "first")
    except UnreachableError:
        return False
    return True


def test_earlier_queues_are_served_first(broker: Broker, app: celery.Celery, tmp_path: Path) -> None:
    for n in range(5):
        send(app, "echo", item(f"later{n}"), "second")
        send(app, "echo", item(f"sooner{n}"), "first")
    with worker(broker, tmp_path):
        wait_until(lambda: len(calls(tmp_path)) == 10, "all are done")
    names = [line.split()[1] for line in calls(tmp_path)]
    assert names[-4:] == ["later1", "later2", "later3", "later4"]


def test_a_task_over_its_limit_is_killed_and_a_failing_one_is_named(broker: Broker, app: celery.Celery, tmp_path: Path) -> None:
    with worker(broker, tmp_path):
        with pytest.raises(InternalError, match=r"sleep failed.*worker's log"):
            call(app, "sleep", item("60"), "first", PATIENCE_S)
        with pytest.raises(InternalError, match="on purpose"):
            call(app, "raise", item("x"), "first", PATIENCE_S)
        assert call(app, "echo", item("after"), "first", PATIENCE_S)


def test_no_answer_in_time_is_a_deadline(app: celery.Celery) -> None:
    with pytest.raises(DeadlineError, match="no worker answered echo on 'first'"):
        call(app, "echo", item("a"), "first", 0.2)


def test_children_share_the_cores_and_the_logs_stay_ours(broker: Broker, app: celery.Celery, tmp_path: Path) -> None:
    with worker(broker, tmp_path, concurrency=2) as process:
        threads, parent, handlers = call(app, "facts", item("a"), "first", PATIENCE_S).split()
        assert int(threads) == threads_for(2) == max(1, len(os.sched_getaffinity(0)) // 2)
        assert int(parent) == process.pid
        assert int(handlers) == 1
    log = (tmp_path / "worker.log").read_text()
    assert "node=" in log
    assert "Task facts" not in log


def test_a_finished_or_unwanted_answer_leaves_nothing_behind(broker: Broker, app: celery.Celery, tmp_path: Path) -> None:
    with worker(broker, tmp_path):
        send(app, "echo", item("quiet"), "first")
        call(app, "echo", item("loud"), "first", PATIENCE_S)
        wait_until(lambda: broker.command("HLEN", "unacked").startswith(b":0"), "all are acknowledged")
    assert b"keys=" not in broker.command("INFO", "keyspace").replace(b"db0:keys=", b"")


def test_a_task_that_may_outlive_the_visibility_timeout_is_refused(tmp_path: Path) -> None:
    settings = Settings(train=TrainSettings(task_limit_s=90), broker=BrokerSettings(visibility_timeout_s=90))
    with pytest.raises(SettingsError, match="delivered twice"):
        make_app(role_config("redis://127.0.0.1:1/0", "", tmp_path), settings, "t")


_FORKS = """
import sys, threading
from roles.celery_app import import_worker
import_worker(sys.argv[1])
before = set(sys.modules)
from celery.apps.worker import Worker
from celery.concurrency import get_implementation
from kombu import Connection
import roles.celery_consumer
Connection(sys.argv[1]).transport_cls
anew = {name for name in set(sys.modules) - before if name.split(".")[0] in ("celery", "kombu", "billiard", "amqp", "redis")}
heavy = {"numpy", "onnxruntime", "torch", "tensorflow"} & set(sys.modules)
print(sorted(anew), sorted(heavy), threading.active_count())
"""


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://127.0.0.1:1//"])
def test_what_forked_workers_need_is_there_before_the_fork_without_a_thread_or_a_model_library(url: str) -> None:
    done = subprocess.run([sys.executable, "-c", _FORKS, url], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] [] 1"
