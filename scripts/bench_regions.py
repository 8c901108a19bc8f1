"""`bench regions`: what people still have to do to boxes and spans when a cluster drafts them, against doing it all themselves.

Owns a cluster of its own in a temporary folder and the oracle's rounds on it. The baseline, in the same run, is the same regions
without drafts: each is one correction. Called by `scripts/bench regions`.

    scripts/bench regions [--samples scenes,entities] [--rounds N] [--batch N] [--pool N] [--test N]
                          [--strategies auto,random] [--cache DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cluster.authority import Authority
from cluster.supervisor import Supervisor
from labelloop.clients import Cluster
from labelloop.errors import LabelloopError, RetryableError
from labelloop.messages import JobKey, ProgressRequest
from labelloop.settings import Settings
from scripts.demo import demo_processes, demo_settings
from scripts.demo_state import prepare_state
from scripts.region_loop import RegionLoop, TrueItem, as_figures
from scripts.samples import Sample, SampleItem, load_sample

_READY_S = 120.0
_WITHOUT = ("web", "pilot")


@contextlib.contextmanager
def running_cluster(state: Path) -> Iterator[Cluster]:
    """Yield a client of a whole cluster below `state`: registry, broker, a train and an inference node; stopped at the end."""
    prepare_state(state, 0)
    settings = demo_settings(state)
    specs = tuple(spec for spec in demo_processes(state, settings) if spec.name not in _WITHOUT)
    supervisor = Supervisor(specs, settings.cluster)
    supervisor.start()
    try:
        with _join(state, settings) as cluster:
            yield cluster
    finally:
        supervisor.stop()


def _join(state: Path, settings: Settings) -> Cluster:
    registry = f"127.0.0.1:{int((state / 'registry-port').read_text())}"
    identity = Authority(state / "registry" / "authority", settings.cluster).own_identity(
        "bench", "127.0.0.1", "client", state / "bench-identity"
    )
    cluster = Cluster(registry, identity, settings.wire)
    until_s = time.monotonic() + _READY_S
    while True:
        if _answers(lambda: cluster.train().progress(ProgressRequest(task="nobody"))) and _answers(
            lambda: cluster.inference().job(JobKey(task="nobody", job_id="none"))
        ):
            return cluster
        if time.monotonic() > until_s:
            cluster.close()
            raise SystemExit(f"the cluster is not ready after {_READY_S:.0f} s: see {state / 'logs'}")
        time.sleep(0.2)


def _answers(call: Callable[[], object]) -> bool:
    try:
        call()
    except RetryableError:
        return False
    except LabelloopError:  # there is no such task
        return True
    return True


def measure(cluster: Cluster, sample: Sample, strategy: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return the rounds of one sample project under one strategy, and what they saved."""
    loop = RegionLoop(
        cluster,
        f"{sample.name}-{strategy.replace('_', '-')}",
        msgspec.convert(sample.category, Any),
        sample.labels,
        [_true(item) for item in sample.pool()[: args.pool]],
        batch=args.batch,
        strategy=strategy,
        patience_s=args.patience,
    )
    test = [_true(item) for item in sample.test()[: args.test]]
    rounds: list[dict[str, Any]] = []
    n_true = n_done = 0
    for _ in range(args.rounds):
        one = loop.round()
        done, f1 = loop.judge(test)
        n_true, n_done = n_true + one.done.n_true, n_done + one.done.total
        rounds.append({**as_figures(one), "test corrections per 100": round(done.per_100, 1), "test f1": round(f1, 4)})
        print(f"{sample.name} {strategy}: {rounds[-1]}", file=sys.stderr, flush=True)
    return {
        "test items": len(test),
        "regions labelled": n_true,
        "corrections with drafts": n_done,
        "corrections without drafts": n_true,
        "ratio": round(n_done / n_true, 4) if n_true else None,
        "rounds": rounds,
    }


def _true(item: SampleItem) -> TrueItem:
    return TrueItem(item.item_id, item.link, item.regions)


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Run the rounds and return their figures."""
    parser = argparse.ArgumentParser(prog="scripts/bench regions")
    parser.add_argument("--samples", default="scenes,entities", help="sample projects with regions (default scenes,entities)")
    parser.add_argument("--strategies", default="auto,random", help="orders of asking (default auto,random)")
    parser.add_argument("--rounds", type=int, default=6, help="trainings (default 6)")
    parser.add_argument("--batch", type=int, default=50, help="items labelled between two trainings (default 50)")
    parser.add_argument("--pool", type=int, default=500, help="items that may be labelled (default 500)")
    parser.add_argument("--test", type=int, default=120, help="items that are never labelled (default 120)")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds to wait for one step (default 600)")
    parser.add_argument("--cache", type=Path, default=Path("state") / "samples", help="where sample projects are kept")
    args = parser.parse_args(argv)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="labelloop-bench-") as folder, running_cluster(Path(folder)) as cluster:
        for name in args.samples.split(","):
            sample = load_sample(name, args.cache)
            figures[name] = {strategy: measure(cluster, sample, strategy, args) for strategy in args.strategies.split(",")}
    return {"regions": figures}
