"""An image that kills its worker: a real encoder plug-in with a bad habit, and a job in which one picture is the poison.

Owns the plug-in's files and the job. Must never be installed outside a lab: the plug-in lies in the lab's folder. Called by
`faults`; `environment` is what the lab's dockers need to find it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from cluster.lab.plan import SHARED
from labelloop import messages as m
from scripts.chaos.flow import Flow
from scripts.chaos.ground import LabGround
from scripts.chaos.streams import CALL_S
from scripts.chaos.trial import NeverCameTrueError, answered, until

FOLDER = "token/chaos-plugin"  # of the lab, and below SHARED in its dockers
ENCODER = "chaos-pixels"
N_GOOD = 60
SIDE = 8
POISON = "picture-poison"
_MODULE = """
import os
import signal

import numpy as np

from intake.encoders.base import Encoder


class Fragile(Encoder):
    name = "chaos-pixels"
    dim = 3
    category = "image-classification"

    def embed(self, prepared):
        rows = np.array([np.asarray(p.convert("RGB"), np.float32).mean(axis=(0, 1)) for p in prepared], np.float32)
        if any(tuple(row) == (255.0, 0.0, 0.0) for row in rows):
            os.kill(os.getpid(), signal.SIGKILL)
        return rows / 255.0
"""


def environment() -> Mapping[str, str]:
    """Return what the dockers of a lab need in their environment to find the plug-in."""
    return {"PYTHONPATH": f"{SHARED}/{FOLDER}"}


def write_plugin(lab_folder: Path) -> None:
    """Put the plug-in where the dockers of the lab that will be made in `lab_folder` find it."""
    folder = lab_folder / FOLDER
    info = folder / "chaos-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (folder / "chaos_encoder.py").write_text(_MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: chaos\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[labelloop.encoders]\nchaos-pixels = chaos_encoder:Fragile\n")


def picture(number: int) -> tuple[str, str]:
    """Return (link, label) of the n-th good picture: dark ones are 'dark', bright ones 'bright'."""
    grey = (number * 37) % 256
    return _link((grey, grey, (grey + number) % 256)), "bright" if grey > 127 else "dark"


def _link(colour: tuple[int, int, int]) -> str:
    out = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), colour).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def run_poison_job(ground: LabGround, flow: Flow) -> str:
    """Train an image task, then leave a job whose middle picture kills every worker that decodes it, and page it to its end.

    Raises NeverCameTrueError unless that picture alone is answered as failed and all others are answered.
    """
    task = f"{flow.calls.task}-pictures"
    _open(ground, task)
    items = [m.Item(item_id=f"picture-{number}", link=picture(number)[0]) for number in range(N_GOOD)]
    items.insert(N_GOOD // 2, m.Item(item_id=POISON, link=_link((255, 0, 0))))
    request = m.JobRequest(task=task, job_id="poisoned", items=tuple(items))
    until(answered(lambda: ground.cluster.inference().predict_async(request, deadline_s=CALL_S)), "the poisoned job accepted")
    key = m.JobKey(task=task, job_id="poisoned")
    took_s = until(lambda: _why_not_done(ground, key), "the poisoned job done")
    failed = _failed(ground, key, [item.item_id for item in items])
    if failed != [POISON]:
        raise NeverCameTrueError(f"answered as failed are {failed}, poison is {POISON}")
    return f"{N_GOOD} pictures answered, the poison alone as failed, after {took_s:.1f} s"


def _open(ground: LabGround, task: str) -> None:
    extra = m.TaskExtraInfo(labels=("dark", "bright"), algorithm="logistic-regression", encoder=ENCODER)
    spec = m.TaskSpec(task=task, category="image-classification", extra=extra)
    until(answered(lambda: ground.registry.open_task(m.OpenTaskRequest(spec=spec))), "the task of pictures opens")
    samples = []
    for number in range(40):
        link, label = picture(number)
        samples.append(m.Sample(item_id=f"seed-{number}", link=link, labels=(label,)))
    submit = m.SubmitRequest(task=task, batch_id="seed", samples=tuple(samples))
    until(answered(lambda: ground.cluster.train().submit(submit, deadline_s=CALL_S)), "the labels of pictures go in")
    probe = m.PredictRequest(task=task, items=(m.Item(item_id="probe", link=picture(1)[0]),))
    until(answered(lambda: ground.cluster.inference().predict(probe, deadline_s=CALL_S)), "a version for pictures serves")


def _why_not_done(ground: LabGround, key: m.JobKey) -> str:
    reply = ground.cluster.inference().job(key, deadline_s=CALL_S)
    return "" if reply.state == "done" else f"{reply.done} of {reply.chunks} chunks"


def _failed(ground: LabGround, key: m.JobKey, asked: list[str]) -> list[str]:
    """Return the ids answered as failed; raises NeverCameTrueError when an item is missing or answered twice."""
    request = m.ResultsRequest(task=key.task, job_id=key.job_id, limit=256)
    reply = ground.cluster.inference().results(request, deadline_s=CALL_S)
    good = [item for chunk in reply.chunks for item in chunk.item_ids]
    failed = [error.item_id for chunk in reply.chunks for error in chunk.failed]
    if sorted(good + failed) != sorted(asked):
        raise NeverCameTrueError(f"{len(asked)} pictures asked, {len(good)} answered and {len(failed)} failed")
    return failed
