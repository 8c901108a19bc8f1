"""Requests and replies about people at work as marshmallow schemas.

Must never hold a rule of a service: only shapes and sizes. Called by the API's views.
"""

from __future__ import annotations

import marshmallow as ma
from marshmallow import fields, validate

from webapp.views.schemas import MOST_ITEMS, LeasedItem, Mark, Relation, Strict, text_field


class Work(Strict):
    overlap = fields.Integer(metadata={"description": "How many people give their opinion on each item; 1 = one."})
    blind_share = fields.Float(metadata={"description": "Share of items that go to a second person without the draft."})
    consensus = text_field(20, metadata={"description": "majority, dawid-skene or one-coin"})
    least_agreement = fields.Float(metadata={"description": "Share of opinions below which a reviewer decides; ties always do."})
    gold_share = fields.Float(metadata={"description": "Share of what a person gets whose answer is known, up to 0.5."})
    least_gold = fields.Float(metadata={"description": "Who is right on fewer of those gets no more items; 0 = nobody is stopped."})
    gold_judged_from = fields.Integer(metadata={"description": "Answers to such items before anybody is stopped."})
    review = text_field(20, metadata={"description": "disputes, corrections (of drafts), share or all"})
    review_share = fields.Float()
    assignment = text_field(20, metadata={"description": "queue, or shares: each person has a fixed set of items."})


class WorkReply(Work):
    class Meta:
        unknown = ma.INCLUDE


class GoldChange(Strict):
    item_ids = fields.List(text_field(256), required=True, validate=validate.Length(max=MOST_ITEMS))
    is_gold = fields.Boolean(load_default=True)


class PageQuery(Strict):
    after = fields.Integer(load_default=-1, validate=validate.Range(-1, 2**62))
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000))


class Gold(ma.Schema):
    changed = fields.Integer()
    total = fields.Integer()
    items = fields.List(fields.Dict())
    after = fields.Integer(allow_none=True)


class ReviewNext(Strict):
    n = fields.Integer(load_default=1, validate=validate.Range(0, 100))
    reason = text_field(20, load_default="", metadata={"description": "dispute, corrections, share, all, returned, left; '' = any"})
    holding = fields.List(text_field(256), load_default=list, validate=validate.Length(max=200))
    item_id = text_field(
        256, load_default="", metadata={"description": "This item's label, whether or not anybody asked about it."}
    )


class Judgement(Strict):
    item_id = text_field(256, required=True)
    lease = text_field(64, load_default="")
    action = text_field(10, required=True, metadata={"description": "accept, correct, return, or reopen (one's decision again)"})
    labels = fields.List(text_field(100), load_default=list, validate=validate.Length(max=1000))
    marks = fields.List(fields.Nested(Mark), validate=validate.Length(max=2000))
    relations = fields.List(fields.Nested(Relation), validate=validate.Length(max=5000))
    number = fields.Float(allow_none=True)
    text = fields.String(allow_none=True, validate=validate.Length(max=200_000))
    is_none = fields.Boolean()
    comment = text_field(4000, load_default="")


class Judged(ma.Schema):
    item_id = fields.String()
    state = fields.String()


class ReviewItem(LeasedItem):
    labels = fields.List(fields.String())
    author = fields.String()
    reason = fields.String()
    agreement = fields.Float(allow_none=True)
    heard = fields.List(fields.Dict())
    steps = fields.List(fields.Dict())


class Reviews(ma.Schema):
    items = fields.List(fields.Nested(ReviewItem))
    reason = fields.String()
    waiting = fields.Dict()


class Counts(ma.Schema):
    waiting = fields.Dict(metadata={"description": "Labels that wait for a reviewer, by reason; `back`: with their authors."})


class Quality(ma.Schema):
    agreement = fields.Dict(metadata={"description": "items, share, fleiss, alpha, iou, f1, exact_f1, by_class, pairs"})
    people = fields.List(fields.Dict())
    waiting = fields.Dict()


class DifferencesQuery(PageQuery):
    between = text_field(
        10, load_default="model", metadata={"description": "model: draft and label differ; people: opinions differ"}
    )
    least_confidence = fields.Float(load_default=0.0, validate=validate.Range(0, 1))


class Differences(ma.Schema):
    items = fields.List(fields.Dict())
    after = fields.Integer(allow_none=True)


class NewBulk(Strict):
    least_confidence = fields.Float(required=True, validate=validate.Range(0, 1))
    audit = fields.Integer(load_default=100, validate=validate.Range(0, 10_000))


class BulkKey(Strict):
    id = fields.Integer(required=True)


class BulkJob(ma.Schema):
    class Meta:
        unknown = ma.INCLUDE

    id = fields.Integer()
    state = fields.String()


class BulkState(ma.Schema):
    jobs = fields.List(fields.Nested(BulkJob))
