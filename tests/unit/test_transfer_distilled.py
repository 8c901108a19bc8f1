"""A student of a teacher: the largest that is quick enough, resumed bit-equal, and nothing but the student is published."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from labelloop.errors import IntegrityError, InvalidInputError
from learning.algorithms import Training, find_algorithm, small_cnn
from learning.algorithms.distilled import Distilled, DistilledModel, mixed_loss
from learning.algorithms.small_cnn import SmallCnnParameters
from learning.transfer.latency import batch_of, largest_within, measure_ms
from learning.transfer.onnx_export import export

Pictures = NDArray[np.uint8]


@pytest.fixture(autouse=True, scope="module")
def _one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def digits(n: int) -> tuple[Pictures, NDArray[np.int64]]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:n]
    return (x[order] * 15).astype(np.uint8).reshape(-1, 8, 8, 1), y[order].astype(np.int64)


def wide_network(x: Any, y: Any, n_labels: int, is_multilabel: bool, settings: Any, seed: int) -> Training:
    """A teacher that costs little: a network that is wider than its students."""
    return small_cnn.start(x, y, n_labels, is_multilabel, SmallCnnParameters(width=24), 1, seed)


def milliseconds(by_width: dict[int, float]) -> Distilled:
    """Return the algorithm with a measurement that says what `by_width` says of a network of each width."""

    def measure(predict: Any, x: NDArray[Any]) -> float:
        return by_width[predict.__self__.width] * len(x)

    return Distilled(measure, wide_network)


PARAMETERS = {"widths": (8, 16), "latency_ms": 1.0, "side": 8}


def start(algorithm: Distilled, n: int = 60, **more: Any) -> Training:
    x, y = digits(n)
    return algorithm.start(x, y, 10, parameters={**PARAMETERS, **more}, epoch=2, seed=3)


def finish(training: Training) -> list[float]:
    losses = []
    while training.step < training.steps:
        losses.append(training.advance())
    return losses


CHOICES: list[tuple[dict[int, float], float, int, int, str]] = [
    ({8: 1.0, 16: 2.0, 32: 4.0}, 2.5, 1, 16, "width 16 answers one item in 2 ms, asked were 2.5; width 32 takes 4 ms"),
    ({8: 1.0, 16: 2.0}, 9.0, 32, 16, "width 16 answers 32 items in 2 ms, asked were 9; the largest there is"),
    ({8: 1.0, 16: 2.0}, 0.0, 1, 16, "the largest: no latency was asked for"),
    ({8: 3.0, 16: 2.0}, 2.0, 1, 16, "2 ms"),  # a measurement may put the wider one first
]


@pytest.mark.parametrize(("took", "budget", "batch", "width", "sentence"), CHOICES)
def test_the_student_is_the_largest_that_is_quick_enough(
    took: dict[int, float], budget: float, batch: int, width: int, sentence: str
) -> None:
    found, reason = largest_within(took, budget, batch)
    assert found == width
    assert sentence in reason


def test_a_measurement_takes_the_median_of_calls_after_a_warm_up_and_repeats_rows() -> None:
    seen: list[int] = []
    assert measure_ms(lambda x: seen.append(len(x)), batch_of(np.zeros((3, 2)), 7)) >= 0
    assert set(seen) == {7}
    assert len(seen) > 10


def test_only_the_student_is_published_and_its_files_say_how_it_was_chosen(tmp_path: Path) -> None:
    algorithm = milliseconds({8: 0.5, 16: 1.5})
    training = start(algorithm)
    early = training.model()
    finish(training)
    model = training.model()
    assert isinstance(early, DistilledModel)
    assert isinstance(model, DistilledModel)
    assert model.width == early.width == 8
    assert training.note == "student of width 8 answers one item in 0.5 ms, asked were 1; width 16 takes 1.5 ms"
    model.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small-cnn.safetensors", "student.json"]
    loaded = find_algorithm("distilled").load(tmp_path)
    x, _ = digits(20)
    assert np.array_equal(loaded.predict_proba(x), model.predict_proba(x))
    assert isinstance(loaded, DistilledModel)
    assert loaded.record == {"width": 8, "reason": training.note}
    assert export(loaded).difference < 1e-4


def test_the_latency_is_that_of_the_batch_asked_for() -> None:
    training = start(milliseconds({8: 0.01, 16: 0.02}), latency_batch=70)
    training.advance()
    assert "width 8 answers 70 items in 0.7 ms" in training.note


def test_steps_are_the_teachers_and_then_the_students() -> None:
    training = start(milliseconds({8: 0.5, 16: 0.9}))
    x, y = digits(60)
    teacher = wide_network(x, y, 10, False, None, 3)
    n_teacher = teacher.steps
    losses = finish(training)
    assert losses[:n_teacher] == finish(teacher)
    assert training.steps == n_teacher + 2  # sixty samples in one batch, two passes
    assert training.n_seen == 60 * training.steps
    with pytest.raises(InvalidInputError, match="done"):
        training.advance()


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_a_distillation_resumes_bit_equal_in_either_half_and_keeps_its_student(cut: int) -> None:
    whole = start(milliseconds({8: 0.5, 16: 1.5}), batch=32)
    losses = finish(whole)
    assert whole.steps == 5
    first = start(milliseconds({8: 0.5, 16: 1.5}), batch=32)
    for _ in range(cut):
        first.advance()
    if not cut:
        first.model()  # the choice is made
    state = first.state()
    finish(first)
    quicker = start(milliseconds({8: 0.1, 16: 0.2}), batch=32)  # a machine that could carry the larger one
    quicker.restore(state)
    assert finish(quicker) == losses[cut:]
    x, _ = digits(20)
    assert np.array_equal(quicker.model().predict_proba(x), whole.model().predict_proba(x))
    quicker.restore(state)  # the selector goes back, past the teacher's end too
    assert (quicker.step, finish(quicker)) == (cut, losses[cut:])


def test_the_loss_is_the_labels_the_teachers_or_both() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    target, soft = torch.tensor([0, 1]), torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
    hard = torch.nn.functional.cross_entropy(logits, target)
    assert torch.allclose(mixed_loss(logits, target, soft, 3.0, 0.0), hard)
    own = logits.softmax(dim=1)
    assert float(mixed_loss(logits, target, own, 3.0, 1.0)) == pytest.approx(0, abs=1e-6)
    by_hand = 0.0
    for row, teacher in zip(logits, soft, strict=True):
        p, q = (teacher ** (1 / 2)) / (teacher ** (1 / 2)).sum(), (row / 2).softmax(dim=0)
        by_hand += float((p * (p / q).log()).sum()) / 2
    assert float(mixed_loss(logits, target, soft, 2.0, 1.0)) == pytest.approx(4 * by_hand, rel=1e-5)
    assert float(mixed_loss(logits, target, soft, 2.0, 0.25)) == pytest.approx(by_hand + 0.75 * float(hard), rel=1e-5)


def test_several_labels_an_item_are_distilled_one_by_one() -> None:
    logits, target = torch.tensor([[3.0, -2.0]]), torch.tensor([[1, 0]], dtype=torch.uint8)
    least = mixed_loss(logits, target, logits.sigmoid(), 2.0, 1.0)
    assert float(mixed_loss(logits + 1, target, logits.sigmoid(), 2.0, 1.0)) > float(least)
    x, y = digits(40)
    truth = np.stack([y % 2, y > 4], axis=1).astype(np.uint8)
    training = milliseconds({8: 0.5, 16: 0.9}).start(x, truth, 2, True, parameters=PARAMETERS, epoch=1)
    finish(training)
    assert training.model().predict_proba(x).shape == (40, 2)


def test_a_fine_tuned_teacher_teaches() -> None:
    x = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    parameters = {"teacher_depth": "head", "teacher_epoch": 1, "widths": (8,)}
    training = find_algorithm("distilled").start(x, np.array([0, 1]), 2, parameters=parameters, epoch=1)
    assert training.steps == 2
    finish(training)
    assert isinstance(training.model(), DistilledModel)


def test_bad_input_is_refused_by_name() -> None:
    none = start(milliseconds({8: 5.0, 16: 7.0}))
    with pytest.raises(InvalidInputError, match="latency_ms 1: the quickest, of width 8, takes 5 ms; raise"):
        none.advance()
    for parameters, match in (({"widths": ()}, "widths"), ({"widths": (12,)}, "widths"), ({"temperature": 0.5}, "temperature")):
        with pytest.raises(InvalidInputError, match=f"distilled.*{match}"):
            find_algorithm("distilled").read_parameters(parameters)
    x, _ = digits(20)
    with pytest.raises(InvalidInputError, match="probabilities"):
        find_algorithm("distilled").start(x, np.full((20, 10), 0.1), 10)
    with pytest.raises(IntegrityError, match="steps"):
        start(milliseconds({8: 0.5, 16: 1.5})).restore(start(milliseconds({8: 0.5, 16: 1.5}), n=90).state())
    with pytest.raises(IntegrityError):
        start(milliseconds({8: 0.5, 16: 1.5})).restore({})
