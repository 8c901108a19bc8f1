"""How a command explains itself: description, examples, exit codes, in the manner of a man page.

Owns that form and the lazy call of a command's work, so that `labelloop status` imports nothing of `labelloop registry`. Must never
import what is slow. Called by the `commands` modules of this room.
"""

from __future__ import annotations

import argparse
import importlib
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

WIDTH = 96
EXITS = (
    ("0", "done"),
    ("1", "failed: one sentence on stderr says why and what to do"),
    ("2", "wrong arguments"),
    ("130", "interrupted"),
)


class Page(NamedTuple):
    """One command. `work` is 'module:function', imported when the command runs; `examples` are (line, what it does).

    `exits` are (status, what it means) where it differs from EXITS.
    """

    name: str
    help: str
    description: str
    examples: tuple[tuple[str, str], ...]
    work: str
    exits: tuple[tuple[str, str], ...] = ()


def add_page(subparsers: Any, page: Page) -> argparse.ArgumentParser:
    """Return the parser of a command that explains itself."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        page.name,
        help=page.help,
        description=textwrap.fill(page.description, WIDTH),
        epilog=f"examples:\n{_table(page.examples)}\n\nexit codes:\n{_table(_exits(page))}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=later(page.work))
    return parser


def _exits(page: Page) -> list[tuple[str, str]]:
    return sorted({**dict(EXITS), **dict(page.exits)}.items(), key=lambda row: int(row[0]))


def later(work: str) -> Callable[[argparse.Namespace], int]:
    """Return a function that imports 'module:function' when it is called."""

    def run(args: argparse.Namespace) -> int:
        module, _, name = work.partition(":")
        return int(getattr(importlib.import_module(module), name)(args) or 0)

    return run


def _table(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(left) for left, _ in rows)
    if width > 40:
        return "\n".join(f"  {left}\n      {right}" for left, right in rows)
    return "\n".join(f"  {left:<{width}}  {right}" for left, right in rows)
