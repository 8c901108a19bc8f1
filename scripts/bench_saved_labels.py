"""`bench saved-labels`: how many labels each strategy needs on real data beside random, from the raw packages to the table.

Owns the list of data sets and how each is asked. Must never compare curves of different settings: random runs in the same cells.
What is done is kept in --out, so a run that was stopped goes on. Called by `scripts/bench saved-labels` and by hand.

    scripts/bench saved-labels [--only NAME] [--strategies A,B] [--seeds 5] [--jobs N] [--out DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from scripts.simulation.command import CACHE
from scripts.simulation.datasets import Request, open_data
from scripts.simulation.picture import draw
from scripts.simulation.plan import plan_cells
from scripts.simulation.report import Report, make_report, table_rows
from scripts.simulation.running import work_here

STRATEGIES = "random,auto,margin,badge,entropy,typiclust"


class Ground(NamedTuple):
    """One data set and how it is asked: `items` used (0 = all), labels a round and in all."""

    dataset: str
    items: int
    batch: int
    budget: int


GROUNDS = (
    Ground("digits", 0, 10, 600),
    Ground("r8", 0, 20, 800),
    Ground("letters", 0, 50, 2000),
    Ground("fashion", 12_500, 50, 1500),
    Ground("newsgroups", 10_000, 50, 3000),
)


def measure(ground: Ground, args: argparse.Namespace) -> Report:
    """Return the report of one data set."""
    folder, data = open_data(Request(dataset=ground.dataset, items=ground.items), args.out, CACHE)
    asked = argparse.Namespace(
        strategies=args.strategies,
        seeds=args.seeds,
        algorithm="logistic-regression",
        batch=ground.batch,
        initial=0,
        budget=ground.budget,
        exploration=args.exploration,
        held_out=0.0,
    )
    cells = plan_cells(asked, data)
    work_here(folder, cells, args.jobs)
    report = make_report(folder, data.info, (len(data.x), len(data.test_x)), cells)
    (args.out / f"{report.data.name}.svg").write_text(draw(report), encoding="utf-8")
    return report


def markdown(report: Report) -> str:
    """Return the table of one data set for docs/benchmarks.md."""
    head, *rows = table_rows(report)
    lines = [head, ["---"] * len(head), *rows]
    sizes = f"pool {report.items:,}, test {report.test_items:,}, {report.batch} labels a round up to {report.budget:,}"
    title = f"**{report.data.name}**: {sizes}, whole pool {report.full_score:.3f}, {report.seeds} seeds"
    return "\n".join([title, "", *("| " + " | ".join(line) + " |" for line in lines)])


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark, print each table as it is done, and return the reports by data set."""
    names = [ground.dataset for ground in GROUNDS]
    parser = argparse.ArgumentParser(prog="bench saved-labels")
    parser.add_argument("--only", choices=names, action="append")
    parser.add_argument("--strategies", default=STRATEGIES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--exploration", type=float, default=0.05)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=CACHE.parent / "saved-labels")
    args = parser.parse_args(list(argv))
    args.out.mkdir(parents=True, exist_ok=True)
    reports: dict[str, Any] = {}
    for ground in GROUNDS:
        if args.only is None or ground.dataset in args.only:
            report = measure(ground, args)
            print(markdown(report) + "\n", file=sys.stderr, flush=True)
            reports[ground.dataset] = msgspec.to_builtins(report)
    return {"reports": reports}


if __name__ == "__main__":
    main(sys.argv[1:])
