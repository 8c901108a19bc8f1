"""Requests and replies of `api_lifecycle` as marshmallow schemas. Must never hold a rule of a service."""

from __future__ import annotations

import marshmallow as ma
from marshmallow import fields, validate

from webapp.views.schemas import Strict, text_field


class Rename(Strict):
    label = text_field(100, required=True)
    name = text_field(100, required=True)


class Merge(Strict):
    labels = fields.List(text_field(100), required=True, validate=validate.Length(min=1, max=1000))
    into = text_field(100, required=True)


class Copy(Strict):
    slug = text_field(63, required=True)
    title = text_field(200, load_default="")
    items = fields.Boolean(load_default=True)
    labels = fields.Boolean(load_default=False, metadata={"description": "Needs the items: they come along."})


class Job(ma.Schema):
    id = fields.Integer()
    kind = fields.String(metadata={"description": "rename, merge, undo or copy"})
    state = fields.String(metadata={"description": "waiting, running, done, failed or cancelled"})
    share = fields.Float()
    done = fields.Integer()
    total = fields.Integer()
    changed = fields.Integer()
    reason = fields.String()
    created_at = fields.Float()
    updated_at = fields.Float()


class Label(ma.Schema):
    name = fields.String()
    earlier = fields.List(fields.String(), metadata={"description": "Names that are read as this one."})


class LabelsState(ma.Schema):
    labels = fields.List(fields.Nested(Label))
    undo = fields.Dict(allow_none=True, metadata={"description": "What the next undo takes back."})
    job = fields.Nested(Job, allow_none=True)
    trouble = fields.String()


class Kept(ma.Schema):
    slug = fields.String()
    title = fields.String()
    until = fields.Float(allow_none=True, metadata={"description": "When a deleted project is dropped; null = archived."})
    may_restore = fields.Boolean()


class Archive(ma.Schema):
    archived = fields.List(fields.Nested(Kept))
    deleted = fields.List(fields.Nested(Kept))
