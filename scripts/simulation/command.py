"""`labelloop simulate`: the arguments, the progress on a terminal, the files at the end.

Owns nothing but the order of these. Must never decide what a cell is. Called through scripts.cli.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from labelloop.errors import InvalidInputError, NotReadyError

CACHE = Path.home() / ".cache" / "labelloop" / "samples"
DEFAULT_BUDGET = 500
EPILOG = """examples:
  labelloop simulate digits                                   auto and margin beside random on a built-in set
  labelloop simulate tickets.csv --label team --strategies auto,badge --budget 1000
  labelloop simulate photos/ --encoder efficientnet-lite0     a folder with one folder a class
  labelloop simulate features.npz --jobs 4                    arrays x and y (and test_x, test_y)
  labelloop simulate r8 --cluster /var/lib/labelloop/roles/data-worker.json      on a train node: all train nodes work

The same command again goes on where it was stopped. exit: 0 done, 1 it failed with one sentence, 130 stopped by Ctrl-C"""


def register(subparsers: Any) -> None:
    """Add `simulate`."""
    command = subparsers.add_parser(
        "simulate",
        help="prove a query strategy on data whose labels are all known",
        description="Plays the cycle of asking and training on labelled data, and says how many labels each strategy would save.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("dataset", metavar="DATASET", help="a built-in name (digits, newsgroups, r8, fashion, letters, ...), a file or a folder")
    add("--strategies", default="auto,margin", metavar="A,B", help="by name; random always runs too (default auto,margin)")
    add("--seeds", type=int, default=5, help="how often each strategy runs (default 5)")
    add("--algorithm", default="auto", help="what is trained each round (default: what a new project would use)")
    add("--batch", type=int, default=10, help="labels a round (default 10)")
    add("--budget", type=int, default=0, help=f"labels in all (default {DEFAULT_BUDGET}, or the whole pool if it is smaller)")
    add("--initial", type=int, default=0, help="labels of the first round (default: as --batch)")
    add("--exploration", type=float, default=0.05, help="share of random items among those asked (default 0.05)")
    add("--held-out", type=float, default=0.0, help="share of labels that judges models instead of training them (default 0)")
    add("--encoder", default="auto", help="what makes features of the items (default: what a new project would use)")
    add("--items", type=int, default=0, help="use that many items, drawn by chance (default all)")
    add("--label", default="label", metavar="COLUMN", help="column of the labels in a file (default label)")
    add("--text", default="", metavar="COLUMN", help="column of the texts in a file (default: text, or the only other one)")
    add("--out", type=Path, metavar="DIR", help="folder of results and state (default ./simulation-NAME)")
    add("--jobs", type=int, default=0, help="processes at a time on this machine (default: one a core)")
    add(
        "--cluster", type=Path, metavar="CONFIG", help="let the cluster work: roles/data-worker.json in a train node's state folder"
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Simulate, report, and return the exit status. Raises NotReadyError where packages of the extra `node` are missing."""
    try:
        return _run(args)
    except ModuleNotFoundError as exc:
        raise NotReadyError(f"a simulation needs {exc.name}: pip install -e '.[node]' in the checkout") from exc


def _run(args: argparse.Namespace) -> int:
    from learning.cycle.simulation import check_data
    from scripts.simulation.datasets import Request, open_data
    from scripts.simulation.plan import plan_cells
    from scripts.simulation.report import make_report
    from scripts.simulation.running import work_here

    began_s = time.monotonic()
    if args.jobs < 0:
        raise InvalidInputError(f"--jobs must be 0 (one a core) or more, got {args.jobs}")
    out = args.out or Path(f"simulation-{Path(args.dataset).stem}")
    out.mkdir(parents=True, exist_ok=True)
    request = Request(dataset=args.dataset, encoder=args.encoder, items=args.items, label=args.label, text=args.text)
    try:
        with _progress("features") as show:
            folder, data = open_data(request, out, CACHE, show)
        check_data(data)
        cells = plan_cells(args, data)
        if args.cluster is not None:
            _work_in_cluster(folder, cells, args.cluster)
        else:
            with _cell_progress(folder, cells) as look:
                work_here(folder, cells, args.jobs or len(os.sched_getaffinity(0)), look)
    except KeyboardInterrupt:
        print(f"\nstopped; what is done is kept in {out}: the same command goes on from there", file=sys.stderr)
        return 130
    report = make_report(folder, data.info, (len(data.x), len(data.test_x)), cells)
    _write(out, folder, report, cells)
    _say(report, out, time.monotonic() - began_s)
    return 0


def _work_in_cluster(folder: Path, cells: Sequence[Any], config: Path) -> None:
    from labelloop.settings import read_settings
    from roles.simulate.caller import read_config, work_in_cluster

    found = read_config(config)
    with _progress(f"{len(cells)} cells in the cluster, rounds") as show:
        work_in_cluster(folder, cells, found, read_settings(None), show)


def _write(out: Path, folder: Path, report: Any, cells: Sequence[Any]) -> None:
    from scripts.simulation.picture import draw
    from scripts.simulation.report import write_parquet

    (out / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    (out / "curves.svg").write_text(draw(report), encoding="utf-8")
    try:
        write_parquet(out / "curves.parquet", folder, report.data, cells)
    except NotReadyError as exc:
        print(exc, file=sys.stderr)


def _say(report: Any, out: Path, seconds: float) -> None:
    from scripts.simulation.report import table_rows

    rows = table_rows(report)
    if sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            from rich.console import Console
            from rich.table import Table

            table = Table(*rows[0], title=f"{report.data.name}, {report.algorithm}, whole pool {report.full_score:.3f}")
            for row in rows[1:]:
                table.add_row(*row)
            Console().print(table)
            rows = []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    sizes = f"{report.items} items, {report.test_items} to test, {report.seeds} seeds"
    print(f"{report.data.name}: {sizes}, {seconds:.0f} s; files in {out}")


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield what shows (done, total) on a terminal; elsewhere nothing is shown."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield lambda done, total: None
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


@contextlib.contextmanager
def _cell_progress(folder: Path, cells: Sequence[Any]) -> Iterator[Callable[[], None]]:
    """Yield what looks into the cells' folders and shows the labels given so far."""
    from learning.cycle.simulation import FULL, labels_done

    rest = [cell for cell in cells if cell.strategy != FULL]
    total = sum(cell.budget for cell in rest)
    last_s = float("-inf")
    with _progress(f"{len(rest)} curves") as show:

        def look() -> None:
            nonlocal last_s
            if sys.stderr.isatty() and time.monotonic() - last_s >= 1:
                show(sum(labels_done(folder, cell) for cell in rest), total)
                last_s = time.monotonic()

        yield look
