"""Labels from rules: what people know, written down once, applied to all items and weighed against each other.

Owns nothing itself. Must never do I/O: knowledge bases, models and crowds come in as plain values. Called by the roles that label
by rules, by pages and by the bench.
"""

from __future__ import annotations

from learning.weak.application import apply_rules
from learning.weak.columns import Items
from learning.weak.fitting import METHODS, fit, why_not_fit
from learning.weak.knowledge import Knowledge
from learning.weak.label_model import LabelModel, Posterior
from learning.weak.rules import (
    CrowdOpinion,
    Hypernym,
    ModelOpinion,
    Relation,
    Rule,
    Rules,
    check_rules,
    read_rules,
    why_not,
    write_rules,
)
from learning.weak.summary import RuleReport, Summary, summarise
from learning.weak.votes import ABSTAIN, check_truth, check_votes

__all__ = [
    "ABSTAIN",
    "METHODS",
    "CrowdOpinion",
    "Hypernym",
    "Items",
    "Knowledge",
    "LabelModel",
    "ModelOpinion",
    "Posterior",
    "Relation",
    "Rule",
    "RuleReport",
    "Rules",
    "Summary",
    "apply_rules",
    "check_rules",
    "check_truth",
    "check_votes",
    "fit",
    "read_rules",
    "summarise",
    "why_not",
    "why_not_fit",
    "write_rules",
]
