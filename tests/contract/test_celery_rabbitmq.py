"""The Celery factory on a real RabbitMQ and real worker processes: what is lost, what is declared, who comes back."""

from __future__ import annotations

import functools
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from cluster.authority import Authority
from labelloop.errors import SettingsError, UnreachableError
from labelloop.messages import Item, RoleConfig, encode
from labelloop.settings import BrokerSettings, ClusterSettings, Settings, TrainSettings
from labelloop.tls import Identity
from roles.celery_app import RoleApp, make_app, send
from roles.dead_letters import DeadLetter, DeadLetters
from tests.support_rabbit import Rabbit, running_rabbit
from tests.support_worker import role_config

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
SETTINGS = Settings(broker=BrokerSettings(heartbeat_s=1.0, confirm_timeout_s=2.0))
ACK_TIMEOUT = "{consumer_timeout, 3000}, {channel_tick_interval, 500}"


def wait_until(is_true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Identity]:
    """Return identities of this cluster's CA for `server` (127.0.0.1) and `client`, and `stranger` of another CA."""
    folder = tmp_path_factory.mktemp("certificates")
    ours, other = (Authority(folder / name, ClusterSettings()) for name in ("ca", "other-ca"))
    return {
        "server": ours.own_identity("server", "127.0.0.1", "node", folder / "server"),
        "client": ours.own_identity("client", "127.0.0.2", "node", folder / "client"),
        "elsewhere": ours.own_identity("elsewhere", "127.0.0.9", "node", folder / "elsewhere"),
        "stranger": other.own_identity("stranger", "127.0.0.1", "node", folder / "stranger"),
    }


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory, certificates: dict[str, Identity]) -> Iterator[Rabbit]:
    server = certificates["server"]
    tls = (server.certificate_file, server.key_file, server.ca_file)
    with running_rabbit(tmp_path_factory.mktemp("rabbit"), advanced=ACK_TIMEOUT, tls=tls) as made:
        yield made


@pytest.fixture
def name(request: pytest.FixtureRequest, rabbit: Rabbit) -> Iterator[str]:
    """Declare the work queue of one test, with its dead-letter queue, and return its name."""
    made = f"train.t{abs(hash(request.node.name))}.data"
    declare(rabbit, made)
    yield made
    rabbit.delete(made, dead(made))


def declare(rabbit: Rabbit, name: str) -> None:
    rabbit.declare([name], dead=dead(name), limit=3)


def dead(name: str) -> str:
    return name.removesuffix("data") + "dead"


@pytest.fixture
def app(rabbit: Rabbit, tmp_path: Path) -> Iterator[RoleApp]:
    made = make_app(role_config(rabbit.url, "", tmp_path), SETTINGS, "sender")
    yield made
    made.close()


@contextmanager
def worker(
    rabbit: Rabbit, folder: Path, name: str, config: RoleConfig | None = None, pool: str = "prefork"
) -> Iterator[subprocess.Popen[bytes]]:
    file = folder / "config.json"
    file.write_bytes(msgspec.json.encode(config or role_config(rabbit.url, "", folder)))
    command = [sys.executable, "-m", "tests.support_worker", str(file), pool, "1", name]
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def calls(folder: Path) -> list[str]:
    path = folder / "calls"
    return [line.rpartition(" ")[0] for line in path.read_text().splitlines()] if path.exists() else []


def item(text: str) -> Item:
    return Item(item_id=text, link="")


def await_echo(app: RoleApp, folder: Path, name: str, word: str) -> None:
    """Send echoes until one is heard: the sweep's way of surviving a broker."""

    def heard() -> bool:
        try:
            send(app, "echo", item(word), name)
        except UnreachableError:
            return False
        deadline = time.monotonic() + 2
        while f"echo {word}" not in calls(folder) and time.monotonic() < deadline:
            time.sleep(0.05)
        return f"echo {word}" in calls(folder)

    wait_until(heard, f"the worker says {word}")


# ---------------------------------------------------------------- what is declared and how it is consumed


def test_a_worker_declares_nothing_not_even_delayed_queues(rabbit: Rabbit, app: RoleApp, tmp_path: Path, name: str) -> None:
    def declared() -> set[str]:
        return set(rabbit.control("list_queues", "name").split()) | set(rabbit.control("list_exchanges", "name").split())

    before = declared()
    with worker(rabbit, tmp_path, name):
        send(app, "echo", item("a"), name)
        wait_until(lambda: calls(tmp_path) == ["echo a"], "the task")
        assert declared() == before
    assert declared() == before
    assert not [found for found in before if "celery" in found or "pidbox" in found]


