"""Requests and replies of the API for admins and about webhooks.

Must never hold a rule of a service: only shapes and sizes. Called by `webapp.views.api_admin` and `webapp.views.api_webhooks`.
"""

from __future__ import annotations

import marshmallow as ma
from marshmallow import fields, validate

from webapp.db.webhooks import EVENTS
from webapp.views.schemas import Strict, text_field

_NUMBER = validate.Range(min=0, max=2**62)


class Trouble(ma.Schema):
    sentence = fields.String()
    way_out = fields.String(metadata={"description": "What to do about it."})
    node = fields.String(metadata={"description": "'' = it is no node's own."})


class Overview(ma.Schema):
    age_s = fields.Float(allow_none=True, metadata={"description": "Of the reading that all pages share; null = there is none."})
    epoch = fields.Integer()
    state = fields.String()
    last_reason = fields.String()
    troubles = fields.List(fields.Nested(Trouble))
    nodes = fields.List(fields.Dict(), metadata={"description": "As the registry tells of them (NodeView), ages counted on."})
    masters = fields.Dict(keys=fields.String(), values=fields.String())
    queues = fields.List(fields.Dict(), metadata={"description": "name, messages, consumers (null = not known), node."})
    actions = fields.List(fields.Dict(), metadata={"description": "What the registry did last, the newest first."})


class Runs(ma.Schema):
    live = fields.List(fields.Dict(), metadata={"description": "project, title, run (RunView), seen_at, eta_s."})
    past = fields.List(fields.Dict())


class LogQuery(Strict):
    lines = fields.Integer(load_default=200, validate=validate.Range(min=1, max=10_000))


class RunLog(ma.Schema):
    text = fields.String()
    attempt = fields.Integer()


class LettersPage(ma.Schema):
    projects = fields.List(fields.Dict(), metadata={"description": "waiting, age_s, n_refused, refused, unreadable of each."})


class Retried(ma.Schema):
    retried = fields.Integer()


class ProjectLines(ma.Schema):
    projects = fields.List(fields.Dict())


class OperationsQuery(Strict):
    person = text_field(64, load_default="")
    project = text_field(63, load_default="")
    kind = text_field(20, load_default="")


class OperationsPageQuery(OperationsQuery):
    before = fields.Integer(load_default=0, validate=_NUMBER, metadata={"description": "Only rows with a lower number."})
    limit = fields.Integer(load_default=100, validate=validate.Range(min=1, max=1000))


class OperationsPage(ma.Schema):
    operations = fields.List(fields.Dict(), metadata={"description": "id, at, person, project, kind, text, address; newest first."})
    before = fields.Integer(allow_none=True, metadata={"description": "For the next page; null = that was all."})


class Disk(ma.Schema):
    at = fields.Float(allow_none=True)
    rooms = fields.List(fields.Dict())
    database_bytes = fields.Integer()
    nodes = fields.List(fields.Dict())
    troubles = fields.List(fields.Nested(Trouble))


class Backup(ma.Schema):
    id = fields.Integer()
    state = fields.String(metadata={"description": "waiting, running, done, failed or deleted."})
    made_by = fields.String()
    name = fields.String()
    size_bytes = fields.Integer()
    share = fields.Float()
    reason = fields.String()
    created_at = fields.Float()
    updated_at = fields.Float()


class Backups(ma.Schema):
    backups = fields.List(fields.Nested(Backup))


class NewWebhook(Strict):
    url = text_field(1000, required=True)
    events = fields.List(text_field(40), load_default=list(EVENTS), validate=validate.Length(min=1, max=20))


class WebhookReply(ma.Schema):
    id = fields.Integer()
    url = fields.String()
    events = fields.List(fields.String())
    made_by = fields.String()
    created_at = fields.Float()
    secret = fields.String(metadata={"description": "The key of the signatures; only in the answer that made it."})


class Webhooks(ma.Schema):
    webhooks = fields.List(fields.Nested(WebhookReply))


class Secret(ma.Schema):
    secret = fields.String()


class Queued(ma.Schema):
    uid = fields.String()


class DeliveriesQuery(Strict):
    before = fields.Integer(load_default=0, validate=_NUMBER)
    limit = fields.Integer(load_default=50, validate=validate.Range(min=1, max=500))


class Deliveries(ma.Schema):
    deliveries = fields.List(fields.Dict(), metadata={"description": "uid, event, state, attempts, status, reason, next_at, ..."})
    before = fields.Integer(allow_none=True)
