"""How deep fine-tuning goes, at which rates, and when it ends: the weights that move, the early stop, alone and over ranks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from labelloop.errors import IntegrityError, InvalidInputError
from learning.algorithms import Training, find_algorithm
from learning.algorithms.batches import Batches
from learning.algorithms.constant import ConstantModel
from learning.algorithms.early_stop import EarlyStop, keep_aside
from learning.algorithms.fine_tune import FineTuneModel, FineTuneParameters, _layer_rates, _pretrained, _split
from learning.algorithms.torch_training import Group, Network, TorchTraining, seeded


@pytest.fixture(autouse=True, scope="module")
def _one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---------------------------------------------------------------- depth and rates


def tuned(**parameters: Any) -> FineTuneModel:
    x = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    training = find_algorithm("fine-tune").start(x, np.array([0, 1]), 2, parameters={"batch": 2, **parameters}, epoch=1)
    while training.step < training.steps:
        training.advance()
    model = training.model()
    assert isinstance(model, FineTuneModel)
    return model


def moved(model: FineTuneModel) -> set[str]:
    """Return the weights of the trained part that are no longer the pretrained ones, by the name of their child."""
    _, before = _split(2, model.blocks)
    old = {name: value.numpy() for name, value in before.state_dict().items()}
    return {name.rsplit(".", 1)[0] for name, value in model.weights.items() if not np.array_equal(value, old[name])}


def test_the_head_alone_leaves_every_convolution_as_it_was() -> None:
    assert moved(tuned(depth="head")) == {"0.5"}  # the classifier, sixth in the only child


def test_all_of_the_network_trains_from_the_stem_to_the_last_convolution() -> None:
    model = tuned(depth="all")
    found = moved(model)
    assert {"0.0", "1._depthwise_conv", "16._project_conv", "17.0", "17.5"} <= found
    assert not any("num_batches" in name or "running" in name for name in model.weights if name in found)
    x = np.full((2, 16, 16, 3), 90, dtype=np.uint8)
    loaded = find_algorithm("fine-tune")._load(model.files())
    assert np.array_equal(loaded.predict_proba(x), model.predict_proba(x))


def test_batch_statistics_of_the_pretrained_network_stay() -> None:
    model = tuned(depth="last-blocks", blocks=2)
    kept = {
        f"1.{name.removeprefix('_blocks.15.')}": value for name, value in _pretrained().items() if name.startswith("_blocks.15.")
    }
    means = [name for name in kept if name.endswith("running_mean")]
    assert means
    for name in means:
        assert np.array_equal(model.weights[name], kept[name].numpy())


RATES: list[tuple[dict[str, Any], list[float]]] = [
    ({"depth": "head"}, [0.003]),
    ({"depth": "head", "blocks": 9}, [0.003]),
    ({}, [0.003, 0.0003]),
    ({"depth": "last-blocks", "blocks": 3, "fall": 0.1}, [0.003, 0.0003, 0.00003, 0.000003]),
    ({"depth": "all", "fall": 1.0, "block_rate": 0.01, "rate": 0.02}, [0.02, *[0.01] * 18]),
]


@pytest.mark.parametrize(("parameters", "rates"), RATES)
def test_rates_fall_from_the_head_down_and_every_trained_weight_has_one(parameters: dict[str, Any], rates: list[float]) -> None:
    settings = FineTuneParameters(**parameters)
    _, top = _split(3, settings.n_trained())
    found = _layer_rates(top, settings)
    assert [rate for _, rate in found] == pytest.approx(rates)
    grouped = [id(parameter) for layer, _ in found for parameter in layer]
    assert sorted(grouped) == sorted(id(parameter) for parameter in top.parameters() if parameter.requires_grad)


def test_a_trained_depth_starts_from_a_serving_model_of_the_same_depth_only() -> None:
    head, block = tuned(depth="head"), tuned()
    x = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)

    def first_loss(start: FineTuneModel | None) -> float:
        training = find_algorithm("fine-tune").start(
            x, np.array([0, 1]), 2, parameters={"batch": 2, "depth": "head"}, epoch=1, start_from=start
        )
        return training.advance()

    assert first_loss(block) == first_loss(None) != first_loss(head)


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"depth": "half"}, "fine-tune.*half"),
        ({"blocks": 17}, "fine-tune.*blocks"),
        ({"patience": -1}, "fine-tune.*patience"),
        ({"aside": 0.9}, "fine-tune.*aside"),
    ],
)
def test_parameters_that_do_not_do_are_refused_by_name(parameters: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        find_algorithm("fine-tune").read_parameters(parameters)


# ---------------------------------------------------------------- early stop


def never() -> dict[str, Any]:
    return {"w": np.ones(1)}


STOPS: list[tuple[int, list[float], list[bool], int | None]] = [
    (1, [3.0, 2.0, 2.0], [False, False, True], 2),
    (2, [3.0, 4.0, 2.0, 5.0, 5.0], [False, False, False, False, True], 3),
    (1, [float("nan"), 1.0], [True, False], 2),
    (3, [1.0, float("inf"), float("nan"), 2.0], [False, False, False, True], 1),
]


@pytest.mark.parametrize(("patience", "losses", "wanted", "best"), STOPS)
def test_patience_counts_looks_without_a_better_loss(patience: int, losses: list[float], wanted: list[bool], best: int) -> None:
    stop = EarlyStop(np.arange(3), 1, patience)
    assert [stop.is_over(step + 1, loss, never) for step, loss in enumerate(losses)] == wanted
    assert stop.best_step == best


def test_a_part_of_each_class_is_kept_aside_and_never_the_last_sample() -> None:
    y = np.array([0] * 40 + [1] * 20 + [2])
    train, kept = keep_aside(y, 0.2, seed=3)
    assert np.bincount(y[kept], minlength=3).tolist() == [8, 4, 0]
    assert sorted([*train, *kept]) == list(range(61))
    assert np.array_equal(kept, keep_aside(y, 0.2, seed=3)[1])
    assert not np.array_equal(kept, keep_aside(y, 0.2, seed=4)[1])
    assert len(keep_aside(y[:20], 0.2, seed=3)[1]) == 0  # four would say nothing
    assert len(keep_aside(np.ones((50, 4), dtype=np.uint8), 0.2, seed=3)[1]) == 10


def noisy(patience: int = 2, epochs: int = 30, rate: float = 0.3, noise: float = 0.4) -> TorchTraining:
    """Return a training on labels that are half chance: it learns the noise by heart after some passes."""
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.normal(size=(60, 40)).astype(np.float32))
    y = np.where(rng.random(60) < noise, rng.integers(0, 2, 60), (x[:, 0] > 0).numpy()).astype(np.int64)
    layer = seeded(0, lambda: torch.nn.Linear(40, 2))
    rows, kept = keep_aside(y, 0.3, 5)
    batches = Batches(len(rows), 16, 5, rows)

    def logits(rows: NDArray[np.int64], part: slice, _: np.random.Generator) -> torch.Tensor:
        out: torch.Tensor = layer(x[torch.from_numpy(rows[part])])
        return out

    network = Network(
        module=layer,
        groups=[Group(list(layer.parameters()), rate, 0.0)],
        logits=logits,
        penalty=None,
        make_model=lambda: ConstantModel(layer.weight.detach().numpy().ravel().copy()),
        work=1.0,
        stop=EarlyStop(kept, batches.per_epoch, patience),
    )
    return TorchTraining(network, y, batches, batches.per_epoch * epochs, 5)


def finish(training: Training) -> list[float]:
    losses = []
    while training.step < training.steps:
        losses.append(training.advance())
    return losses


def weights(training: Training) -> NDArray[np.float32]:
    model = training.model()
    assert isinstance(model, ConstantModel)
    return model.proba


def test_it_ends_before_its_last_step_with_the_best_weights() -> None:
    training = noisy()
    planned = training.steps
    per_epoch = 3
    kept: dict[int, NDArray[np.float32]] = {}
    while training.step < training.steps:
        if training.step % per_epoch == 0:
            kept[training.step] = weights(training)
        training.advance()
    stop = training._network.stop
    assert stop is not None
    assert training.steps == stop.best_step + 2 * per_epoch + 1 < planned
    assert np.array_equal(weights(training), kept[stop.best_step])
    with pytest.raises(InvalidInputError, match="done"):
        training.advance()


def test_a_training_that_gets_better_all_the_time_ends_with_its_last_weights() -> None:
    training = noisy(epochs=3, rate=0.003, noise=0.0)
    finish(training)
    stop = training._network.stop
    assert stop is not None
    assert (training.step, training.steps, stop.best_step) == (10, 10, 9)


@pytest.mark.parametrize("cut", [2, 3, 4, 10])
def test_an_early_stop_resumes_bit_equal(cut: int) -> None:
    whole = noisy()
    losses = finish(whole)
    first = noisy()
    for _ in range(cut):
        first.advance()
    state = first.state()
    finish(first)  # what happens after the checkpoint must not leak into it
    second = noisy()
    second.restore(state)
    assert finish(second) == losses[cut:]
    assert np.array_equal(weights(second), weights(whole))
    done = noisy()
    done.restore(whole.state())
    assert done.step == done.steps == whole.steps


def test_a_state_of_another_plan_is_refused() -> None:
    with pytest.raises(IntegrityError, match="steps"):
        noisy(epochs=4).restore(noisy(epochs=5).state())


class _Ranks:
    """Adds tensors of threads, each of which is a rank."""

    def __init__(self, size: int) -> None:
        self.size, self.parts = size, [[torch.zeros(0)]] * size
        self.barrier = threading.Barrier(size)

    def of(self, rank: int) -> Any:
        outer = self

        class Rank:
            size = outer.size

            def sum_(self, tensors: Sequence[torch.Tensor], n_samples: int) -> None:
                outer.parts[rank] = [tensor.clone() for tensor in tensors]
                outer.barrier.wait(30)
                for place, tensor in enumerate(tensors):
                    tensor.copy_(sum(part[place] for part in outer.parts))
                outer.barrier.wait(30)

        found = Rank()
        found.rank = rank  # type: ignore[attr-defined]
        return found


def test_ranks_stop_at_the_same_step_as_one_process_and_with_its_weights() -> None:
    alone = noisy()
    finish(alone)
    ranks, trainings = _Ranks(2), [noisy(), noisy()]

    def work(rank: int) -> Callable[[], None]:
        def run() -> None:
            trainings[rank].share(ranks.of(rank))
            finish(trainings[rank])

        return run

    threads = [threading.Thread(target=work(rank)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [training.step for training in trainings] == [alone.step, alone.step]
    assert np.array_equal(weights(trainings[0]), weights(trainings[1]))
    np.testing.assert_allclose(weights(trainings[0]), weights(alone), atol=1e-4)


def test_fine_tuning_with_patience_keeps_samples_aside_and_without_enough_of_them_does_not() -> None:
    x = np.random.default_rng(0).integers(0, 256, (14, 8, 8, 1), dtype=np.uint8)
    algorithm = find_algorithm("fine-tune")
    parameters = {"depth": "head", "batch": 4, "patience": 1, "aside": 0.5}
    patient = algorithm.start(x, np.arange(14) % 2, 2, parameters=parameters, epoch=2)
    assert patient.steps == 2 * 2 + 1  # eight samples in two batches, twice, and the look at the end
    finish(patient)
    assert patient.n_seen <= 16
    few = algorithm.start(x, np.arange(14) % 2, 2, parameters={**parameters, "aside": 0.15}, epoch=2)
    assert few.steps == 2 * 4
