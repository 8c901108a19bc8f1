"""The app's and the cluster's own sentences in the reader's language: fixed patterns with their figures kept.

Owns the list of patterns. A sentence that matches none stays as it was said, so a new one is never lost. A {part} may be a sentence
itself. Called by the pages for errors; the pages' scripts get `patterns()` and do the same in webapp/frontend/parts/page.js.
"""

from __future__ import annotations

import functools
import re

from flask_babel import gettext as _


def _n(english: str) -> str:
    """Mark a sentence for the translators."""
    return english


_TRAINING = (
    _n("training now: run {run}"),
    _n("next training in {n} labels"),
    _n("next training in {n} label"),
    _n("blocked: labels of at least 2 classes are needed, {n} seen so far"),
    _n("blocked: no labelled item is in the held-out part yet, label a few more"),
    _n("blocked: run {run} waits for a train worker that is free"),
    _n("blocked: labels wait for a data worker (batches: {n})"),
    _n("blocked: no item of the task has been embedded yet"),
    _n("resting: {why}"),
    _n("budget of {budget} labels reached: last training on all {n} labels"),
    _n("first training: {n} labels of {classes} classes"),
    _n("{n} new labels since the last training ({why})"),
    _n("budget reached: {n} of {budget} labels"),
    _n("comparer is switched off: every threshold retrains"),
    _n("no version serves yet: nothing to compare with"),
    _n("too few drafted labels to judge {version}: {n} of {window}"),
    _n("target missed: {figures}"),
    _n("target reached: {figures}"),
    _n("{right} of the last {n} drafts were right ({share}), target {target}"),
)
_GATE = (
    _n("kept: a person chose {version} after this training began"),
    _n("first version: {right} of {n} held-out items right"),
    _n("serves in place of {version}, {why}"),
    _n("kept, {version} goes on serving: {why}"),
    _n("not worse: no held-out item to compare on yet"),
    _n("not worse: {right} of {n} held-out items right, before {before} ({gained} gained, {lost} lost)"),
    _n("worse: {right} of {n} held-out items right, before {before} ({gained} gained, {lost} lost; by chance alone p = {p})"),
    _n("worse: {right} of {n} held-out items right, before {before} ({gained} gained, {lost} lost; a clear majority on few items)"),
    _n("it serves already"),
)
_TROUBLE = (
    _n("the pilot has never run, so labels wait here: start `labelloop pilot`"),
    _n("the pilot has been silent for {n} s, so labels wait here: start `labelloop pilot`"),
    _n("the cluster does not answer, so labels wait here: {why}"),
    _n("no train node is online"),
    _n("no inference node is online"),
    _n("no train and no inference node is online"),
    _n("the app was started without a cluster: start `labelloop web` with --registry"),
)
_APP = (
    _n("the labelling budget of {n} labels is reached"),
    _n("the project is paused by its owner"),
    _n("no items are left to label: all are labelled or in other annotators' hands"),
    _n("name or password is wrong: check both, or ask an admin for a new password"),
    _n("this account is switched off: ask an admin"),
    _n("the password must have {n} to {most} characters"),
    _n("name {name} is not allowed: use 1 to 64 letters, digits and . _ @ + -"),
    _n("only an owner of project {name} may do this: ask one of its owners"),
    _n("only an admin may do this: ask the admin of this installation"),
    _n("no project is called {name}: see the list of projects"),
    _n("labels {labels}: give 2 to 1000 different labels"),
    _n("not an image: PNG, JPEG, GIF, WebP, BMP and TIFF are read"),
    _n("no 'text' and no 'link': give one of them"),
    _n("the text is empty"),
    _n("the row is empty: give an object of columns"),
    _n("not a JSON object: write one object a line"),
    _n("{n} labels go to the cluster again"),
)
ALL = (*_TRAINING, *_GATE, *_TROUBLE, *_APP)


def patterns(locale: str) -> list[tuple[str, str]]:
    """Return (English pattern, its translation) for the pages' scripts; none in English."""
    return [] if locale == "en" else [(one, _(one)) for one in ALL]


def translate(sentence: str) -> str:
    """Return `sentence` in the language of this request, its figures kept; one that is not known stays as it is."""
    for pattern in ALL:
        found = _expression(pattern).fullmatch(sentence)
        if found:
            return _(pattern).format(**{name: translate(part) for name, part in found.groupdict().items()})
    return sentence


@functools.cache
def _expression(english: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", english)
    source = "".join(f"(?P<{part}>.+?)" if at % 2 else re.escape(part) for at, part in enumerate(parts))
    return re.compile(source, re.DOTALL)
