"""What a query strategy is to those who list, choose and run it.

Owns the record, the base of each strategy's parameters and their validation. Must never import a strategy. Called by
`learning.query.table` and by every file of this package that has parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.query.pool import Pool


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of each strategy's parameters; `msgspec.json.schema` of it is what a page renders."""


Score = Callable[[Pool, int, Any], NDArray[np.float32]]


@dataclass(frozen=True)
class Strategy:
    """One way to order a pool. `score(pool, n, parameters)` gives (n_items,) float32; the `n` items wanted (0 = all) score highest.

    `needs` are fields of `Pool`, `uses` those that it takes into account where they are known. `is_per_item`: an item's score does
    not depend on what else is asked, so that costs divide it. `is_explored`: an exploration share is woven into its order.
    `pool_limit`: the most items it can be given (0 = any number). `n_classes`: the only number of classes it is defined
    for (0 = any). `packages`: what it imports that the extra `extra` brings.
    """

    name: str
    summary: str
    paper: str
    score: Score
    parameters: type[Parameters] = Parameters
    needs: tuple[str, ...] = ("proba",)
    is_per_item: bool = True
    is_explored: bool = True
    uses: tuple[str, ...] = ()
    has_multilabel: bool = True
    has_multiclass: bool = True
    n_classes: int = 0
    pool_limit: int = 0
    packages: tuple[str, ...] = ()
    extra: str = ""
    why_not: Callable[[Pool], str | None] = lambda pool: None

    def read_parameters(self, values: Mapping[str, Any] | None) -> Any:
        """Return the validated parameters. Raises InvalidInputError naming the field and what there is."""
        if name := next((name for name, value in (values or {}).items() if not _is_finite(value)), None):
            raise InvalidInputError(f"parameters of strategy {self.name!r}: {name} is {(values or {})[name]!r}: numbers are finite")
        try:
            return msgspec.convert(dict(values or {}), self.parameters, strict=False)
        except msgspec.ValidationError as exc:
            known = ", ".join(field.name for field in msgspec.structs.fields(self.parameters)) or "none"
            raise InvalidInputError(f"parameters of strategy {self.name!r}: {exc}; it has {known}") from exc

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the parameters."""
        return msgspec.json.schema(self.parameters)

    def why_never(self, is_multilabel: bool, n_labels: int, has_parts: bool) -> str | None:
        """Return in one sentence why no pool of a project of this kind and so many labels can be ordered by this strategy."""
        if is_multilabel and not self.has_multilabel:
            return "it is not defined for several labels an item"
        if not is_multilabel and not self.has_multiclass:
            return "it is defined for several labels an item only"
        if self.n_classes and n_labels != self.n_classes:
            return f"it is defined for {self.n_classes} labels only, this project has {n_labels}"
        if "parts" in self.needs and not has_parts:
            return "it orders by boxes or spans, and items of this kind have none"
        if "annotator_labels" in self.needs:
            return "it needs what each annotator answered on the same items, and a project keeps one answer an item"
        return None

    def check(self, pool: Pool) -> None:
        """Raise InvalidInputError in one sentence when this strategy cannot run on `pool`."""
        if pool.is_multilabel and not self.has_multilabel:
            raise InvalidInputError(f"strategy {self.name!r} is not defined for several labels an item: use 'margin' or 'badge'")
        if self.pool_limit and pool.n_items > self.pool_limit:
            raise InvalidInputError(
                f"strategy {self.name!r} takes at most {self.pool_limit} items, the pool has {pool.n_items}: pass a sample"
            )
        if pool.costs is not None and not self.is_per_item:
            raise InvalidInputError(f"strategy {self.name!r} picks a set and takes no costs: use one that scores each item")
        if reason := self.why_not(pool):
            raise InvalidInputError(f"strategy {self.name!r} cannot run: {reason}")


def _is_finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_finite(part) for part in value.values())
    if isinstance(value, list | tuple):
        return all(_is_finite(part) for part in value)
    return not isinstance(value, float) or math.isfinite(value)
