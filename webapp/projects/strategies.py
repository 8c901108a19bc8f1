"""The query strategies as a project may choose them: names, parameters, and whether they can order its items at all.

Owns the check of a project's choice and the fields that a page or a client renders for it. Must never order anything: the cluster
does. Called by `webapp.projects.service`, the API and the pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from labelloop.errors import InvalidInputError
from learning import query

NAMES: tuple[str, ...] = ("auto", *query.ALL)
WITH_REGIONS = frozenset({"object-detection", "token-classification"})


class Field(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One parameter of a strategy. `kind` shares: names with a positive number each; numbers: a list of positive numbers."""

    name: str
    kind: Literal["number", "integer", "choice", "shares", "numbers"]
    default: Any
    description: str = ""
    minimum: float | None = None
    is_minimum_excluded: bool = False
    maximum: float | None = None
    choices: tuple[str, ...] = ()


class StrategyView(msgspec.Struct, frozen=True, kw_only=True):
    """A strategy as it is listed. `extra` names the extra of `packages` that it needs on the inference nodes, '' = none;
    `items_at_once` the most items it judges (a larger pool is judged on a sample), 0 = any number; `labels_wanted` the only number
    of labels it is defined for, 0 = any; `kinds` of project that it is defined for."""

    name: str
    summary: str
    paper: str
    fields: tuple[Field, ...]
    needs: tuple[str, ...]
    kinds: tuple[str, ...]
    labels_wanted: int
    items_at_once: int
    extra: str
    packages: tuple[str, ...]


def find(name: str) -> query.Strategy:
    """Return a strategy by name. Raises InvalidInputError."""
    try:
        return query.find(name)
    except InvalidInputError as exc:
        raise InvalidInputError(f"strategy {name!r}: use one of {', '.join(NAMES)}") from exc


def check_choice(values: Mapping[str, Any]) -> None:
    """Raise InvalidInputError when a project may not have its `strategy` or `strategy_parameters`."""
    strategy = find(values["strategy"])
    strategy.read_parameters(values["strategy_parameters"])
    if reason := why_never(strategy, values["category"], values["kind"], len(values["labels"])):
        raise InvalidInputError(f"strategy {strategy.name!r} cannot order this project: {reason}")


def why_never(strategy: query.Strategy, category: str, kind: str, n_labels: int) -> str | None:
    """Return in one sentence why a strategy can never order a project of this kind, None when it can."""
    return strategy.why_never(kind == "multilabel", n_labels, category in WITH_REGIONS)


def list_strategies() -> tuple[StrategyView, ...]:
    """Return all strategies, 'auto' first."""
    return tuple(_view(query.find(name)) for name in NAMES)


def _view(row: query.Strategy) -> StrategyView:
    kinds = [kind for kind, is_in in (("multiclass", row.has_multiclass), ("multilabel", row.has_multilabel)) if is_in]
    return StrategyView(
        name=row.name,
        summary=row.summary,
        paper=row.paper,
        fields=fields_of(row),
        needs=row.needs,
        kinds=tuple(kinds),
        labels_wanted=row.n_classes,
        items_at_once=row.pool_limit,
        extra=row.extra,
        packages=row.packages,
    )


def fields_of(strategy: query.Strategy) -> tuple[Field, ...]:
    """Return the parameters of a strategy out of their schema, in its order."""
    root = strategy.schema()
    definitions = root.get("$defs", {})
    properties = definitions[strategy.parameters.__name__].get("properties", {})
    defaults = strategy.read_parameters(None)
    return tuple(_field(name, schema, getattr(defaults, name)) for name, schema in properties.items())


def _field(name: str, schema: Mapping[str, Any], default: Any) -> Field:
    told: dict[str, Any] = {"name": name, "default": default, "description": schema.get("description", "")}
    if "enum" in schema:
        return Field(kind="choice", choices=tuple(schema["enum"]), **told)
    if schema["type"] == "object":
        return Field(kind="shares", **told)
    if schema["type"] == "array":
        return Field(kind="numbers", **told)
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    bounds = {"minimum": least, "is_minimum_excluded": "exclusiveMinimum" in schema, "maximum": schema.get("maximum")}
    return Field(kind=schema["type"], **told, **bounds)


def written(value: Any) -> str:
    """Return a parameter as a form shows it: shares as 'name 0.5, other 0.5', numbers as '1, 2'."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {share:g}" for name, share in value.items())
    if isinstance(value, tuple | list):
        return ", ".join(f"{number:g}" for number in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_written(field: Field, text: str) -> Any:
    """Return the parameter that a person wrote into a form. Raises InvalidInputError naming the field."""
    if field.kind == "choice":
        return text
    try:
        if field.kind == "shares":
            pairs = [part.split() for part in text.replace("=", " ").replace(":", " ").split(",") if part.strip()]
            return {name: float(share) for name, share in pairs}
        if field.kind == "numbers":
            return [float(part) for part in text.split(",") if part.strip()]
        return int(text) if field.kind == "integer" else float(text)
    except ValueError as exc:
        ways = {"shares": "names with a number each, such as 'margin 0.5, core_set 0.5'", "numbers": "numbers with commas between"}
        raise InvalidInputError(f"{field.name} {text!r}: write {ways.get(field.kind, 'a number')}") from exc