def test_one_message_at_a_time_goes_to_a_worker_with_one_child(rabbit: Rabbit, app: RoleApp, tmp_path: Path, name: str) -> None:
    with worker(rabbit, tmp_path, name):
        for _ in range(4):
            send(app, "sleep", item("0.7"), name)
        wait_until(lambda: calls(tmp_path), "the first task")
        assert rabbit.count(name) >= 2, "of the four, one is at work and at most one has been acknowledged"
        wait_until(lambda: len(calls(tmp_path)) == 4, "all four")


def test_what_may_outlive_the_brokers_patience_is_refused_at_start(tmp_path: Path) -> None:
    settings = Settings(
        train=TrainSettings(task_limit_s=600), broker=BrokerSettings(visibility_timeout_s=700, consumer_timeout_s=600)
    )
    with pytest.raises(SettingsError, match="consumer_timeout_s"):
        make_app(role_config("amqp://x:y@127.0.0.1:1//", "", tmp_path), settings, "t")


def test_a_queue_that_nobody_declared_is_an_error_and_not_a_hole(rabbit: Rabbit, app: RoleApp) -> None:
    with pytest.raises(UnreachableError, match="no such queue"):
        send(app, "echo", item("a"), "train.nobody.data")


# ---------------------------------------------------------------- death


def test_a_child_killed_in_its_task_loses_nothing(rabbit: Rabbit, app: RoleApp, tmp_path: Path, name: str) -> None:
    with worker(rabbit, tmp_path, name):
        send(app, "fall_once", item("a"), name)
        wait_until(lambda: calls(tmp_path) == ["fall", "fall"], "the second try")
        await_echo(app, tmp_path, name, "on")


def test_a_message_that_kills_every_worker_ends_as_a_dead_letter(rabbit: Rabbit, app: RoleApp, tmp_path: Path, name: str) -> None:
    letters: queue.SimpleQueue[DeadLetter] = queue.SimpleQueue()
    listener = DeadLetters(app, dead(name), letters.put)
    listener.start()
    try:
        with worker(rabbit, tmp_path, name):
            send(app, "fall", item("poison"), name)
            letter = letters.get(timeout=PATIENCE_S)
            await_echo(app, tmp_path, name, "on")
        assert letter == DeadLetter("fall", encode(item("poison")), name, "delivery_limit")
        assert calls(tmp_path).count("fall") == 4, "one delivery and three more"
        wait_until(lambda: rabbit.count(dead(name)) == 0, "the letter is taken")
    finally:
        listener.close()


def test_a_dead_letter_comes_again_while_its_taker_cannot_record_it(rabbit: Rabbit, app: RoleApp, name: str) -> None:
    seen: list[DeadLetter] = []

    def take(letter: DeadLetter) -> None:
        seen.append(letter)
        if len(seen) == 1:
            raise UnreachableError("the datastore is away")

    send(app, "fall", item("a"), dead(name))
    listener = DeadLetters(app, dead(name), take)
    listener.start()
    try:
        wait_until(lambda: len(seen) == 2, "the second time")
    finally:
        listener.close()


# ---------------------------------------------------------------- a broker in trouble


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_worker_comes_back_when_its_queue_was_deleted_and_declared_again(
    rabbit: Rabbit, app: RoleApp, tmp_path: Path, name: str, pool: str
) -> None:
    with worker(rabbit, tmp_path, name, pool=pool):
        await_echo(app, tmp_path, name, "before")
        wait_until(lambda: f"{name}\t0" in rabbit.control("list_queues", "name", "messages"), "an idle worker")
        rabbit.delete(name)
        wait_until(lambda: "NotFound" in (tmp_path / "worker.log").read_text(), "the worker misses its queue")
        declare(rabbit, name)
        await_echo(app, tmp_path, name, "after")
    assert "Frequent restarts" not in (tmp_path / "worker.log").read_text()


def test_a_worker_comes_back_when_the_broker_closed_its_channel_over_a_slow_task(
    rabbit: Rabbit, app: RoleApp, tmp_path: Path, name: str
) -> None:
    with worker(rabbit, tmp_path, name):
        send(app, "sleep_once", item("6"), name)
        wait_until(lambda: calls(tmp_path).count("sleep_once") == 2, "the second delivery")
        await_echo(app, tmp_path, name, "on")


