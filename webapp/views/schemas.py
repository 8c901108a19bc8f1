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


def text_field(most: int, **options: object) -> fields.String:
    """Return a field of at most `most` characters that the database can store."""
    return fields.String(validate=[validate.Length(max=most), _check_storable], **options)


class NumberLimits(Strict):
    unit = text_field(20)
    least = fields.Float(allow_none=True)
    most = fields.Float(allow_none=True)
    step = fields.Float(allow_none=True, metadata={"description": "What one key counts up or down."})


class Limits(Strict):
    number = fields.Nested(NumberLimits, metadata={"description": "For projects of kind number."})
    relation_labels = fields.List(
        text_field(100),
        validate=validate.Length(max=1000),
        metadata={"description": "For projects of kind relations: the labels that a relation may bear; [] = any."},
    )


class ProjectSettings(Strict):
    title = text_field(200)
    labels = fields.List(text_field(100), validate=validate.Length(max=1000))
    target = fields.Float(metadata={"description": "Accuracy on new labels at which training rests."})
    budget = fields.Integer(metadata={"description": "Labels at which labelling stops; 0 = none."})
    epoch = fields.Integer()
    strategy = text_field(40, metadata={"description": "A name of GET /strategies."})
    strategy_parameters = fields.Dict(
        keys=fields.String(), metadata={"description": "The strategy's own, checked by its schema; {} = the defaults."}
    )
    algorithm = text_field(80)
    encoder = text_field(80)
    is_comparer_on = fields.Boolean()
    retrain_labels = fields.Integer()
    parameters = fields.Dict(keys=fields.String())
    instructions = text_field(20_000)
    limits = fields.Nested(Limits)


class NewProject(ProjectSettings):
    slug = text_field(63, required=True, metadata={"description": "a-z, 0-9 and '-'; also the task's name in the cluster."})
    category = text_field(40, required=True)
    kind = text_field(20)
    labels = fields.List(text_field(100), load_default=list, validate=validate.Length(max=1000))


class ProjectChange(ProjectSettings):
    is_paused = fields.Boolean()
    category = text_field(40)
    kind = text_field(20)
    slug = text_field(63)


class Parameter(ma.Schema):
    name = fields.String()
    kind = fields.String(metadata={"description": "number, integer, choice, shares (names with a number each) or numbers."})
    default = fields.Raw()
    description = fields.String()
    minimum = fields.Float(allow_none=True)
    is_minimum_excluded = fields.Boolean()
    maximum = fields.Float(allow_none=True)
    choices = fields.List(fields.String())


class Strategy(ma.Schema):
    name = fields.String()
    summary = fields.String()
    paper = fields.String()
    fields_ = fields.List(fields.Nested(Parameter), data_key="fields")
    needs = fields.List(fields.String())
    kinds = fields.List(fields.String(), metadata={"description": "Kinds of project that it is defined for."})
    labels_wanted = fields.Integer(metadata={"description": "The only number of labels it is defined for; 0 = any."})
    items_at_once = fields.Integer(metadata={"description": "Most items it judges, a larger pool by a sample; 0 = any number."})
    extra = fields.String(metadata={"description": "The extra that the inference nodes need for it; '' = none."})
    packages = fields.List(fields.String())


class Strategies(ma.Schema):
    strategies = fields.List(fields.Nested(Strategy))


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
    name = text_field(64, required=True)
    role = text_field(20, required=True, metadata={"description": "owner, reviewer or annotator"})


class Members(ma.Schema):
    members = fields.List(fields.Nested(Member))


class NextRequest(Strict):
    n = fields.Integer(load_default=1, validate=validate.Range(0, 100))
    holding = fields.List(
        text_field(256),
        load_default=None,
        allow_none=True,
        validate=validate.Length(max=200),
        metadata={"description": "Items the client has at hand; when given, one's other live leases come first (a reloaded page)."},
    )


class Mark(Strict):
    id = text_field(64, required=True, metadata={"description": "Names the mark within its item."})
    label = text_field(100, required=True)
    shape = fields.String(required=True, validate=validate.OneOf(["box", "polygon", "point", "span", "segment"]))
    where = fields.List(
        fields.Float(),
        required=True,
        validate=validate.Length(max=20_000),
        metadata={
            "description": "box: x, y, width, height; polygon: x1, y1, x2, y2, ...; point: x, y, as shares of the picture; "
            "span: start, end in code points; segment: start, end in seconds."
        },
    )
    confidence = fields.Float(validate=validate.Range(0, 1))


class Relation(Strict):
    label = text_field(100, required=True)
    source = text_field(64, required=True, metadata={"description": "The id of a mark."})
    target = text_field(64, required=True)


class ValueFields(ma.Schema):
    """What is said of an item; which of the fields there are is a matter of the project's kind."""

    labels = fields.List(fields.String())
    marks = fields.List(fields.Nested(Mark))
    relations = fields.List(fields.Nested(Relation))
    number = fields.Float()
    text = fields.String()
    is_none = fields.Boolean(metadata={"description": "None of the project's labels fits."})


class Draft(ValueFields):
    confidence = fields.Float()
    version = fields.String()


class LeasedItem(ma.Schema):
    item_id = fields.String()
    lease = fields.String()
    expires_at = fields.Float()
    name = fields.String()
    media = fields.String(metadata={"description": "Address of the image or sound."})
    text = fields.String()
    row = fields.Dict()
    pair = fields.Dict(metadata={"description": "The sides a and b, each with text, media or link."})
    link = fields.String()
    draft = fields.Nested(Draft, allow_none=True)


