"""Rules over items that somebody looks at: checked here, applied by the interactive workers, weighed here.

Owns what may be asked of rules at once, and the cut of a call into orders. Must never hold state after the answer. Called by
`service` on RPC threads; it imports no model library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datastore_layout.root import Root, task_folder
from datastore_layout.tasks import read_spec
from labelloop.errors import InternalError, InvalidInputError, NotReadyError, TooLargeError
from labelloop.messages import Item, ItemError, RulesReply, RulesRequest, TaskSpec, VotesRequest, decode
from learning.weak import ABSTAIN, CrowdOpinion, Hypernym, ModelOpinion, Relation, Rule, Rules, read_rules
from roles.inference.asking import LOST_ATTEMPTS, Asker
from roles.inference.calls import RULES, RulesWork, RuleVotes
from roles.inference.weighing import check_method, read_numbers, weigh

MOST_ITEMS = 10_000
MOST_RULES = 200
MOST_RULE_BYTES = 2 * 2**20
MOST_VOTES = 10_000_000
ORDER_ITEMS = 1024
SERVING, CROWD, WORDNET = "serving", "crowd", "wordnet"  # what rules may name


@dataclass(frozen=True)
class Voting:
    """Answers `apply_rules` and `weigh_votes`. Thread-safe. `version_of` says which version of a task serves, '' = none."""

    root: Root
    asker: Asker
    queue_name: str
    timeout_s: float
    version_of: Callable[[str], str]

    def apply_rules(self, request: RulesRequest) -> RulesReply:
        """Return what rules say of items. Raises InvalidInputError naming the rule at fault, TooLargeError, NotReadyError."""
        _check_sizes(request)
        check_method(request.method)
        spec = read_spec(task_folder(self.root, request.task))
        rules = _read(request.rules, spec)
        version = self._version(spec, rules)
        work = RulesWork(call="", reply_to="", task=request.task, version=version, rules=request.rules, items=request.items)
        self.asker.require_worker(self.queue_name)
        votes, failed = self._ask(work, len(rules))
        known = np.array(request.known, dtype=np.int64) if request.known else None
        return weigh(spec, tuple(rule.name for rule in rules), votes, known, request.method, failed)

    def weigh_votes(self, request: VotesRequest) -> RulesReply:
        """Return the label model of votes that were answered before. Raises InvalidInputError naming what does not fit."""
        spec = read_spec(task_folder(self.root, request.task))
        why_not = why_not_rules(spec, ())
        if why_not is not None:
            raise InvalidInputError(why_not)
        votes = read_numbers("votes", request.votes, (-1, len(request.names)))
        if votes.size > MOST_VOTES or len(request.names) > MOST_RULES:
            raise TooLargeError(f"{votes.shape} votes are over {MOST_VOTES} or {MOST_RULES} rules: weigh fewer items at once")
        known = None if request.known is None else read_numbers("known", request.known, (len(votes),))
        return weigh(spec, request.names, votes, known, request.method)

    def _version(self, spec: TaskSpec, rules: Rules) -> str:
        asking = next((rule for rule in rules if isinstance(rule, ModelOpinion)), None)
        if asking is None:
            return ""
        version = self.version_of(spec.task)
        if not version:
            raise NotReadyError(f"rule {asking.name!r} asks the serving model, and no version of {spec.task!r} serves yet")
        return version

    def _ask(self, work: RulesWork, n_rules: int) -> tuple[NDArray[np.int16], list[ItemError]]:
        cut = [work.items[i : i + ORDER_ITEMS] for i in range(0, len(work.items), ORDER_ITEMS)]
        parts = self._orders(work, cut, n_rules)
        votes = np.frombuffer(b"".join(part.data for part in parts), dtype=np.int16).reshape(len(work.items), n_rules)
        return votes, [error for part in parts for error in part.failed]

    def _orders(self, work: RulesWork, groups: Sequence[tuple[Item, ...]], n_rules: int) -> list[RuleVotes]:
        """Return the votes of each group; one that ends its workers is halved until the item at fault stands alone."""
        works = [
            RulesWork(call="", reply_to="", task=work.task, version=work.version, rules=work.rules, items=group) for group in groups
        ]
        replies = self.asker.ask_all(RULES, self.queue_name, works, self.timeout_s)
        parts: list[RuleVotes] = []
        for group, reply in zip(groups, replies, strict=True):
            if reply.kind == "done":
                parts.append(decode(RuleVotes, reply.body))
            elif len(group) == 1:
                parts.append(_poisoned(group[0], n_rules))
            else:
                middle = len(group) // 2
                parts.extend(self._orders(work, (group[:middle], group[middle:]), n_rules))
        return parts


def _check_sizes(request: RulesRequest) -> None:
    n = len(request.items)
    if not 1 <= n <= MOST_ITEMS:
        raise TooLargeError(
            f"apply_rules takes 1 to {MOST_ITEMS} items, got {n}: send them in parts, and their votes to weigh_votes"
        )
    if len(request.rules) > MOST_RULE_BYTES:
        raise TooLargeError(f"rules of {len(request.rules)} bytes are over {MOST_RULE_BYTES}: make dictionaries shorter")
    if request.known and len(request.known) != n:
        raise InvalidInputError(f"{len(request.known)} known labels for {n} items: give one an item, -1 = unknown, or none")


def _read(data: bytes, spec: TaskSpec) -> Rules:
    rules = read_rules(data, len(spec.extra.labels))
    if len(rules) > MOST_RULES:
        raise TooLargeError(f"apply_rules takes up to {MOST_RULES} rules, got {len(rules)}: join dictionaries of one label")
    why_not = why_not_rules(spec, rules)
    if why_not is not None:
        raise InvalidInputError(why_not)
    return rules


def why_not_rules(spec: TaskSpec, rules: Sequence[Rule]) -> str | None:
    """Return why these rules cannot label the items of a task, None when they can."""
    if spec.category not in ("text-classification", "tables", "image-classification"):
        return f"task {spec.task!r} is of {spec.category}: rules label whole items, not regions of them"
    if spec.extra.kind != "multiclass":
        return f"task {spec.task!r} takes several labels an item, rules give one: make it multiclass"
    return next((f"rule {rule.name!r}: {reason}" for rule in rules if (reason := _why_not(spec, rule))), None)


def _why_not(spec: TaskSpec, rule: Rule) -> str | None:
    match rule:
        case ModelOpinion() if rule.source != SERVING:
            return f"there is no model {rule.source!r}: its source is {SERVING!r}, the version that serves"
        case CrowdOpinion() if rule.source != CROWD:
            return f"there is no crowd {rule.source!r}: its source is {CROWD!r}, what people said of the task's items"
        case Hypernym() | Relation() if rule.base != WORDNET:
            return f"there is no knowledge base {rule.base!r}: its base is {WORDNET!r}"
        case ModelOpinion() | CrowdOpinion():
            return None
        case _ if spec.category == "image-classification":
            return "a picture has no text and no columns: use rules of kind 'model' and 'crowd'"
        case _:
            return None


def _poisoned(item: Item, n_rules: int) -> RuleVotes:
    reason = f"this item ended its worker {LOST_ATTEMPTS} times"
    failed = (ItemError(item_id=item.item_id, code=InternalError.code, reason=reason),)
    return RuleVotes(data=np.full(n_rules, ABSTAIN, dtype=np.int16).tobytes(), failed=failed)
