"""The table of faults: what each does to a lab, and what must hold all the same.

Owns names and promises. Must never do anything itself: `hurts` and `shared` do, `trial` judges. Called by `bench chaos` and
tests/cluster.

To add one: write its function there and give it a row here.
"""

from __future__ import annotations

import msgspec

from scripts.chaos import hurts, shared
from scripts.chaos.hurts import Hurt
from scripts.chaos.poison import run_poison_job


class Fault(msgspec.Struct, frozen=True):
    """One row. `hurt` returns when its damage is over, saying what it saw; the clock to whole starts then, and may run at most
    `most_s` (0 = no limit was promised)."""

    name: str
    what: str
    must_hold: str
    hurt: Hurt
    most_s: float = 0.0


# ---------------------------------------------------------------- the table

_ALL = "every accepted item answered once, no label lost or doubled, whole again without a person"


def _row(name: str, what: str, hurt: Hurt, must_hold: str = "", most_s: float = 0.0) -> Fault:
    return Fault(name, what, f"{_ALL}; {must_hold}" if must_hold else _ALL, hurt, most_s)


TABLE: tuple[Fault, ...] = (
    _row("nothing", "no fault at all: the measure of the others", lambda ground, flow: ""),
    _row("kill-broker-train", "kill -9 of the train master's broker", hurts.kill_process(hurts.train_master, "broker")),
    _row("kill-broker-train-other", "kill -9 of another train broker", hurts.kill_process(hurts.train_other, "broker")),
    _row("kill-broker-inference", "kill -9 of the inference master's broker", hurts.kill_process(hurts.inference_master, "broker")),
    _row("kill-broker-inference-other", "kill -9 of another inference broker", hurts.kill_process(hurts.inference_other, "broker")),
    _row(
        "kill-train-worker", "kill -9 of the train master's train worker", hurts.kill_process(hurts.train_master, "train-worker/0")
    ),
    _row("kill-train-worker-other", "kill -9 of another train worker", hurts.kill_process(hurts.train_other, "train-worker/0")),
    _row("kill-training-child", "kill -9 of the warm training child", hurts.kill_process(hurts.train_master, "training-child")),
    _row("kill-data-worker", "kill -9 of the train master's data worker", hurts.kill_process(hurts.train_master, "data-worker/0")),
    _row("kill-data-worker-other", "kill -9 of another data worker", hurts.kill_process(hurts.train_other, "data-worker/0")),
    _row(
        "kill-inference-worker",
        "kill -9 of the inference master's worker, its children orphaned",
        hurts.kill_process(hurts.inference_master, "inference-worker/0"),
    ),
    _row(
        "kill-inference-worker-other",
        "kill -9 of another inference worker",
        hurts.kill_process(hurts.inference_other, "inference-worker/0"),
    ),
    _row(
        "kill-interactive-child",
        "kill -9 of the child that answers calls",
        hurts.kill_process(hurts.inference_master, "inference-worker/2-interactive"),
    ),
    _row(
        "kill-bulk-child",
        "kill -9 of the child that computes chunks",
        hurts.kill_process(hurts.inference_other, "inference-worker/2-bulk"),
    ),
    _row("kill-train-rpc", "kill -9 of train_rpc", hurts.kill_process(hurts.train_master, "train-rpc/0")),
    _row(
        "kill-inference-rpc",
        "kill -9 of the inference master's inference_rpc, parent first",
        hurts.kill_process(hurts.inference_master, "inference-rpc/0"),
    ),
    _row(
        "kill-inference-rpc-other", "kill -9 of another inference_rpc", hurts.kill_process(hurts.inference_other, "inference-rpc/0")
    ),
    _row(
        "kill-inference-fork", "kill -9 of one forked inference_rpc", hurts.kill_process(hurts.inference_master, "inference-rpc/1")
    ),
    _row("kill-manager-train", "kill -9 of the train master's manager", hurts.kill_process(hurts.train_master, "manager")),
    _row("kill-manager-train-other", "kill -9 of another train node's manager", hurts.kill_process(hurts.train_other, "manager")),
    _row(
        "kill-manager-inference", "kill -9 of the inference master's manager", hurts.kill_process(hurts.inference_master, "manager")
    ),
    _row(
        "kill-manager-inference-other",
        "kill -9 of another inference node's manager",
        hurts.kill_process(hurts.inference_other, "manager"),
    ),
    _row(
        "kill-docker-train-master",
        "the train master's docker dies",
        hurts.kill_docker(hurts.train_master),
        "the next lowest IP takes over",
    ),
    _row("kill-docker-train", "another train docker dies", hurts.kill_docker(hurts.train_other)),
    _row(
        "kill-docker-inference-master",
        "the inference master's docker dies",
        hurts.kill_docker(hurts.inference_master),
        "nobody notices",
    ),
    _row("kill-docker-inference", "another inference docker dies", hurts.kill_docker(hurts.inference_other)),
    _row("freeze-train-master", "the train master's docker freezes for 30 s", hurts.freeze_docker(hurts.train_master, 30.0)),
    _row(
        "freeze-inference-master",
        "the inference master's docker freezes for 30 s",
        hurts.freeze_docker(hurts.inference_master, 30.0),
    ),
    _row("freeze-inference", "another inference docker freezes for 30 s", hurts.freeze_docker(hurts.inference_other, 30.0)),
    _row(
        "partition-one",
        "one inference node is cut off for 20 s",
        hurts.cut_one_off(20.0),
        "the rest go on, it answers a retryable error",
    ),
    _row(
        "partition-halves",
        "the inference nodes fall into two halves for 20 s",
        hurts.cut_in_halves(20.0),
        "both halves answer a retryable error at once; whole within 15 s of healing",
        15.0,
    ),
    _row("lose-train-master", "the train master and its disk are destroyed right after an answer", hurts.lose_train_master),
    _row("empty-brokers", "every waiting message is thrown away, on every broker", shared.empty_brokers),
    _row("disk-full", "the datastore's disk is full for 15 s", shared.fill_disk(15.0), "errors are retryable"),
    _row("unmount", "the datastore's mount dies or vanishes on every node", shared.unmount),
    _row("registry-down", "the registry is down for a minute", shared.stop_registry(60.0), "the work goes on"),
    _row(
        "registry-empty",
        "the registry is replaced by an empty one with the old key",
        shared.replace_registry,
        "it gives no order until confirmed",
    ),
    _row("poison-message", "messages that nobody can read", shared.poison_queues),
    _row("poison-image", "an image that kills each worker that decodes it", run_poison_job, "it is answered as failed, alone"),
    _row("restart-managers", "every manager dies in turn", hurts.kill_managers_in_turn),
    _row("restart-all", "every docker goes down in turn", hurts.restart_all),
)


def find_faults(names: str) -> tuple[Fault, ...]:
    """Return the rows named in a comma-separated list, in the order of the table; '' = all. Raises KeyError naming a stranger."""
    wanted = [name for name in names.split(",") if name]
    known = {fault.name: fault for fault in TABLE}
    for name in wanted:
        if name not in known:
            raise KeyError(f"no fault {name!r}; there are {', '.join(known)}")
    return tuple(fault for fault in TABLE if not wanted or fault.name in wanted)
