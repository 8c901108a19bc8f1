"""Requests and replies of the API about the cluster: predictions, versions, trainings.

Must never hold a rule of a service: only shapes and sizes. Called by `webapp.views.api_cluster`.
"""

from __future__ import annotations

import marshmallow as ma
from marshmallow import fields, validate

from webapp.views.schemas import MOST_ITEMS, Mark, Strict, text_field


class PredictItem(Strict):
    id = text_field(256, required=True)
    link = fields.String()
    text = fields.String()
    row = fields.Dict()


class PredictRequest(Strict):
    items = fields.List(fields.Nested(PredictItem), required=True, validate=validate.Length(min=1, max=MOST_ITEMS))
    version = text_field(128, load_default="")


class Prediction(ma.Schema):
    id = fields.String()
    labels = fields.List(fields.String())
    marks = fields.List(fields.Nested(Mark), metadata={"description": "What was found, where items are labelled by marks."})
    confidence = fields.Float()
    proba = fields.Dict(metadata={"description": "Label → probability."})
    error = fields.String(metadata={"description": "Why there is no prediction, '' otherwise."})


class Predictions(ma.Schema):
    version = fields.String()
    predictions = fields.List(fields.Nested(Prediction))


class Versions(ma.Schema):
    versions = fields.List(fields.Dict())


class TrainRequest(Strict):
    algorithm = text_field(80, load_default="")
    encoder = text_field(80, load_default="")
    parameters = fields.Dict(keys=fields.String(), load_default=dict)


class CancelRequest(Strict):
    run = fields.Integer(required=True)


class PromoteRequest(Strict):
    version = text_field(128, required=True)


class Decision(ma.Schema):
    class Meta:
        unknown = ma.INCLUDE

    reason = fields.String()
