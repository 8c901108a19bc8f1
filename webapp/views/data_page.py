"""What the data page offers: names of formats, columns and wishes, in the reader's language.

Must never hold a decision. Called by the pages.
"""

from __future__ import annotations

from typing import Any

from flask_babel import gettext as _


def data_lists() -> dict[str, Any]:
    """Return the lists of the data page: (name of the field, its text), and formats that have a name in words."""
    return {
        "columns": (
            ("id_column", _("Column of the id")),
            ("label_column", _("Column of the label")),
            ("gold_column", _("Column that marks known answers")),
            ("text_column", _("Column of the text")),
            ("link_column", _("Column of the link")),
            ("row_columns", _("Columns of the row, with commas")),
        ),
        "wishes": (
            ("with_drafts", _("drafts")),
            ("with_annotator", _("annotator")),
            ("with_time", _("time and seconds")),
            ("with_version", _("revision and model version")),
            ("with_provenance", _("provenance: a person or rules")),
        ),
        "format_names": {
            "jsonl": _("JSON lines"),
            "links": _("List of links"),
            "zip": _("Files in a zip"),
            "folder": _("Single files"),
            "folders": _("Folders named like labels (zip)"),
            "masks": _("Masks (PNG in a zip)"),
            "coco-zip": _("COCO with pictures (zip)"),
            "server-folder": _("Folder on the server"),
            "listing": _("Web address or S3"),
            "sql": _("SQL table"),
        },
    }
