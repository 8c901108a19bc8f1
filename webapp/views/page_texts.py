"""The sentences that the pages' scripts say, by key, in the reader's language.

Owns no state. Called by `webapp.views.pages`; `text(key)` in webapp/frontend/parts/page.js looks them up.
"""

from __future__ import annotations

from flask_babel import gettext as _


def common_texts() -> dict[str, str]:
    """Return what every page's script may need to say."""
    return {
        "offline": _("The app does not answer; your answers wait in this browser and go out as soon as it does."),
        "failed": _("The app answers {status}."),
        "done": _("Done."),
        "log_in_again": _("You are logged out; log in again, nothing is lost."),
    }


def label_texts() -> dict[str, str]:
    """Return the sentences of the labelling page."""
    return common_texts() | {
        "saving": _("Saving {n}…"),
        "saved": _("All saved."),
        "nothing_left": _("Nothing is left to label at the moment."),
        "to_project": _("To the project's status"),
        "draft": _("Draft:"),
        "draft_is": _("Draft: {label}, {sure}"),
        "no_draft": _("No draft yet."),
        "confidence": _("Confidence"),
        "none": _("none"),
        "item": _("Item"),
        "choose_first": _("Choose a label first."),
        "refused": _("{item} was not saved: {why}"),
        "skipped": _("Skipped."),
        "nothing_to_undo": _("There is nothing to undo."),
        "undone": _("Undone; choose again."),
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
    }
