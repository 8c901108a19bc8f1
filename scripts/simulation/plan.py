"""From the arguments of a person to the list of cells, each checked before the first one runs.

Owns the defaults. Must never work a cell. Called by `scripts.simulation.command` and by the benchmark.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import msgspec

from intake.encoders import find_encoder
from labelloop.errors import InvalidInputError
from learning.algorithms import default_algorithm, find_algorithm
from learning.cycle.asking import QuerySelector
from learning.cycle.simulation import FULL, Cell, Data
from scripts.simulation.report import RANDOM

DEFAULT_BUDGET = 500


def plan_cells(args: argparse.Namespace, data: Data) -> list[Cell]:
    """Return the cells of a simulation: the whole pool's, then each strategy with each seed, random first.

    Raises InvalidInputError, NotFoundError naming the argument at fault.
    """
    names = list(dict.fromkeys([RANDOM, *(name.strip() for name in args.strategies.split(",") if name.strip())]))
    for name in names:
        QuerySelector(name, args.exploration)
    if args.seeds < 1 or args.batch < 1 or args.budget < 0 or args.initial < 0:
        raise InvalidInputError("--seeds and --batch must be 1 or more, --budget and --initial not below 0")
    if not 0 <= args.held_out < 0.9:
        raise InvalidInputError(f"--held-out must be in [0, 0.9), got {args.held_out}")
    n = len(data.x)
    budget = args.budget or min(n, DEFAULT_BUDGET)
    initial = args.initial or min(args.batch, budget)
    if not initial <= budget <= n:
        raise InvalidInputError(f"--initial {initial}, --budget {budget} and the {n} items of the pool must rise in this order")
    base = Cell(
        strategy=FULL,
        seed=0,
        algorithm=_algorithm(args.algorithm, data),
        batch=args.batch,
        initial=initial,
        budget=budget,
        exploration=args.exploration,
        held_out_share=args.held_out,
    )
    return [base, *_each(base, names, args.seeds)]


def _each(base: Cell, names: Sequence[str], seeds: int) -> list[Cell]:
    return [msgspec.structs.replace(base, strategy=name, seed=seed) for seed in range(seeds) for name in names]


def _algorithm(name: str, data: Data) -> str:
    if name == "auto":
        category = find_encoder(data.info.encoder).category if data.info.encoder else "tables"
        name = default_algorithm(category, data.info.encoder, is_multilabel=False)
    find_algorithm(name)
    return name
