"""The automatic cycle: its parts, its folder, a kill before each write, and the task in the documentation."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from labelloop.errors import ConflictError, IntegrityError, InvalidInputError
from learning.cycle.asking import DataSelector, QuerySelector, Situation
from learning.cycle.comparison import Comparer
from learning.cycle.cycle import Cycle, CycleSettings, Parts
from learning.cycle.rules import Agreement
from learning.cycle.selection import ModelSelector
from learning.cycle.state import CycleFolder
from learning.cycle.training import Agent, ArrayLoader, Batch, Checkpoint, Graph, Trainer, algorithm_trainer

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "developer" / "cycle.md"


def blobs(n: int = 200, classes: int = 4) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    y = rng.integers(classes, size=n)
    return (rng.standard_normal((n, 6)) + 3 * np.eye(classes, 6)[y]).astype(np.float32), y


class Centres:
    """Softmax of the distances to class means; the mean moves by a share each pass, so that checkpoints differ."""

    def __init__(self, means: NDArray[np.float64]) -> None:
        self.means = means

    def predict_proba(self, x: NDArray[Any]) -> NDArray[np.float32]:
        closeness = -((x[:, None, :] - self.means) ** 2).sum(axis=2)
        proba = np.exp(closeness - closeness.max(axis=1, keepdims=True))
        return (proba / proba.sum(axis=1, keepdims=True)).astype(np.float32)


class CentresGraph(Graph):
    def build(self, first: Batch, n_labels: int, seed: int) -> Centres:
        return Centres(np.zeros((n_labels, first.x.shape[1])))


class CentresAgent(Agent):
    epochs = 4

    def step(self, learner: Centres, batch: Batch) -> float:
        for label in np.unique(batch.y):
            learner.means[label] += 0.5 * (batch.x[batch.y == label].mean(axis=0) - learner.means[label])
        return 0.0

    def model(self, learner: Centres) -> Centres:
        return Centres(learner.means.copy())


def make(folder: Path, parts: Parts | None = None, **settings: Any) -> Cycle:
    x, y = blobs()
    known = {"n_labels": 4, "batch": 7, "initial": 10, "budget": 45, "held_out_share": 0.3, **settings}
    trainer = Trainer(ArrayLoader(x), CentresGraph(), CentresAgent(), judged=2)
    return Cycle(
        parts or Parts(trainer),
        lambda rows: y[rows],
        CycleSettings(**known),
        folder,
        lambda model: float((model.predict_proba(x).argmax(axis=1) == y).mean()),
    )


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# ---------------------------------------------------------------- the loop


def test_a_cycle_labels_its_budget_and_learns(tmp_path: Path) -> None:
    cycle = make(tmp_path)
    assert cycle.run()
    assert [one.labels for one in cycle.rounds] == [10, 17, 24, 31, 38, 45]
    assert len(set(np.concatenate(cycle._rows).tolist())) == 45
    assert cycle.rounds[-1].score is not None and cycle.rounds[-1].score > 0.85
    assert set(cycle.rounds[1].reasons) == {"train", "select", "compare", "query"}
    assert cycle.rounds[0].drafts == 0 and cycle.rounds[1].drafts == 7
    with pytest.raises(InvalidInputError, match="budget of 45 labels is spent"):
        cycle.step()


class KilledError(Exception):
    """Stands for kill -9: nothing after it runs."""


def test_a_cycle_killed_before_any_of_its_writes_goes_on_to_the_very_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "whole").run()
    wanted = content(tmp_path / "whole")
    write, n_writes, asked = CycleFolder._write, len(wanted), []

    for dies_at in range(n_writes):
        count = 0

        def dying(self: CycleFolder, name: str, data: bytes, dies_at: int = dies_at) -> None:
            nonlocal count
            if count == dies_at:
                raise KilledError
            count += 1
            write(self, name, data)

        folder = tmp_path / f"killed-{dies_at}"
        monkeypatch.setattr(CycleFolder, "_write", dying)
        with pytest.raises(KilledError):
            make(folder).run()
        monkeypatch.setattr(CycleFolder, "_write", write)
        asked.append(len(list(folder.glob("labels-*.npy"))))
        make(folder).run()
        assert content(folder) == wanted, f"killed before write {dies_at}"
    assert asked[-1] == 6, "the kill before the last write is after the last labels"


def test_a_label_once_given_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cycle = make(tmp_path)
    cycle.step()
    monkeypatch.setattr(cycle._parts.trainer, "train", lambda *_: (_ for _ in ()).throw(KilledError))
    with pytest.raises(KilledError):
        cycle.step()
    again = make(tmp_path)
    asked: list[int] = []
    truth = again._oracle
    again._oracle = lambda rows: (asked.append(len(rows)), truth(rows))[1]  # type: ignore[func-returns-value]
    again.step()
    assert asked == [], "round 1 had its labels"
    again.step()
    assert asked == [7]


SLOW = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.unit import test_cycle
cycle = test_cycle.make(Path(sys.argv[1]))
cycle.run(until=lambda: time.sleep(0.05))
"""


