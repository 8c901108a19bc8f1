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
    _n("blocked: versions are judged on labels by people, and none is in the held-out part yet: label a few more items"),
    _n("blocked: run {run} waits for a train worker that is free"),
    _n("blocked: labels wait for a data worker (batches: {n})"),
    _n("blocked: no item of the task has been embedded yet"),
    _n("resting: {why}"),
    _n("budget of {budget} labels reached: last training on all {n} labels"),
    _n("first training: {n} labels of {classes} classes"),
    _n("first training: {n} labels and {weak} by rules of {classes} classes"),
    _n("{n} new labels since the last training ({why})"),
    _n("{n} new labels and {weak} by rules since the last training ({why})"),
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
    _n("this item ended its worker {n} times"),
    _n("no train node is online"),
    _n("no inference node is online"),
    _n("no train and no inference node is online"),
    _n("the app was started without a cluster: start `labelloop web` with --registry"),
)
_APP = (
    _n("the labelling budget of {n} labels is reached"),
    _n("the project is paused by its owner"),
    _n("nothing has been uploaded to label yet: an owner brings items in on the page Data"),
    _n("no items are left to label: all are labelled or in other annotators' hands"),
    _n("name or password is wrong: check both, or ask an admin for a new password"),
    _n("this account is switched off: ask an admin"),
    _n("the password of now is wrong: type the one that you log in with"),
    _n("token name {name} is not allowed: use 1 to 64 characters"),
    _n("target {target}: use a share above 0 and up to 1"),
    _n("the password must have {n} to {most} characters"),
    _n("name {name} is not allowed: use 1 to 64 letters, digits and . _ @ + -"),
    _n("only an owner of project {name} may do this: ask one of its owners"),
    _n("only an admin may do this: ask the admin of this installation"),
    _n("only an admin may add people: ask the admin of this installation"),
    _n("an invitation is needed: ask an admin or a project's owner for one"),
    _n("this code is not good any more: ask for a new one"),
    _n("no account is called {name}: an admin can create it"),
    _n("the name {name} is taken: choose another"),
    _n("{name} is the last admin: make somebody else admin first"),
    _n("project {name} would have no owner: make somebody else owner first"),
    _n("{n} people for {days} days: use 1 to {most} people and 1 to {longest} days"),
    _n("no project is called {name}: see the list of projects"),
    _n("labels {labels}: give {least} to 1000 different labels"),
    _n("the cluster has no model for this kind of project: labels stay in the app, drafts come with imports"),
    _n("rules give one label to a whole item, and projects of this kind are labelled in another way"),
    _n("not a sound: WAV, MP3, FLAC and Ogg are read"),
    _n("not an image: PNG, JPEG, GIF, WebP, BMP and TIFF are read"),
    _n("no 'text' and no 'link': give one of them"),
    _n("the text is empty"),
    _n("the row is empty: give an object of columns"),
    _n("not a JSON object: write one object a line"),
    _n("{n} labels go to the cluster again"),
    _n("an item of this project takes several labels, and rules give one"),
    _n("no label of rules is left to review here"),
    _n("rules are being applied already: wait for the end, or cancel it"),
    _n("somebody else changed the rules meanwhile: load the page again, yours are in its raw view until then"),
    _n("there is no rule to apply: write one, or switch one on"),
    _n("the cluster does not know this project yet: the pilot tells it within seconds"),
    _n("cancelled by {name}"),
    _n("waits: {why}"),
    _n("never fires on these items: widen it or take it out"),
    _n("wrong on {share} of {n} known items: turn it around or take it out"),
    _n("rules overlap, so that each one's rates can be learned"),
    _n("{n} of {m} rules fire, and it takes {k} to tell which one is right"),
    _n("no item has the votes of two rules, so that nothing says which one is right"),
    _n("no rule votes for any of {n} items: write a rule that fires"),
    _n("no rule votes for any item: write a rule that fires"),
    _n("every vote is for label {label}: write at least one rule for another label"),
    _n("there are two rules called {name}"),
    _n("there is no column {name}: use one of {columns}"),
)
_PEOPLE = (
    _n("only a reviewer or an owner of project {name} may do this: ask one of its owners"),
    _n(
        "you get no more items here: {right} of {n} answers that can be checked were right, the project asks for {share}: "
        "talk to one of its owners"
    ),
    _n("people give their opinions here without seeing those of others: ask a reviewer for the labels"),
    _n("a reviewer has decided on item {item}: tell the reviewer what you think of it now"),
    _n("item {item} has all the opinions it wants: nothing was saved; take the next item"),
    _n("the lease on item {item} is somebody else's: nothing was saved; take the next item"),
    _n("no label waits for a review"),
    _n("the label of item {item} was judged meanwhile: nothing was changed; take the next one"),
    _n("the label of item {item} is with another reviewer: nothing was changed; take the next one"),
    _n("the label of item {item} has changed or went on to somebody else: nothing was changed; take the next one"),
    _n("nobody who gave an opinion on this item is in the project any more: accept the label, or correct it"),
    _n("a label is returned with a comment: say what is wrong with it"),
    _n("who gave this label has left the project: accept it, or correct it"),
    _n("drafts are being accepted already: wait for the end, or cancel it"),
    _n("items of this project want several people each: set the overlap to 1 before drafts are accepted unseen"),
    _n("drafts that came with an import do not say how sure each label is: they were left for people"),
    _n("overlap {n}: use 1 to {most} people an item"),
    _n("{name} {value}: use a share from 0 to 1"),
    _n("gold_share {value}: use up to 0.5, people are here to label"),
)
_ORDER = (
    _n("{why}; judged on {n} of {all} items"),
    _n("{why}; {share} of the places are random"),
    _n("{why}; scores are per unit of cost"),
    _n("{why}; {n} asked for, the pool has {all}"),
    _n("asked for by name"),
    _n("the pool is empty"),
    _n("no model and no features yet: random order"),
    _n("no model serves yet: typical items of clusters without a label first"),
    _n("the model answers the same for every item: typical items of clusters without a label first"),
    _n("the labels so far are of one class: typical items of clusters without a label first"),
    _n("a model serves: items with uncertain regions first"),
    _n("a model serves: items whose two likeliest labels are closest first"),
    _n("strategy {name} cannot run: {why}"),
    _n("strategy {name} cannot order this project: {why}"),
    _n("strategy {name} needs labels of two classes for its committee: label first, by 'auto'"),
    _n("strategy {name} needs features for its committee: embed the pool first, or use 'margin'"),
    _n("strategy {name} takes up to {most} features, these are {n}: use 'margin'"),
    _n("strategy {name} needs labelled features with their labels: label first, by 'typiclust' or 'random'"),
    _n("strategy {name} needs the probabilities of each item's regions or tokens: pass `parts`"),
    _n("strategy {name} found no solution of its program for these items: use another, such as 'badge'"),
    _n("it needs the package {package}: install the extra {extra}"),
    _n("it needs labelled features with their labels: label first"),
    _n("it is defined for two classes with a label each only, here are {n} with {seen} seen"),
    _n("it is not defined for several labels an item"),
    _n("it is defined for several labels an item only"),
    _n("it is defined for {n} labels only, this project has {all}"),
    _n("it orders by boxes or spans, and items of this kind have none"),
    _n("it needs what each annotator answered on the same items, and a project keeps one answer an item"),
)
_PROJECTS = (
    _n("project {name} is archived: bring it back to change anything"),
    _n("project {name} is archived already"),
    _n("project {name} is not archived"),
    _n("project {name} is not deleted"),
    _n("a project called {name} exists: choose another name"),
    _n("a project called {name} was deleted and can still be brought back: choose another name"),
    _n("the project that was to be copied is gone"),
    _n("the project was deleted"),
    _n("labels of {name} are being changed in the background: wait for the end, then copy it"),
    _n("the labels are still being written anew in the background: wait for the end, or undo that first"),
    _n("labels may only be added here, behind those there are: to rename or merge, use the page Labels"),
    _n("label {label} is not in use here: use one of {labels}"),
    _n("there is a label {name} already: merge {label} into it instead"),
    _n("label {name} was merged into {label}: choose another name"),
    _n("label {label}: use 1 to 100 characters without spaces at the ends"),
    _n("labels {labels}: name at least one label to be merged into {label}"),
    _n("only {n} label would be left, and this project needs {least}: add one first"),
    _n("no label was renamed or merged here: there is nothing to undo"),
    _n("label {label} has changed since in another way: rename or merge by hand"),
    _n("an import is running: wait for its end, then change the labels"),
    _n("rules are being applied: wait for the end, or cancel it, then change the labels"),
    _n("number {number} is outside {bounds}: check it, or skip the item"),
    _n("label {label} is not for relations here: use one of {known}"),
    _n("relation label {label} is not among the project's labels: add it to them first"),
    _n("least {least} is not below most {most}: swap them"),
    _n("step {step}: use a number above 0"),
    _n("undone by {name}"),
)
ALL = (*_PROJECTS, *_PEOPLE, *_TRAINING, *_GATE, *_TROUBLE, *_APP, *_ORDER)


def patterns(locale: str) -> list[tuple[str, str]]:
    """Return (English pattern, its translation) for the pages' scripts; none in English."""
    return [] if locale == "en" else [(one, _(one)) for one in ALL]


def translate(sentence: str, more: tuple[str, ...] = ()) -> str:
    """Return `sentence` in the language of this request, its figures kept; one that is not known stays as it is.

    `more` are patterns of one page alone; they are tried first.
    """
    for pattern in (*more, *ALL):
        found = _expression(pattern).fullmatch(sentence)
        if found:
            return _(pattern).format(**{name: translate(part, more) for name, part in found.groupdict().items()})
    return sentence


@functools.cache
def _expression(english: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", english)
    source = "".join(f"(?P<{part}>.+?)" if at % 2 else re.escape(part) for at, part in enumerate(parts))
    return re.compile(source, re.DOTALL)
