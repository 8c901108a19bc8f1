"""What a simulation says: one record for people, machines and pictures.

Owns the figures and their files. Must never train. Called by `scripts.simulation.command` and by the benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from labelloop.errors import NotReadyError
from learning.cycle import savings
from learning.cycle.savings import Band, Crossing, Curve, Ratio
from learning.cycle.simulation import FULL, Cell, Info, read_curve

SHARES = (0.90, 0.95, 0.99)  # of the score that the whole pool gives
RANDOM = "random"


class Point(msgspec.Struct, frozen=True):
    """The scores of all seeds at one number of labels."""

    labels: int
    mean: float
    sd: float
    low: float
    high: float


class Reach(msgspec.Struct, frozen=True):
    """Labels to `share` of the full score; `ratio` to random's, None for random itself."""

    share: float
    labels: Band
    ratio: Ratio | None


class StrategyReport(msgspec.Struct, frozen=True):
    """One strategy: its curve, area under it, what it takes to reach each share, and the verdict on its area beside random's."""

    strategy: str
    curve: tuple[Point, ...]
    area: Band
    reach: tuple[Reach, ...]
    verdict: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole simulation. `full_score`: accuracy on the test part of a model trained on the whole pool."""

    data: Info
    items: int
    test_items: int
    algorithm: str
    batch: int
    initial: int
    budget: int
    exploration: float
    held_out_share: float
    seeds: int
    full_score: float
    strategies: tuple[StrategyReport, ...]
    schema: int = 1


def make_report(folder: Path, info: Info, sizes: tuple[int, int], cells: Sequence[Cell]) -> Report:
    """Return the report of finished `cells` on the data in `folder`; `sizes` are those of pool and test part."""
    full = next(cell for cell in cells if cell.strategy == FULL)
    score = float(read_curve(folder, full)[1][-1])
    names = tuple(dict.fromkeys(cell.strategy for cell in cells if cell.strategy != FULL))
    curves = {name: [read_curve(folder, cell) for cell in cells if cell.strategy == name] for name in names}
    some = next(cell for cell in cells if cell.strategy != FULL)
    return Report(
        data=info,
        items=sizes[0],
        test_items=sizes[1],
        algorithm=full.algorithm,
        batch=some.batch,
        initial=some.initial,
        budget=some.budget,
        exploration=some.exploration,
        held_out_share=some.held_out_share,
        seeds=len(curves[RANDOM]),
        full_score=score,
        strategies=tuple(_strategy(name, curves, score) for name in names),
    )


def _strategy(name: str, curves: dict[str, list[Curve]], full: float) -> StrategyReport:
    mine, base = curves[name], curves[RANDOM]
    areas, base_areas = ([savings.area(curve) for curve in side] for side in (mine, base))
    reach = []
    for share in SHARES:
        found, random = (_crossings(side, share * full) for side in (mine, base))
        reach.append(Reach(share, savings.crossing_band(found), None if name == RANDOM else savings.ratio(found, random)))
    verdict = "" if name == RANDOM else savings.verdict(areas, base_areas)
    return StrategyReport(name, _points(mine), savings.band(areas), tuple(reach), verdict)


def _crossings(curves: Sequence[Curve], target: float) -> list[Crossing]:
    return [savings.crossing(curve, target) for curve in curves]


def _points(curves: Sequence[Curve]) -> tuple[Point, ...]:
    scores = np.array([scores for _, scores in curves])
    rows = zip(curves[0][0], scores.mean(axis=0), scores.std(axis=0), scores.min(axis=0), scores.max(axis=0), strict=True)
    return tuple(Point(int(labels), *(round(float(value), 6) for value in values)) for labels, *values in rows)


def write_parquet(path: Path, folder: Path, info: Info, cells: Sequence[Cell]) -> None:
    """Write every measured point as a row: data, strategy, seed, labels, score. Raises NotReadyError without pyarrow."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as exc:
        raise NotReadyError("no Parquet: it needs pyarrow (pip install pyarrow); JSON has the same figures") from exc
    columns: dict[str, list[object]] = {name: [] for name in ("data", "strategy", "seed", "labels", "score")}
    for cell in cells:
        for labels, score in zip(*read_curve(folder, cell), strict=True):
            row = (info.name, cell.strategy, cell.seed, int(labels), float(score))
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
    parquet.write_table(pyarrow.table(columns), path)


def table_rows(report: Report) -> list[list[str]]:
    """Return the table as text, the head first: labels to each share with its band, the ratio to random, area, verdict."""
    head = ["strategy"]
    for share in SHARES:
        head += [f"labels to {share:.0%}", "of random's"]
    rows = [[*head, "area", "beside random"]]
    for one in report.strategies:
        row = [one.strategy]
        for reach in one.reach:
            row += [show_labels(reach.labels, report.seeds), show_ratio(reach.ratio)]
        rows.append([*row, f"{one.area.mean:.4f} ± {one.area.sd:.4f}", one.verdict])
    return rows


def show_labels(band: Band, seeds: int) -> str:
    """Return a band of labels; '>' and a count tell of seeds that never arrived."""
    missed = f" ({band.censored} of {seeds} never)" if band.censored else ""
    return f"{'>' if band.censored else ''}{band.mean:.0f} ± {band.sd:.0f}{missed}"


def show_ratio(ratio: Ratio | None) -> str:
    """Return a ratio with its bound and its bootstrap band; a ratio of two bounds says nothing."""
    if ratio is None:
        return ""
    if ratio.bound == "?":
        return "unknown"
    mark = {"": "", "<=": "≤ ", ">=": "≥ "}[ratio.bound]
    return f"{mark}{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
