"""One attempt from claim to end on a real folder: what it publishes, when it serves, when it stops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datastore_layout.labels import LabelRow
from datastore_layout.models import advance, current, list_versions, read_manifest, read_verdict, verified_model_dir
from datastore_layout.root import TaskFolder, create_root, task_folder
from datastore_layout.runs import RunSpec, claim_attempt, create_run, finish, read_finish, read_run_metrics, request_cancel
from datastore_layout.shards import ShardSet
from datastore_layout.training_sets import TrainingSet, write_training_set
from labelloop.messages import TaskExtraInfo, TaskSpec
from labelloop.settings import Settings
from learning.algorithms import find_algorithm
from learning.transfer.calibration import CalibratedModel
from roles.hints import RunHint
from roles.train import attempt as attempt_module
from roles.train.attempt import run_attempt
from roles.train.publishing import rollback

ENCODER = "raw-pixels-8g"
N = 120


class World:
    """A task whose items have 64 features that tell their class of three apart."""

    def __init__(self, folder: TaskFolder) -> None:
        self.folder = folder
        chance = np.random.default_rng(5)
        self.classes = np.arange(N) % 3
        features = chance.normal(size=(N, 64)).astype(np.float32)
        features[np.arange(N), self.classes] += 6.0
        ids = [f"i{n}" for n in range(N)]
        self.shard = ShardSet(folder, ENCODER).write(ids, [f"file:///{i}" for i in ids], [f"h{i}" for i in ids], features)

    def run(
        self,
        n: int = N,
        labels: tuple[str, ...] = ("0", "1", "2"),
        label_of: Callable[[int], tuple[str, ...]] | None = None,
        algorithm: str = "logistic-regression",
        kind: str = "multiclass",
    ) -> int:
        """Create a run over the first `n` items with their true labels, or what `label_of` says of a class."""
        found = current(self.folder)
        say = label_of or (lambda c: (str(c),))
        rows = tuple(LabelRow(f"i{i}", 1, f"file:///i{i}", say(int(self.classes[i])), shard=self.shard, row=i) for i in range(n))
        extra = TaskExtraInfo(labels=labels, kind="multilabel" if kind == "multilabel" else "multiclass")
        spec = TaskSpec(task="digits", category="image-classification", extra=extra)
        start = found.version if found else ""
        run = create_run(self.folder, RunSpec(algorithm=algorithm, encoder=ENCODER, n_labels=n, start_version=start))
        number = found.number if found else 0
        write_training_set(self.folder, run, TrainingSet(spec=spec, rows=rows, pointer=number))
        return run

    def train(self, run: int, attempt: int = 1) -> str:
        return run_attempt(self.folder, RunHint(task="digits", run=run, attempt=attempt), Settings())

    def serving(self) -> str:
        found = current(self.folder)
        return found.version if found else ""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(task_folder(create_root(tmp_path / "store", "c1"), "digits"))


def end_reason(world: World, run: int) -> str:
    end = read_finish(world.folder, run)
    assert end is not None
    return end.reason


def test_a_first_version_serves_with_a_complete_manifest_and_a_loss_curve(world: World) -> None:
    run = world.run()
    assert "fit" in world.train(run)
    version = world.serving()
    manifest = read_manifest(world.folder, version)
    assert (manifest.run, manifest.labels, manifest.n_labels, manifest.encoder) == (run, ("0", "1", "2"), N, ENCODER)
    assert manifest.metrics.keys() == {"accuracy", "macro_f1", "log_loss", "calibration_error", "held_out", "temperature"}
    assert manifest.metrics["accuracy"] > 0.9
    verdict = read_verdict(world.folder, version)
    assert verdict is not None
    assert verdict.is_served
    assert end_reason(world, run) == verdict.reason
    points = read_run_metrics(world.folder, run)
    assert points[-1].loss is not None
    assert points[-1].metrics["accuracy"] == manifest.metrics["accuracy"]


def test_a_version_that_forgets_is_refused_by_the_gate_on_the_same_held_out_items(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.train(world.run())
    first = world.serving()
    loaded = attempt_module.load_samples

    def spoiled(*arguments: object) -> attempt_module.Samples:
        samples = loaded(*arguments)  # type: ignore[arg-type]
        part = samples.train
        return attempt_module.Samples(attempt_module.Part(part.rows, part.x, (part.y + 1) % 3), samples.held_out)

    monkeypatch.setattr(attempt_module, "load_samples", spoiled)
    run = world.run()
    world.train(run)
    assert world.serving() == first
    reason = end_reason(world, run)
    assert reason.startswith(f"kept, {first} goes on serving: worse")
    kept = [version for version in list_versions(world.folder) if version != first]
    verdict = read_verdict(world.folder, kept[0])
    assert verdict is not None
    assert (verdict.is_served, verdict.reason) == (False, reason)


def test_a_label_set_that_grew_is_compared_column_by_column(world: World) -> None:
    world.train(world.run())
    run = world.run(labels=("new", "2", "1", "0"))
    world.train(run)
    assert "not worse" in end_reason(world, run)
    assert read_manifest(world.folder, world.serving()).labels == ("new", "2", "1", "0")


def test_a_multilabel_task_trains_and_serves(world: World) -> None:
    run = world.run(kind="multilabel", label_of=lambda c: (("0",), (), ("0", "2"))[c])
    world.train(run)
    assert read_manifest(world.folder, world.serving()).metrics["accuracy"] > 0.8


def test_a_damaged_serving_version_does_not_block_its_successor(world: World) -> None:
    world.train(world.run())
    folder = verified_model_dir(world.folder, world.serving())
    weights = next(path for path in folder.iterdir() if path.name != "model.json")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(bytes(data))
    run = world.run()
    world.train(run)
    assert read_manifest(world.folder, world.serving()).run == run


def test_an_incremental_algorithm_starts_from_the_serving_weights(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.train(world.run(algorithm="linear-head"))
    algorithm = find_algorithm("linear-head")
    seen: list[object] = []
    start = type(algorithm).start

    def spy(self: object, *arguments: object) -> object:
        seen.append(arguments[-1])
        return start(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(type(algorithm), "start", spy)
    world.train(world.run(algorithm="linear-head"))
    assert seen[0] is not None
    world.train(world.run(algorithm="linear-head", labels=("0", "1", "2", "3")))
    assert seen[1] is None


def test_a_second_attempt_reuses_what_the_first_published_before_it_died(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run = world.run()

    def die(*_: object) -> None:
        raise RuntimeError("killed between publishing and the gate")

    with monkeypatch.context() as patch:
        patch.setattr(attempt_module, "settle", die)
        with pytest.raises(RuntimeError):
            world.train(run)
    assert world.serving() == ""
    world.train(run, attempt=2)
    assert len(list_versions(world.folder)) == 1
    assert world.serving() == list_versions(world.folder)[0]


def test_an_attempt_is_claimed_once_and_a_finished_run_is_left_alone(world: World) -> None:
    run = world.run()
    claim_attempt(world.folder, run, 1)
    assert "claimed by another" in world.train(run)
    finish(world.folder, run, "cancelled", "no need")
    assert "ended already" in world.train(run, attempt=2)
    assert list_versions(world.folder) == ()


def test_an_attempt_that_sees_a_higher_one_publishes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run = world.run()
    loaded = attempt_module.load_samples

    def overtaken(*arguments: object) -> attempt_module.Samples:
        claim_attempt(world.folder, run, 2)
        return loaded(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(attempt_module, "load_samples", overtaken)
    assert "a higher attempt was claimed" in world.train(run)
    assert list_versions(world.folder) == ()
    assert read_finish(world.folder, run) is None


def test_a_run_cancelled_while_it_trains_ends_without_a_version(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run = world.run()
    loaded = attempt_module.load_samples

    def cancelled(*arguments: object) -> attempt_module.Samples:
        request_cancel(world.folder, run, "wrong labels")
        return loaded(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(attempt_module, "load_samples", cancelled)
    world.train(run)
    end = read_finish(world.folder, run)
    assert end is not None
    assert (end.state, end.reason) == ("cancelled", "wrong labels")
    assert list_versions(world.folder) == ()


def test_a_run_that_cannot_succeed_fails_with_a_sentence_and_is_not_repeated(world: World) -> None:
    run = world.run(n=1)
    world.train(run)
    end = read_finish(world.folder, run)
    assert end is not None
    assert end.state == "failed"
    assert "both parts need at least one" in end.reason


def test_a_run_begun_before_a_rollback_does_not_serve(world: World) -> None:
    world.train(world.run())
    first = world.serving()
    world.train(world.run())
    run = world.run()
    rollback(world.folder)
    world.train(run)
    assert world.serving() == first
    assert "a person chose" in end_reason(world, run)
    later = world.run()
    world.train(later)
    assert read_manifest(world.folder, world.serving()).run == later
    assert not advance(world.folder, 1, first, "too late")


def test_the_version_that_serves_is_calibrated_on_the_held_out_part(world: World) -> None:
    run = world.run(algorithm="random-forest")
    assert "calibrate" in world.train(run)
    version = world.serving()
    manifest = read_manifest(world.folder, version)
    model = find_algorithm("random-forest").load(verified_model_dir(world.folder, version))
    assert isinstance(model, CalibratedModel)
    assert round(model.calibration.temperature, 6) == manifest.metrics["temperature"] < 1
    assert model.calibration.n_labels == manifest.metrics["held_out"]
    assert "calibration.json" in manifest.files
