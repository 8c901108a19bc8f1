"""How far each host is: a table that redraws itself on a terminal, one line a change elsewhere.

Owns that output. Must never hold a decision. Called by `cluster.up` from many threads: `_lock` guards the rows.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any, Self

_WIDTH = 100


class Progress:
    """Shows the rows named `labels` from `with` to its end; standard output stays free for the result."""

    def __init__(self, labels: Sequence[str], is_silent: bool = False) -> None:
        self._lock = threading.Lock()
        self._rows = dict.fromkeys(labels, ("waiting", ""))
        self._is_silent = is_silent
        self._live: Any = None

    def __enter__(self) -> Self:
        if not self._is_silent and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(self._table(), console=Console(stderr=True), refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            live, self._live, self._is_silent = self._live, None, True  # threads that an interrupt left behind say no more
        if live is not None:
            live.stop()

    def say(self, label: str, text: str) -> None:
        """Tell what a host is at."""
        self._show(label, text, "")

    def end(self, label: str, text: str, is_good: bool) -> None:
        """Tell how it went."""
        self._show(label, text, "green" if is_good else "red")

    def _show(self, label: str, text: str, style: str) -> None:
        text = " ".join(text.split())
        with self._lock:
            if self._rows[label] == (text, style):
                return
            self._rows[label] = (text, style)
            if self._live is not None:
                self._live.update(self._table())
            elif not self._is_silent:
                sys.stderr.write(f"{label}: {text}\n")
                sys.stderr.flush()

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, padding=(0, 2))
        for label, (text, style) in self._rows.items():
            table.add_row(Text(label, style="bold"), Text(text[-_WIDTH:], style=style or "dim"))
        return table
