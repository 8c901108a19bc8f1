"""What is said of a RabbitMQ from one look at it, and from none: a frozen one must neither delay a heartbeat nor seem another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from cluster.broker import rabbitmq_view
from cluster.broker.rabbitmq_view import LastLook, Look, view_of
from labelloop.messages import BrokerView

RUNNING = BrokerView(kind="rabbitmq", state="running", cluster="C", members=("a", "b"), running=("a", "b"), queues={"q": 1})


@pytest.mark.parametrize(
    ("look", "state", "words"),
    [
        (Look("ready", False, "rabbit@a", "labelloop/C", ("rabbit@a",), ("rabbit@a",)), "running", ""),
        (Look("ready", False, "rabbit@a", "labelloop/C", partitions=("rabbit@b",)), "running", "parted from b"),
        (Look("ready", False, "rabbit@a", "labelloop/C", alarms=1), "running", "takes no messages"),
        (Look("stopped", True, members=("rabbit@a", "rabbit@b")), "paused", "in a minority of a, b"),
        (Look("booting", True, members=("rabbit@a", "rabbit@b")), "paused", "in a minority"),
        (Look("booting", False), "stopped", "starting"),
        (Look("stopping", False), "stopped", "its application is stopping"),
    ],
)
def test_a_look_is_told_in_the_words_of_a_heartbeat(look: Look, state: str, words: str) -> None:
    view = view_of(look, "K")
    assert (view.state, words in view.reason) == (state, True)
    assert view.cluster == ("C" if look.booted == "ready" else "K"), "one that does not run is in the cluster it was in"


def test_a_cluster_that_we_did_not_name_is_none() -> None:
    assert view_of(Look("ready", False, "rabbit@a", "rabbit@a", ("rabbit@a",), ("rabbit@a",))).cluster == ""


@pytest.mark.parametrize(
    ("members", "running", "nodes", "short"),
    [
        ("abc", "abc", "ab", True),
        ("abc", "abc", "abc", False),
        ("ab", "ab", "ab", False),
        ("abcde", "abcde", "abc", True),
        ("abc", "ab", "abc", False),  # the replica of one that is down keeps its place until that one is forgotten
        ("abc", "ab", "ab", False),  # nobody runs who could hold one more
        ("abc", "abc", "abd", True),  # d was forgotten
    ],
)
def test_a_queue_is_short_while_a_running_member_shall_get_a_replica(members: str, running: str, nodes: str, short: bool) -> None:
    def erlang(names: str) -> tuple[str, ...]:
        return tuple(f"rabbit@{name}" for name in names)

    look = Look("ready", False, "rabbit@a", "labelloop/C", erlang(members), erlang(running), replicas={"q": erlang(nodes)})
    assert view_of(look).short == (("q",) if short else ())


class Eyes:
    """Looks that take until `opened` is set, and say `seen`."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.seen = RUNNING

    def look(self) -> BrokerView:
        assert self.opened.wait(30)
        return self.seen


@pytest.fixture
def eyes(monkeypatch: pytest.MonkeyPatch) -> Eyes:
    for name, value_s in (("_FRESH_S", 0.0), ("_FIRST_PATIENCE_S", 0.01), ("_PATIENCE_S", 0.01), ("_STALE_S", 0.2)):
        monkeypatch.setattr(rabbitmq_view, name, value_s)
    return Eyes()


def _until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_a_broker_that_falls_silent_is_soon_unknown_and_still_in_its_cluster(eyes: Eyes) -> None:
    last = LastLook(eyes.look, lambda: "C")
    eyes.opened.set()
    _until(lambda: last.get() == RUNNING)
    eyes.opened.clear()
    _until(lambda: last.get().state == "unknown")
    view = last.get()
    assert (view.cluster, view.members, view.running, view.queues) == ("C", ("a", "b"), (), {})
    eyes.opened.set()
    _until(lambda: last.get() == RUNNING)


def test_before_the_first_answer_a_member_is_not_taken_for_a_newcomer(eyes: Eyes) -> None:
    last = LastLook(eyes.look, lambda: "C")
    assert (last.get().state, last.get().cluster) == ("unknown", "C")
    eyes.opened.set()
