"""The train master's docker dies in the middle of a training that two dockers share, as ops staff see it in status."""

from __future__ import annotations

import base64
import io
import re

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from datastore_layout.ranks import Generation, read_generations
from datastore_layout.root import TaskFolder, open_root, task_folder
from datastore_layout.runs import Attempt, latest_attempt, newest_checkpoint, read_finish
from labelloop import messages as m
from scripts.chaos.trial import await_whole, until
from tests.cluster.conftest import Formed

pytestmark = pytest.mark.slow

TASK = "long"
N = 200
PATIENCE_S = 240.0
LABELS = tuple("0123456789")


def digit_samples() -> tuple[m.Sample, ...]:
    digits = load_digits()
    found = []
    for i in range(N):
        data = io.BytesIO()
        Image.fromarray((digits.images[i] * 15.9).astype("uint8"), "L").save(data, "PNG")
        link = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
        found.append(m.Sample(item_id=f"d{i}", link=link, labels=(str(digits.target[i]),)))
    return tuple(found)


def begin(formed: Formed) -> TaskFolder:
    """Open a task whose training takes longer than the test, and label enough for it to begin."""
    extra = m.TaskExtraInfo(
        labels=LABELS, algorithm="small-cnn", parameters={"width": 8, "batch": 16}, epoch=20_000, retrain_labels=100_000
    )
    spec = m.TaskSpec(task=TASK, category="image-classification", extra=extra)
    formed.ground.registry.open_task(m.OpenTaskRequest(spec=spec))
    request = m.SubmitRequest(task=TASK, batch_id="b1", samples=digit_samples())
    until(lambda: "" if formed.ground.cluster.train().submit(request) else "no answer", "the labels go in", PATIENCE_S)
    return task_folder(open_root(formed.lab.datastore), TASK)


def why_not_on(folder: TaskFolder, attempt: int, nodes: set[str]) -> str:
    """Return why the newest generation of an attempt is not one of `nodes` that has done some steps."""
    found: list[Generation] = [one for k, one in read_generations(folder, 1) if k == attempt]
    checkpoint = newest_checkpoint(folder, 1)
    if not found or checkpoint is None:
        return f"attempt {latest_attempt(folder, 1)}, checkpoint {checkpoint}, end {read_finish(folder, 1)}"
    names = {rank.node for rank in found[-1].ranks}
    return "" if names == nodes and checkpoint.step > found[-1].begin else f"{names} from {found[-1].begin}, {checkpoint.step}"


def why_not_shown(formed: Formed, node: str, pattern: str) -> str:
    """Return what `labelloop status` says where no line of `node` matches."""
    shown = formed.labelloop("status").stdout
    return "" if any(re.search(pattern, line) for line in shown.splitlines() if node in line) else shown


def test_the_next_lowest_address_takes_a_dead_master_s_training_over_from_its_snapshot_and_status_says_so(formed: Formed) -> None:
    await_whole(formed.ground)
    folder = begin(formed)
    until(lambda: why_not_on(folder, 1, {"node-1", "node-2"}), "steps of both dockers", PATIENCE_S)
    until(lambda: why_not_shown(formed, "node-", rf"{TASK}: run 1 attempt 1, \d+ of \d+ steps on 2"), "status of it", PATIENCE_S)
    before = newest_checkpoint(folder, 1)
    formed.lab.kill("node-1")
    try:
        until(lambda: "" if formed.ground.master("train") == "node-2" else "no", "the next master", PATIENCE_S)
        until(lambda: why_not_on(folder, 2, {"node-2"}), "the next attempt", PATIENCE_S)
        until(lambda: why_not_shown(formed, "node-2", rf"{TASK}: run 1 attempt 2, \d+ of"), "status of it", PATIENCE_S)
    finally:
        formed.lab.boot("node-1")
    start = Attempt(folder, 1, 2).start_checkpoint()
    assert start is not None and before is not None
    assert start.step >= before.step > 0
    cancel = m.CancelRequest(task=TASK, run=1, reason="seen enough")
    until(lambda: "" if formed.ground.cluster.train().cancel(cancel) else "no answer", "it is cancelled", PATIENCE_S)
    await_whole(formed.ground)
    assert latest_attempt(folder, 1) <= 3  # a third where node-1 is master again
