"""The clients of the flow against a cluster in memory that forgets, refuses and answers late; the table and its words."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from labelloop import messages as m
from labelloop.errors import ConflictError, InvalidInputError, UnreachableError
from scripts.bench_chaos import row_of
from scripts.chaos.faults import TABLE, find_faults
from scripts.chaos.flow import Flow
from scripts.chaos.hurts import AT_ONCE_S, Answer, slowest_refusal
from scripts.chaos.items import item_of, label_of, sample_of
from scripts.chaos.oracle import Records, Verdict, judge
from scripts.chaos.stage import parse_nodes, roles_of
from scripts.chaos.streams import HELD_SHARE, OutboxStream, Pace, Sizes
from scripts.chaos.trial import NeverCameTrueError, Outcome, until

SIZES = Sizes(outbox=40, raw=20, calls=20, jobs=40, batch=10, job=20, span_s=0.2)


class InMemory:
    """Both roles and the way to them; `trouble` is raised by the next calls, one a call."""

    def __init__(self) -> None:
        self.log: dict[str, m.Sample] = {}
        self.jobs: dict[str, m.JobRequest] = {}
        self.batches: list[str] = []
        self.trouble: list[Exception] = []
        self.forgets = 0  # batches that are answered and then lost: what an outbox is for

    def train(self) -> InMemory:
        return self

    def inference(self) -> InMemory:
        return self

    def _meet(self) -> None:
        if self.trouble:
            raise self.trouble.pop()

    def submit(self, request: m.SubmitRequest, deadline_s: float) -> m.SubmitReply:
        self._meet()
        self.batches.append(request.batch_id)
        if self.forgets and request.batch_id.startswith("outbox"):
            self.forgets -= 1
        else:
            self.log.update({sample.item_id: sample for sample in request.samples})
        return m.SubmitReply(batch_id=request.batch_id, accepted=len(request.samples))

    def progress(self, request: m.ProgressRequest, deadline_s: float) -> m.ProgressReply:
        self._meet()
        states = tuple(
            m.ItemState(item_id=key.item_id, revision=1, state="done" if key.item_id in self.log else "unknown")
            for key in request.items
        )
        return m.ProgressReply(task=request.task, states=states)

    def predict(self, request: m.PredictRequest, deadline_s: float) -> m.Predictions:
        self._meet()
        array = m.Array(dtype="float32", shape=(0, 0), data=b"")
        return m.Predictions(version="v", labels=(), item_ids=tuple(i.item_id for i in request.items), proba=array)

    def predict_async(self, request: m.JobRequest, deadline_s: float) -> m.JobReply:
        self._meet()
        self.jobs[request.job_id] = request
        return m.JobReply(task=request.task, job_id=request.job_id, version="v", chunks=1, done=0, state="running")

    def results(self, request: m.ResultsRequest, deadline_s: float) -> m.ResultsReply:
        self._meet()
        ids = tuple(item.item_id for item in self.jobs[request.job_id].items)
        chunk = m.ChunkResult(chunk=0, shard="", version="v", item_ids=ids, n_items=len(ids))
        chunks = (chunk,) if request.after < 0 else ()
        return m.ResultsReply(task=request.task, job_id=request.job_id, version="v", labels=(), chunks=chunks, is_complete=True)


def run_flow(cluster: InMemory, hurt: Callable[[Flow], None] = lambda flow: None) -> Flow:
    with Flow(cluster, "t", SIZES) as flow:  # type: ignore[arg-type]
        until(lambda: "" if flow.is_under_way() else flow.why_not_over(), "under way", 10.0)
        hurt(flow)
        flow.pace.release()
        until(lambda: "" if flow.is_over() else flow.why_not_over(), "over", 20.0)
    return flow


def records_of(flow: Flow, cluster: InMemory) -> Records:
    log = tuple(flow_label for flow_label in flow.offered() if flow_label.item_id in cluster.log)
    return Records(
        acknowledged=flow.acknowledged(),
        offered=flow.offered(),
        log=log,
        calls=tuple(flow.calls.seen),
        jobs=flow.jobs.read_again(),
        unanswered_calls=(*flow.unanswered_calls(), *flow.unanswered_labels(), *flow.unaccepted_items()),
        errors=flow.errors(),
    )


def test_every_client_sends_all_of_its_items_and_the_oracle_is_content() -> None:
    cluster = InMemory()
    flow = run_flow(cluster)
    records = records_of(flow, cluster)
    assert judge(records) == Verdict()
    assert len(records.acknowledged) == 60
    assert sum(len(call.asked) for call in records.calls) == 20
    assert sum(len(job.asked) for job in records.jobs) == 40


def test_retryable_errors_are_counted_and_tried_again() -> None:
    cluster = InMemory()
    flow = run_flow(cluster, lambda flow: cluster.trouble.extend(UnreachableError("gone") for _ in range(6)))
    assert flow.troubles()["unreachable"] == 6
    assert judge(records_of(flow, cluster)).is_clean


def test_a_permanent_error_ends_a_client_and_what_it_did_not_send_is_unanswered() -> None:
    cluster = InMemory()
    flow = run_flow(cluster, lambda flow: cluster.trouble.append(ConflictError("no")))
    verdict = judge(records_of(flow, cluster))
    assert len(verdict.wrong) == 1
    assert "conflict: no" in verdict.wrong[0]
    assert verdict.unanswered


def test_the_outbox_sends_again_under_a_new_batch_what_the_cluster_forgot() -> None:
    cluster = InMemory()
    flow = run_flow(cluster, lambda flow: setattr(cluster, "forgets", 1))
    assert judge(records_of(flow, cluster)).is_clean
    assert flow.outbox.n_resent == 10
    assert [batch for batch in cluster.batches if batch.startswith("outbox-again")]


def test_a_batch_of_the_raw_client_that_the_cluster_forgets_is_lost_and_the_oracle_says_so() -> None:
    cluster = InMemory()

    def hurt(flow: Flow) -> None:
        del cluster.log["r-0"]

    assert judge(records_of(run_flow(cluster, hurt), cluster)).lost == ("r-0",)


def test_the_last_part_waits_for_the_end_of_the_fault() -> None:
    pace = Pace(0.001)
    time.sleep(0.01)
    assert pace.allowed(100) == 100 - int(100 * HELD_SHARE)
    pace.release()
    assert pace.allowed(100) == 100


def test_a_row_that_waits_too_long_goes_again_and_a_failed_one_is_an_error() -> None:
    outbox = OutboxStream(InMemory(), "t", Pace(1.0), SIZES)  # type: ignore[arg-type]
    outbox._sent_s = {"o-0": 0.0, "o-1": 100.0, "o-2": 100.0}
    settle = outbox._settle
    assert not settle(m.ItemState(item_id="o-0", revision=1, state="waiting"), 100.0)
    assert settle(m.ItemState(item_id="o-1", revision=1, state="waiting"), 100.0)
    assert settle(m.ItemState(item_id="o-2", revision=1, state="failed", reason="bad"), 100.0)
    assert outbox.errors == ["outbox: o-2 failed: bad"]


def test_an_id_is_always_the_same_row_with_the_same_label() -> None:
    assert item_of("x") == item_of("x")
    assert sample_of("x").labels == (label_of("x"),)
    assert {label_of(f"seed-{number}") for number in range(40)} == {"left", "right"}


def test_until_wants_a_condition_to_stay_and_says_what_stood_in_its_way() -> None:
    answers = iter(["", "again", "", "", "", "", "", ""])
    assert until(lambda: next(answers), "steady", 5.0, steady_s=0.25) > 0.15
    with pytest.raises(NeverCameTrueError, match="nothing did not come true in 0 s: unreachable: gone"):
        until(lambda: _raise(), "nothing", 0.0)


def _raise() -> str:
    raise UnreachableError("gone")


def test_the_faults_of_the_table_have_names_of_their_own_and_are_found_by_them() -> None:
    names = [fault.name for fault in TABLE]
    assert len(set(names)) == len(names)
    assert [fault.name for fault in find_faults("unmount,nothing")] == ["nothing", "unmount"]
    assert find_faults("") == TABLE
    with pytest.raises(KeyError, match="no fault 'x'"):
        find_faults("x")


def test_a_row_says_what_was_lost_and_why_a_trial_failed() -> None:
    bad = Outcome(fault="f", verdict=Verdict(lost=("a", "b"), wrong=("odd",)), whole_s=1.0, trouble="too late")
    assert not bad.is_good
    assert row_of(bad).split()[:3] == ["f", "2", "0"]
    assert "FAILED: too late; odd" in row_of(bad)
    assert Outcome(fault="f").is_good


def test_nodes_are_said_as_train_plus_inference() -> None:
    assert parse_nodes("3+4") == (3, 4)
    assert roles_of(("a", "b", "c"), 1) == {"a": "train", "b": "inference", "c": "inference"}
    for words in ("7", "3+", "0+4", "a+b"):
        with pytest.raises(InvalidInputError):
            parse_nodes(words)


# ---------------------------------------------------------------- what a half without a majority must answer


def refused(node: str, took_s: float = 0.1, error: str = "unreachable: no majority", is_retryable: bool = True) -> Answer:
    return Answer(node, 0.0, took_s, error, is_retryable)


def test_the_slowest_of_the_refusals_is_told() -> None:
    assert slowest_refusal([refused("a", 0.1), refused("b", 0.4)], ["a", "b"]) == 0.4


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([refused("a"), Answer("b", 0.0, 0.1, "", False)], "b answered as if all were well"),
        ([refused("a"), refused("b", error="internal: a defect", is_retryable=False)], "b answered internal: a defect"),
        ([refused("a"), refused("b", AT_ONCE_S + 1.0)], "b took 6.0 s"),
        ([refused("a")], r"\['b'\] answered nothing"),
    ],
)
def test_a_half_that_answers_otherwise_or_late_or_not_at_all_is_found_out(answers: list[Answer], words: str) -> None:
    with pytest.raises(NeverCameTrueError, match=words):
        slowest_refusal(answers, ["a", "b"])
