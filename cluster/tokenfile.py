"""The file into which start.sh moves a token of its command line: gone when the command that takes it ends, however it ends.

Owns the removal of that file. Must never read it. Called by the parsers of `labelloop node` and `labelloop web-stack`.
"""

from __future__ import annotations

import argparse
import atexit
from pathlib import Path
from typing import Any


def add_token_once(parser: Any) -> None:
    """Add `--token-once FILE`, which people never type: from the moment it is parsed the file goes when this process does.

    A process that becomes another one (exec) removes the file itself.
    """
    parser.add_argument("--token-once", type=_take, help=argparse.SUPPRESS)


def _take(name: str) -> Path:
    path = Path(name)
    atexit.register(path.unlink, missing_ok=True)
    return path
