"""The sentences that the pages' scripts say, by key, in the reader's language.

Owns no state. Called by `webapp.views.pages`; `text(key)` in webapp/frontend/parts/page.js looks them up.
"""

from __future__ import annotations

from flask_babel import gettext as _

from webapp.views.editor_texts import editor_texts


def common_texts() -> dict[str, str]:
    """Return what every page's script may need to say."""
    return {
        "offline": _("The app does not answer; your answers wait in this browser and go out as soon as it does."),
        "failed": _("The app answers {status}."),
        "done": _("Done."),
        "log_in_again": _("You are logged out; log in again, nothing is lost."),
    }


def mark_texts() -> dict[str, str]:
    """Return the sentences of marks on pictures and in sounds, for every page that shows some."""
    return {
        "marks": _("Marks"),
        "marks_n": _("{n} marks"),
        "no_marks": _("No marks yet."),
        "is_draft": _("draft"),
        "place_of": _("Place of {label}"),
        "delete": _("Delete"),
        "redo": _("Redo"),
        "new_mark": _("New"),
        "move_picture": _("Move the picture"),
        "polygon_is_open": _("The polygon is not closed: click its first corner, or press Esc."),
        "field_x": _("x"),
        "field_y": _("y"),
        "field_width": _("width"),
        "field_height": _("height"),
        "field_start": _("start, s"),
        "field_end": _("end, s"),
        "corners_n": _("{n} corners"),
        "box_is": _("{width} × {height} at {x}, {y}"),
        "point_is": _("at {x}, {y}"),
        "seconds_are": _("{from} to {to} s"),
        "segment_is": _("{label}: {from} to {to} s"),
        "add_corner": _("Add a corner"),
        "drop_corner": _("Drop the last corner"),
        "play": _("Play"),
        "in_is": _("In point at {at} s; O sets the out point."),
        "out_first": _("The out point must lie behind the in point."),
        "broken_sound": _("The waveform of this sound cannot be shown."),
        "key_new": _("a new mark in the middle"),
        "key_walk": _("the mark before, the next mark"),
        "key_delete": _("delete the selected mark"),
        "key_numbers": _("numbers of the selected mark"),
        "key_let_go": _("let the selected mark go"),
        "key_undo": _("undo and redo within the item"),
        "key_nudge": _("move the selected mark; Shift: by ten"),
        "key_resize": _("size of the selected box"),
        "key_play": _("play, pause"),
        "key_seek": _("back and on in the sound; Shift: further"),
        "key_points": _("in point and out point of a segment"),
        "key_repeat": _("play the selected segment"),
        "key_segment": _("move and size the selected segment"),
    }


def label_texts() -> dict[str, str]:
    """Return the sentences of the labelling page."""
    return (common_texts() | mark_texts() | editor_texts()) | {
        "saving": _("Saving {n}…"),
        "saved": _("All saved."),
        "storage_full": _(
            "This browser has no room left: answers on their way are in this tab alone. Keep it open until all is saved."
        ),
        "storage_none": _(
            "This browser keeps nothing for this page: answers on their way are in this tab alone. Keep it open until all is saved."
        ),
        "nothing_left": _("Nothing is left to label at the moment."),
        "to_project": _("To the project's status"),
        "draft": _("Draft:"),
        "draft_is": _("Draft: {label}, {sure}"),
        "no_draft": _("No draft yet."),
        "confidence": _("Confidence"),
        "none": _("none"),
        "item": _("Item"),
        "choose_first": _("Choose a label first."),
        "marks_are": _("{n} marks: {labels}"),
        "refused": _("{item} was not saved: {why}"),
        "skipped": _("Skipped."),
        "nothing_to_undo": _("There is nothing to undo."),
        "undone": _("Undone; choose again."),
        "returned_is": _("{who} sent this back ({labels}): {comment}"),
        "review_is": _("Labels of rules left: {left} · corrected: {wrong} of {n}"),
    }


def project_texts() -> dict[str, str]:
    """Return the sentences of the project page."""
    return common_texts() | {
        "run_is": _("Training {run}: {algorithm} on {labels} labels"),
        "loss_is": _("loss {loss}"),
        "serving": _("serving"),
        "promote": _("Serve this"),
        "promote_this": _("Serve {version}"),
        "none_yet": _("none yet"),
        "accuracy": _("accuracy"),
        "labels": _("labels"),
        "corrections": _("corrections"),
        "drafted_labels": _("labels with a draft"),
        "loss": _("loss"),
        "step": _("step"),
        "upper_bound": _("upper bound (95 %)"),
        "lower_bound": _("lower bound (95 %)"),
        "guessing": _("guessing at random"),
        "corrections_per_100": _("corrections per 100"),
        "seconds_per_item": _("seconds an item"),
        "version": _("version"),
        "no_version": _("no draft"),
        "seconds_are": _("{n} s"),
        "minutes_are": _("{n} min"),
        "hours_are": _("{n} h {rest} min"),
        "days_are": _("{n} days"),
        "run_left": _("about {time} left"),
        "copying": _("Items are being copied…"),
        "relabelling": _("Labels are being written anew under their names of today…"),
    }


