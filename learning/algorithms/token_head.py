"""token-head: spans in texts by a linear-chain CRF on the text encoder's word vectors and on what words look like.

J. Lafferty, A. McCallum, F. Pereira, "Conditional Random Fields", ICML 2001, trained by mini-batches with Adam (D. Kingma, J. Ba,
"Adam: A Method for Stochastic Optimization", ICLR 2015) from the serving model's weights. Decoding allows only well-formed
sequences, so that spans never overlap; a span's confidence is its exact probability under the model. With few labels a CRF finds
too little: `outside_bias` shifts the choice to more spans (E. Minkov, R. Wang, A. Tomasic, W. Cohen, "NER Systems that Suit User's
Preferences", HLT-NAACL 2006), and who shows them may ask for a confidence.

| given | answer |
| --- | --- |
| spans that overlap, end inside words, lie between or beyond words | see `learning.algorithms.tags` |
| boxes, or no span in any text | refused |
| spans in texts of which no word is seen, and in no other | a model that finds nothing |
| a label without a span | never found |
| a text without words, or a row with NaN in places | nothing is learned of it, nothing is found in it |
| a row that is NaN throughout, an infinite value, features of another encoder | refused by name |
| no text with a word | refused |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import IntegrityError, InvalidInputError
from learning.algorithms import token_model
from learning.algorithms.base import Algorithm, Files, Model, Parameters, Training, need
from learning.algorithms.batches import Batches
from learning.algorithms.crf import loss_and_gradients
from learning.algorithms.tags import check_spans, tagging_of, tags_of
from learning.algorithms.tensors import pack, unpack
from learning.algorithms.token_model import TokenModel, Weights, padded, places_of
from learning.algorithms.word_features import Sight, keys_of, see, vocabulary
from learning.threads import few_threads
from learning.token_rows import VECTOR, Words, read_rows

STATE = "state.safetensors"
_LEAST_STEPS, _LEAST_EPOCHS = 150, 8
_WARM_UP = 0.1
_FIRST, _SECOND, _TINY = 0.9, 0.99, 1e-8  # Adam's decays, and what keeps a step finite


class TokenHeadParameters(Parameters, frozen=True, kw_only=True):
    """`vector_l2` and `looks_l2` are for one text: divided by the number of texts they weigh against the mean loss."""

    rate: Annotated[float, msgspec.Meta(gt=0, le=1, description="Largest step size.")] = 0.03
    batch: Annotated[int, msgspec.Meta(ge=1, description="Texts in a step.")] = 32
    vector_l2: Annotated[float, msgspec.Meta(ge=0, description="Penalty on the weights of the encoder's vectors.")] = 0.1
    looks_l2: Annotated[float, msgspec.Meta(ge=0, description="Penalty on the weights of words, shapes and affixes.")] = 0.5
    outside_bias: Annotated[
        float, msgspec.Meta(ge=-20, le=20, description="Added to 'no span' when spans are chosen: below 0 finds more.")
    ] = -1.0


class TokenHead(Algorithm):
    """See the module."""

    name = "token-head"
    title = "Token classifier (spans in texts)"
    framework = "sklearn"
    input = "features"
    target = "regions"
    is_incremental = True
    parameters = TokenHeadParameters
    file_names = (token_model.FILE,)

    def preload(self) -> None:
        import scipy.sparse  # noqa: F401

    def _start(
        self,
        x: NDArray[Any],
        y: Any,
        n_labels: int,
        is_multilabel: bool,
        settings: TokenHeadParameters,
        epoch: int,
        seed: int,
        start_from: Model | None,
    ) -> Training:
        for item, regions in enumerate(y):
            check_spans(regions, item)
        words = read_rows(x)
        if not len(words.spans):
            raise InvalidInputError(f"none of the {len(x)} texts has a word: use the encoder minilm-tokens")
        tags = np.concatenate(
            [tags_of(of, words.spans[a:b]) for of, a, b in zip(y, words.starts[:-1], words.starts[1:], strict=True)]
        )
        served = start_from if isinstance(start_from, TokenModel) and start_from.n_labels == n_labels else None
        return TokenTraining(words, tags, n_labels, settings, epoch, seed, served)

    def _load(self, files: Files) -> Model:
        return token_model.load(files)


class TokenTraining(Training):
    """Adam over batches of texts; what a step sees depends on (seed, step) alone."""

    def __init__(
        self,
        words: Words,
        tags: NDArray[np.int64],
        n_labels: int,
        settings: TokenHeadParameters,
        epoch: int,
        seed: int,
        served: TokenModel | None,
    ) -> None:
        self._tags, self._settings = tags, settings
        self._texts = np.flatnonzero(np.diff(words.starts))
        self._is_seen = np.isin(1 + 2 * np.arange(n_labels), tags)
        self._tagging = tagging_of(self._is_seen)
        keys = keys_of(words)
        self._sight = _sight(words, keys, served)
        self._seen = see(words, keys, self._sight)
        t, v = 1 + 2 * n_labels, len(self._sight.known)
        shapes = Weights(*((rows, t) for rows in (3 * VECTOR, v, t)))  # type: ignore[arg-type]
        self._weights, self._first, self._second = (Weights(*(np.zeros(s, np.float32) for s in shapes)) for _ in range(3))
        if served is not None:
            _take_over(self._weights, self._sight, served)
        self._batches = Batches(len(self._texts), settings.batch, seed)
        self.steps = self._batches.steps(epoch, _LEAST_STEPS, _LEAST_EPOCHS)

    def advance(self) -> float:
        if self.step >= self.steps:
            raise InvalidInputError(f"this training is done: its {self.steps} steps are taken")
        rows = np.sort(self._texts[self._batches.rows(self.step)])
        with few_threads(0):
            loss, gradients = self._loss(rows)
            self._move(gradients)
        self.step += 1
        self.n_seen += len(rows)
        return loss

    def _loss(self, rows: NDArray[np.int64]) -> tuple[float, list[NDArray[np.float32]]]:
        """Return the batch's mean loss with penalties and its gradients, in the order of `Weights`."""
        seen, at = self._seen.take(rows)
        scores, lengths = padded(seen.scores(self._weights.vector, self._weights.looks), seen.starts)
        places = places_of(seen.starts)
        said = np.zeros(scores.shape[:2], dtype=np.int64)
        said[places] = self._tags[at]
        loss, by_score, by_step = loss_and_gradients(scores, lengths, self._weights.steps.astype(np.float64), self._tagging, said)
        by_vector, by_look = seen.gradients((by_score[places] / len(rows)).astype(np.float32))
        gradients = [by_vector, by_look, (by_step / len(rows)).astype(np.float32)]
        strengths = (self._settings.vector_l2, self._settings.looks_l2, self._settings.looks_l2)
        loss /= len(rows)
        for gradient, weight, strength in zip(gradients, self._weights, strengths, strict=True):
            gradient += np.float32(strength / len(self._texts)) * weight
            loss += strength / (2 * len(self._texts)) * float(np.square(weight).sum())
        return loss, gradients

    def _move(self, gradients: Sequence[NDArray[np.float32]]) -> None:
        rate = self._settings.rate * _schedule(self.step, self.steps)
        rate *= math.sqrt(1 - _SECOND ** (self.step + 1)) / (1 - _FIRST ** (self.step + 1))
        for weight, first, second, gradient in zip(self._weights, self._first, self._second, gradients, strict=True):
            first += np.float32(1 - _FIRST) * (gradient - first)
            second += np.float32(1 - _SECOND) * (np.square(gradient) - second)
            weight -= np.float32(rate) * first / (np.sqrt(second) + np.float32(_TINY))

    def state(self) -> dict[str, bytes]:
        kept = {"weight": self._weights, "first": self._first, "second": self._second}
        arrays = {f"{kind}.{name}": value for kind, of in kept.items() for name, value in of._asdict().items()}
        return {STATE: pack(arrays, {"step": self.step, "steps": self.steps})}

    def restore(self, state: Files) -> None:
        arrays, facts = unpack(need(state, STATE))
        if facts.get("steps") != self.steps:
            raise IntegrityError(f"the state is of a training of {facts.get('steps')} steps, this one has {self.steps}")
        for kind, of in (("weight", self._weights), ("first", self._first), ("second", self._second)):
            for name, value in of._asdict().items():
                found = arrays.get(f"{kind}.{name}")
                if found is None or found.shape != value.shape:
                    raise IntegrityError(f"the state's {kind}.{name} does not fit this training's texts and labels")
                value[:] = found
        self.step = int(facts["step"])

    def model(self) -> Model:
        weights = Weights(*(value.copy() for value in self._weights))
        return TokenModel(weights, self._sight, self._is_seen, self._settings.outside_bias)


def _sight(words: Words, keys: NDArray[np.int64], served: TokenModel | None) -> Sight:
    """Return how this training sees words: vectors as the served model does, so that its weights mean the same, else centred and
    scaled to a mean length of 1."""
    known = vocabulary(keys)
    if served is not None:
        return Sight(known, served.sight.mean, served.sight.factor)
    mean = words.vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    length = math.sqrt(float(np.square(words.vectors - mean).sum(axis=1, dtype=np.float64).mean()))
    return Sight(known, mean, 1 / length if length > 0 else 0.0)


def _take_over(weights: Weights, sight: Sight, served: TokenModel) -> None:
    """Start from the served model's weights; those of keys that this training does not see are dropped."""
    weights.vector[:], weights.steps[:] = served.weights.vector, served.weights.steps
    _, mine, theirs = np.intersect1d(sight.known, served.sight.known, assume_unique=True, return_indices=True)
    weights.looks[mine] = served.weights.looks[theirs]


def _schedule(step: int, steps: int) -> float:
    """Return the share of the largest rate: a linear rise, then half a cosine to 2 % of it."""
    warm = max(1, round(steps * _WARM_UP))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) * 0.98 + 0.02


ALGORITHM = TokenHead()