def test_a_cycle_whose_process_is_killed_goes_on_to_the_very_same_bytes(tmp_path: Path) -> None:
    make(tmp_path / "whole").run()
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", SLOW.format(root=str(ROOT)), str(folder)], cwd=ROOT)
    try:
        deadline_s = time.monotonic() + 60
        while not (folder / "round-00001.json").exists() and time.monotonic() < deadline_s and process.poll() is None:
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert (folder / "round-00001.json").exists()
    assert not (folder / "round-00005.json").exists(), "it was killed in the middle"
    for left in folder.glob(".beside-*"):
        left.unlink()  # a write cut short: no reader sees it
    make(folder).run()
    assert content(folder) == content(tmp_path / "whole")


def test_a_folder_of_another_cycle_is_refused_and_a_spoilt_one_named(tmp_path: Path) -> None:
    make(tmp_path).run()
    with pytest.raises(ConflictError, match="other settings"):
        make(tmp_path, seed=1)
    (tmp_path / "round-00002.json").write_bytes(b'{"number":')
    with pytest.raises(IntegrityError, match="round 2"):
        make(tmp_path)


# ---------------------------------------------------------------- the parts


def test_the_trainer_offers_checkpoints_evenly_and_the_selector_takes_the_best(tmp_path: Path) -> None:
    x, y = blobs()
    trainer = Trainer(ArrayLoader(x), CentresGraph(), CentresAgent(), judged=2)
    offered = list(trainer.train(np.arange(50), y[:50], 4, seed=0))
    assert [one.step for one in offered] == [2, 4]
    bad = Checkpoint(9, Centres(np.ones((4, 6))), 0.0)
    held_out = Batch(x[50:], y[50:])
    assert ModelSelector().choose([bad, *offered], held_out)[0] is not bad
    assert ModelSelector().choose([*offered, bad], None)[0] is bad, "without a held-out part the last one"
    with pytest.raises(InvalidInputError, match="no checkpoint"):
        ModelSelector().choose([], held_out)
    with pytest.raises(InvalidInputError, match="nothing to train on"):
        next(trainer.train(np.empty(0, dtype=np.int64), y[:0], 4, seed=0))


def test_the_comparer_rests_at_its_target_and_keeps_a_model_that_is_clearly_better(tmp_path: Path) -> None:
    comparer = Comparer(target=0.9, window=10)
    for right, n, serving, is_needed in ((0, 0, "", True), (9, 9, "v", True), (9, 10, "v", False), (8, 10, "v", True)):
        assert comparer.is_needed(Agreement(right, n), serving)[0] is is_needed
    assert Comparer().is_needed(Agreement(50, 50), "v")[0], "a target of 100 % always trains"
    x, y = blobs()
    good, bad = (Centres(means) for means in (3 * np.eye(4, 6), np.ones((4, 6))))
    assert comparer.is_better(good, bad, Batch(x, y))[0]
    assert not comparer.is_better(bad, good, Batch(x, y))[0]
    assert comparer.is_better(bad, good, None)[0], "nothing is held out to say no"


def test_a_round_without_need_trains_nothing_and_the_old_model_serves_on(tmp_path: Path) -> None:
    x, _ = blobs()
    trainer = trainer_of(x)
    cycle = make(tmp_path, Parts(trainer, comparer=Comparer(target=0.3, window=7)))
    cycle.run()
    rested = [one for one in cycle.rounds if one.step == 0]
    assert rested and all("target reached" in one.reasons["train"] for one in rested)
    assert cycle.rounds[-1].serving < len(cycle.rounds) - 1
    again = make(tmp_path, Parts(trainer, comparer=Comparer(target=0.3, window=7)))
    assert again.model is not None and cycle.model is not None
    np.testing.assert_array_equal(again.model.predict_proba(x), cycle.model.predict_proba(x))


