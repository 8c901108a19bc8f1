"""The whole loop on boxes and on spans in a real cluster: drafts are corrected, and there is less and less to correct."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from labelloop.clients import Cluster as Platform
from labelloop.messages import FormRequest, JobRequest, Predictions, PredictRequest, RankRequest, ResultsRequest
from labelloop.settings import WireSettings
from scripts.region_loop import RegionLoop, Round, TrueItem
from tests.cluster.two_managers import Cluster, running_cluster, until
from tests.support_regions import KINDS, SHAPES, named_texts, spotted_pictures, write_package

pytestmark = pytest.mark.slow
BATCH = 24


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(write_package(folder / "package")))
        with running_cluster(folder / "cluster", "scripts") as running:
            until(lambda: running.registry.form(FormRequest(train=1, inference=1), deadline_s=120), "both roles form")
            with _join(running) as platform:
                yield platform


def _join(running: Cluster) -> Platform:
    return Platform(f"127.0.0.1:{running.registry_port}", running.client, WireSettings())


def rounds_of(loop: RegionLoop, n: int) -> list[Round]:
    rounds = [loop.round() for _ in range(n)]
    assert [one.run.state for one in rounds] == ["done"] * n
    assert rounds[0].version == "" and rounds[0].strategy == "typiclust"
    assert rounds[0].done.per_100 == 100
    assert rounds[1].version.startswith("model-") and rounds[1].strategy == "region_uncertainty"
    return rounds


def test_boxes_need_fewer_corrections_with_drafts_in_the_loop(platform: Platform) -> None:
    made, methods = spotted_pictures(220), {"algorithm": "spots", "encoder": "spots-map"}
    loop = RegionLoop(platform, "spots", "object-detection", SHAPES, made[:160], batch=BATCH, **methods)
    rounds = rounds_of(loop, 3)
    assert max(one.done.per_100 for one in rounds[1:]) < 70
    assert rounds[-1].run.metrics["map50"] > 0.5
    done, f1 = loop.judge(made[160:])
    assert done.per_100 < 40 and f1 > 0.7


def test_spans_need_fewer_corrections_with_every_training(platform: Platform) -> None:
    made, methods = named_texts(220), {"algorithm": "words", "encoder": "letters"}
    loop = RegionLoop(platform, "names", "token-classification", KINDS, made[:160], batch=BATCH, **methods)
    rounds = rounds_of(loop, 4)
    needed = [one.done.per_100 for one in rounds]
    assert needed == sorted(needed, reverse=True) and needed[-1] < 50
    assert rounds[-1].run.metrics["span_f1"] > 0.7
    _a_job_has_the_same_answers(platform, made[160:])


def _a_job_has_the_same_answers(platform: Platform, made: list[TrueItem]) -> None:
    """A durable job's pages and an order over it know the regions that `predict` answers."""
    items = tuple(one.item for one in made)
    now: Predictions = platform.inference().predict(PredictRequest(task="names", items=items))
    platform.inference().predict_async(JobRequest(task="names", job_id="rest", items=items))
    after, found = -1, {}
    while True:
        page = platform.inference().results(ResultsRequest(task="names", job_id="rest", after=after))
        for chunk in page.chunks:
            after = chunk.chunk
            found |= dict(zip(chunk.item_ids, chunk.regions, strict=True))
        if page.is_complete:
            break
    assert found == dict(zip(now.item_ids, now.regions, strict=True))
    ranked = platform.inference().rank(RankRequest(task="names", job_id="rest", n=5))
    assert len(ranked.item_ids) == 5
    assert ranked.strategy == "region_uncertainty"
