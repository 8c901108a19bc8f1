"""The API's requests and replies as marshmallow schemas: what is refused at the door, and what the OpenAPI page says.

Must never hold a rule of a service: only shapes and sizes. Called by the API's views.
"""

from __future__ import annotations

import marshmallow as ma
from marshmallow import fields, validate

MOST_ITEMS = 10_000


class Strict(ma.Schema):
    """Base: a field that nobody knows is an error."""

    class Meta:
        unknown = ma.RAISE


def _check_storable(text: str) -> None:
    if not text.isascii() or "\0" in text:
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            raise ma.ValidationError("Half a character is in it.") from exc
        if "\0" in text:
            raise ma.ValidationError("A NUL character is in it.")


def _text(most: int, **options: object) -> fields.String:
    return fields.String(validate=[validate.Length(max=most), _check_storable], **options)


class Credentials(Strict):
    name = _text(64, required=True)
    password = _text(256, required=True)


class NewUser(Credentials):
    is_admin = fields.Boolean(load_default=False, metadata={"description": "Only an admin may set this."})


class NewToken(Strict):
    label = _text(64, load_default="script", metadata={"description": "What the token is for."})
    name = _text(64, load_default="", metadata={"description": "With password: log in for this call alone."})
    password = _text(256, load_default="")


class PasswordChange(Strict):
    old = _text(256, required=True)
    new = _text(256, required=True)


class Person(ma.Schema):
    id = fields.Integer()
    name = fields.String()
    is_admin = fields.Boolean()
    is_active = fields.Boolean()


class Session(Person):
    csrf = fields.String(metadata={"description": "Send it as X-CSRFToken with every change made under the cookie."})


class People(ma.Schema):
    users = fields.List(fields.Nested(Person))


class Token(ma.Schema):
    id = fields.Integer()
    label = fields.String()
    token = fields.String(metadata={"description": "Shown once. Send it as 'Authorization: Bearer <token>'."})


class TokenLine(ma.Schema):
    id = fields.Integer()
    label = fields.String()
    created_at = fields.Float()


class Tokens(ma.Schema):
    tokens = fields.List(fields.Nested(TokenLine))


class ProjectSettings(Strict):
    title = _text(200)
    labels = fields.List(_text(100), validate=validate.Length(max=1000))
    target = fields.Float(metadata={"description": "Accuracy on new labels at which training rests."})
    budget = fields.Integer(metadata={"description": "Labels at which labelling stops; 0 = none."})
    epoch = fields.Integer()
    strategy = _text(40)
    algorithm = _text(80)
    encoder = _text(80)
    is_comparer_on = fields.Boolean()
    retrain_labels = fields.Integer()
    parameters = fields.Dict(keys=fields.String())
    instructions = _text(20_000)


class NewProject(ProjectSettings):
    slug = _text(63, required=True, metadata={"description": "a-z, 0-9 and '-'; also the task's name in the cluster."})
    category = _text(40, required=True)
    kind = _text(20)
    labels = fields.List(_text(100), required=True, validate=validate.Length(max=1000))


class ProjectChange(ProjectSettings):
    is_paused = fields.Boolean()
    category = _text(40)
    kind = _text(20)
    slug = _text(63)


class Project(ma.Schema):
    class Meta:
        unknown = ma.INCLUDE

    slug = fields.String()
    title = fields.String()
    category = fields.String()
    kind = fields.String()
    labels = fields.List(fields.String())
    target = fields.Float()
    budget = fields.Integer()
    spec_revision = fields.Integer()
    is_paused = fields.Boolean()
    items = fields.Integer()
    labels_done = fields.Integer()
    role = fields.String()


class Projects(ma.Schema):
    projects = fields.List(fields.Nested(Project))


class Member(Strict):
    name = _text(64, required=True)
    role = _text(20, required=True, metadata={"description": "owner or annotator"})


class Members(ma.Schema):
    members = fields.List(fields.Nested(Member))


class NextRequest(Strict):
    n = fields.Integer(load_default=1, validate=validate.Range(0, 100))
    holding = fields.List(
        _text(256),
        load_default=None,
        allow_none=True,
        validate=validate.Length(max=200),
        metadata={"description": "Items the client has at hand; when given, one's other live leases come first (a reloaded page)."},
    )


class Draft(ma.Schema):
    labels = fields.List(fields.String())
    confidence = fields.Float()
    version = fields.String()


class LeasedItem(ma.Schema):
    item_id = fields.String()
    lease = fields.String()
    expires_at = fields.Float()
    name = fields.String()
    media = fields.String(metadata={"description": "Address of the image."})
    text = fields.String()
    row = fields.Dict()
    link = fields.String()
    draft = fields.Nested(Draft, allow_none=True)


class Batch(ma.Schema):
    items = fields.List(fields.Nested(LeasedItem))
    reason = fields.String(metadata={"description": "Why there are no items, '' otherwise."})
    stop = fields.String()


