"""Structured logs: every line carries node, role, task and run.

Owns the format. Must never log a key, token or cookie: secrets are passed in files, not in arguments. Called once by each
composition root; everybody else uses `logging.getLogger(__name__)`.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import sys
import time
from collections.abc import Iterator
from typing import TextIO

import msgspec

from labelloop.settings import LogSettings

_FIELDS = ("node", "role", "task", "run")
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127)} | {10: "\\n"}  # what a peer said must not forge a line
_context: contextvars.ContextVar[dict[str, str] | None] = contextvars.ContextVar("labelloop_log_context", default=None)


@contextlib.contextmanager
def log_context(**fields: str) -> Iterator[None]:
    """Add `node`, `role`, `task` or `run` to every line logged inside the block."""
    token = _context.set({**(_context.get() or {}), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def set_process_context(**fields: str) -> None:
    """Set `node` and `role` for the whole process (threads started later included, through the root handler)."""
    _process.update(fields)


_process: dict[str, str] = {}


class _Format(logging.Formatter):
    def __init__(self, is_json: bool) -> None:
        super().__init__()
        self.is_json = is_json

    def format(self, record: logging.LogRecord) -> str:
        fields = {**_process, **(_context.get() or {})}
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        text = record.getMessage().translate(_CONTROLS)
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if self.is_json:
            line = {"time": when, "level": record.levelname, "logger": record.name, "message": text}
            return msgspec.json.encode({**line, **{f: fields.get(f, "-") for f in _FIELDS}}).decode()
        where = " ".join(f"{f}={fields.get(f, '-')}" for f in _FIELDS)
        return f"{when} {record.levelname:<7} {where} {record.name}: {text}"


def set_up_logs(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Send the root logger's lines to `stream` (stderr) in the house format, replacing what was there."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Format(settings.is_json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level)
