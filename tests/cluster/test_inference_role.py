"""The inference role as real processes: broker, two workers, forked RPC, TLS; killed in turn while jobs run."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from datastore_layout.labels import LabelRow, write_segment
from datastore_layout.models import advance, current
from datastore_layout.root import TaskFolder
from datastore_layout.shards import ShardSet
from labelloop.clients import InferenceClient
from labelloop.errors import ConflictError, InvalidInputError, NotFoundError, NotReadyError, NoWorkerError
from labelloop.messages import (
    ChunkResult,
    Item,
    JobKey,
    JobReply,
    JobRequest,
    PredictRequest,
    RankRequest,
    ResultsRequest,
    RulesRequest,
    VotesRequest,
)
from labelloop.settings import WireSettings
from learning.weak import Rule, write_rules
from learning.weak.rules import Keywords, ModelOpinion
from roles.inference.presence import dispatcher_seat
from scripts.inference_node import NODE, InferenceNode
from tests.support_inference import (
    LABELS,
    MOODY,
    MOODY_DIM,
    matrix,
    publish_version,
    serve_version,
    signed,
    text_items,
    text_spec,
    write_moody_encoder,
)

pytestmark = pytest.mark.slow

QUICK = {"LABELLOOP_INFERENCE_CHUNK_ITEMS": "50", "LABELLOOP_INFERENCE_REQUEUE_AFTER_S": "1.0"}


def make_node(folder: Path) -> InferenceNode:
    plugin = folder / "plugin"
    plugin.mkdir()
    path = os.pathsep.join([write_moody_encoder(plugin), os.environ.get("PYTHONPATH", "")])
    return InferenceNode(folder / "node", environment={**QUICK, "PYTHONPATH": path})


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceNode]:
    with make_node(tmp_path_factory.mktemp("shared")) as running:
        yield running


@pytest.fixture
def own_node(tmp_path: Path) -> Iterator[InferenceNode]:
    """A node that a test may hurt."""
    with make_node(tmp_path) as running:
        yield running


def open_task(node: InferenceNode, task: str) -> TaskFolder:
    return node.open_task(text_spec(task, MOODY))


def collect(node: InferenceNode, task: str, job_id: str, timeout_s: float = 90.0) -> list[ChunkResult]:
    """Page a job to its end."""
    found: list[ChunkResult] = []
    end_s = time.monotonic() + timeout_s
    while True:
        after = found[-1].chunk if found else -1
        reply = node.client.results(ResultsRequest(task=task, job_id=job_id, after=after))
        found.extend(reply.chunks)
        if reply.is_complete:
            return found
        assert time.monotonic() < end_s, f"job {job_id} stands at chunk {after}"


def answered(chunks: list[ChunkResult]) -> list[str]:
    """Return the id of every item as often as it was answered, good or failed."""
    return [i for chunk in chunks for i in (*chunk.item_ids, *(error.item_id for error in chunk.failed))]


def await_true(check: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + 30
    while not check():
        assert time.monotonic() < end_s, f"{what} did not happen"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def bulk_main(node: InferenceNode) -> int:
    (found,) = (pid for pid in children(node.processes["workers"].pid) if os.getpriority(os.PRIO_PROCESS, pid) > 0)
    return found


def dispatcher(node: InferenceNode) -> int:
    inode = dispatcher_seat(node.config.state_dir, NODE).path.stat().st_ino
    holders = [line.split() for line in Path("/proc/locks").read_text().splitlines() if line.split()[5].endswith(f":{inode}")]
    return int(holders[0][4])


# ---------------------------------------------------------------- answers


def test_an_answer_keeps_the_order_names_its_version_and_fails_one_bad_link_alone(node: InferenceNode) -> None:
    version = publish_version(open_task(node, "answers"), MOODY, MOODY_DIM, 2.0)
    items = (*text_items(2), Item(item_id="bad", link="http://169.254.169.254/x"), *text_items(1, start=2))
    reply = node.client.predict(PredictRequest(task="answers", items=items))
    assert reply.version == version
    assert reply.item_ids == tuple(item.item_id for item in items)
    assert [(error.item_id, error.code) for error in reply.failed] == [("bad", "unsafe_link")]
    np.testing.assert_allclose(matrix(reply.proba), [signed(2.0), signed(2.0), np.zeros(5), signed(2.0)], atol=1e-6)


def test_predict_says_that_no_version_serves_and_that_a_task_is_unknown(node: InferenceNode) -> None:
    open_task(node, "untrained")
    with pytest.raises(NotReadyError, match="no version of task 'untrained'"):
        node.client.predict(PredictRequest(task="untrained", items=text_items(1)))
    with pytest.raises(NotFoundError, match="'nowhere'"):
        node.client.predict(PredictRequest(task="nowhere", items=text_items(1)))


def test_an_item_that_kills_its_worker_fails_alone_in_a_call(node: InferenceNode) -> None:
    publish_version(open_task(node, "call-poison"), MOODY, MOODY_DIM, 1.0)
    items = (*text_items(2), *text_items(1, "poison"), *text_items(1, start=2))
    reply = node.client.predict(PredictRequest(task="call-poison", items=items), deadline_s=60)
    assert [error.item_id for error in reply.failed] == ["poison-0"]
    np.testing.assert_allclose(matrix(reply.proba)[[0, 1, 3]], [signed(1.0)] * 3, atol=1e-6)


def test_rules_vote_a_model_among_them_and_an_item_that_kills_its_worker_fails_alone(node: InferenceNode) -> None:
    publish_version(open_task(node, "rules"), MOODY, MOODY_DIM, 3.0)
    rules: tuple[Rule, ...] = (
        Keywords(name="even", label=0, field="text", words=("0", "2", "4")),
        Keywords(name="odd", label=1, field="text", words=("1", "3", "5")),
        Keywords(name="calm", label=0, field="text", words=("calm",)),
        ModelOpinion(name="model", source="serving"),
    )
    bad = Item(item_id="bad", link="http://169.254.169.254/x")
    items = (*text_items(2), bad, *text_items(1, "poison"), *text_items(2, start=2))
    request = RulesRequest(task="rules", rules=write_rules(rules), items=items)
    reply = node.client.apply_rules(request, deadline_s=60)
    assert matrix(reply.votes).tolist() == [[0, -1, 0, 0], [-1, 1, 0, 0], [-1] * 4, [-1] * 4, [0, -1, 0, 0], [-1, 1, 0, 0]]
    assert {error.item_id: error.code for error in reply.failed} == {"bad": "unsafe_link", "poison-0": "internal"}
    assert matrix(reply.is_covered).tolist() == [True, True, False, False, True, True]
    names = tuple(rule.name for rule in rules)
    weighed = node.client.weigh_votes(VotesRequest(task="rules", names=names, votes=reply.votes))
    assert (weighed.rules, weighed.proba, weighed.method) == (reply.rules, reply.proba, "dawid-skene")
    with pytest.raises(InvalidInputError, match="rule 'even': there is no column 'txt'"):
        wrong = Keywords(name="even", label=0, field="txt", words=("0",))
        node.client.apply_rules(RulesRequest(task="rules", rules=write_rules([wrong]), items=text_items(1)))


# ---------------------------------------------------------------- hot swap


def test_twenty_swaps_under_a_thousand_calls_cost_no_error_and_each_answer_names_its_version(node: InferenceNode) -> None:
    folder = open_task(node, "swaps")
    signature_of = {publish_version(folder, MOODY, MOODY_DIM, 0.0): 0.0}
    order = list(signature_of)
    is_over = threading.Event()
    seen: list[list[str]] = [[] for _ in range(4)]
    errors: list[BaseException] = []

    def call(mine: list[str]) -> None:
        address = f"127.0.0.1:{node.config.rpc_port}"
        with InferenceClient(address, node.identity, WireSettings()) as client:
            try:
                while not is_over.is_set() or len(mine) < 250:
                    reply = client.predict(PredictRequest(task="swaps", items=text_items(2)))
                    np.testing.assert_allclose(matrix(reply.proba), [signed(signature_of[reply.version])] * 2, atol=1e-6)
                    mine.append(reply.version)
            except BaseException as exc:
                errors.append(exc)
                raise

    threads = [threading.Thread(target=call, args=(mine,)) for mine in seen]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, 21):
            before = [len(mine) for mine in seen]
            version = publish_version(folder, MOODY, MOODY_DIM, number / 4, is_served=False)
            signature_of[version] = number / 4
            order.append(version)
            serve_version(folder, version)
            await_true(lambda b=before: bool(errors) or sum(len(m) for m in seen) >= sum(b) + 40, "forty calls between two swaps")
        await_true(lambda: bool(errors) or all(m and m[-1] == order[-1] for m in seen), "the last swap")
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert not errors
    assert sum(len(mine) for mine in seen) >= 1000
    for mine in seen:
        numbers = [order.index(version) for version in mine]
        assert numbers == sorted(numbers)
        assert numbers[-1] == 20


def test_a_version_with_a_flipped_byte_is_refused_and_the_warm_one_stays(node: InferenceNode) -> None:
    folder = open_task(node, "flipped")
    good = publish_version(folder, MOODY, MOODY_DIM, 1.0)
    assert node.client.predict(PredictRequest(task="flipped", items=text_items(1))).version == good
    bad = publish_version(folder, MOODY, MOODY_DIM, 2.0, is_flipped=True)
    assert node.client.predict_async(JobRequest(task="flipped", job_id="j", items=text_items(3))).version == good
    assert node.client.predict(PredictRequest(task="flipped", items=text_items(1))).version == good
    assert bad != good
    newer = publish_version(folder, MOODY, MOODY_DIM, 3.0)
    await_true(
        lambda: node.client.predict(PredictRequest(task="flipped", items=text_items(1))).version == newer, "the next good version"
    )


def test_a_rollback_is_served_because_its_pointer_is_higher(node: InferenceNode) -> None:
    folder = open_task(node, "rollback")
    old = publish_version(folder, MOODY, MOODY_DIM, 1.0)
    new = publish_version(folder, MOODY, MOODY_DIM, 2.0)
    assert node.client.predict(PredictRequest(task="rollback", items=text_items(1))).version == new
    pointer = current(folder)
    assert pointer is not None
    assert advance(folder, pointer.number, old, "rolled back")
    await_true(lambda: node.client.predict(PredictRequest(task="rollback", items=text_items(1))).version == old, "the rollback")


# ---------------------------------------------------------------- jobs


def test_a_job_embeds_then_its_shards_are_rescored_in_the_same_order(node: InferenceNode) -> None:
    folder = open_task(node, "jobs")
    items = (*text_items(120), Item(item_id="bad", link="data:text/plain"), *text_items(30, start=120))
    reply = node.client.predict_async(JobRequest(task="jobs", job_id="embed", items=items))
    assert (reply.version, reply.chunks) == ("", 4)
    embedded = collect(node, "jobs", "embed")
    assert sorted(answered(embedded)) == sorted(item.item_id for item in items)
    assert all(chunk.proba is None and chunk.shard for chunk in embedded)
    shards = ShardSet(folder, MOODY)
    assert [shards.ids(chunk.shard) for chunk in embedded] == [chunk.item_ids for chunk in embedded]

    version = publish_version(folder, MOODY, MOODY_DIM, 1.5)
    names = tuple(chunk.shard for chunk in embedded)
    assert node.client.predict_async(JobRequest(task="jobs", job_id="rescore", shards=names)).version == version
    rescored = collect(node, "jobs", "rescore")
    assert [(c.shard, c.item_ids, c.version) for c in rescored] == [(c.shard, c.item_ids, version) for c in embedded]
    np.testing.assert_allclose(np.concatenate([matrix(c.proba) for c in rescored]), [signed(1.5)] * 150, atol=1e-6)
    bare = node.client.results(ResultsRequest(task="jobs", job_id="rescore", with_ids=False))
    assert all(chunk.item_ids == () and chunk.n_items for chunk in bare.chunks)
    view = node.client.job(JobKey(task="jobs", job_id="embed"))
    assert (view.state, view.items, view.failed_items) == ("done", 151, 1)


def test_repeating_a_job_is_harmless_and_another_content_is_a_conflict(node: InferenceNode) -> None:
    publish_version(open_task(node, "repeats"), MOODY, MOODY_DIM, 1.0)
    request = JobRequest(task="repeats", job_id="once", items=text_items(60))
    node.client.predict_async(request)
    first = collect(node, "repeats", "once")
    again = node.client.predict_async(request)
    assert (again.state, again.done, again.items) == ("done", 2, 60)
    assert collect(node, "repeats", "once") == first
    with pytest.raises(ConflictError):
        node.client.predict_async(JobRequest(task="repeats", job_id="once", items=text_items(61)))
    with pytest.raises(InvalidInputError, match="twice"):
        node.client.predict_async(JobRequest(task="repeats", job_id="doubled", items=text_items(1) * 2))


@pytest.mark.parametrize("left", [b"", b"labelloop/1 result msgpack 0"])
def test_a_result_that_a_power_cut_tore_is_computed_again(node: InferenceNode, left: bytes) -> None:
    task = f"torn-{len(left)}"
    folder = open_task(node, task)
    publish_version(folder, MOODY, MOODY_DIM, 1.0)
    node.client.predict_async(JobRequest(task=task, job_id="j", items=text_items(120)))
    before = collect(node, task, "j")
    (folder.path / "Preprocess" / "jobs" / "j" / "results" / "1").write_bytes(left)
    assert collect(node, task, "j") == before


def test_a_job_without_items_is_done_and_an_unknown_one_is_not_found(node: InferenceNode) -> None:
    open_task(node, "empty")
    assert node.client.predict_async(JobRequest(task="empty", job_id="none")).state == "done"
    assert node.client.results(ResultsRequest(task="empty", job_id="none")).is_complete
    with pytest.raises(NotFoundError):
        node.client.job(JobKey(task="empty", job_id="other"))


def test_a_shard_that_is_gone_fails_its_chunk_with_the_reason(node: InferenceNode) -> None:
    publish_version(open_task(node, "gone"), MOODY, MOODY_DIM, 1.0)
    node.client.predict_async(JobRequest(task="gone", job_id="j", shards=("s0000",)))
    (chunk,) = collect(node, "gone", "j")
    assert [error.code for error in chunk.failed] == ["not_found"]
    view = node.client.job(JobKey(task="gone", job_id="j"))
    assert view.state == "failed"
    assert "s0000" in view.reason


def test_an_item_that_kills_its_worker_fails_alone_in_a_job(node: InferenceNode) -> None:
    publish_version(open_task(node, "job-poison"), MOODY, MOODY_DIM, 1.0)
    items = (*text_items(4), *text_items(1, "poison"), *text_items(3, start=4), *text_items(50, "slow"))
    node.client.predict_async(JobRequest(task="job-poison", job_id="j", items=items))
    chunks = collect(node, "job-poison", "j")
    assert sorted(answered(chunks)) == sorted(item.item_id for item in items)
    assert [error.item_id for chunk in chunks for error in chunk.failed] == ["poison-0"]
    assert all(chunk.shard for chunk in chunks)


def test_rank_orders_typical_items_before_a_model_serves_and_uncertain_ones_after(node: InferenceNode) -> None:
    folder = open_task(node, "ranks")
    items = text_items(100)
    node.client.predict_async(JobRequest(task="ranks", job_id="embed", items=items))
    with pytest.raises(InvalidInputError):
        node.client.rank(RankRequest(task="ranks"))
    collect(node, "ranks", "embed")
    cold = node.client.rank(RankRequest(task="ranks", job_id="embed", n=10, exclude=("calm-0",)))
    assert (cold.strategy, cold.version, len(cold.item_ids)) == ("typiclust", "", 10)
    assert "calm-0" not in cold.item_ids
    assert node.client.rank(RankRequest(task="ranks", items=items[:20], n=5)).strategy == "typiclust"
    with pytest.raises(InvalidInputError, match="label first"):
        node.client.rank(RankRequest(task="ranks", job_id="embed", strategy="bald"))
    labels = [LabelRow(item.item_id, 1, item.link, (LABELS[at % 3],)) for at, item in enumerate(items[:12])]
    write_segment(folder, "batch-1", [*labels, LabelRow("calm-12", 1, items[12].link, (LABELS[4],), proba=(0.1, 0, 0, 0, 0.9))])
    known = tuple(row.item_id for row in labels)
    split = node.client.rank(RankRequest(task="ranks", job_id="embed", strategy="bald", n=5, exclude=known, costs={"calm-50": 9.0}))
    assert (split.strategy, len(set(split.item_ids) - set(known))) == ("bald", 5)
    reduced = RankRequest(task="ranks", items=items[:40], strategy="expected_error_reduction", parameters={"candidates": 10}, n=5)
    assert node.client.rank(reduced).strategy == "expected_error_reduction"
    version = publish_version(folder, MOODY, MOODY_DIM, 1.0)
    await_true(lambda: node.client.rank(RankRequest(task="ranks", items=items[:20])).version == version, "the model in rank")
    warm = node.client.rank(RankRequest(task="ranks", items=items[:20], strategy="margin", n=0, exploration=0.0))
    assert (warm.strategy, len(warm.item_ids)) == ("margin", 20)
    scores = matrix(warm.scores)
    assert (np.diff(scores) <= 0).all()
    top, second = np.sort(signed(1.0))[::-1][:2]
    np.testing.assert_allclose(scores, 1 - (top - second), atol=1e-5)


# ---------------------------------------------------------------- death


def run_job_while(node: InferenceNode, task: str, hurt: Callable[[], None]) -> tuple[list[ChunkResult], tuple[Item, ...]]:
    """Start a job of slow items, hurt the node once some chunks are done and others not, and return all results."""
    publish_version(open_task(node, task), MOODY, MOODY_DIM, 1.0)
    items = text_items(1000, "slow")
    node.client.predict_async(JobRequest(task=task, job_id="j", items=items))

    def view() -> JobReply:
        return node.client.job(JobKey(task=task, job_id="j"))

    await_true(lambda: view().done >= 2, "the first chunks")
    assert view().state == "running"
    hurt()
    return collect(node, task, "j"), items


def check_exactly_once(chunks: list[ChunkResult], items: tuple[Item, ...]) -> None:
    assert sorted(answered(chunks)) == sorted(item.item_id for item in items)
    assert [error for chunk in chunks for error in chunk.failed] == []
    assert [chunk.chunk for chunk in chunks] == list(range(len(chunks)))
    assert all(matrix(chunk.proba).shape == (len(chunk.item_ids), 5) for chunk in chunks)


def test_a_job_survives_kill_9_of_the_bulk_child(own_node: InferenceNode) -> None:
    check_exactly_once(*run_job_while(own_node, "t", lambda: os.kill(children(bulk_main(own_node))[0], signal.SIGKILL)))


def test_a_job_survives_kill_9_of_the_bulk_worker(own_node: InferenceNode) -> None:
    check_exactly_once(*run_job_while(own_node, "t", lambda: os.kill(bulk_main(own_node), signal.SIGKILL)))


def test_a_job_survives_kill_9_of_the_role_process_with_all_workers(own_node: InferenceNode) -> None:
    def hurt() -> None:
        own_node.kill("workers")
        own_node.start_workers()

    check_exactly_once(*run_job_while(own_node, "t", hurt))


def test_a_job_survives_kill_9_of_the_rpc_process_that_dispatches(own_node: InferenceNode) -> None:
    killed: list[int] = []

    def hurt() -> None:
        killed.append(dispatcher(own_node))
        os.kill(killed[0], signal.SIGKILL)

    check_exactly_once(*run_job_while(own_node, "t", hurt))
    assert killed[0] not in children(own_node.processes["rpc"].pid)
    assert len(children(own_node.processes["rpc"].pid)) == 2


def test_a_job_survives_kill_9_of_the_rpc_parent(own_node: InferenceNode) -> None:
    def hurt() -> None:
        own_node.kill("rpc")
        own_node.start_rpc()
        own_node.await_workers()

    check_exactly_once(*run_job_while(own_node, "t", hurt))


def test_a_job_survives_kill_9_of_the_broker_and_calls_go_on_after_it(own_node: InferenceNode) -> None:
    def hurt() -> None:
        own_node.kill("broker")
        own_node.start_broker()

    check_exactly_once(*run_job_while(own_node, "t", hurt))
    reply = own_node.client.predict(PredictRequest(task="t", items=text_items(1)), deadline_s=60)
    assert not reply.failed


def test_a_broker_that_was_emptied_loses_no_job(own_node: InferenceNode) -> None:
    def hurt() -> None:
        own_node.kill("broker")
        for path in (own_node.folder / "broker").glob("appendonly*"):
            shutil.rmtree(path)
        own_node.start_broker()

    check_exactly_once(*run_job_while(own_node, "t", hurt))


def test_a_call_survives_kill_9_of_the_interactive_child(own_node: InferenceNode) -> None:
    publish_version(open_task(own_node, "t"), MOODY, MOODY_DIM, 1.0)
    own_node.client.predict(PredictRequest(task="t", items=text_items(1)))
    main = next(pid for pid in children(own_node.processes["workers"].pid) if os.getpriority(os.PRIO_PROCESS, pid) == 0)
    killer = threading.Timer(0.2, lambda: os.kill(children(main)[0], signal.SIGKILL))
    killer.start()
    reply = own_node.client.predict(PredictRequest(task="t", items=text_items(250, "slow")), deadline_s=60)
    killer.join()
    assert not reply.failed
    np.testing.assert_allclose(matrix(reply.proba), [signed(1.0)] * 250, atol=1e-6)


def test_without_a_worker_a_call_says_so_and_a_job_waits_for_one(own_node: InferenceNode) -> None:
    publish_version(open_task(own_node, "t"), MOODY, MOODY_DIM, 1.0)
    own_node.client.predict(PredictRequest(task="t", items=text_items(1)))
    own_node.kill("workers")
    with pytest.raises(NoWorkerError, match="no inference worker"):
        own_node.client.predict(PredictRequest(task="t", items=text_items(1)))
    items = text_items(100)
    assert own_node.client.predict_async(JobRequest(task="t", job_id="j", items=items)).state == "running"
    own_node.start_workers()
    check_exactly_once(collect(own_node, "t", "j"), items)


def test_the_rpc_processes_are_n_forks_without_a_model_library(own_node: InferenceNode) -> None:
    publish_version(open_task(own_node, "t"), MOODY, MOODY_DIM, 1.0)
    own_node.client.predict(PredictRequest(task="t", items=text_items(1)))
    forks = children(own_node.processes["rpc"].pid)
    assert len(forks) == own_node.config.rpc_processes
    for pid in (own_node.processes["rpc"].pid, *forks):
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert not [word for word in ("libtorch", "onnxruntime", "tensorflow", "sklearn") if word in maps]
    assert len(list(Path(f"/proc/{own_node.processes['rpc'].pid}/task").iterdir())) == 1
