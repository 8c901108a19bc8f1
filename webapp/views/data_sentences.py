"""What an import says of a file or a row that it cannot take, to be translated: the usual ones.

Owns the list of patterns. A sentence that matches none stays as it was written. Called by `webapp.views.pages` for the page Data.
"""

from __future__ import annotations

from flask_babel import gettext as _


def _n(english: str) -> str:
    """Mark a sentence for the translators."""
    return english


SENTENCES = (
    _n("{name} is not a zip archive: {why}"),
    _n("the CSV is empty: its first line must name the columns"),
    _n("the CSV has no column {column}: it has {names}; name the right one with {option}"),
    _n("the CSV has no column {column}: it has {names}"),
    _n("label {label} is not in project {name}: use one of {labels}"),
    _n("{n} labels for an item of project {name}, which takes exactly one: send one"),
    _n("labels {labels} name one label twice: name each once"),
    _n("the text is empty"),
    _n("the row is empty: give an object of columns"),
    _n("a NUL character is in it: remove it"),
    _n("it is not UTF-8: save the file as UTF-8"),
    _n("no 'text' and no 'link': give one of them"),
    _n("not a JSON object: write one object a line"),
    _n("not a JSON object: {why}"),
    _n("not a Parquet file that can be read: {why}"),
    _n("not a picture that can be read: {why}"),
    _n("not a matrix of numbers that can be read: {why}"),
    _n("number {number}: give a finite number, with a dot"),
    _n("no pair: give 'a' and 'b', each a text, or an object with 'text' or 'link'"),
    _n("it lies in no folder, so it has no label: put it into a folder named like its label"),
    _n("it has a {mark}, and this project takes {shape}: choose another format"),
    _n("it is a symbolic link: pack the file itself"),
    _n("its name points out of the archive: pack it again without '..' and leading '/'"),
    _n("more than {n} bytes: make it smaller"),
    _n("no picture {name} comes with it: pack the pictures into the zip, or give a base link"),
    _n("no file came: send at least one in the field 'file'"),
    _n("draft: {why}"),
    _n("it is known by its link only, so its file is not here"),
    _n("it has no label, so there is no folder for it"),
)


def patterns(locale: str) -> list[tuple[str, str]]:
    """Return (English pattern, its translation) for the page's script; none in English."""
    return [] if locale == "en" else [(one, _(one)) for one in SENTENCES]