def data_texts() -> dict[str, str]:
    """Return the sentences of the data page."""
    return common_texts() | {
        "uploading": _("Uploading…"),
        "uploaded": _("Uploaded; the import goes on in the background."),
        "cancelled": _("Cancelled."),
        "rows_are": _("{ok} rows in, {failed} failed"),
        "failed_rows": _("Rows that failed"),
        "import_waiting": _("waiting"),
        "import_running": _("importing"),
        "import_done": _("done"),
        "import_failed": _("failed"),
        "import_cancelled": _("cancelled"),
        "queued": _("It goes on in the background."),
        "export_running": _("exporting"),
        "items_are": _("{items} items, {refused} that the format cannot carry"),
        "cannot_carry": _("Items that are not in it"),
        "cancel": _("Cancel"),
        "download": _("Download"),
        "remove_export": _("Delete"),
    }


def rules_texts() -> dict[str, str]:
    """Return the sentences of the page of rules."""
    return (
        common_texts()
        | _kinds_of_rules()
        | {
            "rule_name": _("Name of the rule"),
            "rule_on": _("Switched on"),
            "remove": _("Remove"),
            "examples": _("Examples"),
            "hits": _("It fires on"),
            "fights_with": _("{a} fights with {b} on {n} items"),
            "fights_whom": _("fights with"),
            "person_says": _("a person says {label}"),
            "votes": _("votes"),
            "coverage": _("covers"),
            "overlap": _("overlaps"),
            "conflict": _("fights"),
            "right_on_known": _("right where known"),
            "weight": _("taken to be right"),
            "wrong_in_review": _("wrong in review"),
            "saving_rules": _("Saving…"),
            "rules_saved": _("All saved."),
            "unsaved_in_raw": _("Somebody else changed the rules; what you had not saved is in the JSON below."),
            "raw_is_no_list": _("Give a list of objects, one a rule."),
            "covered_is": _("The rules cover {share}."),
            "sample_is": _("{n} items, {known} of them labelled by people"),
            "unread_is": _("{n} items could not be read: {why}"),
            "both_are": _("Labels of rules: {rules} · of people: {people}"),
            "measured_is": _("People looked at {n} labels of rules and corrected {wrong}: {share} were wrong."),
            "job_waiting": _("waiting"),
            "job_running": _("applying"),
            "job_done": _("done"),
            "job_failed": _("failed"),
            "job_cancelled": _("cancelled"),
            "job_is": _("{labelled} labelled, {kept} as before, {withdrawn} withdrawn, {unsure} too unsure, {failed} unreadable"),
        }
    )


def _kinds_of_rules() -> dict[str, str]:
    return {
        "kind_keywords": _("Keywords"),
        "kind_pattern": _("Pattern"),
        "kind_number": _("Number"),
        "kind_condition": _("Condition"),
        "kind_lookup": _("Dictionary"),
        "kind_hypernym": _("Kinds of a thing"),
        "kind_relation": _("Relation"),
        "kind_model": _("Model"),
        "kind_crowd": _("People"),
        "field_label": _("Says"),
        "field_field": _("Column"),
        "field_words": _("Words or phrases, one a line"),
        "field_need": _("Fires where it holds"),
        "need_any": _("one of them"),
        "need_all": _("all of them"),
        "field_case": _("Case matters"),
        "field_pattern": _("Regular expression"),
        "field_at_least": _("At least"),
        "field_at_most": _("At most"),
        "field_when": _("Condition, as price > 100 and not title contains 'sale'"),
        "field_entries": _("Entries, one a line: phrase = label"),
        "field_whole": _("The whole column is the entry"),
        "field_terms": _("Terms of WordNet, one a line, as animal.n.01"),
        "field_senses": _("Senses of a word"),
        "senses_first": _("the most usual"),
        "senses_any": _("any"),
        "field_steps": _("Most steps"),
        "field_with_terms": _("The terms count too"),
        "field_relation": _("Relation"),
        "field_sure": _("Least probability"),
    }
