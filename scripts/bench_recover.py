"""`bench recover`: seconds from kill -9 of each kind of process, and of a whole docker, to the next good answer of its work.

Owns what counts as an answer for each kind. The floor, measured in the same run: a fresh interpreter that imports what the process
imports, plus the same answer when nothing has died. Called by `scripts/bench recover` and by hand; needs root.

    scripts/bench recover [--nodes 3+4] [--rounds 3] [--only KIND,KIND] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cluster.lab.dockers import CHECKOUT
from labelloop import messages as m
from labelloop.errors import NotReadyError
from labelloop.logs import set_up_logs
from labelloop.settings import LogSettings
from scripts.chaos.ground import LabGround
from scripts.chaos.hurts import await_pid
from scripts.chaos.items import item_of, sample_of
from scripts.chaos.stage import Stage, parse_nodes, staged
from scripts.chaos.trial import await_whole, open_and_seed, until

TASK = "recover"
ASK_S = 1.0
_numbers = itertools.count()
Answer = Callable[[LabGround, str], None]


# ---------------------------------------------------------------- what counts as an answer


def call_train(ground: LabGround, node: str) -> None:
    """train_rpc says how the task is."""
    ground.cluster.train().progress(m.ProgressRequest(task=TASK), deadline_s=ASK_S)


def take_label(ground: LabGround, node: str) -> None:
    """A fresh label goes all the way into the label log."""
    item = f"label-{next(_numbers)}"
    request = m.SubmitRequest(task=TASK, batch_id=item, samples=(sample_of(item),))
    ground.cluster.train().submit(request, deadline_s=ASK_S)
    ask = m.ProgressRequest(task=TASK, items=(m.ItemKey(item_id=item, revision=1),))

    def why_not() -> str:
        state = ground.cluster.train().progress(ask, deadline_s=ASK_S).states[0].state
        return "" if state == "done" else state

    until(why_not, "a label in the log", 60.0)


def train_once(ground: LabGround, node: str) -> None:
    """A training begun now is done."""
    run = ground.cluster.train().train(m.TrainRequest(task=TASK), deadline_s=ASK_S).run

    def why_not() -> str:
        runs = ground.cluster.train().models(m.TaskRequest(task=TASK), deadline_s=ASK_S).runs
        return "" if any(view.run == run and view.state == "done" for view in runs) else f"run {run} is not done"

    until(why_not, "a training", 60.0)


def predict_here(ground: LabGround, node: str) -> None:
    """The node's own inference_rpc answers a call."""
    with ground.inference_at(node) as client:
        client.predict(m.PredictRequest(task=TASK, items=(item_of("probe"),)), deadline_s=5 * ASK_S)


def predict_somewhere(ground: LabGround, node: str) -> None:
    """Any node answers a call, as a platform's backend asks."""
    ground.cluster.inference().predict(m.PredictRequest(task=TASK, items=(item_of("probe"),)), deadline_s=5 * ASK_S)


def run_job(ground: LabGround, node: str) -> None:
    """A durable job of some chunks is answered to its end."""
    number = next(_numbers)
    items = tuple(item_of(f"job-{number}-{i}") for i in range(200))
    key = m.JobKey(task=TASK, job_id=f"job-{number}")
    ground.cluster.inference().predict_async(m.JobRequest(task=TASK, job_id=key.job_id, items=items), deadline_s=ASK_S)

    def why_not() -> str:
        return "" if ground.cluster.inference().job(key, deadline_s=ASK_S).state == "done" else "the job is not done"

    until(why_not, "a job", 60.0)


def ask_manager(ground: LabGround, node: str) -> None:
    """The registry hears the node again under its new process."""
    if not ground.pid(node, "manager"):
        raise NotReadyError(f"{node} has no manager")
    view = next(view for view in ground.registry.nodes(deadline_s=ASK_S).nodes if view.status.hostname == node)
    if not view.is_alive or view.age_s > ASK_S or not view.status.rpc:
        raise NotReadyError(f"{node} was heard {view.age_s:.1f} s ago")


# ---------------------------------------------------------------- what dies


class Kind(NamedTuple):
    """One row: whose `process` dies ('' = the docker), what must answer, what a bare start would import, and the promise."""

    name: str
    role: m.Role
    process: str
    answer: Answer
    imports: str
    most_s: float


