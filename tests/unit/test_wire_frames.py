"""Frames and brine as pure functions of bytes: agreement with rpyc's own encoder, and every limit."""

from __future__ import annotations

import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rpyc.core import brine
from rpyc.core.channel import Channel
from rpyc.core.stream import SocketStream

from labelloop.errors import TooLargeError
from labelloop.wire_frames import HEADER, MAX_NODES, BrineReader, FrameChannel, FrameError, long_tail

LEAVES = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.binary(max_size=400) | st.text(max_size=80)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=6).map(tuple), max_leaves=12)


@given(VALUES)
def test_what_rpyc_writes_we_read_as_rpyc_does(value: Any) -> None:
    assert BrineReader(memoryview(brine.dump(value))).read() == value


@given(st.binary(max_size=200))
def test_any_bytes_are_either_a_value_that_rpyc_reads_too_or_a_frame_error(data: bytes) -> None:
    try:
        value = BrineReader(memoryview(data)).read()
    except FrameError:
        return
    assert brine.load(data) == value


@given(st.binary(min_size=0, max_size=300_000))
def test_a_payload_behind_a_head_reads_as_the_heads_last_value(payload: bytes) -> None:
    head = long_tail(brine.dump((7, (1, ("name", (b"",))))), len(payload))
    seq, (label, (name, (data,))) = BrineReader(memoryview(head + payload)).read()
    assert (seq, label, name, bytes(data)) == (7, 1, "name", payload)


def test_a_head_that_does_not_end_in_empty_bytes_takes_no_tail() -> None:
    with pytest.raises(FrameError):
        long_tail(brine.dump((7, b"x")), 5)


@pytest.mark.parametrize(
    "body",
    [
        brine.dump((1,) * MAX_NODES),
        b"\x10" * 100 + b"\x51",
        b"\x15\xff\xff\xff\xff",
        b"\x0f\xff\xff\xff\xff",
        brine.dump((1, 2)) + b"x",
        brine.dump("text" * 100)[:-1],
        brine.dump(1.5),
        brine.dump(frozenset((1, 2))),
        brine.dump(slice(1, 2)),
        b"\x08\x51",
        b"\x08\x0b\xff\xff",
        b"\x16\x03abc",
        b"\x17\xff\xff\xff\xff",
        b"\xf0",
        b"",
    ],
)
def test_bodies_that_are_too_much_cut_short_or_of_other_types_are_refused(body: bytes) -> None:
    with pytest.raises(FrameError):
        BrineReader(memoryview(body)).read()


# ---------------------------------------------------------------- channel, on a plain socket pair


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, FrameChannel]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    theirs.settimeout(10)
    with ours, theirs:
        yield ours, FrameChannel(cast(Any, theirs), 2**22)


def feed(sender: socket.socket, data: bytes) -> threading.Thread:
    thread = threading.Thread(target=sender.sendall, args=(data,))
    thread.start()
    return thread


@pytest.mark.parametrize("size", [1, 5, 16 * 1024, 65536, 2**20 - 1, 2**20, 2**21 + 3])
def test_rpycs_channel_and_ours_understand_each_other(pair: tuple[socket.socket, FrameChannel], size: int) -> None:
    other, channel = pair
    theirs = Channel(SocketStream(other), compress=True)
    body = bytes(i % 251 for i in range(size))
    sender = threading.Thread(target=theirs.send, args=(body,))
    sender.start()
    assert bytes(channel.recv()) == body
    sender.join()
    sender = threading.Thread(target=channel.send, args=(body[:3], body[3:]))
    sender.start()
    assert theirs.recv() == body
    sender.join()


def test_a_frame_of_exactly_the_limit_passes_and_one_byte_more_is_refused_from_the_header(
    pair: tuple[socket.socket, FrameChannel],
) -> None:
    sender, channel = pair
    thread = feed(sender, HEADER.pack(2**22, 0) + bytes(2**22) + b"\n")
    assert len(channel.recv()) == 2**22
    thread.join()
    sender.sendall(HEADER.pack(2**22 + 1, 0))
    with pytest.raises(TooLargeError, match="4194305"):
        channel.recv()


@pytest.mark.parametrize("extra", [0, 1])
def test_inflating_stops_at_the_frame_limit(pair: tuple[socket.socket, FrameChannel], extra: int) -> None:
    sender, channel = pair
    packed = zlib.compress(bytes(2**22 + extra))
    sender.sendall(HEADER.pack(len(packed), 1) + packed + b"\n")
    if extra:
        with pytest.raises(TooLargeError, match="inflates"):
            channel.recv()
    else:
        assert len(channel.recv()) == 2**22


@pytest.mark.parametrize(
    "make",
    [
        lambda: HEADER.pack(0, 0) + b"\n",
        lambda: HEADER.pack(3, 2) + b"abc\n",
        lambda: HEADER.pack(3, 0) + b"abcX",
        lambda: HEADER.pack(3, 1) + b"abc\n",
        lambda: HEADER.pack(12, 1) + zlib.compress(b"hello, hello, hello")[:12] + b"\n",
        lambda: HEADER.pack(20, 1) + zlib.compress(b"hello").ljust(20, b"x") + b"\n",
    ],
)
def test_frames_that_are_none_are_refused(pair: tuple[socket.socket, FrameChannel], make: Callable[[], bytes]) -> None:
    sender, channel = pair
    sender.sendall(make())
    with pytest.raises(FrameError):
        channel.recv()


@pytest.mark.parametrize(("sent", "error"), [(b"", EOFError), (b"\x00", FrameError), (HEADER.pack(9, 0) + b"abc", FrameError)])
def test_an_end_between_frames_is_an_end_and_inside_one_a_broken_frame(
    pair: tuple[socket.socket, FrameChannel], sent: bytes, error: type[Exception]
) -> None:
    sender, channel = pair
    sender.sendall(sent)
    sender.close()
    with pytest.raises(error):
        channel.recv()


def test_a_peer_that_dribbles_a_frame_runs_out_of_time(pair: tuple[socket.socket, FrameChannel]) -> None:
    sender, channel = pair
    channel.frame_timeout_s = 0.0
    sender.sendall(HEADER.pack(9, 0))
    feed(sender, b"a").join()
    with pytest.raises(TimeoutError):
        channel.recv()


def test_a_frame_over_the_limit_is_not_sent(pair: tuple[socket.socket, FrameChannel]) -> None:
    sender, channel = pair
    with pytest.raises(TooLargeError):
        channel.send(b"head", bytes(2**22))
    sender.setblocking(False)
    with pytest.raises(BlockingIOError):
        sender.recv(1)
