"""best-of: several algorithms learn the same items, and the one that does best on items kept aside becomes the model.

Owns the sets and their parameters; `contest` is the training. Must never train on another input than its members share. Called
through `learning.algorithms` as `best-of` (features), `best-of-pixels` and `best-of-regions`. Members take their steps one after
another, in one process; the model is the winner's, with `best-of.json` beside it.

Bad input                                        Answer
an unknown algorithm                             NotFoundError naming the known ones
best-of in a set, an entry without a name        InvalidInputError naming the entry
a member of another input or of other targets    InvalidInputError naming both
a member's parameters                            InvalidInputError naming the member and the field
a member that cannot learn this kind of data     left out; `Training.note` says why
no member that can                               InvalidInputError with each one's reason
one member that can, or too few items to compare the first that can learn is trained without a comparison
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from numpy.typing import NDArray

from labelloop.errors import IntegrityError, InvalidInputError
from learning.algorithms import find_algorithm
from learning.algorithms.base import Algorithm, Files, Model, Parameters, Training
from learning.algorithms.contest import RECORD, Contest, Data, Member, read_record, wrap
from learning.metrics_regions import BOX

Entry = dict[str, Any]
FEATURES: tuple[Entry, ...] = tuple({"name": name} for name in ("logistic-regression", "svm", "random-forest", "linear-head"))
PIXELS: tuple[Entry, ...] = ({"name": "small-cnn"}, {"name": "small-cnn", "parameters": {"width": 64}}, {"name": "fine-tune"})
BOXES: tuple[Entry, ...] = ({"name": "box-head"}, {"name": "box-head", "parameters": {"rate": 0.003}})
SPANS: tuple[Entry, ...] = ({"name": "token-head"}, {"name": "token-head", "parameters": {"looks_l2": 0.1}})


class BestOfParameters(Parameters, frozen=True, kw_only=True):
    """`algorithms`: entries {"name": ..., "parameters": {...}}; empty = the set of the module for this kind of data."""

    algorithms: Annotated[tuple[Entry, ...], msgspec.Meta(description="Members {name, parameters}; empty = the usual ones.")] = ()
    kept_aside: Annotated[float, msgspec.Meta(ge=0.05, le=0.5, description="Share of items that members are compared on.")] = 0.2
    refit: Annotated[bool, msgspec.Meta(description="Train the winner once more, on all items.")] = True


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    parameters: dict[str, Any] = {}


class BestOf(Algorithm):
    """What the three sets share."""

    has_multilabel = True
    has_soft_labels = True
    parameters = BestOfParameters
    file_names = (RECORD,)

    @abc.abstractmethod
    def usual(self, y: Any) -> tuple[Entry, ...]:
        """Return the members where a task names none; y as checked."""

    def read_parameters(self, values: Mapping[str, Any]) -> Any:
        settings = super().read_parameters(values)
        self._members(settings.algorithms)
        return settings

    def load(self, folder: Path) -> Model:
        if not (folder / RECORD).is_file():
            return super().load(folder)
        from learning.transfer import calibration

        record = read_record({RECORD: (folder / RECORD).read_bytes()})
        names = (RECORD, *self._known(record.winner).file_names)
        files = {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
        return calibration.load(self._load(files), folder)

    def _members(self, entries: Sequence[Entry]) -> list[Member]:
        return [self._member(entry) for entry in entries]

    def _member(self, entry: Entry) -> Member:
        try:
            asked = msgspec.convert(entry, _Entry)
        except msgspec.ValidationError as exc:
            raise InvalidInputError(f"{entry!r} is no member of {self.name}: {exc}; give name and parameters") from exc
        algorithm = find_algorithm(asked.name)
        if isinstance(algorithm, BestOf):
            raise InvalidInputError(f"{asked.name} cannot be a member of {self.name}: name its algorithms instead")
        if (algorithm.input, algorithm.target) != (self.input, self.target):
            raise InvalidInputError(
                f"{asked.name} learns {algorithm.target} from {algorithm.input}, {self.name} {self.target} from {self.input}: "
                "all members share one input"
            )
        algorithm.read_parameters(asked.parameters)
        return Member(algorithm, asked.parameters)

    def _known(self, winner: str) -> Algorithm:
        if winner == self.name or isinstance(algorithm := find_algorithm(winner), BestOf):
            raise IntegrityError(f"{RECORD} names {winner} as the winner, which trains no model of its own")
        return algorithm

    def _start(
        self,
        x: NDArray[Any],
        y: Any,
        n_labels: int,
        is_multilabel: bool,
        settings: BestOfParameters,
        epoch: int,
        seed: int,
        start_from: Model | None,
    ) -> Training:
        members = self._members(settings.algorithms or self.usual(y))
        return Contest(members, Data(x, y, n_labels, is_multilabel), settings.kept_aside, settings.refit, epoch, seed)

    def _load(self, files: Files) -> Model:
        record = read_record(files)
        return wrap(Member(self._known(record.winner), record.parameters).read(files), record)


class BestOfFeatures(BestOf):
    """Whole items by their features."""

    name = "best-of"
    title = "Best of several"
    framework = "sklearn"
    input = "features"

    def preload(self) -> None:
        for entry in FEATURES:
            find_algorithm(entry["name"]).preload()

    def usual(self, y: Any) -> tuple[Entry, ...]:
        return FEATURES


class BestOfPixels(BestOf):
    """Whole pictures by networks."""

    name = "best-of-pixels"
    title = "Best of several networks"
    framework = "torch"
    input = "pixels"

    def usual(self, y: Any) -> tuple[Entry, ...]:
        return PIXELS


class BestOfRegions(BestOf):
    """Boxes or spans: several settings of the algorithm that finds them."""

    name = "best-of-regions"
    title = "Best of several (boxes or spans)"
    framework = "torch"
    input = "features"
    target = "regions"
    has_multilabel = False
    has_soft_labels = False

    def usual(self, y: Any) -> tuple[Entry, ...]:
        return BOXES if y[0].where.shape[1] == BOX else SPANS


ALGORITHM, OF_PIXELS, OF_REGIONS = BestOfFeatures(), BestOfPixels(), BestOfRegions()
