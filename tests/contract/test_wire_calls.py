"""What a well-behaved caller may rely upon: one round trip, errors as types, deadlines, repeats, forks, a clean end."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from rpyc.core import brine

from labelloop import messages as m
from labelloop.errors import (
    BusyError,
    DeadlineError,
    InternalError,
    InvalidInputError,
    NotFoundError,
    TooLargeError,
    UnreachableError,
)
from labelloop.tls import server_context
from labelloop.wire import Client, Peer, Server, parse_address
from tests.contract.wire_world import KEY, SETTINGS, World, address_of, job_reply, open_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as opened:
        yield opened


def test_a_call_carries_the_request_there_and_the_reply_back_and_tells_who_called(world: World) -> None:
    seen: list[Peer] = []

    def job(request: m.JobKey, peer: Peer) -> m.JobReply:
        seen.append(peer)
        return job_reply(request, peer)

    server = world.server({"job": job})
    reply = world.client(server).call("job", KEY)
    assert reply == m.JobReply(task="birds", job_id="j1", version="c1", chunks=1, done=1, state="done")
    assert (seen[0].name, seen[0].kind, seen[0].address, len(seen[0].key)) == ("c1", "client", "127.0.0.1", 64)


def test_a_payload_of_forty_megabytes_arrives_unchanged_both_ways(world: World) -> None:
    data = os.urandom(40 * 2**20)

    def predict(request: m.PredictRequest, peer: Peer) -> m.Predictions:
        assert len(request.items[0].link) == 40 * 2**20
        proba = m.Array(dtype="uint8", shape=(len(data),), data=data)
        return m.Predictions(version="v", labels=(), item_ids=(request.items[0].link[-3:],), proba=proba)

    client = world.client(world.server({"predict": predict}))
    link = "a" * (40 * 2**20 - 3) + "end"
    reply = client.call("predict", m.PredictRequest(task="t", items=(m.Item(item_id="i", link=link),)))
    assert isinstance(reply, m.Predictions)
    assert reply.item_ids == ("end",)
    assert reply.proba.data == data


@pytest.mark.parametrize("size", [1, 4000, 4096, 16 * 1024 - 1, 16 * 1024, 65536, 2**20 - 1, 2**20, 2**20 + 1, 3_000_000])
def test_payloads_of_every_size_class_arrive_unchanged(world: World, size: int) -> None:
    client = world.client(world.server({"job": job_reply}))
    reply = client.call("job", m.JobKey(task="t" * size, job_id="j"))
    assert isinstance(reply, m.JobReply)
    assert reply.task == "t" * size


def test_an_error_of_the_tree_crosses_as_its_type_and_sentence(world: World) -> None:
    def job(request: m.JobKey, peer: Peer) -> m.JobReply:
        raise NotFoundError("job 'j1' is unknown: list the jobs of 'birds' — 鸟")

    with pytest.raises(NotFoundError, match=r"^job 'j1' is unknown: list the jobs of 'birds' — 鸟$"):
        world.client(world.server({"job": job})).call("job", KEY)


def test_a_defect_crosses_without_its_traceback_and_stays_in_the_servers_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def job(request: m.JobKey, peer: Peer) -> m.JobReply:
        raise ZeroDivisionError("the inner secret")

    with caplog.at_level(logging.ERROR), pytest.raises(InternalError) as caught:
        world.client(world.server({"job": job})).call("job", KEY)
    assert "secret" not in str(caught.value)
    assert "ZeroDivisionError: the inner secret" in caplog.text


def test_a_reply_of_another_type_than_the_table_says_is_a_defect_of_the_server(world: World) -> None:
    client = world.client(world.server({"job": lambda request, peer: m.Empty()}))
    with pytest.raises(InternalError, match="wrong type"):
        client.call("job", KEY)


def test_a_method_outside_the_table_or_with_another_request_is_refused_before_it_leaves(world: World) -> None:
    client = world.client(world.server({"job": job_reply}))
    with pytest.raises(InvalidInputError, match=r"inference\.submit"):
        client.call("submit", KEY)
    with pytest.raises(InvalidInputError, match="does not take Empty"):
        client.call("job", m.Empty())


def test_a_service_answers_nothing_of_another_service(world: World) -> None:
    server = world.server({"job": job_reply})
    client = Client(address_of(server), "train", world.identity("c1", "client"), SETTINGS)
    world.stack.callback(client.close)
    with pytest.raises(NotFoundError, match=r"service inference has no method 'train\.models'"):
        client.call("models", m.TaskRequest(task="t"))


def test_a_server_takes_no_handler_that_the_table_does_not_name(world: World) -> None:
    with pytest.raises(InvalidInputError, match="eval"):
        Server("inference", {"eval": job_reply}, world.identity(), SETTINGS, "127.0.0.1", 0)


def test_a_request_over_the_frame_limit_never_leaves_and_a_reply_over_it_is_an_error_of_its_own(world: World) -> None:
    small = msgspec.structs.replace(SETTINGS, max_frame_bytes=65536)
    server = world.server({"job": lambda request, peer: job_reply(m.JobKey(task="t" * 70000, job_id=""), peer)}, settings=small)
    client = world.client(server, settings=small)
    with pytest.raises(TooLargeError, match="smaller batches"):
        client.call("job", m.JobKey(task="t" * 70000, job_id="j"))
    with pytest.raises(TooLargeError, match="ask for less"):
        client.call("job", KEY)
    client.ping()


def test_a_call_ends_at_its_deadline_and_the_client_goes_on(world: World) -> None:
    go_on = threading.Event()

    def job(request: m.JobKey, peer: Peer) -> m.JobReply:
        if request.job_id == "slow":
            go_on.wait(30)
        return job_reply(request, peer)

    client = world.client(world.server({"job": job}))
    with pytest.raises(DeadlineError):
        client.call("job", m.JobKey(task="t", job_id="slow"), deadline_s=0.2)
    assert isinstance(client.call("job", KEY), m.JobReply)
    go_on.set()


def test_a_slow_call_delays_no_other_call_of_the_same_client(world: World) -> None:
    go_on, is_in = threading.Event(), threading.Event()

    def job(request: m.JobKey, peer: Peer) -> m.JobReply:
        if request.job_id == "slow":
            is_in.set()
            assert go_on.wait(30)
        return job_reply(request, peer)

    client = world.client(world.server({"job": job}))
    slow = threading.Thread(target=client.call, args=("job", m.JobKey(task="t", job_id="slow")))
    slow.start()
    assert is_in.wait(10)
    for _ in range(20):
        client.call("job", KEY)
    assert slow.is_alive()
    go_on.set()
    slow.join()


def test_many_threads_share_one_client_and_each_gets_its_own_answer(world: World) -> None:
    client = world.client(world.server({"job": job_reply}))
    wrong: list[object] = []

    def work(worker: int) -> None:
        for n in range(25):
            reply = client.call("job", m.JobKey(task=f"t{worker}", job_id=f"j{n}"))
            if not isinstance(reply, m.JobReply) or (reply.task, reply.job_id) != (f"t{worker}", f"j{n}"):
                wrong.append(reply)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_no_more_handlers_run_at_once_than_worker_threads_and_the_next_caller_hears_busy(world: World) -> None:
    go_on, is_in = threading.Event(), threading.Event()

    def job(request: m.JobKey, peer: Peer) -> m.JobReply:
        is_in.set()
        assert go_on.wait(30)
        return job_reply(request, peer)

    server = world.server({"job": job}, settings=msgspec.structs.replace(SETTINGS, worker_threads=1, deadline_s=0.2))
    client = world.client(server)
    first = threading.Thread(target=client.call, args=("job", KEY))
    first.start()
    assert is_in.wait(10)
    with pytest.raises(BusyError, match="all 1 workers"):
        client.call("job", KEY)
    go_on.set()
    first.join()


class Dropper:
    """A TLS server that reads one request of each connection and hangs up: what a crash in mid-call looks like."""

    def __init__(self, world: World) -> None:
        self.requests = 0
        self._context = server_context(world.identity())
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        world.stack.callback(self._end)

    def _run(self) -> None:
        while True:
            plain, _ = self._listener.accept()
            with self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as tls:
                try:
                    tls.do_handshake()
                except OSError:
                    return
                assert tls.recv(65536)
                self.requests += 1

    def _end(self) -> None:
        with socket.create_connection(parse_address(self.address)) as last:
            last.sendall(b"end")
        self._thread.join()
        self._listener.close()


@pytest.mark.parametrize(
    ("service", "method", "request_", "times"),
    [
        ("inference", "job", KEY, 4),
        ("train", "train", m.TrainRequest(task="t"), 1),
        ("train", "rollback", m.TaskRequest(task="t"), 1),
    ],
)
def test_only_an_idempotent_call_is_sent_again_after_the_peer_broke_off(
    world: World, service: str, method: str, request_: m.Message, times: int
) -> None:
    dropper = Dropper(world)
    client = Client(dropper.address, service, world.identity("c1", "client"), SETTINGS)
    world.stack.callback(client.close)
    with pytest.raises(UnreachableError):
        client.call(method, request_)
    assert dropper.requests == times


def test_an_error_that_the_peer_answers_is_never_repeated_even_when_it_says_unreachable(world: World) -> None:
    calls: list[int] = []

    def job(request: m.JobKey, peer: Peer) -> m.JobReply:
        calls.append(1)
        raise UnreachableError("the broker does not answer")

    with pytest.raises(UnreachableError, match="broker"):
        world.client(world.server({"job": job})).call("job", KEY)
    assert len(calls) == 1


def test_nobody_at_the_address_is_unreachable_and_names_the_address(world: World) -> None:
    server = world.server({"job": job_reply})
    address = address_of(server)
    server.close()
    client = Client(address, "inference", world.identity("c1", "client"), SETTINGS)
    with pytest.raises(UnreachableError, match=address):
        client.call("job", KEY)


def test_a_client_reconnects_after_its_server_was_restarted_even_for_a_call_that_must_not_repeat(world: World) -> None:
    handlers = {"train": lambda request, peer: m.TrainReply(run=1, reason="ok")}
    server = world.server(handlers, "train")
    host, port = server.address
    client = world.client(server)
    assert client.call("train", m.TrainRequest(task="t")) == m.TrainReply(run=1, reason="ok")
    server.close()
    again = Server("train", handlers, world.identity(), SETTINGS, host, port)
    again.listen()
    again.start()
    world.stack.callback(again.close)
    assert client.call("train", m.TrainRequest(task="t")) == m.TrainReply(run=1, reason="ok")


def test_close_lets_a_running_call_answer_and_leaves_no_thread(world: World) -> None:
    go_on, is_in = threading.Event(), threading.Event()

    def job(request: m.JobKey, peer: Peer) -> m.JobReply:
        is_in.set()
        assert go_on.wait(30)
        return job_reply(request, peer)

    server = world.server({"job": job})
    client = world.client(server)
    client.ping()
    answers: list[m.Message] = []
    caller = threading.Thread(target=lambda: answers.append(client.call("job", KEY)))
    caller.start()
    assert is_in.wait(10)
    closer = threading.Thread(target=server.close)
    closer.start()
    go_on.set()
    closer.join()
    caller.join()
    assert [type(answer) for answer in answers] == [m.JobReply]
    assert [t.name for t in threading.enumerate() if t.name.startswith("wire-")] == []


def test_a_closed_client_refuses_calls_and_keeps_no_connection(world: World) -> None:
    server = world.server({"job": job_reply})
    client = world.client(server)
    client.call("job", KEY)
    client.close()
    with pytest.raises(UnreachableError, match="closed"):
        client.call("job", KEY)


def test_two_forked_children_answer_on_the_port_that_was_bound_before(world: World) -> None:
    server = Server("inference", {"job": lambda r, p: job_reply(m.JobKey(task=str(os.getpid()), job_id=""), p)}, world.identity(),
                    SETTINGS, "127.0.0.1", 0)  # fmt: skip
    server.listen()
    stop_r, stop_w = os.pipe()
    children = [_fork_server(server, stop_r) for _ in range(2)]
    try:
        seen: set[str] = set()
        for _ in range(400):
            client = world.client(server)
            reply = client.call("job", KEY)
            client.close()
            assert isinstance(reply, m.JobReply)
            seen.add(reply.task)
            if len(seen) == 2:
                break
        assert seen == {str(pid) for pid in children}
    finally:
        os.write(stop_w, b"xx")
        codes = [os.waitpid(pid, 0)[1] for pid in children]
        os.close(stop_r)
        os.close(stop_w)
        server.close()
    assert codes == [0, 0]


def _fork_server(server: Server, stop: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        server.start()
        os.read(stop, 1)
        server.close()
        code = int(any(t.name.startswith("wire-") for t in threading.enumerate()))
    finally:
        os._exit(code)


def test_a_forked_child_uses_connections_of_its_own_and_leaves_the_parents_open(world: World) -> None:
    client = world.client(world.server({"job": job_reply}))
    client.call("job", KEY)
    ((line, _),) = client._idle
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for _ in range(5):
                assert isinstance(client.call("job", m.JobKey(task="child", job_id="j")), m.JobReply)
            client.close()
            code = 0
        finally:
            os._exit(code)
    for _ in range(20):
        reply = client.call("job", KEY)
        assert isinstance(reply, m.JobReply)
        assert reply.task == "birds"
    assert os.waitpid(pid, 0)[1] == 0
    client.call("job", KEY)
    assert [kept for kept, _ in client._idle] == [line]


def test_an_idle_peer_is_closed_after_the_idle_timeout_and_its_client_does_not_notice(world: World) -> None:
    server = world.server({"job": job_reply}, settings=msgspec.structs.replace(SETTINGS, idle_timeout_s=0.2))
    raw = world.raw(server)
    raw.request(1, (1, (b"hello",)))
    assert raw.receive() == (2, 7, (1, b"hello"))
    assert raw.is_closed()
    client = world.client(server)
    client.call("job", KEY)
    assert raw.is_closed()
    client.call("job", KEY)


def test_the_readers_brine_is_rpycs_brine() -> None:
    assert brine.load(brine.dump((7, (1, (b"x", "y", None, 300))))) == (7, (1, (b"x", "y", None, 300)))
