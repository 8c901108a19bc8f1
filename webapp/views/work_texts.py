"""The sentences of the pages of people at work, by key, in the reader's language.

Owns no state. Called by `webapp.views.pages_work`; `text(key)` in webapp/frontend/parts/page.js looks them up.
"""

from __future__ import annotations

from flask_babel import gettext as _

from webapp.views.page_texts import common_texts


def reasons() -> dict[str, str]:
    """Return why a label waits for a reviewer, in words."""
    return {
        "reason_dispute": _("people differ"),
        "reason_returned": _("came back after a return"),
        "reason_left": _("its author has left"),
        "reason_corrections": _("corrects a draft"),
        "reason_share": _("a share of all labels"),
        "reason_all": _("every label is reviewed"),
        "reason_asked": _("opened by a reviewer"),
    }


def review_texts() -> dict[str, str]:
    """Return the sentences of the page of reviews."""
    return reasons() | {
        "nothing_to_review": _("No label waits for a review."),
        "said_by": _("{who} said"),
        "said_by_several": _("Several people; most say"),
        "agreement_is": _("agreement {share}"),
        "asked_because": _("Here because: {why}"),
        "accepted": _("Accepted."),
        "corrected": _("Corrected."),
        "returned": _("Returned to {who}."),
        "stands_as": _("What {who} said is on the stage: {labels}. Enter saves it."),
        "reopened": _("Your decision is taken back; decide again."),
        "needs_comment": _("Write what is wrong, then return it."),
        "step_accept": _("{who} accepted {labels}"),
        "step_correct": _("{who} corrected it to {labels}"),
        "step_return": _("{who} returned {labels}: {comment}"),
        "step_reopen": _("{who} opened it again"),
        "waiting_are": _("{n} wait"),
    }


def quality_texts() -> dict[str, str]:
    """Return the sentences of the page of quality."""
    return common_texts() | {
        "none": _("none"),
        "no_value": _("–"),
        "nobody_yet": _("Nobody has labelled yet."),
        "no_pairs": _("No item has two opinions yet: set how many people give theirs, below."),
        "open_item": _("Open {item}"),
        "no_differences": _("No differences here."),
        "draft_says": _("draft {labels}, {sure}"),
        "person_says": _("{who} says {labels}"),
        "saved": _("All saved."),
        "bulk_waiting": _("waiting"),
        "bulk_running": _("accepting"),
        "bulk_done": _("done"),
        "bulk_cancelled": _("cancelled"),
        "bulk_failed": _("failed"),
        "bulk_undoing": _("taking back"),
        "bulk_undone": _("taken back"),
        "bulk_is": _("drafts from {least} on: {accepted} accepted"),
        "bulk_taken_back": _("{n} taken back"),
        "audit_is": _(
            "Audit: {looked} of {drawn} looked at, {wrong} wrong; error {share}, between {low} and {high} in 95 of 100 cases"
        ),
        "audit_waits": _("Audit: {drawn} items go to people without the draft; none is answered yet"),
        "cancel": _("Cancel"),
        "take_back": _("Take all back"),
        "gold_is": _("{changed} marked; the project has {total} known answers."),
    }


def work_fields() -> list[tuple[str, str, str]]:
    """Return the number fields of how people work: name, words, attributes."""
    share = 'min="0" max="1" step="0.01"'
    return [
        ("overlap", _("People an item"), 'min="1" max="20" step="1"'),
        ("blind_share", _("Share of items for a second person, without the draft"), share),
        ("least_agreement", _("Agreement below which a reviewer decides"), share),
        ("gold_share", _("Share of items whose answer is known"), 'min="0" max="0.5" step="0.01"'),
        ("least_gold", _("Right on fewer of those: no more items (0 = never)"), share),
        ("gold_judged_from", _("… judged from so many answers on"), 'min="1" max="1000" step="1"'),
        ("review_share", _("Share of labels to review, if a share is"), share),
    ]


def work_choices() -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Return the lists of how people work: name, words, choices."""
    return [
        (
            "consensus",
            _("Consensus"),
            [("majority", _("majority")), ("dawid-skene", "Dawid-Skene"), ("one-coin", _("one weight a person"))],
        ),
        (
            "review",
            _("What reviewers look at"),
            [
                ("disputes", _("where people differ")),
                ("corrections", _("also labels that correct a draft")),
                ("share", _("also a share of all labels")),
                ("all", _("every label")),
            ],
        ),
        ("assignment", _("Who gets which item"), [("queue", _("the next in the queue")), ("shares", _("a fixed share each"))]),
    ]