class AnswerRequest(Strict):
    item_id = _text(256, required=True)
    lease = _text(64, load_default="", metadata={"description": "From /next; '' = a correction, or a script's own label."})
    labels = fields.List(_text(100), required=True, validate=validate.Length(max=1000))
    seconds = fields.Float(load_default=None, allow_none=True, validate=validate.Range(0, 86400))
    key = _text(
        128, load_default="", metadata={"description": "Makes repeating safe: the same key and content get the same answer."}
    )
    next = fields.Integer(load_default=0, validate=validate.Range(0, 100))
    holding = fields.List(_text(256), load_default=None, allow_none=True, validate=validate.Length(max=200))


class Saved(ma.Schema):
    item_id = fields.String()
    revision = fields.Integer()
    labels = fields.List(fields.String())
    is_corrected = fields.Boolean()
    is_repeat = fields.Boolean()


class Answered(Batch):
    saved = fields.Nested(Saved)


class Undone(ma.Schema):
    saved = fields.Nested(Saved)
    item = fields.Nested(LeasedItem, allow_none=True)


class Skip(Strict):
    item_id = _text(256, load_default="")
    lease = _text(64, required=True)


class Leases(Strict):
    leases = fields.List(_text(64), required=True, validate=validate.Length(max=200))


class Extended(ma.Schema):
    expires_at = fields.Float()


class ItemsRequest(Strict):
    items = fields.List(
        fields.Dict(keys=fields.String()),
        required=True,
        validate=validate.Length(max=MOST_ITEMS),
        metadata={"description": "Each {id?, link | text | row, label(s)?, name?}."},
    )


class RefusedRow(ma.Schema):
    line = fields.Integer()
    name = fields.String()
    reason = fields.String()


class ItemsAdded(ma.Schema):
    added = fields.Integer()
    known = fields.Integer()
    failed = fields.List(fields.Nested(RefusedRow))


class ItemsQuery(Strict):
    state = fields.String(load_default="open", validate=validate.OneOf(["open", "labelled"]))
    after = fields.Integer(load_default=-1, validate=validate.Range(-1, 2**62))
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000))


class ItemsPage(ma.Schema):
    items = fields.List(fields.Dict())
    after = fields.Integer(allow_none=True, metadata={"description": "Give it back as `after` for the next page; null = the end."})


class Import(ma.Schema):
    id = fields.Integer()
    kind = fields.String()
    name = fields.String()
    state = fields.String(metadata={"description": "waiting, running, done or failed"})
    share = fields.Float()
    rows_ok = fields.Integer()
    rows_added = fields.Integer()
    rows_known = fields.Integer()
    rows_failed = fields.Integer()
    reason = fields.String()
    errors = fields.List(fields.Nested(RefusedRow))


class Imports(ma.Schema):
    imports = fields.List(fields.Nested(Import))


class ImportOptions(ma.Schema):
    class Meta:
        unknown = ma.EXCLUDE

    kind = _text(10, load_default="")
    id_column = _text(200, load_default="")
    label_column = _text(200, load_default="")
    text_column = _text(200, load_default="")
    link_column = _text(200, load_default="")
    row_columns = _text(20_000, load_default="")
    delimiter = _text(1, load_default="")
    label_separator = _text(5, load_default="|")
    labels_by_folder = fields.Boolean(load_default=False)


class ExportQuery(Strict):
    format = fields.String(load_default="csv", metadata={"description": "csv or jsonl"})
    which = fields.String(load_default="labelled", metadata={"description": "labelled or all"})


class PredictItem(Strict):
    id = _text(256, required=True)
    link = fields.String()
    text = fields.String()
    row = fields.Dict()


class PredictRequest(Strict):
    items = fields.List(fields.Nested(PredictItem), required=True, validate=validate.Length(min=1, max=MOST_ITEMS))
    version = _text(128, load_default="")


class Prediction(ma.Schema):
    id = fields.String()
    labels = fields.List(fields.String())
    confidence = fields.Float()
    proba = fields.Dict(metadata={"description": "Label → probability."})
    error = fields.String(metadata={"description": "Why there is no prediction, '' otherwise."})


class Predictions(ma.Schema):
    version = fields.String()
    predictions = fields.List(fields.Nested(Prediction))


class Versions(ma.Schema):
    versions = fields.List(fields.Dict())


class TrainRequest(Strict):
    algorithm = _text(80, load_default="")
    encoder = _text(80, load_default="")
    parameters = fields.Dict(keys=fields.String(), load_default=dict)


class CancelRequest(Strict):
    run = fields.Integer(required=True)


class PromoteRequest(Strict):
    version = _text(128, required=True)


class Decision(ma.Schema):
    class Meta:
        unknown = ma.INCLUDE

    reason = fields.String()


class EventsQuery(Strict):
    after = fields.Integer(load_default=-1, validate=validate.Range(-1, 2**62))
    limit = fields.Integer(load_default=50, validate=validate.Range(1, 500))


class Events(ma.Schema):
    events = fields.List(fields.Dict())
    after = fields.Integer()


class Problem(ma.Schema):
    code = fields.String(metadata={"description": "One of labelloop.errors."})
    message = fields.String(metadata={"description": "One sentence that names the value at fault."})
    way_out = fields.String(metadata={"description": "What to do now."})


class Nothing(Strict):
    """A request without content."""
