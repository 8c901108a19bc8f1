"""The oracle of the chaos trials: it passes a clean trial and fails on each kind of loss; when a cluster counts as whole."""

from __future__ import annotations

import msgspec
import pytest

from labelloop.messages import BrokerView, NodesReply, NodeStatus, NodeView, ProcessView
from scripts.chaos.oracle import CallSeen, ChunkSeen, JobSeen, LabelSeen, Records, Verdict, judge
from scripts.chaos.whole import why_not_replicated, why_not_whole

SENT = tuple(LabelSeen(f"s-{i}", 1, ("left",)) for i in range(4))
PAGES = (
    ChunkSeen(chunk=0, item_ids=("u-0", "u-1"), failed=(), version="v1"),
    ChunkSeen(chunk=1, item_ids=("u-2",), failed=(), version="v1"),
)
JOB = JobSeen(job_id="j", asked=("u-0", "u-1", "u-2"), pages=PAGES, again=PAGES, is_complete=True)
CALL = CallSeen(asked=("p-0", "p-1"), answered=("p-0", "p-1"), failed=(), version="v1")
CLEAN = Records(acknowledged=SENT, offered=SENT, log=SENT, calls=(CALL,), jobs=(JOB,))


def records(**changes: object) -> Records:
    return msgspec.structs.replace(CLEAN, **changes)


def job(**changes: object) -> Records:
    return records(jobs=(msgspec.structs.replace(JOB, **changes),))


def pages(*chunks: ChunkSeen) -> Records:
    return job(pages=chunks, again=chunks)


def test_a_clean_trial_is_clean() -> None:
    assert judge(CLEAN) == Verdict()
    assert judge(CLEAN).is_clean


def test_a_lost_label_is_found() -> None:
    verdict = judge(records(log=SENT[1:]))
    assert verdict == Verdict(lost=("s-0",))
    assert not verdict.is_clean


def test_a_label_that_was_never_acknowledged_may_be_missing_or_there() -> None:
    assert judge(records(acknowledged=SENT[1:], log=SENT[1:])).is_clean
    assert judge(records(acknowledged=SENT[1:])).is_clean


def test_a_doubled_label_is_found() -> None:
    assert judge(records(log=(*SENT, SENT[2]))) == Verdict(doubled=("s-2",))


def test_an_item_with_two_revisions_in_the_merged_view_is_doubled() -> None:
    second = LabelSeen("s-2", 2, ("right",))
    verdict = judge(records(offered=(*SENT, second), acknowledged=(*SENT, second), log=(*SENT, second)))
    assert verdict.doubled == ("s-2",)


def test_an_older_revision_may_give_way_to_a_newer_one() -> None:
    second = LabelSeen("s-3", 2, ("right",))
    both = (*SENT, second)
    assert judge(records(offered=both, acknowledged=both, log=(*SENT[:3], second))).is_clean
    assert judge(records(offered=both, acknowledged=both, log=SENT)).lost == ("s-3",)


def test_a_label_that_changed_on_its_way_or_that_nobody_sent_is_wrong() -> None:
    assert "the log says ('right',) of 's-0'" in judge(records(log=(LabelSeen("s-0", 1, ("right",)), *SENT[1:]))).wrong[0]
    assert "nobody sent" in judge(records(log=(*SENT, LabelSeen("x", 1, ("left",))))).wrong[0]


def test_a_train_master_that_counts_other_labels_than_the_log_has_is_wrong() -> None:
    assert judge(records(told_labels=4)).is_clean
    assert judge(records(told_labels=5)).wrong == ("the train master says 5 labels, the log has 4",)


def test_an_unanswered_item_of_a_call_is_found() -> None:
    assert judge(records(calls=(msgspec.structs.replace(CALL, answered=("p-0",)),))).unanswered == ("p-1",)
    assert judge(records(unanswered_calls=("p-9",))).unanswered == ("p-9",)


def test_a_doubled_item_of_a_call_is_found() -> None:
    assert judge(records(calls=(msgspec.structs.replace(CALL, answered=("p-0", "p-1", "p-1")),))).doubled == ("p-1",)


def test_an_answer_without_a_version_is_wrong() -> None:
    assert judge(records(calls=(msgspec.structs.replace(CALL, version=""),))).wrong == ("a predict call names no version",)
    assert judge(pages(PAGES[0], msgspec.structs.replace(PAGES[1], version=""))).wrong


def test_an_unanswered_item_of_a_job_is_found() -> None:
    assert judge(pages(PAGES[0])).unanswered == ("u-2",)


