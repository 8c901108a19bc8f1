"""What crosses a process is validated; errors keep their type and lose their traceback."""

from __future__ import annotations

import io
import logging

import msgspec
import pytest

from labelloop import ids, logs
from labelloop import messages as m
from labelloop.errors import (
    BY_CODE,
    IntegrityError,
    InternalError,
    InvalidInputError,
    LabelloopError,
    PermanentError,
    RetryableError,
    from_code,
)
from labelloop.methods import SERVICES
from labelloop.settings import LogSettings


def test_a_message_survives_the_trip() -> None:
    sample = m.Sample(item_id="图-1", link="data:,x", labels=("a",), draft=m.Draft(labels=("b",), version="v", confidence=0.5))
    request = m.SubmitRequest(task="t", batch_id="b", samples=(sample,))
    assert m.decode(m.SubmitRequest, m.encode(request)) == request


def test_a_wrong_type_is_refused_by_field_name() -> None:
    data = msgspec.msgpack.encode({"schema": 1, "task": "t", "batch_id": 7, "samples": []})
    with pytest.raises(InvalidInputError, match="batch_id"):
        m.decode(m.SubmitRequest, data)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01\x02", b"\x81\xa6schema"])
def test_garbage_bytes_are_one_clear_error(data: bytes) -> None:
    with pytest.raises(InvalidInputError, match="not a valid TaskRequest"):
        m.decode(m.TaskRequest, data)


def test_a_newer_schema_is_refused_and_says_so() -> None:
    with pytest.raises(IntegrityError, match="schema 2"):
        m.decode(m.TaskRequest, msgspec.msgpack.encode({"schema": 2, "task": "t"}))


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_each_error_code_comes_back_as_its_type(code: str) -> None:
    error = from_code(code, "why")
    assert str(error) == "why"
    assert error.code == code or type(error) is LabelloopError


def test_an_unknown_code_is_kept_in_the_sentence() -> None:
    error = from_code("from_the_future", "why")
    assert isinstance(error, InternalError)
    assert "from_the_future" in str(error)


def test_every_error_is_either_retryable_or_permanent() -> None:
    for kind in BY_CODE.values():
        if kind is not LabelloopError:
            assert issubclass(kind, RetryableError) is not issubclass(kind, PermanentError)
            assert kind.is_retryable is issubclass(kind, RetryableError)


def test_every_method_names_its_messages_and_who_may_call() -> None:
    for service, methods in SERVICES.items():
        for name, method in methods.items():
            assert method.name == name, service
            assert method.kinds <= {"node", "ops", "client", "anonymous"}
            assert issubclass(method.request, m.Message)
            assert issubclass(method.reply, m.Message)


@pytest.mark.parametrize("bad", ["", "-a", "A", "a/b", "..", "a" * 64, "a\n", "a.b"])
def test_a_task_name_cannot_leave_its_folder(bad: str) -> None:
    with pytest.raises(InvalidInputError):
        ids.parse_task(bad)


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "a..b", "x" * 129, "a\x00"])
def test_a_token_is_file_safe(bad: str) -> None:
    with pytest.raises(InvalidInputError):
        ids.parse_token(bad, "batch")


@pytest.mark.parametrize("bad", ["", "a\nb", "字" * 90])
def test_an_item_id_is_bounded_and_printable(bad: str) -> None:
    with pytest.raises(InvalidInputError):
        ids.parse_item(bad)


@pytest.mark.parametrize("is_json", [False, True])
def test_each_log_line_names_node_role_task_and_run(is_json: bool) -> None:
    out = io.StringIO()
    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        logs.set_up_logs(LogSettings(is_json=is_json), out)
        with logs.log_context(task="digits", run="3"):
            logging.getLogger("x").info("hello %s", "there")
    finally:
        logging.getLogger().handlers[:], level = before[0], before[1]
        logging.getLogger().setLevel(level)
    line = out.getvalue()
    if is_json:
        assert msgspec.json.decode(line)["task"] == "digits"
    else:
        assert "task=digits run=3" in line
        assert "hello there" in line


def test_what_a_peer_said_forges_no_second_line_of_a_log() -> None:
    out = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.set_up_logs(LogSettings(), out)
        logging.getLogger("x").warning("refused %s", "gpu-1\n2026-01-01T00:00:00.000Z ERROR forged\x1b[2J\r")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert len(out.getvalue().splitlines()) == 1
    assert "gpu-1\\n2026" in out.getvalue()
    assert "\x1b" not in out.getvalue()
