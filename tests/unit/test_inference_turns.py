"""Fair turns, orders that count as lost, and the steps of a waiting call: decisions as tables."""

from __future__ import annotations

import pytest

from roles.inference.asking import SILENT_S, UNTAKEN_S, next_step
from roles.inference.turns import MESSAGE_CHUNKS, Order, Turns


def send_all(turns: Turns, now_s: float = 0.0) -> list[tuple[str, Order]]:
    sent = []
    for order in turns.orders(now_s):
        call = f"{order.job[0]}/{order.job[1]}/{order.chunks[0]}"
        turns.sent(call, order, now_s)
        sent.append((call, order))
    return sent


def test_tasks_take_turns_and_a_big_job_never_holds_more_than_its_share() -> None:
    turns = Turns(limit=2, requeue_after_s=5.0)
    turns.add(("big", "j"), range(1000))
    turns.add(("small", "j"), range(2))
    sent = send_all(turns)
    assert [order.job[0] for _, order in sent] == ["big", "small", "big", "small"]
    assert sum(len(order.chunks) for _, order in sent if order.job[0] == "small") == 2
    assert all(len(order.chunks) <= MESSAGE_CHUNKS for _, order in sent)
    assert send_all(turns) == []


def test_an_ended_order_makes_room_for_one_more_of_its_own_task() -> None:
    turns = Turns(limit=1, requeue_after_s=5.0)
    turns.add(("a", "j"), range(20))
    turns.add(("b", "j"), range(20))
    (first, _), _ = send_all(turns)
    turns.finished(first, (), 1.0)
    ((_, order),) = send_all(turns, 1.0)
    assert order.job == ("a", "j")
    assert order.chunks[0] == MESSAGE_CHUNKS


def test_jobs_of_one_task_take_turns_so_that_a_short_one_need_not_wait_for_a_long_one() -> None:
    turns = Turns(limit=2, requeue_after_s=5.0)
    turns.add(("a", "pool"), range(100))
    turns.add(("a", "head"), range(1))
    assert [order.job[1] for _, order in send_all(turns)] == ["pool", "head"]


def test_few_chunks_are_spread_over_the_free_places() -> None:
    turns = Turns(limit=4, requeue_after_s=5.0)
    turns.add(("a", "j"), range(8))
    assert [len(order.chunks) for _, order in send_all(turns)] == [2, 2, 2, 2]


def test_every_chunk_is_sent_exactly_once_and_what_is_left_comes_back_first() -> None:
    turns = Turns(limit=1, requeue_after_s=5.0)
    turns.add(("a", "j"), range(10))
    ((call, order),) = send_all(turns)
    assert order.chunks == tuple(range(8))
    turns.finished(call, (6, 7), 1.0)
    ((call, order),) = send_all(turns, 1.0)
    assert order.chunks == (6, 7, 8, 9)
    turns.finished(call, (), 2.0)
    assert turns.is_drained(("a", "j"))


def test_adding_a_job_again_does_not_send_what_is_under_way() -> None:
    turns = Turns(limit=1, requeue_after_s=5.0)
    turns.add(("a", "j"), range(10))
    send_all(turns)
    turns.add(("a", "j"), range(10))
    assert list(turns.jobs["a", "j"].pending) == [8, 9]


def test_a_failed_order_waits_longer_each_time_and_a_good_one_ends_the_waiting() -> None:
    turns = Turns(limit=1, requeue_after_s=5.0)
    turns.add(("a", "j"), range(1))
    now_s, pauses = 0.0, []
    for _ in range(3):
        ((call, order),) = send_all(turns, now_s)
        turns.finished(call, order.chunks, now_s, is_failed=True)
        pauses.append(turns.jobs["a", "j"].not_before_s - now_s)
        assert send_all(turns, now_s) == []
        now_s = turns.jobs["a", "j"].not_before_s
    assert pauses == [0.25, 0.5, 1.0]
    ((call, order),) = send_all(turns, now_s)
    turns.finished(call, (), now_s)
    assert turns.jobs["a", "j"].delay_s == 0.0


def test_an_order_whose_worker_fell_silent_is_lost() -> None:
    turns = Turns(limit=1, requeue_after_s=5.0)
    turns.add(("a", "j"), range(1))
    ((call, _),) = send_all(turns)
    turns.sign(call, 1.0)
    assert turns.lost(5.9) == ()
    assert turns.lost(6.1) == ((call, "its worker fell silent"),)


def test_an_order_that_younger_ones_overtook_is_lost_though_workers_are_busy() -> None:
    turns = Turns(limit=2, requeue_after_s=5.0)
    turns.add(("a", "j"), range(1))
    ((old, _),) = send_all(turns)
    turns.add(("a", "k"), range(1))
    ((young, _),) = send_all(turns)
    for now_s in (1.0, 3.0, 5.0, 7.0):
        turns.sign(young, now_s)
    assert turns.lost(5.9) == ()
    assert turns.lost(7.0) == ((old, "younger orders were taken first"),)


def test_orders_that_were_sent_side_by_side_may_be_taken_in_any_order() -> None:
    turns = Turns(limit=2, requeue_after_s=5.0)
    turns.add(("a", "j"), range(2))
    _, (taken_first, _) = send_all(turns)
    for now_s in (1.0, 3.0, 5.0, 7.0):
        turns.sign(taken_first, now_s)
    assert turns.lost(7.0) == ()


def test_a_long_queue_behind_a_busy_worker_is_not_lost() -> None:
    turns = Turns(limit=4, requeue_after_s=5.0)
    turns.add(("a", "j"), range(4))
    (first, _), *_ = send_all(turns)
    for now_s in range(1, 60):
        turns.sign(first, float(now_s))
        assert turns.lost(float(now_s)) == ()


def test_with_no_sign_of_any_worker_everything_is_queued_again_ever_more_rarely() -> None:
    turns = Turns(limit=4, requeue_after_s=5.0)
    turns.add(("a", "j"), range(2))
    calls = [call for call, _ in send_all(turns)]
    assert turns.lost(4.9) == ()
    assert turns.lost(5.1) == tuple((call, "no worker gave a sign") for call in calls)
    assert turns.lost(10.2) == ()
    assert len(turns.lost(15.2)) == 2


def test_a_late_reply_of_an_order_that_was_given_up_changes_nothing() -> None:
    turns = Turns(limit=1, requeue_after_s=5.0)
    turns.add(("a", "j"), range(1))
    ((call, order),) = send_all(turns)
    turns.finished(call, order.chunks, 1.0)
    assert turns.finished(call, (), 2.0) is None
    assert list(turns.jobs["a", "j"].pending) == [0]


def test_a_closed_job_leaves_no_turn_behind() -> None:
    turns = Turns(limit=1, requeue_after_s=5.0)
    turns.add(("a", "j"), range(1))
    turns.close(("a", "j"))
    assert send_all(turns) == []
    assert not turns.is_drained(("a", "j"))


@pytest.mark.parametrize(
    ("sent_s", "sign_s", "now_s", "action"),
    [
        (0.0, None, 1.0, "wait"),
        (0.0, None, UNTAKEN_S + 0.1, "again"),
        (0.0, 10.0, 10.0 + SILENT_S - 0.1, "wait"),
        (0.0, 10.0, 10.0 + SILENT_S + 0.1, "lost"),
    ],
)
def test_a_waiting_call_sends_again_or_gives_up_its_worker(sent_s: float, sign_s: float | None, now_s: float, action: str) -> None:
    assert next_step(sent_s, sign_s, now_s)[0] == action