def test_an_alarm_refuses_messages_at_once_and_ends_by_itself(rabbit: Rabbit, app: RoleApp, tmp_path: Path, name: str) -> None:
    with worker(rabbit, tmp_path, name):
        await_echo(app, tmp_path, name, "before")
        rabbit.control("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            with pytest.raises(UnreachableError, match="does not take messages"):
                for _ in range(20):
                    send(app, "echo", item("held"), name)
        finally:
            rabbit.control("set_vm_memory_high_watermark", "0.6")
        await_echo(app, tmp_path, name, "after")


def test_a_frozen_broker_is_noticed_and_taken_up_again(rabbit: Rabbit, app: RoleApp, tmp_path: Path, name: str) -> None:
    with worker(rabbit, tmp_path, name):
        await_echo(app, tmp_path, name, "before")
        rabbit.tell(signal.SIGSTOP)
        try:
            with pytest.raises(UnreachableError):
                send(app, "echo", item("frozen"), name)
            wait_until(lambda: "Connection to broker lost" in (tmp_path / "worker.log").read_text(), "the worker notices")
        finally:
            rabbit.tell(signal.SIGCONT)
        await_echo(app, tmp_path, name, "after")


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_worker_that_is_told_to_end_while_its_broker_is_silent_ends_before_its_manager_kills_it(
    rabbit: Rabbit, app: RoleApp, tmp_path: Path, name: str, pool: str
) -> None:
    with worker(rabbit, tmp_path, name, pool=pool) as process:
        await_echo(app, tmp_path, name, "before")
        rabbit.tell(signal.SIGSTOP)
        try:
            process.terminate()
            assert process.wait(Settings().cluster.shutdown_grace_s) == 0
        finally:
            rabbit.tell(signal.SIGCONT)


def test_workers_and_senders_outlive_a_broker_that_is_killed_and_started_again(
    rabbit: Rabbit, app: RoleApp, tmp_path: Path, name: str
) -> None:
    with worker(rabbit, tmp_path, name):
        await_echo(app, tmp_path, name, "before")
        rabbit.keep_names()
        rabbit.kill()
        with pytest.raises(UnreachableError):
            send(app, "echo", item("nobody"), name)
        rabbit.start()
        rabbit.wake()
        await_echo(app, tmp_path, name, "after")


# ---------------------------------------------------------------- TLS


def tls_config(url: str, folder: Path, mine: Identity, ca: Identity) -> RoleConfig:
    return msgspec.structs.replace(
        role_config(url, "", folder),
        certificate_file=str(mine.certificate_file),
        key_file=str(mine.key_file),
        ca_file=str(ca.ca_file),
    )


def test_a_worker_works_over_mutual_tls(
    rabbit: Rabbit, app: RoleApp, tmp_path: Path, name: str, certificates: dict[str, Identity]
) -> None:
    config = tls_config(rabbit.tls_url, tmp_path, certificates["client"], certificates["client"])
    sender = make_app(config, SETTINGS, "sender")
    try:
        with worker(rabbit, tmp_path, name, config):
            send(sender, "echo", item("secret"), name)
            wait_until(lambda: calls(tmp_path) == ["echo secret"], "the task")
    finally:
        sender.close()


def test_a_server_of_another_ca_is_refused(rabbit: Rabbit, tmp_path: Path, name: str, certificates: dict[str, Identity]) -> None:
    refused = make_app(tls_config(rabbit.tls_url, tmp_path, certificates["client"], certificates["stranger"]), SETTINGS, "refused")
    with pytest.raises(UnreachableError, match="certificate verify failed"):
        send(refused, "echo", item("a"), name)
    refused.close()


def test_a_client_of_another_ca_is_refused_and_the_broker_says_why(
    rabbit: Rabbit, tmp_path: Path, name: str, certificates: dict[str, Identity]
) -> None:
    refused = make_app(tls_config(rabbit.tls_url, tmp_path, certificates["stranger"], certificates["client"]), SETTINGS, "refused")
    before = rabbit.log().count("Fatal - Unknown CA")
    with pytest.raises(UnreachableError):  # what a client reads of it depends on how far it has written: an alert, a reset, an end
        send(refused, "echo", item("a"), name)
    refused.close()
    wait_until(lambda: rabbit.log().count("Fatal - Unknown CA") > before, "the broker's reason")
    assert rabbit.count(name) == 0


def test_a_server_whose_certificate_names_another_address_is_refused(
    rabbit: Rabbit, tmp_path: Path, name: str, certificates: dict[str, Identity]
) -> None:
    url = rabbit.tls_url.replace("127.0.0.1", "127.0.0.9")
    relay = subprocess.Popen([sys.executable, "-c", RELAY, str(rabbit.tls_port)])
    refused = make_app(tls_config(url, tmp_path, certificates["client"], certificates["client"]), SETTINGS, "refused")
    try:
        wait_until(functools.partial(refuses, refused, name, "IP address mismatch"), "the refusal")
    finally:
        refused.close()
        relay.kill()
        relay.wait()


RELAY = """
import socket, sys, threading
def pump(a, b):
    while data := a.recv(65536):
        b.sendall(data)
    b.close()
door = socket.create_server(("127.0.0.9", int(sys.argv[1])))
while True:
    one, _ = door.accept()
    two = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    threading.Thread(target=pump, args=(one, two), daemon=True).start()
    threading.Thread(target=pump, args=(two, one), daemon=True).start()
"""


def refuses(app: RoleApp, name: str, why: str) -> bool:
    with pytest.raises(UnreachableError) as caught:
        send(app, "echo", item("a"), name)
    return why in str(caught.value)
