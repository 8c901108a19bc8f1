"""`scripts/bench team`: a whole team over HTTP on a durable PostgreSQL while every label goes out to the cluster.

Two settings. `flat-out`: 10 annotators without pause at 100,000 items, and in the same run, on the same PostgreSQL, Label Studio
from PyPI with the same team. `paced`: 100 annotators at one label every 2 s, 1,000,000 items. App, pilot and cluster run as in
production, all on this machine; afterwards every acknowledged label must be in the export and in the cluster's label log once.

    scripts/bench team [--settings flat-out,paced] [--items N] [--people N] [--seconds S] [--without-rival] [--venv DIR]
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scripts import label_studio_rival, web_bench
from scripts.postgres import Postgres, running_postgres
from scripts.team_load import Desk, Load, run_team, summary
from scripts.team_stack import running_stack

WARM_S = 5.0
FLAT_OUT, PACED = "flat-out", "paced"


class Setting(NamedTuple):
    """How big the project is, how many people label, and how long each waits between two labels."""

    items: int
    people: int
    pause_s: float
    wanted: dict[str, float]


SETTINGS = {
    FLAT_OUT: Setting(100_000, 10, 0.0, {"times_rival": 50.0}),
    PACED: Setting(1_000_000, 100, 2.0, {"p99_ms": 200.0}),
}


def _say(text: str) -> None:
    print(f"bench team: {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def measure(desks: Sequence[Desk], setting: Setting, seconds: float, say: Callable[[str], None]) -> tuple[Load, dict[str, Any]]:
    """Return what the team did and its figures.

    `cpu_ms_per_label` is what every process on the servers' side used, the database's and the cluster's too: it hardly depends on
    what else the machine does, as seconds do.
    """
    before_s, own_s = web_bench.processor_by_name(os.getpid()), time.process_time()
    load = run_team(desks, setting.pause_s, WARM_S, seconds, say)
    after_s, client_s = web_bench.processor_by_name(os.getpid()), time.process_time() - own_s
    n = max(1, len(load.saved))
    by_process = {name: 1000 * (after_s[name] - before_s.get(name, 0.0)) / n for name in after_s}
    spent = {
        "cpu_ms_per_label": round(sum(by_process.values()), 1),
        "cpu_ms_by_process": {name: round(ms, 2) for name, ms in sorted(by_process.items(), key=lambda one: -one[1]) if ms >= 0.05},
        "client_cpu_ms_per_label": round(1000 * client_s / n, 2),
    }
    return load, {**summary(load), **spent, "load": round(os.getloadavg()[0], 1)}


def run_ours(setting: Setting, seconds: float, postgres: Postgres, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Return our figures in one setting, the count of lost and doubled labels among them."""
    with running_stack(folder, postgres, say) as stack:
        stack.fill(setting.items)
        desks = stack.hire(setting.people)
        stack.warm()
        say(f"{setting.people} annotators begin")
        load, found = measure(desks, setting, seconds, say)
        for error in load.errors[:5]:
            say(f"error: {error}")
        say("waiting until the cluster has every label")
        return {**found, **stack.check(load.saved)}


def run_rival(
    setting: Setting, seconds: float, postgres: Postgres, folder: Path, venv: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return Label Studio's figures in the same setting."""
    say("Label Studio starts and makes its database")
    with label_studio_rival.running_studio(venv, folder, postgres, say) as studio:
        project = studio.fill(setting.items, say)
        postgres.analyze(label_studio_rival.DATABASE)
        desks = studio.hire(setting.people, project)
        say(f"Label Studio: {setting.people} annotators begin")
        load, found = measure(desks, setting, seconds, say)
        for error in load.errors[:5]:
            say(f"Label Studio: error: {error}")
        return {**found, "acknowledged": len(load.saved), "kept": studio.count(project), "version": label_studio_rival.VERSION}


def faults(name: str, found: dict[str, Any]) -> list[str]:
    """Return what must not be: errors, and labels that are not exactly once where they belong."""
    bad = [f"{name}: {found['errors']} errors"] if found["errors"] else []
    for place in ("export", "cluster"):
        counts = found[place]
        bad += [f"{name}: {counts[what]} labels {what} in the {place}" for what in ("lost", "doubled", "unknown") if counts[what]]
    return bad


def run_setting(name: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the figures of one setting: ours, the rival's where it has one, and whether the wish is met."""
    usual = SETTINGS[name]
    setting = usual._replace(items=args.items or usual.items, people=args.people or usual.people)
    seconds = args.seconds or 60.0
    with running_postgres() as postgres:
        ours = run_ours(setting, seconds, postgres, folder / name, _say)
        found: dict[str, Any] = {"items": setting.items, "people": setting.people, "pause_s": setting.pause_s, "ours": ours}
        if "times_rival" in setting.wanted and not args.without_rival:
            rival = run_rival(setting, seconds, postgres, folder / "studio", args.venv, _say)
            times = {"times_rival": round(ours["labels_per_s"] / rival["labels_per_s"], 1)}
            times["times_rival_by_cpu"] = round(rival["cpu_ms_per_label"] / ours["cpu_ms_per_label"], 1)
            found |= {"label_studio": rival, **times}
    return {**found, "wanted": setting.wanted}


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark and return its figures. Raises SystemExit when a label was lost, doubled or refused."""
    parser = argparse.ArgumentParser(prog="scripts/bench team")
    parser.add_argument("--settings", default=f"{FLAT_OUT},{PACED}", help="which of flat-out and paced, separated by commas")
    parser.add_argument("--items", type=int, help="instead of the setting's own number")
    parser.add_argument("--people", type=int, help="instead of the setting's own number")
    parser.add_argument("--seconds", type=float, help="measured seconds of each side (default 60)")
    parser.add_argument("--without-rival", action="store_true", help="leave Label Studio out")
    parser.add_argument("--venv", type=Path, default=label_studio_rival.VENV, help="where Label Studio is or goes")
    args = parser.parse_args(argv)
    names = args.settings.split(",")
    if unknown := set(names) - set(SETTINGS):
        parser.error(f"settings {sorted(unknown)}: there are {', '.join(SETTINGS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers are stopped then too
    with web_bench.bench_folder() as folder:
        found = {name: run_setting(name, args, folder) for name in names}
    bad = [fault for name in names for fault in faults(name, found[name]["ours"])]
    if bad:
        raise SystemExit(f"bench team: {'; '.join(bad)}\n{found}")
    return found
