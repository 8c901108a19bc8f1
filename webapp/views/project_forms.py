"""The forms of a project: what a person filled in as the service's values, and the strategies with the fields of each.

Owns the names of the form's fields (`p-<strategy>-<parameter>` for a parameter). Must never decide what a project may have: the
service does. Called by `pages`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from flask_babel import gettext as _

from labelloop.errors import InvalidInputError
from webapp.db.projects import Project
from webapp.projects import strategies
from webapp.projects.strategies import Field, StrategyView

_BOUNDS = ("least", "most", "step")
_TEXTS = ("title", "instructions", "algorithm", "strategy")


def read_number(form: Any, name: str, default: float) -> float:
    """Return the number in a field, `default` for an empty one. Raises InvalidInputError."""
    text = form.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError as exc:
        raise InvalidInputError(f"{name} {text!r} is no number") from exc
    if not math.isfinite(value):
        raise InvalidInputError(f"{name} {text!r} is no number")
    return value


def read_count(form: Any, name: str) -> int:
    """Return the whole number in a field, 0 for an empty one. Raises InvalidInputError."""
    value = read_number(form, name, 0.0)
    if abs(value) > 1e15:
        raise InvalidInputError(f"{name} {form.get(name)!r}: use a whole number from 0 on")
    return int(value)


def common_values(form: Any) -> dict[str, Any]:
    """Return what both the new project's form and the settings have. Raises InvalidInputError naming a field."""
    return {
        "labels": read_lines(form, "labels"),
        "target": read_number(form, "target", 95.0) / 100,
        "budget": read_count(form, "budget"),
        "strategy_parameters": read_parameters(form),
        "limits": read_limits(form),
        **{name: form.get(name, "").strip() for name in _TEXTS},
    }


def changed_values(form: Any) -> dict[str, Any]:
    """Return what the settings' form has. Raises InvalidInputError naming a field."""
    counts = {name: read_count(form, name) for name in ("epoch", "retrain_labels")}
    switches = {name: form.get(name) == "on" for name in ("is_comparer_on", "is_paused")}
    return common_values(form) | counts | switches


def shown_values(project: Project) -> dict[str, Any]:
    """Return a project as its settings' form shows it."""
    values = {name: str(getattr(project, name)) for name in ("budget", "epoch", "retrain_labels")}
    switches = {name: "on" if getattr(project, name) else "" for name in ("is_comparer_on", "is_paused")}
    known = {field.name: field for field in strategies.fields_of(strategies.find(project.strategy))}
    parameters = {
        f"p-{project.strategy}-{name}": strategies.written(value)
        for name, value in project.strategy_parameters.items()
        if name in known
    }
    texts = {name: getattr(project, name) for name in _TEXTS}
    number = project.limits_now.number
    limits = {name: "" if (value := getattr(number, name)) is None else f"{value:.15g}" for name in _BOUNDS}
    limits |= {"unit": number.unit, "relation_labels": "\n".join(project.limits_now.relation_labels)}
    labels = {"labels": "\n".join(project.labels), "target": f"{100 * project.target:g}"}
    return values | switches | parameters | texts | limits | labels


def read_limits(form: Any) -> dict[str, Any]:
    """Return what the form asks of values; a field that is empty, or not for the project's kind and so not sent, asks nothing."""
    out: dict[str, Any] = {}
    number: dict[str, Any] = {name: read_number(form, name, 0.0) for name in _BOUNDS if form.get(name, "").strip()}
    if number or form.get("unit", "").strip():
        out["number"] = number | {"unit": form.get("unit", "").strip()}
    relations = read_lines(form, "relation_labels")
    return out | ({"relation_labels": relations} if relations else {})


def read_lines(form: Any, name: str) -> list[str]:
    """Return the lines of a field, without empty ones."""
    return [line.strip() for line in form.get(name, "").splitlines() if line.strip()]


def read_parameters(form: Any) -> dict[str, Any]:
    """Return the parameters of the chosen strategy that differ from its defaults. Raises InvalidInputError naming one."""
    strategy = strategies.find(form.get("strategy", ""))
    out: dict[str, Any] = {}
    for field in strategies.fields_of(strategy):
        text = form.get(f"p-{strategy.name}-{field.name}", "").strip()
        if text and text != strategies.written(field.default):
            out[field.name] = strategies.read_written(field, text)
    return out


def strategy_forms(form: Any) -> list[dict[str, Any]]:
    """Return every strategy with its texts in the reader's language and its fields as a form holds them."""
    chosen = form.get("strategy") or "auto"
    return [_strategy_form(view, form, view.name == chosen) for view in strategies.list_strategies()]


def _strategy_form(view: StrategyView, form: Any, is_chosen: bool) -> dict[str, Any]:
    return {
        "name": view.name,
        "summary": _(view.summary),
        "paper": view.paper,
        "is_chosen": is_chosen,
        "notes": notes_of(view),
        "extra": _("Needs the packages of the extra {extra} on the inference nodes.").format(extra=view.extra)
        if view.extra
        else "",
        "bound": _("A pool above {n} items is judged on a sample.").format(n=view.items_at_once) if view.items_at_once else "",
        "fields": [_field_form(view.name, field, form) for field in view.fields],
    }


def notes_of(view: StrategyView) -> list[tuple[str, str, str]]:
    """Return why a strategy may not be for a project: (what it hangs on, its value, the sentence)."""
    notes = []
    if "multilabel" not in view.kinds:
        notes.append(("not-kind", "multilabel", _("It cannot run here: it is not defined for several labels an item.")))
    if "multiclass" not in view.kinds:
        notes.append(("not-kind", "multiclass", _("It cannot run here: it is defined for several labels an item only.")))
    if view.labels_wanted:
        sentence = _("It cannot run here: it is defined for {n} labels only.").format(n=view.labels_wanted)
        notes.append(("labels", str(view.labels_wanted), sentence))
    if "parts" in view.needs:
        notes.append(("regions", "", _("It cannot run here: items of this kind have no boxes or spans.")))
    if "annotator_labels" in view.needs:
        notes.append(("never", "", _("It cannot run here: a project keeps one answer an item.")))
    return notes


def _field_form(strategy: str, field: Field, form: Any) -> dict[str, Any]:
    name = f"p-{strategy}-{field.name}"
    return {
        "id": name,
        "label": field.name,
        "kind": field.kind,
        "choices": field.choices,
        "value": form.get(name) or strategies.written(field.default),
        "help": " ".join(part for part in (_(field.description) if field.description else "", _bounds(field)) if part),
        "minimum": field.minimum,
        "maximum": field.maximum,
        "step": "1" if field.kind == "integer" else "any",
    }


def _bounds(field: Field) -> str:
    default = strategies.written(field.default)
    said: Mapping[str, str] = {"default": default, "least": f"{field.minimum:g}" if field.minimum is not None else ""}
    parts = [_("Default: {default}.").format(**said)] if default else []
    if field.minimum is not None and field.maximum is not None:
        parts.append(_("From {least} to {most}.").format(least=said["least"], most=f"{field.maximum:g}"))
    elif field.minimum is not None:
        parts.append((_("Above {least}.") if field.is_minimum_excluded else _("From {least} on.")).format(**said))
    return " ".join(parts)
