"""What an algorithm, a training and a model are, and the checks that all algorithms share.

Owns the contract. Must never import scikit-learn, torch or tensorflow: listing algorithms stays cheap. Called by every file of this
package; the train role drives `Training`, the inference role asks `Model`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import IntegrityError, InvalidInputError, NotFoundError
from learning.algorithms.collective import Collective

if TYPE_CHECKING:
    from learning.regions import Regions

Files = Mapping[str, bytes]


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of each algorithm's parameters; `msgspec.json.schema` of it is what a page renders."""


class Model(abc.ABC):
    """A trained model. Thread-safe for reading."""

    n_labels: int

    @abc.abstractmethod
    def predict_proba(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Return (n, n_labels) float32: rows sum to 1 for multiclass, independent probabilities for multilabel.

        x as in training. A value that is missing (NaN or infinite) counts as its training mean, so one bad row never fails a chunk.
        Raises InvalidInputError when the width differs from training.
        """

    @abc.abstractmethod
    def files(self) -> dict[str, bytes]:
        """Return the model as named files without pickle."""

    def save(self, folder: Path) -> None:
        """Write `files` into an existing folder."""
        for name, data in self.files().items():
            (folder / name).write_bytes(data)


class Training(abc.ABC):
    """One training, stepwise. After `restore(state())` the losses that follow are bit-equal to an uninterrupted run's."""

    steps: int
    step: int = 0
    n_seen: int = 0  # samples that this process has computed on; what other ranks did is not in it
    note: str = ""  # one sentence on what the training chose by itself, for the run's log
    is_candidate: bool = True  # False = `model` is not what this training is for yet: no model selector may choose it

    def share(self, collective: Collective | None) -> None:
        """Do only this rank's part of each global batch from the next step on; None = all of it again.

        Raises InvalidInputError when the algorithm's steps cannot be shared (`Algorithm.sharing` is not 'steps').
        """
        if collective is not None:
            raise InvalidInputError(f"{type(self).__name__} is one process's work: it cannot be shared by {collective.size}")

    @abc.abstractmethod
    def advance(self) -> float:
        """Do one step and return its loss; which samples it sees depends on (seed, step) only.

        Raises InvalidInputError when all steps are done.
        """

    @abc.abstractmethod
    def state(self) -> dict[str, bytes]:
        """Return all that `restore` needs, as named files without pickle."""

    @abc.abstractmethod
    def restore(self, state: Files) -> None:
        """Go to where `state` was taken, on a training started with the same arguments.

        Raises IntegrityError when the state does not fit.
        """

    @abc.abstractmethod
    def model(self) -> Model:
        """Return the model of the step reached. Raises InvalidInputError before the first step of a one-step algorithm."""


class Algorithm(abc.ABC):
    """One way to learn. `start` checks what every algorithm must refuse; a subclass writes `_start` and `_load`.

    `target` 'regions': its labels are boxes or spans (`learning.regions`), y is one `Regions` an item, its models `RegionModel`s.
    `sharing` says how several processes can share its steps: 'steps' = by `Training.share`, from one step to the next; 'processes'
    = its library fixes the members when it is started (`learning.algorithms.strategy`): each change starts all of them anew.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    framework: ClassVar[Literal["sklearn", "torch", "tensorflow"]]
    input: ClassVar[Literal["features", "pixels"]]
    is_incremental: ClassVar[bool] = False
    sharing: ClassVar[Literal["none", "steps", "processes"]] = "none"
    has_multilabel: ClassVar[bool] = False
    has_soft_labels: ClassVar[bool] = False
    target: ClassVar[Literal["classes", "regions"]] = "classes"
    parameters: ClassVar[type[Parameters]]
    file_names: ClassVar[tuple[str, ...]]

    def start(
        self,
        x: NDArray[Any],
        y: NDArray[Any] | Sequence[Regions],
        n_labels: int,
        is_multilabel: bool = False,
        parameters: Mapping[str, Any] | None = None,
        epoch: int = 0,
        seed: int = 0,
        start_from: Model | None = None,
    ) -> Training:
        """Return a training at step 0.

        x: (n, d) float features or (n, h, w, c) pixels. y: (n,) ints in [0, n_labels), or (n, n_labels) of 0/1 for multilabel,
        or floats (n, n_labels) whose rows sum to 1 where `has_soft_labels`: how likely each label is (a label model's posterior).
        Where `target` is 'regions': what is in each item, n `learning.regions.Regions`.
        epoch: passes over the data for iterative algorithms, 0 = the algorithm's default. start_from: the serving model, used
        by incremental algorithms when its label set and shape agree (the caller answers for the label set's order).
        Labels of a single class train a constant model: see `constant`.

        Raises InvalidInputError naming what is wrong with data or parameters.
        """
        from learning.algorithms import constant
        from learning.transfer import calibration

        settings = self.read_parameters(parameters or {})
        if self.target == "regions":
            return self._start_regions(x, y, n_labels, is_multilabel, settings, max(epoch, 0), seed, start_from)
        if is_multilabel and not self.has_multilabel:
            raise InvalidInputError(f"{self.name} cannot learn several labels an item: use logistic-regression or linear-head")
        y = self._check_y(np.asarray(y), len(x), n_labels, is_multilabel)
        x = check_features(x, self.name) if self.input == "features" else check_pixels(x, self.name)
        if constant.is_constant(y):
            return constant.start(y, n_labels)
        bare = None if start_from is None else calibration.inner(start_from)
        return self._start(x, y, n_labels, is_multilabel, settings, max(epoch, 0), seed, bare)

    def _start_regions(
        self,
        x: NDArray[Any],
        y: NDArray[Any] | Sequence[Regions],
        n_labels: int,
        is_multilabel: bool,
        settings: Any,
        epoch: int,
        seed: int,
        start_from: Model | None,
    ) -> Training:
        from learning.regions import check_regions

        if is_multilabel:
            raise InvalidInputError(f"{self.name} learns regions, each with one label: is_multilabel does not apply")
        regions = check_regions(y, len(x), n_labels)
        x = check_features(x, self.name) if self.input == "features" else check_pixels(x, self.name)
        return self._start(x, regions, n_labels, False, settings, epoch, seed, start_from)

    def _check_y(self, y: NDArray[Any], n: int, n_labels: int, is_multilabel: bool) -> NDArray[Any]:
        if is_multilabel or y.ndim != 2 or y.dtype.kind != "f":
            return check_labels(y, n, n_labels, is_multilabel)
        if not self.has_soft_labels:
            raise InvalidInputError(
                f"{self.name} cannot learn from probabilities: give y.argmax(axis=1), or use logistic-regression"
            )
        return check_soft_labels(y, n, n_labels)

    def load(self, folder: Path) -> Model:
        """Return the model that `Model.save` wrote into `folder`, calibrated if it was. Raises NotFoundError or IntegrityError."""
        from learning.algorithms import constant
        from learning.transfer import calibration

        if (folder / constant.FILE).is_file():
            return constant.load((folder / constant.FILE).read_bytes())
        found = {name: (folder / name).read_bytes() for name in self.file_names if (folder / name).is_file()}
        if not found:
            raise NotFoundError(f"{folder} holds no {self.name} model: expected {', '.join(self.file_names)}")
        return calibration.load(self._load(found), folder)

    def read_parameters(self, values: Mapping[str, Any]) -> Any:
        """Return `values` as this algorithm's struct. Raises InvalidInputError naming algorithm and field."""
        try:
            return msgspec.convert(dict(values), self.parameters, strict=False)
        except msgspec.ValidationError as exc:
            known = ", ".join(f.name for f in msgspec.structs.fields(self.parameters))
            raise InvalidInputError(f"parameters of {self.name}: {exc}; known are {known}") from exc

    def preload(self) -> None:  # noqa: B027 - most have nothing heavier than numpy to import
        """Import the libraries that `start` will need, so that a warm process pays for them before the work comes."""

    @abc.abstractmethod
    def _start(
        self,
        x: NDArray[Any],
        y: Any,
        n_labels: int,
        is_multilabel: bool,
        settings: Any,
        epoch: int,
        seed: int,
        start_from: Model | None,
    ) -> Training: ...

    @abc.abstractmethod
    def _load(self, files: Files) -> Model: ...


class OneStepTraining(Training):
    """A training that is one call of a solver: resuming is either doing it or having done it."""

    steps = 1

    def __init__(self, fit: Callable[[], tuple[Model, float]], load: Callable[[Files], Model]) -> None:
        self._fit, self._load = fit, load
        self._model: Model | None = None

    def advance(self) -> float:
        if self._model is not None:
            raise InvalidInputError("this training is done: its 1 step is taken")
        self._model, loss = self._fit()
        self.step = 1
        return loss

    def state(self) -> dict[str, bytes]:
        return {} if self._model is None else self._model.files()

    def restore(self, state: Files) -> None:
        self._model = self._load(state) if state else None
        self.step = int(self._model is not None)

    def model(self) -> Model:
        if self._model is None:
            raise InvalidInputError("no model yet: call advance first")
        return self._model


def check_labels(y: NDArray[Any], n: int, n_labels: int, is_multilabel: bool) -> NDArray[Any]:
    """Return y as (n,) int64 or, for multilabel, (n, n_labels) uint8. Raises InvalidInputError naming the value at fault."""
    y = np.asarray(y)
    want = (n, n_labels) if is_multilabel else (n,)
    if n == 0 or n_labels < 1:
        raise InvalidInputError(f"nothing to train on: {n} samples and {n_labels} labels")
    if y.shape != want:
        raise InvalidInputError(f"y has shape {y.shape}, expected {want}")
    if y.dtype.kind == "f":
        if not (np.isfinite(y).all() and (y == np.floor(y)).all()):
            raise InvalidInputError("y holds values that are no class numbers (NaN or fractions)")
    elif y.dtype.kind not in "biu":
        raise InvalidInputError(f"y has dtype {y.dtype}, expected integers")
    top = 1 if is_multilabel else n_labels - 1
    if y.min() < 0 or y.max() > top:
        raise InvalidInputError(f"y ranges from {y.min()} to {y.max()}, allowed is 0 to {top}")
    return y.astype(np.uint8 if is_multilabel else np.int64)


def check_soft_labels(y: NDArray[Any], n: int, n_labels: int) -> NDArray[Any]:
    """Return probabilities of labels as (n, n_labels) float32, or as the (n,) int64 they are when each row is certain.

    Raises InvalidInputError naming the shape or the row at fault.
    """
    if n == 0 or n_labels < 1 or y.shape != (n, n_labels):
        raise InvalidInputError(f"probabilities of labels have shape {y.shape}, expected ({n}, {n_labels}) with at least one row")
    sums = y.sum(axis=1)
    is_wrong = ~(np.abs(sums - 1) <= 1e-2) | ~(y >= 0).all(axis=1)  # also true for NaN
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise InvalidInputError(f"row {row} of y is no distribution (sum {sums[row]:.4g}): leave items without a label out")
    if (y.max(axis=1) == 1).all() and (sums == 1).all():
        return y.argmax(axis=1).astype(np.int64)
    return (y / sums[:, None]).astype(np.float32)


def is_soft(y: NDArray[Any]) -> bool:
    """Return whether checked labels are probabilities; several labels an item are 0 and 1."""
    return y.ndim == 2 and y.dtype.kind == "f"


def check_features(x: NDArray[Any], name: str) -> NDArray[np.float32]:
    """Return x as (n, d) float32; NaN stays (imputed by training means).

    Raises InvalidInputError on another shape, an infinite value, or a row without a single known value.
    """
    x = np.asarray(x)
    if x.ndim > 2:
        x = x.reshape(len(x), -1)
    if x.ndim != 2 or x.shape[1] == 0 or x.dtype.kind not in "biuf":
        raise InvalidInputError(f"{name} needs features (n, d) of numbers, got shape {x.shape} and dtype {x.dtype}")
    x = np.ascontiguousarray(x, dtype=np.float32)
    if not np.isfinite(x).all():
        unknown = np.isnan(x)
        if np.isinf(x).any():
            raise InvalidInputError(f"row {int(np.isinf(x).any(axis=1).argmax())} of the features holds an infinite value")
        if unknown.all(axis=1).any():
            raise InvalidInputError(f"row {int(unknown.all(axis=1).argmax())} of the features is NaN throughout")
    return x


def check_pixels(x: NDArray[Any], name: str) -> NDArray[Any]:
    """Return x as (n, h, w, c), uint8 or float32; a flat row of a square image (1 or 3 channels) is unfolded.

    Raises InvalidInputError on any other shape and on NaN or infinite values.
    """
    x = np.asarray(x)
    if x.ndim == 2:
        x = x.reshape(len(x), *_square(x.shape[1], name))
    elif x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or 0 in x.shape[1:] or x.dtype.kind not in "biuf":
        raise InvalidInputError(f"{name} needs pixels (n, h, w, c) of numbers, got shape {x.shape} and dtype {x.dtype}")
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    x = np.ascontiguousarray(x, dtype=np.float32)
    rows = np.isfinite(x).reshape(len(x), -1).all(axis=1)
    if not rows.all():
        raise InvalidInputError(f"image {int((~rows).argmax())} holds NaN or infinite values")
    return x


def _square(width: int, name: str) -> tuple[int, int, int]:
    for channels in (1, 3):
        side = round((width / channels) ** 0.5)
        if side * side * channels == width:
            return side, side, channels
    raise InvalidInputError(f"{name} needs pixels: {width} numbers are no square image of 1 or 3 channels")


def check_width(x: NDArray[Any], width: int) -> NDArray[np.float32]:
    """Return x as (n, width) float32 without a copy where it is one already. Raises InvalidInputError on another width."""
    x = np.asarray(x)
    if x.ndim > 2:
        x = x.reshape(len(x), -1)
    if x.ndim != 2 or x.shape[1] != width:
        raise InvalidInputError(f"the model was trained on {width} features an item, got shape {x.shape}: use the same encoder")
    return x if x.dtype == np.float32 else x.astype(np.float32)


def need(files: Files, name: str) -> bytes:
    """Return the named file of a state or model. Raises IntegrityError when it is absent."""
    try:
        return files[name]
    except KeyError as exc:
        raise IntegrityError(f"{name} is missing: the files do not belong to this algorithm") from exc
