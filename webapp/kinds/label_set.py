"""A project's labels through its life: names are added, renamed and merged, and no number or name ever changes its meaning.

Owns the rule that a label's number stays. A place that is left (its label was renamed or merged) points `into` the one that took it
over, so drafts in blocks, votes of rules and probabilities, which are kept by number, and everything that was written by name are
read as what they mean today. Must never touch the database. Called through `webapp.db.projects.Project` by whoever reads a label.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import msgspec

from labelloop.errors import ConflictError, InvalidInputError
from webapp.kinds.values import Mark, Relation, Value

MOST_LABELS = 1000


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """One number: the name that it was given, and the number that took it over (None = it is in use)."""

    name: str
    into: int | None = None


class LabelSet(msgspec.Struct, frozen=True, dict=True):
    """`labels` in use, in the order in which people see them; `places` by number, those that were left among them."""

    labels: tuple[str, ...]
    places: tuple[Place, ...]

    @functools.cached_property
    def resolved(self) -> tuple[int, ...]:
        """The number in use that each number stands for."""
        return tuple(self._end(number) for number in range(len(self.places)))

    @functools.cached_property
    def numbers(self) -> dict[str, int]:
        """Every name that was ever in use → the number in use that it stands for."""
        return {place.name: end for place, end in zip(self.places, self.resolved, strict=True)}

    @functools.cached_property
    def left(self) -> frozenset[str]:
        """Names that are not in use any more."""
        return frozenset(place.name for place in self.places if place.into is not None)

    def _end(self, number: int) -> int:
        while (into := self.places[number].into) is not None:
            number = into
        return number

    def name_now(self, name: str) -> str:
        """Return what a label is called now; a name that the project never had stays as it is."""
        return self.places[self.numbers[name]].name if name in self.left else name

    def current(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return labels as they are called now, each once."""
        return tuple(dict.fromkeys(self.name_now(name) for name in names))

    def add(self, names: Sequence[str]) -> LabelSet:
        """Return the set with more labels at its end; one that had been merged away is in use again."""
        places = list(self.places)
        at = {place.name: number for number, place in enumerate(places)}
        for name in names:
            if name in at:
                places[at[name]] = Place(name)
            else:
                places.append(Place(name))
        return _checked(LabelSet((*self.labels, *names), tuple(places)))

    def rename(self, old: str, new: str) -> LabelSet:
        """Return the set with `old` called `new`, at its place among the others. Raises InvalidInputError, ConflictError."""
        self._check_known((old,))
        if new in self.labels:
            raise ConflictError(f"there is a label {new!r} already: merge {old!r} into it instead")
        number = self.numbers[old]
        if new in self.left and self.numbers[new] != number:
            raise ConflictError(f"label {new!r} was merged into {self.name_now(new)!r}: choose another name")
        places = list(self.places)
        target = next((at for at, place in enumerate(places) if place.name == new), len(places))
        if target == len(places):
            places.append(Place(new))
        places[target], places[number] = Place(new), Place(old, target)
        return _checked(LabelSet(tuple(new if name == old else name for name in self.labels), tuple(places)))

    def merge(self, names: Sequence[str], into: str, fewest: int = 1) -> LabelSet:
        """Return the set with `names` merged into the label `into`. Raises InvalidInputError, ConflictError."""
        self._check_known((*names, into))
        gone = set(names) - {into}
        if not gone:
            raise InvalidInputError(f"labels {list(names)!r}: name at least one label to be merged into {into!r}")
        labels = tuple(name for name in self.labels if name not in gone)
        if len(labels) < fewest:
            raise ConflictError(f"only {len(labels)} label would be left, and this project needs {fewest}: add one first")
        target = self.numbers[into]
        places = tuple(Place(p.name, target) if p.name in gone and p.into is None else p for p in self.places)
        return LabelSet(labels, places)

    def take_back(self, gone: Sequence[str], into: str, was_rename: bool, before: Sequence[str]) -> LabelSet:
        """Return the set as it was before `gone` was renamed or merged into `into`; `before` is the order of that time."""
        places = list(self.places)
        target = self.numbers[into]
        back = {name: next(at for at, place in enumerate(places) if place.name == name) for name in gone}
        for name, number in back.items():
            places[number] = Place(name)
        labels = self.labels
        if was_rename:
            places[target] = Place(into, back[gone[0]])
            labels = tuple(gone[0] if name == into else name for name in labels)
        else:
            rank = {name: at for at, name in enumerate(before)}
            labels = tuple(sorted((*labels, *gone), key=lambda name: rank.get(name, len(rank))))
        return LabelSet(labels, tuple(places))

    def _check_known(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.labels:
                raise InvalidInputError(f"label {name!r} is not in use here: use one of {', '.join(self.labels[:20])}")


def _checked(new: LabelSet) -> LabelSet:
    if len(new.places) > MOST_LABELS:
        raise InvalidInputError(
            f"{len(new.places)} labels, those that were renamed or merged counted: at most {MOST_LABELS} are kept; copy the project"
        )
    return new


def value_now(labels: LabelSet, value: Value) -> Value:
    """Return a value with its labels, marks and relations as they are called now; a mark that thereby is there twice goes once."""
    kept: dict[tuple[object, ...], Mark] = {}
    alias: dict[str, str] = {}
    for mark in value.marks:
        now = msgspec.structs.replace(mark, label=labels.name_now(mark.label))
        alias[mark.id] = kept.setdefault((now.label, now.shape, now.where), now).id
    relations = dict.fromkeys(
        Relation(labels.name_now(one.label), alias.get(one.source, one.source), alias.get(one.target, one.target))
        for one in value.relations
    )
    now_named = set(labels.current(value.labels))
    order = (*(name for name in labels.labels if name in now_named), *(now_named - set(labels.labels)))
    return msgspec.structs.replace(value, labels=order, marks=tuple(kept.values()), relations=tuple(relations))
