"""What the admin's pages and that of webhooks say: texts of their scripts, and sentences of `webapp.admin` to be translated.

Owns no state. Called by `webapp.views.pages_admin`.
"""

from __future__ import annotations

from flask_babel import gettext as _

from webapp.views.page_texts import common_texts


def _n(english: str) -> str:
    """Mark a sentence for the translators."""
    return english


SENTENCES = (
    _n("the registry does not answer: {why}"),
    _n("start `labelloop registry` again; labels wait here until then"),
    _n("nothing has been heard of the cluster yet"),
    _n("start `labelloop pilot` with --registry"),
    _n("the last reading of the cluster is {n} s old"),
    _n("the registry has lost its state: it waits for a person to confirm what it learned"),
    _n("look at `labelloop nodes`, then run `labelloop confirm`"),
    _n("no train worker is online, so no label is learned"),
    _n("boot a node, then `labelloop assign NODE=train`"),
    _n("no inference worker is online, so there are no new drafts"),
    _n("boot a node, then `labelloop assign NODE=inference`"),
    _n("node {name} has been silent for {n} s"),
    _n("boot it again, or `labelloop remove {name}` if it is gone for good"),
    _n("node {name} cannot use the datastore: {why}"),
    _n("mount it on {name} again"),
    _n("the broker of node {name} is paused: {why}"),
    _n("the broker of node {name} is stopped: {why}"),
    _n("the broker of node {name} is paused"),
    _n("the broker of node {name} is stopped"),
    _n("run `labelloop doctor`, then look at {name}"),
    _n("{process} on node {name} does not run: {why}"),
    _n("read `labelloop logs {name} {process}`"),
    _n("{n} messages in {queue} were delivered too often without an answer"),
    _n("read the letters below; `labelloop doctor` says more"),
    _n("nobody fetches from queue {queue}, where {n} messages wait"),
    _n("start a worker of its role"),
    _n("the disk of {path} is {share} % full"),
    _n("delete old backups and exports, or move web.media_dir to a larger disk"),
    _n("node {name} has {n} GiB left for the datastore"),
    _n("delete old snapshots of ended projects, or give the datastore more room"),
    _n("labels wait: {why}"),
    _n("cancelled by {name}"),
    _n("backup {n} is {state}: wait for its end"),
    _n("address {name} is refused because {why}; whoever runs the app can allow its network in web.allowed_webhook_networks"),
    _n("{address} is loopback"),
    _n("{address} is private"),
    _n("{address} is link-local"),
    _n("host {name} does not resolve: {why}"),
    _n("{address} does not answer: {why}"),
    _n("the address answered {status}"),
    _n("given up after a day: {why}"),
    _n("no event is chosen: use some of {events}"),
)


def patterns(locale: str) -> list[tuple[str, str]]:
    """Return (English pattern, its translation) for the admin's scripts; none in English."""
    return [] if locale == "en" else [(one, _(one)) for one in SENTENCES]


def _states() -> dict[str, str]:
    return {
        "alive": _("alive"),
        "silent": _("silent"),
        "draining": _("draining"),
        "drained": _("drained"),
        "train": _("train"),
        "inference": _("inference"),
        "master": _("master"),
        "starting": _("starting"),
        "running": _("running"),
        "backing-off": _("falls again and again"),
        "stopped": _("stopped"),
        "paused": _("paused"),
        "unknown": _("unknown"),
        "queued": _("queued"),
        "done": _("done"),
        "failed": _("failed"),
        "cancelled": _("cancelled"),
        "open": _("open"),
    }


def admin_texts() -> dict[str, str]:
    """Return the texts of the admin's live pages."""
    shown = common_texts() | _states()
    return (
        shown
        | _backup_texts()
        | {
            "seconds_are": _("{n} s"),
            "minutes_are": _("{n} min"),
            "hours_are": _("{n} h {rest} min"),
            "days_are": _("{n} days"),
            "ago": _("{span} ago"),
            "restarts": _("{n} restarts"),
            "reading": _("As of {span} ago, epoch {epoch}"),
            "log": _("Log"),
            "log_empty": _("Nothing is in the log yet."),
            "cancel": _("Cancel"),
            "retry": _("Ask for the unreadable items again"),
            "resend": _("Send them again"),
            "on_their_way": _("{n} labels are on their way, the oldest for {span}."),
            "refused": _("{n} labels were refused:"),
            "unreadable": _("Items without a draft, because they could not be read:"),
            "pause": _("Pause"),
            "go_on": _("Go on"),
            "archive": _("Archive"),
            "bring_back": _("Bring back"),
            "restore": _("Restore"),
            "is_open": _("open"),
            "is_paused": _("paused"),
            "is_archived": _("archived"),
            "is_deleted": _("deleted"),
        }
    )


def _backup_texts() -> dict[str, str]:
    return {
        "backup_waiting": _("waits for the pilot"),
        "backup_running": _("running"),
        "backup_done": _("done"),
        "backup_failed": _("failed"),
        "backup_deleted": _("deleted"),
        "download": _("Download"),
        "delete": _("Delete"),
        "measured": _("Measured"),
        "of": _("{free} of {total}"),
        "room_media": _("Uploaded items"),
        "room_uploads": _("Files that wait for their import"),
        "room_exports": _("Exports"),
        "room_backups": _("Backups"),
        "room_state": _("The whole state folder"),
        "room_database": _("Database"),
    }


def webhook_texts() -> dict[str, str]:
    """Return the texts of the page of webhooks."""
    return common_texts() | {
        "test": _("Test"),
        "messages": _("Messages"),
        "new_key": _("New key"),
        "delete": _("Delete"),
        "again": _("Send again"),
        "state_waiting": _("waits"),
        "state_done": _("arrived"),
        "state_given_up": _("given up"),
    }


def event_names() -> tuple[tuple[str, str], ...]:
    """Return the events of webhooks with their words for people."""
    return (
        ("labels.saved", _("Labels were saved, many in one message")),
        ("training.ended", _("A training ended")),
        ("version.published", _("A version serves now")),
        ("import.ended", _("An import ended")),
        ("export.ended", _("An export ended")),
        ("project.stopped", _("A project stopped: paused, or its budget or target reached")),
    )


def kind_names() -> dict[str, str]:
    """Return the kinds of the operation log with their words for people."""
    return {
        "login": _("Login"),
        "account": _("Account"),
        "project": _("Project"),
        "settings": _("Settings"),
        "people": _("People"),
        "import": _("Import"),
        "export": _("Export"),
        "train": _("Training"),
        "version": _("Version"),
        "bulk": _("Bulk action"),
        "webhook": _("Webhook"),
        "admin": _("Administration"),
    }