def test_an_item_that_two_chunks_of_a_job_answer_is_doubled() -> None:
    assert judge(pages(PAGES[0], msgspec.structs.replace(PAGES[1], item_ids=("u-2", "u-0")))).doubled == ("u-0",)


def test_a_chunk_that_came_twice_is_doubled() -> None:
    assert judge(pages(*PAGES, PAGES[1])).doubled == ("u-2",)


def test_a_job_that_never_ends_or_answers_otherwise_the_second_time_or_mixes_versions_is_wrong() -> None:
    assert judge(job(is_complete=False)).wrong == ("job 'j' never became complete",)
    assert "otherwise" in judge(job(again=PAGES[:1])).wrong[0]
    assert "mixes" in judge(pages(PAGES[0], msgspec.structs.replace(PAGES[1], version="v2"))).wrong[0]


def test_an_item_answered_as_failed_is_wrong_unless_it_is_poison_on_purpose() -> None:
    poisoned = pages(PAGES[0], msgspec.structs.replace(PAGES[1], item_ids=(), failed=("u-2",)))
    assert judge(poisoned).wrong == ("job 'j' answers 'u-2' as failed",)
    assert judge(msgspec.structs.replace(poisoned, may_fail=frozenset({"u-2"}))).is_clean


def test_a_permanent_error_of_a_client_is_wrong() -> None:
    assert judge(records(errors=("submit: conflict",))).wrong == ("submit: conflict",)


# ---------------------------------------------------------------- whole


def node(name: str, role: str, **changes: object) -> NodeView:
    members = ("i-1", "i-2") if role == "inference" else (name,)
    fields: dict[str, object] = {
        "hostname": name,
        "ip": "10.0.0.1",
        "port": 1,
        "role": role,
        "epoch": 3,
        "is_master": name.endswith("1"),
        "broker": BrokerView(kind="rabbitmq", state="running", cluster=role, members=members, running=members),
        "processes": (ProcessView(name="worker", pid=1, state="running", restarts=0),),
        **changes,
    }
    return NodeView(status=NodeStatus(**fields), age_s=0.1, is_alive=True)  # type: ignore[arg-type]


WANTED = {"t-1": "train", "i-1": "inference", "i-2": "inference"}


def reply(*changed: NodeView, **fields: object) -> NodesReply:
    nodes = {name: node(name, role) for name, role in WANTED.items()}
    nodes.update({view.status.hostname: view for view in changed})
    return NodesReply(**{"nodes": tuple(nodes.values()), "epoch": 3, "cluster_id": "c", **fields})  # type: ignore[arg-type]


def test_a_whole_cluster_is_whole() -> None:
    assert why_not_whole(reply(), WANTED) == ""  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (reply(state="learning", last_reason="lost its disk"), "the registry is learning: lost its disk"),
        (reply(epoch=4), "i-1: is inference in epoch 3, wanted is inference in epoch 4"),
        (reply(msgspec.structs.replace(node("i-2", "inference"), is_alive=False)), "i-2 is not alive"),
        (reply(node("t-1", "inference")), "t-1: is inference in epoch 3, wanted is train in epoch 3"),
        (reply(node("t-1", "train", processes=())), "t-1: no role process runs"),
        (reply(node("t-1", "train", datastore="not mounted")), "t-1: not mounted"),
        (
            reply(node("t-1", "train", processes=(ProcessView(name="rpc", pid=0, state="backing-off", restarts=2),))),
            "t-1: rpc is backing-off",
        ),
        (reply(node("i-2", "inference", broker=BrokerView(kind="rabbitmq", state="paused"))), "i-2: its broker is paused"),
        (
            reply(
                node("i-2", "inference", broker=BrokerView(kind="rabbitmq", state="running", members=("i-2",), running=("i-2",)))
            ),
            "the broker of i-2 is in a cluster of ['i-2'], wanted are ['i-1', 'i-2']",
        ),
        (reply(node("i-2", "inference", is_master=True)), "the inference role has 2 masters ['i-1', 'i-2']"),
        (reply(node("t-1", "train", is_master=False)), "the train role has 0 masters []"),
    ],
)
def test_a_cluster_that_is_not_whole_says_why(seen: NodesReply, reason: str) -> None:
    assert why_not_whole(seen, WANTED) == reason  # type: ignore[arg-type]


def test_queues_must_have_the_replicas_of_their_number_of_members() -> None:
    assert why_not_replicated({"a": 3, "b": 3}, 4) == ""
    assert why_not_replicated({"a": 3, "b": 2}, 4) == "queue b has 2 replicas, wanted are 3"
    assert why_not_replicated({"a": 2}, 2) == ""
    assert why_not_replicated({"a": 3}, 5) == "queue a has 3 replicas, wanted are 5"