class Batch(ma.Schema):
    items = fields.List(fields.Nested(LeasedItem))
    reason = fields.String(metadata={"description": "Why there are no items, '' otherwise."})
    stop = fields.String(metadata={"description": "The same where it is more than that all are labelled or in people's hands."})


class AnswerRequest(Strict):
    item_id = text_field(256, required=True)
    lease = text_field(64, load_default="", metadata={"description": "From /next; '' = a correction, or a script's own label."})
    labels = fields.List(text_field(100), load_default=list, validate=validate.Length(max=1000))
    marks = fields.List(fields.Nested(Mark), validate=validate.Length(max=2000))
    relations = fields.List(fields.Nested(Relation), validate=validate.Length(max=5000))
    number = fields.Float(allow_none=True)
    text = fields.String(allow_none=True, validate=validate.Length(max=200_000))
    is_none = fields.Boolean()
    seconds = fields.Float(load_default=None, allow_none=True, validate=validate.Range(0, 86400))
    key = text_field(
        128, load_default="", metadata={"description": "Makes repeating safe: the same key and content get the same answer."}
    )
    next = fields.Integer(load_default=0, validate=validate.Range(0, 100))
    holding = fields.List(text_field(256), load_default=None, allow_none=True, validate=validate.Length(max=200))


class Saved(ValueFields):
    item_id = fields.String()
    revision = fields.Integer()
    is_corrected = fields.Boolean()
    is_repeat = fields.Boolean()


class Answered(Batch):
    saved = fields.Nested(Saved)


class Undone(ma.Schema):
    saved = fields.Nested(Saved)
    item = fields.Nested(LeasedItem, allow_none=True)


class Skip(Strict):
    item_id = text_field(256, load_default="")
    lease = text_field(64, required=True)


class Leases(Strict):
    leases = fields.List(text_field(64), required=True, validate=validate.Length(max=200))


class Extended(ma.Schema):
    expires_at = fields.Float()


class ItemsRequest(Strict):
    items = fields.List(
        fields.Dict(keys=fields.String()),
        required=True,
        validate=validate.Length(max=MOST_ITEMS),
        metadata={
            "description": "Each {id?, link | text | row | pair, name?}, with its label {label(s) | marks | number | value} "
            "and its draft where it has them."
        },
    )


class BroughtDraft(ValueFields):
    class Meta:
        unknown = ma.RAISE

    item_id = text_field(256, required=True)
    marks = fields.List(
        fields.Dict(keys=fields.String()), metadata={"description": "As in an answer; id and shape may be left out."}
    )
    confidence = fields.Float(allow_none=True, metadata={"description": "In [0, 1]; that of the least sure mark when left out."})
    version = text_field(128, metadata={"description": "Names the model that made it."})


class DraftsRequest(Strict):
    drafts = fields.List(fields.Nested(BroughtDraft), required=True, validate=validate.Length(max=MOST_ITEMS))


class RefusedRow(ma.Schema):
    line = fields.Integer()
    name = fields.String()
    reason = fields.String()


class ItemsAdded(ma.Schema):
    added = fields.Integer()
    known = fields.Integer()
    failed = fields.List(fields.Nested(RefusedRow))


class DraftsAdded(ma.Schema):
    saved = fields.Integer()
    failed = fields.List(fields.Nested(RefusedRow))


class ItemsQuery(Strict):
    state = fields.String(load_default="open", validate=validate.OneOf(["open", "labelled", "rules"]))
    after = fields.Integer(load_default=-1, validate=validate.Range(-1, 2**62))
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000))


class ItemsPage(ma.Schema):
    items = fields.List(fields.Dict())
    after = fields.Integer(allow_none=True, metadata={"description": "Give it back as `after` for the next page; null = the end."})


class Import(ma.Schema):
    id = fields.Integer()
    kind = fields.String()
    name = fields.String()
    state = fields.String(metadata={"description": "waiting, running, done, failed or cancelled"})
    share = fields.Float(metadata={"description": "How far it is, 0 to 1; null = only the end will tell."}, allow_none=True)
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

    kind = text_field(
        20, load_default="", metadata={"description": "What the files are; '' = told by their names. See GET formats."}
    )
    base_link = text_field(2000, load_default="", metadata={"description": "Where pictures lie that a file names without address."})
    empty_is_none = fields.Boolean(load_default=False, metadata={"description": "A picture or text without marks has none."})
    id_column = text_field(200, load_default="")
    label_column = text_field(200, load_default="")
    gold_column = text_field(200, load_default="", metadata={"description": "Says which rows have a known answer; '' = is_gold."})
    text_column = text_field(200, load_default="")
    link_column = text_field(200, load_default="")
    row_columns = text_field(20_000, load_default="")
    delimiter = text_field(1, load_default="")
    label_separator = text_field(5, load_default="|")
    labels_by_folder = fields.Boolean(load_default=False)
    file = fields.Raw(metadata={"type": "string", "format": "binary", "description": "One file, or several under this name."})


class ExportQuery(Strict):
    format = fields.String(load_default="csv", metadata={"description": "csv or jsonl"})
    which = fields.String(load_default="labelled", metadata={"description": "labelled (by people), rules (by rules alone) or all"})


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