KINDS = (
    Kind("train-rpc", "train", "train-rpc/0", call_train, "roles.train.rpc", 5.0),
    Kind("train-worker", "train", "train-worker/0", train_once, "roles.train.worker, sklearn.linear_model", 5.0),
    Kind("training-child", "train", "training-child", train_once, "roles.train.child, sklearn.linear_model", 5.0),
    Kind("data-worker", "train", "data-worker/0", take_label, "roles.data.worker, intake.pipeline", 5.0),
    Kind("inference-rpc", "inference", "inference-rpc/0", predict_here, "roles.inference.service", 5.0),
    Kind(
        "inference-worker",
        "inference",
        "inference-worker/0",
        predict_here,
        "roles.inference.worker, roles.inference.predictor",
        5.0,
    ),
    Kind("interactive-child", "inference", "inference-worker/2-interactive", predict_here, "roles.inference.predictor", 5.0),
    Kind("bulk-child", "inference", "inference-worker/2-bulk", run_job, "roles.inference.predictor", 5.0),
    Kind("manager", "train", "manager", ask_manager, "cluster.manager", 5.0),
    Kind("broker-train", "train", "broker", take_label, "", 15.0),
    Kind("broker-inference", "inference", "broker", predict_here, "", 15.0),
    Kind("docker-train-master", "train", "", take_label, "", 15.0),
    Kind("docker-inference-master", "inference", "", predict_somewhere, "", 15.0),
)


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Kill each kind `rounds` times and return median and worst seconds beside the floor."""
    parser = argparse.ArgumentParser(prog="bench recover")
    parser.add_argument("--nodes", default="3+4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(list(argv))
    set_up_logs(LogSettings(level="WARNING"))
    kinds = [kind for kind in KINDS if not args.only or kind.name in args.only.split(",")]
    found: dict[str, Any] = {}
    with staged(*parse_nodes(args.nodes)) as stage:
        await_whole(stage.ground)
        open_and_seed(stage.ground, TASK)
        for kind in kinds:
            found[kind.name] = _measure(stage, kind, args.rounds)
            print(f"{kind.name:<26} {json.dumps(found[kind.name])}", file=sys.stderr, flush=True)
    figures = {"nodes": args.nodes, "rounds": args.rounds, "kinds": found}
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return {"ratio": round(statistics.median(row["ratio"] for row in found.values()), 2), **figures}


def _measure(stage: Stage, kind: Kind, rounds: int) -> dict[str, Any]:
    usual_s = statistics.median(_answer_s(stage.ground, kind, stage.ground.master(kind.role)) for _ in range(3))
    floor_s = usual_s + _bare_start_s(stage, kind)
    seconds = [_recover_s(stage, kind) for _ in range(rounds)]
    median_s = statistics.median(seconds)
    return {
        "median_s": round(median_s, 2),
        "worst_s": round(max(seconds), 2),
        "promised_s": kind.most_s,
        "is_kept": median_s <= kind.most_s,
        "usual_answer_s": round(usual_s, 2),
        "floor_s": round(floor_s, 2),
        "ratio": round(median_s / floor_s, 2),
    }


def _answer_s(ground: LabGround, kind: Kind, node: str) -> float:
    began_s = time.monotonic()

    def why_not() -> str:
        kind.answer(ground, node)
        return ""

    until(why_not, f"an answer after {kind.name}")
    return time.monotonic() - began_s


def _recover_s(stage: Stage, kind: Kind) -> float:
    """Kill, and return the seconds to the next answer; then wait for the whole cluster."""
    ground = stage.ground
    node = ground.master(kind.role)
    if kind.process:
        os.kill(await_pid(ground, node, kind.process), signal.SIGKILL)
    else:
        stage.lab.kill(node)
    took_s = _answer_s(ground, kind, node)
    if not kind.process:
        stage.lab.boot(node)
    await_whole(ground, TASK)
    return took_s


def _bare_start_s(stage: Stage, kind: Kind) -> float:
    """Return the seconds in which a fresh interpreter in the docker imports what the process does; 0 where it is no Python."""
    if not kind.imports:
        return 0.0
    code = f"import {kind.imports}"
    began_s = time.monotonic()
    argv = ["env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-c", code]
    done = stage.lab.run(stage.ground.master(kind.role), argv)
    if done.returncode:
        raise NotReadyError(f"`{code}`: {done.stderr.strip()[-300:]}")
    return time.monotonic() - began_s


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:]), indent=2))
