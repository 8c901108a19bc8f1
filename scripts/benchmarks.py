"""`scripts/bench NAME [--json FILE]`: finds scripts/bench_NAME.py, runs its `main(argv)` and keeps its figures.

A benchmark returns plain figures with a ratio against a baseline that it measured in the same run. Called by scripts/bench.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def list_benchmarks() -> tuple[str, ...]:
    """Return the names that `scripts/bench` knows: `bench_infer_cluster.py` is 'infer-cluster'.

    A section of another benchmark (`bench_learning_query.py` beside `bench_learning.py`) is no name of its own.
    """
    names = {path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py")}
    whole = (name for name in names if not any(name.startswith(f"{other}_") for other in names))
    return tuple(sorted(name.replace("_", "-") for name in whole))


def machine() -> dict[str, Any]:
    """Return what a reader needs to judge the figures: processor count and Python's version."""
    return {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}


def _split_json(argv: Sequence[str]) -> tuple[list[str], Path | None]:
    rest = list(argv)
    if "--json" not in rest:
        return rest, None
    at = rest.index("--json")
    if at + 1 >= len(rest):
        raise SystemExit("scripts/bench: --json needs a file")
    path = Path(rest[at + 1])
    del rest[at : at + 2]
    return rest, path


def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark; print its figures as JSON and write them to the file of --json."""
    rest, path = _split_json(sys.argv[1:] if argv is None else argv)
    names = list_benchmarks()
    if not rest or rest[0] in ("-h", "--help"):
        print("usage: scripts/bench NAME [--json FILE] [OPTION ...]\nnames: " + ", ".join(names))
        return 0
    if rest[0] not in names:
        print(f"scripts/bench: no benchmark {rest[0]!r}; there are {', '.join(names)}", file=sys.stderr)
        return 2
    figures = {
        "bench": rest[0],
        "machine": machine(),
        **importlib.import_module(f"scripts.bench_{rest[0].replace('-', '_')}").main(rest[1:]),
    }
    text = json.dumps(figures, indent=2, ensure_ascii=False)
    print(text)
    if path is not None:
        path.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
