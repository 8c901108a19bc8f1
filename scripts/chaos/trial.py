"""One trial: a whole cluster, a fresh task, the flow, one fault in its middle, and the judgement.

Owns the order of these steps and their deadlines. Must never know how a fault hurts: it is a function of the ground it stands on.
Called by `scripts/bench chaos` and by tests/cluster.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from datastore_layout.labels import LabelLog
from datastore_layout.root import open_root, task_folder
from labelloop import messages as m
from labelloop.clients import Cluster, RegistryClient
from labelloop.errors import BusyError, LabelloopError, RetryableError
from scripts.chaos.flow import Flow
from scripts.chaos.items import ids, item_of, sample_of, table_spec
from scripts.chaos.oracle import LabelSeen, Records, Verdict, judge
from scripts.chaos.streams import CALL_S, Sizes
from scripts.chaos.whole import why_not_replicated, why_not_whole

logger = logging.getLogger(__name__)

PATIENCE_S = 180.0
POLL_S = 0.1
SEEDS = 40
STEADY_S = 2.5  # longer than what the registry says may be old
_ONE_LOOK_S = 5.0  # a count of replicas that is right at once costs less
T = TypeVar("T")
G = TypeVar("G", bound="Ground")


class Ground(Protocol):
    """What a trial stands on: a formed cluster and the ways to it."""

    @property
    def wanted(self) -> Mapping[str, m.Role]: ...

    @property
    def datastore(self) -> Path: ...

    @property
    def cluster(self) -> Cluster: ...

    @property
    def registry(self) -> RegistryClient: ...

    def replicas(self) -> Mapping[str, int]:
        """Return the running replicas of each shared queue of the inference brokers; {} where queues have none."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one trial came to. `whole_s`: from the end of the damage until every role answered and every queue had its
    replicas; `silence_s`: the longest wait of one client for any answer; `trouble`: why the trial could not end, '' = it did."""

    fault: str
    verdict: Verdict = Verdict()
    whole_s: float = -1.0
    silence_s: float = 0.0
    resent: int = 0
    retryable: Mapping[str, int] = {}
    seen: str = ""
    trouble: str = ""

    @property
    def is_good(self) -> bool:
        """Return whether nothing was lost and the cluster is whole."""
        return self.verdict.is_clean and not self.trouble


class NeverCameTrueError(Exception):
    """What was waited for did not come true in time; the message says what stands in its way."""


def until(why_not: Callable[[], str], what: str, limit_s: float = PATIENCE_S, steady_s: float = 0.0) -> float:
    """Return after how many seconds `why_not` had nothing to say, and went on so for `steady_s`; errors of the cluster count as
    'not yet'.

    Raises NeverCameTrueError with the last reason.
    """
    began_s = time.monotonic()
    since_s: float | None = None
    while True:
        asked_s = time.monotonic()
        try:
            reason = why_not()
        except LabelloopError as exc:
            reason = f"{exc.code}: {exc}"
        since_s = None if reason else (asked_s if since_s is None else since_s)
        if since_s is not None and time.monotonic() - since_s >= steady_s:
            return since_s - began_s
        if reason and time.monotonic() - began_s > limit_s:
            raise NeverCameTrueError(f"{what} did not come true in {limit_s:.0f} s: {reason}")
        time.sleep(POLL_S)


def run_trial(
    ground: G,
    name: str,
    hurt: Callable[[G, Flow], str],
    task: str,
    sizes: Sizes,
    patience_s: float = PATIENCE_S,
    most_s: float = 0.0,
) -> Outcome:
    """Run one fault under the flow and judge. A cluster that does not become whole is an outcome, not an exception.

    `hurt` returns when its damage is over, saying what it saw; the clock to whole starts then, and is late after `most_s`.
    """
    flow: Flow | None = None
    whole_s, seen = -1.0, ""
    try:
        await_whole(ground, "", patience_s)
        open_and_seed(ground, task, patience_s)
        with Flow(ground.cluster, task, sizes) as flow:
            until(lambda: "" if flow.is_under_way() else flow.why_not_over(), "a flow under way", patience_s)
            logger.info("now: %s", name)
            seen = hurt(ground, flow)
            flow.pace.release()
            whole_s = await_whole(ground, task, patience_s)
            until(lambda: "" if flow.is_over() else flow.why_not_over(), "every client through", patience_s)
        until(lambda: _why_waiting(ground, task), "an empty intake", patience_s)
        asked: dict[str, int] = {}
        until(lambda: _why_not_trained(ground, task, asked), "a training after it", patience_s)
        verdict = _judge(ground, task, flow)
        trouble = f"whole after {whole_s:.1f} s, promised are {most_s:.0f}" if 0 < most_s < whole_s else ""
    except (NeverCameTrueError, LabelloopError) as exc:
        verdict, trouble = Verdict(), str(exc)
        if flow is not None:
            trouble += "".join(f"; {error}" for error in flow.errors())
    return Outcome(
        fault=name,
        verdict=verdict,
        whole_s=round(whole_s, 1),
        silence_s=round(flow.longest_silence_s(), 1) if flow else 0.0,
        resent=flow.outbox.n_resent if flow else 0,
        retryable=dict(flow.troubles()) if flow else {},
        seen=seen,
        trouble=trouble,
    )


def await_whole(ground: Ground, task: str = "", patience_s: float = PATIENCE_S) -> float:
    """Return after how many seconds the cluster was whole and stayed so: every role in its place and answering, every replica."""
    began_s = time.monotonic()
    whole_s = until(lambda: why_not_answering(ground, task), "the cluster whole again", patience_s, STEADY_S)
    looked_s = time.monotonic() - began_s
    late_s = until(lambda: _why_not_replicated(ground), "every queue with its replicas", patience_s)
    return whole_s if late_s < _ONE_LOOK_S else looked_s + late_s


def why_not_answering(ground: Ground, task: str = "") -> str:
    """Return what is missing for a whole cluster: what the registry sees, and one call to each role of `task` ('' = no call)."""
    if reason := why_not_whole(ground.registry.nodes(deadline_s=CALL_S), ground.wanted):
        return reason
    if task:
        ground.cluster.train().progress(m.ProgressRequest(task=task), deadline_s=CALL_S)
        request = m.PredictRequest(task=task, items=(item_of("probe"),))
        ground.cluster.inference().predict(request, deadline_s=CALL_S)
    return ""


def _why_not_replicated(ground: Ground) -> str:
    inference = [name for name, role in ground.wanted.items() if role == "inference"]
    return why_not_replicated(ground.replicas(), len(inference))


def open_and_seed(ground: Ground, task: str, patience_s: float = PATIENCE_S) -> None:
    """Open a task and give it the labels of its first version; returns when that serves."""
    request = m.OpenTaskRequest(spec=table_spec(task))
    until(answered(lambda: ground.registry.open_task(request)), "the task opens", patience_s)
    samples = tuple(sample_of(item) for item in ids("seed", SEEDS))
    submit = m.SubmitRequest(task=task, batch_id="seed", samples=samples)
    until(answered(lambda: ground.cluster.train().submit(submit, deadline_s=CALL_S)), "the first labels go in", patience_s)
    probe = m.PredictRequest(task=task, items=(item_of("probe"),))
    until(answered(lambda: ground.cluster.inference().predict(probe, deadline_s=CALL_S)), "a first version serves", patience_s)


def answered(call: Callable[[], object]) -> Callable[[], str]:
    """Return `call` as a condition for `until`: it holds as soon as the call answers without an error."""

    def why_not() -> str:
        call()
        return ""

    return why_not


def _why_waiting(ground: Ground, task: str) -> str:
    reply = ground.cluster.train().progress(m.ProgressRequest(task=task), deadline_s=CALL_S)
    return f"{reply.waiting_batches} batches wait" if reply.waiting_batches else ""


def _why_not_trained(ground: Ground, task: str, asked: dict[str, int]) -> str:
    """Ask for one training, once, then look whether it is done; `asked` remembers its number."""
    train = ground.cluster.train()
    if "run" not in asked:
        try:
            asked["run"] = train.train(m.TrainRequest(task=task, reason="after the fault"), deadline_s=CALL_S).run
        except BusyError:
            return "another run is live"
    runs = {view.run: view for view in train.models(m.TaskRequest(task=task), deadline_s=CALL_S).runs}
    run = runs.get(asked["run"])
    if run is None or run.state in ("queued", "running"):
        return f"run {asked['run']} is {run.state if run else 'not listed'}"
    if run.state != "done":
        raise NeverCameTrueError(f"the training after the fault is {run.state}: {run.reason}")
    return ""


def _judge(ground: Ground, task: str, flow: Flow) -> Verdict:
    seeds = tuple(LabelSeen(item, 1, sample_of(item).labels) for item in ids("seed", SEEDS))
    records = Records(
        acknowledged=(*seeds, *flow.acknowledged()),
        offered=(*seeds, *flow.offered()),
        log=read_log(ground.datastore, task),
        told_labels=_retried(lambda: ground.cluster.train().progress(m.ProgressRequest(task=task), deadline_s=CALL_S)).labels,
        calls=tuple(flow.calls.seen),
        jobs=_retried(flow.jobs.read_again),
        unanswered_calls=(*flow.unanswered_calls(), *flow.unanswered_labels(), *flow.unaccepted_items()),
        errors=flow.errors(),
    )
    return judge(records)


def read_log(datastore: Path, task: str) -> tuple[LabelSeen, ...]:
    """Return the merged view of a task's label log, as any node would read it; failed rows count as missing."""
    log = LabelLog(task_folder(open_root(datastore), task))
    log.refresh()
    return tuple(LabelSeen(str(item), row.revision, row.labels) for item, row in log.merged().items())


def _retried(call: Callable[[], T], tries: int = 20) -> T:
    for _ in range(tries):
        try:
            return call()
        except RetryableError as exc:
            logger.warning("reading again: %s", exc)
            time.sleep(0.5)
    return call()
