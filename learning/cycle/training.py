"""The trainer of a cycle, made of three parts that a new task subclasses: data loader, graph, agent.

Owns how they meet. Must never choose items or judge models. Called by `learning.cycle.cycle`.

A *learner* is whatever the graph builds and the agent steps; only these two know its type. What comes out is a model: anything
with `predict_proba(x)`, (n, n_labels) float32, as `learning.algorithms.Model` has it.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.algorithms import Algorithm, Training, find_algorithm


class Predictor(Protocol):
    """What a trained model can do; read by several threads at once."""

    def predict_proba(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Return (n, n_labels): rows that sum to 1, or independent probabilities where items have several labels."""


class Batch(NamedTuple):
    """Inputs x (n, ...) and labels y, (n,) class numbers or (n, n_labels) of 0/1."""

    x: NDArray[Any]
    y: NDArray[Any]


class Checkpoint(NamedTuple):
    """A model as it was after `step` steps, and the loss of the last one."""

    step: int
    model: Predictor
    loss: float


class DataLoader(abc.ABC):
    """Where inputs come from, by row number in [0, n_items). Inputs of one row never depend on which others are asked."""

    n_items: int

    @abc.abstractmethod
    def load(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the inputs (len(rows), ...) of these rows, in this order."""

    def features(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Return (len(rows), d) features to cluster by, or None where there are none. Default: the inputs, flattened."""
        return self.load(rows).reshape(len(rows), -1).astype(np.float32, copy=False)

    def batches(self, rows: NDArray[np.int64], labels: NDArray[Any], seed: int) -> Iterator[Batch]:
        """Yield one pass over the labelled rows; what it yields depends on the arguments alone. Default: everything at once."""
        yield Batch(self.load(rows), labels)


class Graph(abc.ABC):
    """The shape of the model."""

    @abc.abstractmethod
    def build(self, first: Batch, n_labels: int, seed: int) -> Any:
        """Return an untrained learner for inputs like those of `first`; equal arguments give equal learners."""


class Agent(abc.ABC):
    """The one who steps a learner through batches. `epochs`: passes over the labelled items."""

    epochs: int = 1

    @abc.abstractmethod
    def step(self, learner: Any, batch: Batch) -> float:
        """Change `learner` by one step on `batch` and return the loss."""

    def passes(self, learner: Any) -> int:
        """Return how many passes over the labelled items this learner gets. Default: `epochs`."""
        return self.epochs

    def model(self, learner: Any) -> Predictor:
        """Return the model of the step reached, which later steps do not change. Default: the learner itself, a model already."""
        return learner


class Trainer:
    """Trains from scratch on what is labelled, and offers checkpoints. `judged`: most checkpoints offered in one training."""

    def __init__(self, loader: DataLoader, graph: Graph, agent: Agent, judged: int = 1) -> None:
        if judged < 1:
            raise InvalidInputError(f"a trainer offers 1 checkpoint or more, got judged={judged}")
        self.loader, self.graph, self.agent, self.judged = loader, graph, agent, judged

    def train(self, rows: NDArray[np.int64], labels: NDArray[Any], n_labels: int, seed: int) -> Iterator[Checkpoint]:
        """Yield checkpoints of one training, evenly spread over its passes, the last one always.

        rows: (m,) of the labelled items, labels: (m,) or (m, n_labels). Raises InvalidInputError without a labelled item.
        """
        if not len(rows):
            raise InvalidInputError("nothing to train on: label items first")
        learner = self.graph.build(next(iter(self.loader.batches(rows, labels, seed))), n_labels, seed)
        passes, step, loss = max(1, self.agent.passes(learner)), 0, float("nan")
        shown = {round(passes * part / self.judged) for part in range(1, self.judged + 1)}
        number = 0
        while number < max(1, self.agent.passes(learner)):  # a learner may end early
            for batch in self.loader.batches(rows, labels, seed + number):
                loss = self.agent.step(learner, batch)
                step += 1
            number += 1
            if number in shown or number >= self.agent.passes(learner):
                yield Checkpoint(step, self.agent.model(learner), loss)


class ArrayLoader(DataLoader):
    """Inputs that lie in one array x (n, ...); a memory-mapped one stays where it is."""

    def __init__(self, x: NDArray[Any]) -> None:
        self._x = x
        self.n_items = len(x)

    def load(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return a copy of these rows."""
        return np.asarray(self._x[rows])


class AlgorithmGraph(Graph):
    """Any algorithm of `learning.algorithms` by name, with its parameters; the learner is its `Training`."""

    def __init__(
        self, name: str = "logistic-regression", parameters: Mapping[str, Any] | None = None, is_multilabel: bool = False
    ) -> None:
        self.algorithm: Algorithm = find_algorithm(name)
        if self.algorithm.target != "classes":
            raise InvalidInputError(f"algorithm {name!r} learns {self.algorithm.target}, a cycle over classes needs another")
        self.algorithm.read_parameters(parameters or {})
        self._parameters, self._is_multilabel = dict(parameters or {}), is_multilabel

    def build(self, first: Batch, n_labels: int, seed: int) -> Training:
        """Return the training at step 0."""
        return self.algorithm.start(first.x, first.y, n_labels, self._is_multilabel, self._parameters, seed=seed)


class AlgorithmAgent(Agent):
    """Advances a `Training`, which deals its own batches; one pass is one of its steps."""

    def step(self, learner: Training, batch: Batch) -> float:
        """Do one step of the training."""
        return learner.advance()

    def passes(self, learner: Training) -> int:
        """Return the training's own number of steps."""
        return learner.steps

    def model(self, learner: Training) -> Predictor:
        """Return the training's model."""
        return learner.model()


def algorithm_trainer(
    x: NDArray[Any],
    name: str = "logistic-regression",
    parameters: Mapping[str, Any] | None = None,
    is_multilabel: bool = False,
    judged: int = 1,
) -> Trainer:
    """Return the trainer of an algorithm by name over inputs x (n, ...). Raises NotFoundError, InvalidInputError."""
    return Trainer(ArrayLoader(x), AlgorithmGraph(name, parameters, is_multilabel), AlgorithmAgent(), judged)
