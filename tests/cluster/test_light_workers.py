"""What the processes of the roles carry: no torch where ONNX serves, no model library in a parent or an RPC process."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from datastore_layout.intake_files import write_intake
from datastore_layout.labels import LabelLog
from datastore_layout.models import Manifest, advance, publish_model
from datastore_layout.root import TaskFolder
from labelloop.messages import Item, JobKey, JobRequest, PredictRequest, Sample, SubmitRequest, TaskExtraInfo, TaskSpec
from labelloop.queues import data_queue
from labelloop.settings import Settings
from learning.algorithms.linear_model import LinearModel
from roles.celery_app import make_app, send
from roles.hints import INTAKE_TASK, IntakeHint
from scripts.inference_node import CHECKOUT, InferenceNode

pytestmark = pytest.mark.slow

ENCODER, DIM, LABELS = "efficientnet-lite0", 1280, ("cat", "dog")
HEAVY = ("libtorch", "tensorflow")
LIBRARIES = (*HEAVY, "onnxruntime", "sklearn")
MOST_MIB = 700


@pytest.fixture
def node(tmp_path: Path) -> Iterator[InferenceNode]:
    with InferenceNode(tmp_path / "node") as running:
        yield running


@pytest.fixture
def data_worker(node: InferenceNode, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    config = tmp_path / "data.json"
    config.write_bytes(msgspec.json.encode(msgspec.structs.replace(node.config, role="train")))
    with (tmp_path / "data.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.start_data", str(config)], env=node.environment, stdout=log, stderr=log, cwd=CHECKOUT
        )
    yield process
    process.terminate()
    process.wait(30)


def picture(number: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def open_task(node: InferenceNode) -> TaskFolder:
    extra = TaskExtraInfo(labels=LABELS, encoder=ENCODER)
    folder = node.open_task(TaskSpec(task="pets", category="image-classification", extra=extra))
    model = LinearModel(np.zeros((DIM, 2), np.float32), np.zeros(2, np.float32), np.zeros(DIM, np.float32), False)
    manifest = Manifest(
        task="pets", category="image-classification", labels=LABELS, algorithm="logistic-regression", encoder=ENCODER
    )
    source = node.folder / "model"
    source.mkdir()
    model.save(source)
    advance(folder, 0, publish_model(folder, manifest, source), "test")
    return folder


def family(pid: int) -> list[int]:
    """Return `pid` and all below it."""
    children = [int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()]
    return [pid, *(each for child in children for each in family(child))]


def libraries(pid: int) -> set[str]:
    maps = Path(f"/proc/{pid}/maps").read_text()
    return {name for name in LIBRARIES if name in maps}


def resident_mib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))


def await_true(check: Callable[[], object], what: str) -> None:
    end_s = time.monotonic() + 90
    while not check():
        assert time.monotonic() < end_s, f"{what} did not happen"
        time.sleep(0.05)


def test_workers_that_embed_by_onnx_carry_no_torch_and_parents_no_model_library(
    node: InferenceNode, data_worker: subprocess.Popen[bytes]
) -> None:
    folder = open_task(node)
    items = tuple(Item(item_id=f"i{number}", link=picture(number)) for number in range(4))
    assert not node.client.predict(PredictRequest(task="pets", items=items), deadline_s=90).failed
    node.client.predict_async(JobRequest(task="pets", job_id="j", items=items))
    await_true(lambda: node.client.job(JobKey(task="pets", job_id="j")).state == "done", "the job")
    samples = tuple(Sample(item_id=item.item_id, link=item.link, labels=("cat",), revision=1) for item in items)
    write_intake(folder, SubmitRequest(task="pets", batch_id="b", samples=samples))
    sender = make_app(node.config, Settings(), "sender")
    send(sender, INTAKE_TASK, IntakeHint(task="pets", batch_id="b"), data_queue(node.config.master_host))
    log = LabelLog(folder)
    await_true(lambda: log.refresh() or log.segments, "the segment")
    assert not log.failed()
    sender.close()

    workers, rpc = family(node.processes["workers"].pid), family(node.processes["rpc"].pid)
    data = family(data_worker.pid)
    assert (len(workers), len(rpc), len(data)) == (5, 3, 2)
    for pid in (*workers, *rpc, *data):
        assert not libraries(pid) & set(HEAVY)
        assert resident_mib(pid) < MOST_MIB
    embedding = [pid for pid in (*workers, *data) if "onnxruntime" in libraries(pid)]
    assert len(embedding) == 2, "the bulk child and one more: features that one has embedded the others find in their shard"
    assert all(not libraries(pid) for pid in (*rpc, workers[0], data[0]))
