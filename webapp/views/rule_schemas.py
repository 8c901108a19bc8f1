"""The requests and replies of rules as marshmallow schemas: what is refused at the door, and what the OpenAPI page says.

Must never hold a rule of a service: only shapes and sizes. Called by `webapp.views.api_rules`.
"""

from __future__ import annotations

import marshmallow as ma
from marshmallow import fields, validate

from webapp.views.schemas import Batch, LeasedItem, Strict, text_field


class RuleSet(ma.Schema):
    revision = fields.Integer(metadata={"description": "Send it back with a change; 0 = nobody has written rules yet."})
    rules = fields.List(fields.Dict())
    least_confidence = fields.Float()
    method = fields.String()
    updated_at = fields.Float()


class RulesPreview(Strict):
    rules = fields.List(
        fields.Dict(keys=fields.String()),
        required=True,
        validate=validate.Length(max=200),
        metadata={"description": "As in docs/developer/weak-supervision.md, labels by name; `enabled` false = the rule rests."},
    )
    method = text_field(40, load_default="auto")


class RulesChange(RulesPreview):
    revision = fields.Integer(required=True, validate=validate.Range(0, 2**31 - 2))
    least_confidence = fields.Float(load_default=0.7, metadata={"description": "Items less sure get no label of rules."})


class RuleFigures(ma.Schema):
    name = fields.String()
    error = fields.String(metadata={"description": "What is wrong with the rule, '' = nothing."})
    view = fields.Dict(allow_none=True, metadata={"description": "labels, n_votes, coverage, overlap, conflict, accuracy, note, …"})
    hits = fields.List(fields.Dict())
    fights = fields.List(fields.Dict(), metadata={"description": "Rules that say something else: with, n, items."})


class Preview(ma.Schema):
    rules = fields.List(fields.Nested(RuleFigures))
    n_items = fields.Integer()
    n_known = fields.Integer()
    coverage = fields.Float()
    overlap = fields.Float()
    conflict = fields.Float()
    method = fields.String()
    reason = fields.String()
    failed = fields.Integer()
    failed_reason = fields.String()
    uncovered = fields.List(fields.Integer())
    items = fields.Dict(metadata={"description": "The examples by the numbers that the lists name."})


class RuleJob(ma.Schema):
    id = fields.Integer()
    kind = fields.String(metadata={"description": "apply or withdraw"})
    state = fields.String(metadata={"description": "waiting, running, done, failed or cancelled"})
    phase = fields.String(metadata={"description": "votes, labels or withdraw"})
    share = fields.Float()
    labelled = fields.Integer()
    kept = fields.Integer()
    withdrawn = fields.Integer()
    unsure = fields.Integer()
    failed = fields.Integer()
    reason = fields.String()
    views = fields.List(fields.Dict())
    created_at = fields.Float()
    updated_at = fields.Float()


class RulesState(ma.Schema):
    job = fields.Nested(RuleJob, allow_none=True)
    rule_labels = fields.Integer()
    labels = fields.Integer()
    trouble = fields.String()
    measured = fields.Dict(metadata={"description": "checked, wrong, and rules: [{name, checked, wrong}]."})


class RuleJobKey(Strict):
    id = fields.Integer(required=True, validate=validate.Range(0, 2**62))


class ReviewRequest(Strict):
    n = fields.Integer(load_default=1, validate=validate.Range(0, 100))
    by = fields.String(load_default="doubt", validate=validate.OneOf(["doubt", "conflict", "rule"]))
    rule = text_field(100, load_default="")
    holding = fields.List(text_field(256), load_default=None, allow_none=True, validate=validate.Length(max=200))


class RuleVote(ma.Schema):
    rule = fields.String()
    label = fields.String()


class ReviewedItem(LeasedItem):
    votes = fields.List(fields.Nested(RuleVote))


class ReviewBatch(Batch):
    items = fields.List(fields.Nested(ReviewedItem))
