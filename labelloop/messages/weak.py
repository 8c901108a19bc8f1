"""Labels from rules over RPC: what inference_rpc is asked of rules and answers. Called through `labelloop.messages`."""

from __future__ import annotations

from labelloop.messages.base import Array, Message
from labelloop.messages.tasks import Item, ItemError


class RulesRequest(Message, frozen=True, kw_only=True):
    """Apply rules to `items` (at most 10,000) and weigh them. `rules` is the JSON array of `docs/developer/weak-supervision.md`.

    `known`: the label of each item as a number in the task's label set, -1 = unknown; empty = all unknown. `method` names the label
    model, 'auto' = the default.
    """

    task: str
    rules: bytes
    items: tuple[Item, ...]
    known: tuple[int, ...] = ()
    method: str = "auto"


class VotesRequest(Message, frozen=True, kw_only=True):
    """Weigh votes that earlier calls of `apply_rules` answered. `votes` is (n, m) int16, -1 = the rule abstains; `names` of the m
    rules; `known` and `method` as in `RulesRequest`."""

    task: str
    names: tuple[str, ...]
    votes: Array
    known: Array | None = None
    method: str = "auto"


class RuleView(Message, frozen=True, kw_only=True):
    """One rule among the others; shares are of all items. `accuracy` on items whose label is known (`n_known` of them voted for),
    None without one; `note` says what is wrong with the rule, '' = nothing."""

    name: str
    labels: tuple[str, ...]
    n_votes: int
    coverage: float
    overlap: float
    conflict: float
    accuracy: float | None = None
    n_known: int = 0
    weight: float | None = None
    note: str = ""


class RulesReply(Message, frozen=True, kw_only=True):
    """What the rules say together. `votes` (n, m) int16 and `proba` (n, k) float32 in the order of the items; `is_covered` (n,)
    bool: a row without a vote carries the class balance and is no label. Failed items have no vote. `method` is the label model
    really used and `reason` one sentence why; `weight` of a rule's view is how often the label model takes it to be right."""

    rules: tuple[RuleView, ...]
    n_items: int
    coverage: float
    overlap: float
    conflict: float
    votes: Array
    proba: Array
    is_covered: Array
    method: str
    reason: str
    failed: tuple[ItemError, ...] = ()
