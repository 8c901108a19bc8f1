"""Three data workers of three train nodes on one broker: a batch of 2,000 samples is the work of all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from datastore_layout.intake_progress import has_segment
from datastore_layout.labels import read_segment
from datastore_layout.root import task_folder
from datastore_layout.tasks import save_spec
from labelloop.messages import Sample, SubmitRequest, TaskExtraInfo, TaskSpec
from tests.support_train import running_node, until

pytestmark = pytest.mark.slow

N = 2000


def test_each_of_three_data_workers_handles_at_least_a_fifth_of_a_large_batch(tmp_path: Path) -> None:
    with running_node(tmp_path, tmp_path, first_labels=100_000) as first:
        nodes = [first, first.sibling("n2", "127.0.0.2"), first.sibling("n3", "127.0.0.3")]
        folder = task_folder(first.root, "t1")
        extra = TaskExtraInfo(labels=("a", "b"), encoder="minilm-l6")
        save_spec(folder, TaskSpec(task="t1", category="text-classification", extra=extra))
        try:
            first.start("rpc")
            for node in nodes:
                node.start("data")
            for node in nodes:
                until(lambda node=node: "ready" in node.log("data"), "a data worker")
            for batch, begin, stop in (("warm", 0, 300), ("large", 300, 300 + N)):
                samples = tuple(
                    Sample(item_id=f"i{i}", link=f"data:,this%20is%20text%20{i}", labels=("ab"[i % 2],)) for i in range(begin, stop)
                )
                first.client.submit(SubmitRequest(task="t1", batch_id=batch, samples=samples))
                until(lambda batch=batch: has_segment(folder, batch), f"the segment of {batch}", 180.0)
            handled = read_segment(folder, "large").handled
        finally:
            for node in nodes:
                node.end_processes()
    assert sum(handled.values()) == N
    assert handled.keys() == {"n1", "n2", "n3"}
    assert min(handled.values()) >= N / 5, handled
