"""What the scoring of a project needs next: pure decisions.

Must never call anything. Called by `webapp.pilot.embed` and `webapp.pilot.ordering`, which act on them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import msgspec

from learning.query import needs

GROWTH = 1.5
_OF_A_MODEL = frozenset({"proba", "parts"})


class Action(enum.Enum):
    """The next step of a project's order."""

    REST = "rest"
    RESCORE = "rescore"
    RANK = "rank"


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What is, at one moment. `serving` at `pointer` is the cluster's; `scored_*` what the drafts in the blocks are from.

    `in_blocks` items have been embedded; `ranked_items` of them are in the present order, made by `ranked_strategy` with
    `ranked_parameters`, while the project asks for `strategy` with `parameters`.
    `has_backlog`: items wait to be embedded. `unbound` blocks lost their shard.
    """

    serving: str
    pointer: int
    scored_version: str
    scored_pointer: int
    is_ordered: bool
    in_blocks: int
    ranked_items: int
    has_backlog: bool
    unbound: int
    strategy: str
    ranked_strategy: str
    parameters: dict[str, Any] = {}
    ranked_parameters: dict[str, Any] = {}


def next_order(view: View) -> tuple[Action, str]:
    """Return what to do about a project's drafts and order, and why."""
    if not view.in_blocks:
        return Action.REST, "no item is embedded yet"
    if view.serving and (view.serving, view.pointer) != (view.scored_version, view.scored_pointer):
        return Action.RESCORE, f"version {view.serving} serves, the drafts are from {view.scored_version or 'no version'}"
    if view.unbound and view.serving:
        return Action.RESCORE, f"{view.unbound} blocks have no features in the cluster"
    again = Action.RESCORE if view.serving else Action.RANK
    if not view.is_ordered:
        return again, "the queue has no order of this version yet"
    if view.strategy != view.ranked_strategy:
        return again, f"the strategy is {view.strategy} now, the order is by {view.ranked_strategy}"
    if view.parameters != view.ranked_parameters:
        return again, f"the parameters of {view.strategy} have changed"
    if view.in_blocks >= GROWTH * view.ranked_items or (view.in_blocks != view.ranked_items and not view.has_backlog):
        return again, f"{view.in_blocks} items are embedded, the order was made from {view.ranked_items}"
    return Action.REST, "drafts and order are those of the serving version"


def usable_strategy(strategy: str, parameters: Mapping[str, Any], version: str) -> tuple[str, dict[str, Any]]:
    """Return the strategy to ask for with its parameters: one that needs a model's answers waits for a version behind 'auto'."""
    if not version and _OF_A_MODEL & set(needs(strategy, parameters)):
        return "auto", {}
    return strategy, dict(parameters)
