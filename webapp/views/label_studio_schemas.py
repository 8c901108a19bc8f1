"""What Label Studio sends and gets, as marshmallow schemas; fields that it adds in newer versions are let through.

Must never hold a rule of a service: only shapes and sizes. Called by `webapp.views.api_label_studio`.
"""

from __future__ import annotations

import marshmallow as ma
from marshmallow import fields, validate

from webapp.labelstudio.config import MOST_CHARS

MOST_TASKS = 1000


class Lenient(ma.Schema):
    """Base: a field that nobody knows is let through."""

    class Meta:
        unknown = ma.INCLUDE


class StudioSetUp(Lenient):
    schema = fields.String(
        required=True, validate=validate.Length(max=MOST_CHARS), metadata={"description": "Labeling configuration."}
    )


class StudioPredict(Lenient):
    tasks = fields.List(fields.Dict(keys=fields.String()), required=True, validate=validate.Length(max=MOST_TASKS))
    label_config = fields.String(required=True, validate=validate.Length(max=MOST_CHARS))


class StudioHook(Lenient):
    action = fields.String(
        required=True, metadata={"description": "ANNOTATION_CREATED, ANNOTATION_UPDATED, ANNOTATIONS_DELETED, …"}
    )


class StudioHealth(ma.Schema):
    status = fields.String(metadata={"description": "UP"})
    model_class = fields.String()


class StudioReady(ma.Schema):
    model_version = fields.String(metadata={"description": "The serving version, '' while none does."})


class StudioPredictions(ma.Schema):
    results = fields.List(fields.Dict())


class StudioVersions(ma.Schema):
    versions = fields.List(fields.String())


class StudioTaken(ma.Schema):
    saved = fields.Integer()
    withdrawn = fields.Integer()
    ignored = fields.List(fields.String())
