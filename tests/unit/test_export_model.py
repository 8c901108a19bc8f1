"""`labelloop export-model` on a real datastore: the file answers as the version that serves; mistakes get one sentence."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest

from datastore_layout.models import Manifest, advance, publish_model
from datastore_layout.root import TaskFolder, create_root, task_folder
from learning.algorithms import Model, find_algorithm
from learning.transfer.calibration import CalibratedModel, Calibration
from scripts.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> TaskFolder:
    return task_folder(create_root(tmp_path / "store", "c1"), "cats")


def publish(folder: TaskFolder, tmp_path: Path, algorithm: str, encoder: str) -> tuple[str, Model]:
    x = np.random.default_rng(0).integers(0, 256, (24, 64)).astype(np.float32)
    training = find_algorithm(algorithm).start(x, np.arange(24) % 3, 3, epoch=1)
    while training.step < training.steps:
        training.advance()
    model = CalibratedModel(training.model(), Calibration(1.4, False, 24, ""))
    source = tmp_path / f"model-{algorithm}"
    source.mkdir()
    model.save(source)
    manifest = Manifest(task="cats", category="image-classification", labels=("a", "b", "c"), algorithm=algorithm, encoder=encoder)
    return publish_model(folder, manifest, source), model


@pytest.mark.parametrize(
    ("algorithm", "encoder", "shape"), [("logistic-regression", "raw-pixels-8g", (64,)), ("small-cnn", "pixels-8g", (8, 8, 1))]
)
def test_the_serving_version_becomes_a_file_that_says_what_it_is(
    folder: TaskFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], algorithm: str, encoder: str, shape: tuple[int, ...]
) -> None:
    version, model = publish(folder, tmp_path, algorithm, encoder)
    advance(folder, 0, version, "first")
    out = tmp_path / "cats.onnx"
    assert main(["export-model", "cats", "--datastore", str(tmp_path / "store"), "--out", str(out)]) == 0
    assert f"version {version}, {algorithm} on {encoder}" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    facts = msgspec.json.decode(session.get_modelmeta().custom_metadata_map["labelloop"])
    assert (facts["labels"], facts["version"], facts["encoder"]) == (["a", "b", "c"], version, encoder)
    x = np.random.default_rng(1).integers(0, 256, (5, 64)).astype(np.float32)
    found = session.run(["probabilities"], {"x": x.reshape(-1, *shape)})[0]
    np.testing.assert_allclose(found, model.predict_proba(x), atol=1e-4)
    assert [path.name for path in tmp_path.glob("*.onnx")] == ["cats.onnx"]


def test_mistakes_are_one_sentence_and_leave_no_file(
    folder: TaskFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version, _ = publish(folder, tmp_path, "logistic-regression", "raw-pixels-8g")
    store, out = str(tmp_path / "store"), str(tmp_path / "cats.onnx")
    cases = (
        (["cats", "--datastore", store, "--out", out], "serves yet"),
        (["dogs", "--datastore", store, "--out", out], "serves yet"),
        (["cats", "--version", "model-no", "--datastore", store, "--out", out], "model-no"),
        (["cats", "--node-state", str(tmp_path / "none"), "--out", out], "--datastore PATH"),
        (["cats", "--datastore", str(tmp_path), "--out", out], ".labelloop-root"),
        (["cats", "--version", version, "--datastore", store, "--out", str(tmp_path / "no" / "f.onnx")], "cannot be written"),
    )
    for arguments, sentence in cases:
        assert main(["export-model", *arguments]) == 1
        said = capsys.readouterr().err
        assert sentence in said
        assert said.count("\n") == 1
    assert not list(tmp_path.glob("*.onnx"))
