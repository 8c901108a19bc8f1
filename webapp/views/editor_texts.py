"""The sentences of the editors for text, numbers and pairs, and of the read-only view of values, in the reader's language.

Owns no state. Called by `webapp.views.page_texts` (the labelling page) and `webapp.views.pages_items` (an item's page).
"""

from __future__ import annotations

from flask_babel import gettext as _


def editor_texts() -> dict[str, str]:
    """Return what the editors of spans, relations, texts, numbers and pairs say."""
    return _span_texts() | _span_keys() | _field_texts()


def _span_texts() -> dict[str, str]:
    return {
        "spans": _("Spans"),
        "relations": _("Relations"),
        "span_start": _("Start"),
        "span_end": _("End"),
        "select_words": _("Select words in the text first, or a span to change."),
        "select_span": _("Select a span first."),
        "span_place": _("A span begins before it ends, within 0 to {n}."),
        "choose_target": _("Choose the span it leads to: click it, or walk with [ and ] and press Enter."),
        "related": _("Relation: {label}. A label's key changes it."),
    }


def _span_keys() -> dict[str, str]:
    return {
        "key_caret": _("move in the text"),
        "key_word": _("move by words"),
        "key_extend": _("select"),
        "key_span": _("make a span of what is selected, or change the selected span's label"),
        "key_step": _("the span before, the next span"),
        "key_remove": _("remove the selected span or relation"),
        "key_escape": _("select nothing"),
        "key_relation": _("relate the selected span to another"),
    }


def _field_texts() -> dict[str, str]:
    return {
        "your_text": _("Your text"),
        "text_is_back": _("What you had typed is back."),
        "characters_are": _("{n} characters"),
        "write_first": _("Write something first, or skip the item."),
        "too_long": _("The text has {n} characters; at most {most} are taken."),
        "key_edit": _("change the text"),
        "key_save": _("save the text"),
        "key_leave_field": _("leave the field"),
        "value": _("Value"),
        "number_first": _("Enter a number first, or skip the item."),
        "number_range": _("The number must lie within {least} to {most}."),
        "key_count": _("count up, count down"),
        "key_arrow": _("choose {label}"),
        "key_move_both": _("move both pictures"),
    }


def view_texts() -> dict[str, str]:
    """Return what the read-only view of a value says."""
    return {
        "item": _("Item"),
        "none": _("none"),
        "none_fits": _("none of these labels"),
        "nothing_marked": _("nothing is marked"),
        "withdrawn": _("withdrawn"),
        "by_rules": _("by rules"),
        "corrected_draft": _("the draft was corrected"),
        "seconds_spent": _("{n} s"),
        "revision_is": _("Revision {n}"),
        "spans": _("Spans"),
        "relations": _("Relations"),
        "value": _("Value"),
        "draft": _("Draft:"),
        "no_history": _("Nobody has labelled this item yet."),
    }
