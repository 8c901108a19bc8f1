"""`bench learning`: the mathematics of learning/ against bare numpy and against the libraries people use today, in the same run.

Owns the list of sections and nothing of their work: each `scripts/bench_learning_NAME.py` has a `figures()`. Called by
`scripts/bench learning` and by hand.

    scripts/bench learning [--only NAME] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def sections() -> tuple[str, ...]:
    """Return the names of the sections that are there: 'query' is scripts/bench_learning_query.py."""
    return tuple(sorted(path.stem.removeprefix("bench_learning_") for path in Path(__file__).parent.glob("bench_learning_*.py")))


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Run the sections and return their figures by name."""
    parser = argparse.ArgumentParser(prog="bench learning")
    parser.add_argument("--only", choices=sections(), action="append")
    args = parser.parse_args(list(argv))
    figures: dict[str, Any] = {}
    for name in args.only or sections():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the rivals' own
            figures[name] = importlib.import_module(f"scripts.bench_learning_{name}").figures()
    return figures


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:]), indent=2))