@pytest.mark.parametrize("strategy", ["random", "auto", "margin", "badge", "bald", "expected_error_reduction", "class_balanced"])
def test_each_strategy_asks_distinct_open_rows(strategy: str) -> None:
    x, y = blobs()
    loader, selector = ArrayLoader(x), QuerySelector(strategy)
    pool, labelled = np.arange(40, 200), np.arange(40)
    for model in (None, Centres(3 * np.eye(4, 6))):
        rows = labelled if model is not None else labelled[:0]
        found, reason = selector.choose(Situation(loader, pool, rows, y[rows], model, 4, False, 5), 9)
        assert len(set(found.tolist())) == 9 and found.min() >= 40
        assert reason
        again, _ = selector.choose(Situation(loader, pool, rows, y[rows], model, 4, False, 5), 9)
        assert found.tolist() == again.tolist()


class Fixed(DataSelector):
    def __init__(self, rows: list[int]) -> None:
        self.rows = np.array(rows, dtype=np.int64)

    def choose(self, situation: Situation, n: int) -> tuple[NDArray[np.int64], str]:
        return self.rows, "always these"


def trainer_of(x: NDArray[np.float32]) -> Trainer:
    return Trainer(ArrayLoader(x), CentresGraph(), CentresAgent())


REFUSED: list[tuple[Callable[[Path], Any], str]] = [
    (lambda folder: make(folder, n_labels=1), "2 labels or more"),
    (lambda folder: make(folder, batch=0), "batch must be 1 or more"),
    (lambda folder: make(folder, initial=0), "initial must be 1 or more"),
    (lambda folder: make(folder, initial=50), "initial 50, budget 45"),
    (lambda folder: make(folder, budget=201), "budget 201 and the 200 items"),
    (lambda folder: make(folder, held_out_share=1.0), "held_out_share"),
    (lambda folder: make(folder, n_labels=3).run(), "labels lie in 0 to 3: allowed is 0 to 2"),
    (lambda folder: make(folder, is_multilabel=True).run(), "the oracle gave int64 of shape"),
    (lambda folder: make(folder, Parts(trainer_of(blobs()[0]), Fixed([1, 1]))).run(), "distinct rows"),
    (lambda folder: make(folder, Parts(trainer_of(blobs()[0]), Fixed([1, 2]))).run(), "distinct rows"),  # labelled in round 1
    (lambda folder: make(folder, Parts(trainer_of(blobs()[0]), Fixed([]))).run(), "at least one"),
    (lambda folder: QuerySelector("guess"), "strategy 'guess' is unknown"),
    (lambda folder: QuerySelector("region_uncertainty"), "needs part_starts, parts"),
    (lambda folder: QuerySelector("margin", parameters={"beta": 1}), "unknown field"),
    (lambda folder: QuerySelector("margin", exploration=1.5), "not in"),
    (lambda folder: Comparer(target=0.0), "target must be in"),
    (lambda folder: Trainer(ArrayLoader(blobs()[0]), CentresGraph(), CentresAgent(), judged=0), "judged=0"),
    (lambda folder: algorithm_trainer(blobs()[0], parameters={"guess": 1}), "guess"),
]


@pytest.mark.parametrize(("attempt", "sentence"), REFUSED)
def test_bad_input_is_one_sentence(attempt: Callable[[Path], Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        attempt(tmp_path)


# ---------------------------------------------------------------- the task in the documentation


def test_the_task_in_the_documentation_has_under_60_lines_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    lines = [line for line in block[1].splitlines() if line.strip()]
    assert len(lines) < 60
    (tmp_path / "task_of_the_page.py").write_text(block[1], encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    task = importlib.import_module("task_of_the_page")
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=120)
    words = (("ball", "goal", "team", "win"), ("court", "law", "judge", "win"))
    texts = [" ".join(rng.choice(words[label], 6)) for label in y]
    every = task.Texts(texts).load(np.arange(120))

    def judge(model: Any) -> float:
        return float((model.predict_proba(every).argmax(axis=1) == y).mean())

    cycle = task.make_cycle(texts, lambda rows: y[rows], tmp_path / "cycle", judge)
    assert cycle.run()
    assert cycle.rounds[-1].labels == 60
    assert cycle.rounds[-1].score == 1.0
