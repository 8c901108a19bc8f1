"""The forms of formats, sources and exports in the background.

Must never hold a decision. Called by the data and export views.
"""

from __future__ import annotations

import marshmallow as ma
from marshmallow import fields, validate

from webapp.views.schemas import Strict, text_field


class SourceRequest(Strict):
    kind = text_field(20, required=True, metadata={"description": "server-folder, listing or sql"})
    folder = text_field(1000, load_default="", metadata={"description": "A folder on the server, for server-folder."})
    url = text_field(
        2000, load_default="", metadata={"description": "https://..., s3://bucket/folder or source:NAME, for listing."}
    )
    copy = fields.Boolean(load_default=False, metadata={"description": "Keep the files here instead of their links."})
    labels_by_folder = fields.Boolean(load_default=False)
    source = text_field(100, load_default="", metadata={"description": "The name of a SQL source that an operator wrote down."})
    table = text_field(200, load_default="")
    key_column = text_field(200, load_default="", metadata={"description": "A unique column; '' = the primary key."})
    id_column = text_field(200, load_default="")
    label_column = text_field(200, load_default="")
    gold_column = text_field(200, load_default="", metadata={"description": "Says which rows have a known answer; '' = is_gold."})
    text_column = text_field(200, load_default="")
    link_column = text_field(200, load_default="")
    row_columns = text_field(20_000, load_default="")
    label_separator = text_field(5, load_default="|")


class Format(ma.Schema):
    name = fields.String()
    title = fields.String()
    is_source = fields.Boolean(metadata={"description": "It is read where it is; nothing is uploaded."})


class Formats(ma.Schema):
    imports = fields.List(fields.Nested(Format))
    exports = fields.List(fields.Nested(Format))


class ExportRequest(Strict):
    format = text_field(20, required=True)
    which = fields.String(load_default="labelled", validate=validate.OneOf(["labelled", "rules", "all"]))
    scheme = fields.String(
        load_default="bio", validate=validate.OneOf(["bio", "bioes"]), metadata={"description": "Tags of CoNLL."}
    )
    with_drafts = fields.Boolean(load_default=False)
    with_annotator = fields.Boolean(load_default=False)
    with_time = fields.Boolean(load_default=False)
    with_version = fields.Boolean(load_default=False)
    with_provenance = fields.Boolean(load_default=False)


class Unwritten(ma.Schema):
    item_id = fields.String()
    reason = fields.String()


class Export(ma.Schema):
    id = fields.Integer()
    format = fields.String()
    state = fields.String(metadata={"description": "waiting, running, done, failed or cancelled"})
    share = fields.Float()
    items = fields.Integer(metadata={"description": "Items looked at so far."})
    refused = fields.Integer(metadata={"description": "Items that the format cannot carry."})
    problems = fields.List(fields.Nested(Unwritten))
    size_bytes = fields.Integer()
    file = fields.String(metadata={"description": "Where it can be downloaded, '' until it is done."})
    reason = fields.String()


class Exports(ma.Schema):
    exports = fields.List(fields.Nested(Export))
