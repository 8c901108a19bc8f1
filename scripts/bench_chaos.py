"""`bench chaos`: every fault of the table against a lab of 3 train and 4 inference dockers while labels and items flow.

Owns the table that is printed. The judgement is that of `scripts.chaos.oracle`, the same after each fault. Called by `scripts/bench
chaos` and by hand; needs root and about 45 minutes for all.

    scripts/bench chaos [--only NAME,NAME] [--nodes 3+4] [--share 1.0] [--trials FILE] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from labelloop.logs import set_up_logs
from labelloop.settings import LogSettings
from scripts.chaos.faults import find_faults
from scripts.chaos.stage import parse_nodes, staged
from scripts.chaos.streams import Sizes
from scripts.chaos.trial import Outcome, run_trial

_DISK_BYTES = 512 * 2**20
_ROW = "{:<24} {:>5} {:>7} {:>10} {:>6} {:>8} {:>8}  {}"


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Run the table and return one row a fault."""
    parser = argparse.ArgumentParser(prog="bench chaos")
    parser.add_argument("--only", default="", help="faults by name, separated by commas")
    parser.add_argument("--nodes", default="3+4", help="train + inference dockers (default 3+4)")
    parser.add_argument("--share", type=float, default=1.0, help="share of 2,000 labels and 5,000 items (default 1.0)")
    parser.add_argument("--patience", type=float, default=180.0, metavar="S", help="seconds until a wait has failed")
    parser.add_argument("--trials", type=Path, metavar="FILE", help="write the outcomes so far there after each fault")
    args = parser.parse_args(list(argv))
    set_up_logs(LogSettings(level="WARNING"))
    faults = find_faults(args.only)
    sizes = Sizes().scaled(args.share)
    outcomes: list[Outcome] = []
    with staged(*parse_nodes(args.nodes), datastore_bytes=_DISK_BYTES) as stage:
        _say(_ROW.format("fault", "lost", "doubled", "unanswered", "wrong", "whole s", "silent s", "what was seen"))
        for number, fault in enumerate(faults):
            began_s = time.monotonic()
            outcome = run_trial(stage.ground, fault.name, fault.hurt, f"chaos-{number}", sizes, args.patience, fault.most_s)
            outcomes.append(outcome)
            _say(row_of(outcome) + f" [{time.monotonic() - began_s:.0f} s]")
            if args.trials is not None:
                args.trials.write_text(json.dumps({"trials": [_plain(o) for o in outcomes]}, indent=2) + "\n", encoding="utf-8")
        peak = stage.lab.memory_bytes()
    good = sum(outcome.is_good for outcome in outcomes)
    return {
        "nodes": args.nodes,
        "labels": sizes.outbox + sizes.raw,
        "items": sizes.calls + sizes.jobs,
        "good": good,
        "of": len(outcomes),
        "ratio": round(good / len(outcomes), 3),
        "peak_memory_gib": round(peak / 2**30, 2),
        "trials": [_plain(outcome) for outcome in outcomes],
    }


def row_of(outcome: Outcome) -> str:
    """Return one line of the table; `seen` is what the fault saw, or why the trial failed."""
    verdict = outcome.verdict
    counts = (len(verdict.lost), len(verdict.doubled), len(verdict.unanswered), len(verdict.wrong))
    words = f"FAILED: {outcome.trouble}" if outcome.trouble else outcome.seen
    words += "".join(f"; {sentence}" for sentence in verdict.wrong[:2])
    if outcome.retryable:
        words += "; " + ", ".join(f"{n} {code}" for code, n in sorted(outcome.retryable.items()))
    return _ROW.format(outcome.fault, *counts, outcome.whole_s, outcome.silence_s, words)


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {**msgspec.to_builtins(outcome), "is_good": outcome.is_good}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:]), indent=2))
