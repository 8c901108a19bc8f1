"""The logic of `scripts/bench team`: what counts as measured, as lost and as doubled, and how an answer is read off the wire."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any

import pytest

from scripts import web_bench
from scripts.bench_team import faults, main
from scripts.team_load import Link, Load, RefusedError, Saved, run_team, summary
from scripts.team_stack import differences


@pytest.mark.parametrize(
    ("acknowledged", "found", "lost", "doubled", "unknown"),
    [
        ([("a", "owl"), ("b", "tit")], [("b", "tit"), ("a", "owl")], 0, 0, 0),
        ([("a", "owl"), ("b", "tit")], [("a", "owl")], 1, 0, 0),
        ([("a", "owl")], [("a", "owl"), ("a", "owl")], 0, 1, 0),
        ([("a", "owl")], [("a", "tit")], 1, 0, 1),
        ([], [("a", "owl")], 0, 0, 1),
    ],
)
def test_labels_are_compared_one_by_one(
    acknowledged: list[tuple[str, str]], found: list[tuple[str, str]], lost: int, doubled: int, unknown: int
) -> None:
    told = differences(acknowledged, found)
    assert told == {"labels": len(found), "lost": lost, "doubled": doubled, "unknown": unknown}


def test_each_fault_is_named() -> None:
    clean = {"labels": 3, "lost": 0, "doubled": 0, "unknown": 0}
    assert faults("paced", {"errors": 0, "export": clean, "cluster": clean}) == []
    said = faults("paced", {"errors": 2, "export": clean, "cluster": {**clean, "lost": 1}})
    assert said == ["paced: 2 errors", "paced: 1 labels lost in the cluster"]


def test_only_what_lies_within_the_measured_seconds_counts() -> None:
    saved = [
        Saved("warm", "owl", 9.9, 0.2),
        Saved("a", "owl", 10.0, 0.1),
        Saved("b", "owl", 11.0, 0.3),
        Saved("late", "owl", 11.9, 0.2),
    ]
    told = summary(Load(saved, ["one"], 10.0, 12.0))
    assert told == {"labels": 2, "labels_per_s": 1.0, "p50_ms": 200.0, "p99_ms": 298.0, "max_ms": 300.0, "errors": 1}


def test_nothing_measured_is_no_figure() -> None:
    with pytest.raises(SystemExit, match="no item was left"):
        summary(Load([], ["no item was left"], 0.0, 1.0))


class _Desk:
    """Labels at once; fails or runs dry at the given turn."""

    def __init__(self, fails_at: int = -1, dry_at: int = -1) -> None:
        self._fails_at, self._dry_at, self.n, self.is_closed = fails_at, dry_at, 0, False

    async def first(self) -> Any:
        return 0

    async def submit_and_next(self, item: Any) -> tuple[str, str, Any]:
        if item == self._fails_at:
            raise RefusedError("409")
        self.n += 1
        await asyncio.sleep(0.001)
        return f"item-{item}", "owl", None if item == self._dry_at else item + 1

    def close(self) -> None:
        self.is_closed = True


def test_an_annotator_that_is_refused_stops_and_the_others_go_on() -> None:
    desks = [_Desk(fails_at=2), _Desk(dry_at=3), _Desk()]
    load = run_team(desks, 0.0, 0.0, 0.2, lambda _: None)
    assert sorted(load.errors) == ["RefusedError: 409", "no item was left"]
    assert [desk.n for desk in desks[:2]] == [2, 4]
    assert desks[2].n > 4
    assert len(load.saved) == sum(desk.n for desk in desks)
    assert all(desk.is_closed for desk in desks)


def test_a_pause_keeps_each_annotator_to_its_pace() -> None:
    desk = _Desk()
    began_s = time.monotonic()
    run_team([desk], 0.1, 0.0, 0.35, lambda _: None)
    assert 1 <= desk.n <= 1 + (time.monotonic() - began_s) / 0.1


ANSWERS = {
    "a length": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + b'{"n": 12}',
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n" + b'{"n"\r\n5\r\n: 12}\r\n0\r\n\r\n',
    "the end": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b'{"n": 12}',
}


class _Server(threading.Thread):
    """Gives every request on one connection after the other the same bytes; a connection ends after an answer that says close."""

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self._answer, self._listener = answer, socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        self.start()

    def run(self) -> None:
        while True:
            link, _ = self._listener.accept()
            with link:
                self.connections += 1
                while asked := link.recv(65536):
                    if b"/stop" in asked:
                        self._listener.close()
                        return
                    link.sendall(self._answer)
                    if b"close" in self._answer:
                        break

    def stop(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as link:
            link.sendall(b"/stop")
        self.join()


def _ask(answer: bytes, times: int) -> tuple[list[Any], int]:
    async def ask() -> list[Any]:
        link = Link(server.port, {"Authorization": "Token t"})
        try:
            return [await link.call("POST", "/x", {"x": 1}) for _ in range(times)]
        finally:
            link.close()

    server = _Server(answer)
    try:
        return asyncio.run(ask()), server.connections
    finally:
        server.stop()


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_ends_where_its_head_says_and_the_connection_is_kept(name: str) -> None:
    said, connections = _ask(ANSWERS[name], 2)
    assert said == [{"n": 12}, {"n": 12}]
    assert connections == (2 if name == "the end" else 1)


def test_a_refusal_tells_what_the_server_said() -> None:
    with pytest.raises(RefusedError, match="POST /x: 409 b'gone'"):
        _ask(b"HTTP/1.1 409 Conflict\r\nContent-Length: 4\r\n\r\ngone", 1)


def test_an_unknown_setting_is_refused_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--settings", "paced,fast"])
    assert "['fast']: there are flat-out, paced" in capsys.readouterr().err


def test_memory_is_judged_beside_a_tenth() -> None:
    told = web_bench.beside({"peak_mib": 100.0}, {"peak_mib": 104.0, "rows": 10})
    assert told == {"peak_mib": 104.0, "rows": 10, "peak_mib_at_a_tenth": 100.0, "memory_times": 1.04}
