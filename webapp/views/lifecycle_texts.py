"""The sentences that the scripts of the labels page and of a project's forms say, by key, in the reader's language.

Owns no state. Called by the views of these pages.
"""

from __future__ import annotations

from flask_babel import gettext as _

from webapp.views.page_texts import common_texts


def labels_texts() -> dict[str, str]:
    """Return the sentences of the page of labels."""
    return common_texts() | {
        "earlier": _("earlier: {names}"),
        "choose": _("Choose {label} for merging"),
        "rename": _("Rename"),
        "rename_this": _("Rename {label}"),
        "new_name": _("New name of {label}"),
        "save": _("Save"),
        "cancel": _("Cancel"),
        "undo_rename": _("Undo: {into} is called {gone} again"),
        "undo_merge": _("Undo: {gone} and {into} are apart again"),
        "chosen": _("Merge {names} into"),
        "none_chosen": _("Choose labels above to merge them."),
        "relabel_waiting": _("Labels wait to be written anew…"),
        "relabel_running": _("{done} of {total} labels looked at, {changed} written anew"),
        "relabel_done": _("All labels bear the names of today: {changed} were written anew."),
        "relabel_failed": _("The labels could not be written anew: {why}"),
        "relabel_cancelled": _("The work was undone."),
        "renamed": _("{label} is called {name} now."),
        "merged": _("{names} are {into} now."),
        "added": _("{label} was added."),
        "undone": _("Undone."),
    }
