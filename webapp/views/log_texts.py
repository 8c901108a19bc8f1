"""What the operation log says, to be translated: the sentences that the app writes of what people did.

Owns the list of patterns. A sentence that matches none stays as it was written. Called by `webapp.views.pages_admin`.
"""

from __future__ import annotations


def _n(english: str) -> str:
    """Mark a sentence for the translators."""
    return english


SENTENCES = (
    _n("logged in"),
    _n("showed name and password for an API token"),
    _n("a login failed (no such account): {why}"),
    _n("a login failed: {why}"),
    _n("name or password is wrong"),
    _n("this account is switched off"),
    _n("account {name} is made, as admin"),
    _n("account {name} is made"),
    _n("{name} is an admin and let in"),
    _n("{name} is an admin and locked out"),
    _n("{name} is no admin and let in"),
    _n("{name} is no admin and locked out"),
    _n("{name} registered with an invitation"),
    _n("{name} registered"),
    _n("{name} set a new password by an admin's link"),
    _n("made a link for a new password of {name}"),
    _n("a new password for {name}"),
    _n("made an API token called {name}"),
    _n("revoked API token {n}"),
    _n("made an invitation for {n} over {days} days"),
    _n("withdrew invitation {n}"),
    _n("{name} came in as owner, invited by {by}"),
    _n("{name} came in as reviewer, invited by {by}"),
    _n("{name} came in as annotator, invited by {by}"),
    _n("{name} is owner now"),
    _n("{name} is reviewer now"),
    _n("{name} is annotator now"),
    _n("{name} is out of the project"),
    _n("{name} created the project"),
    _n("{name} archived the project"),
    _n("{name} brought the project back"),
    _n("{name} deleted the project"),
    _n("{name} restored the project"),
    _n("{name} copied it from {project}"),
    _n("{name} changed {what}"),
    _n("{name} renamed label {label} to {new}"),
    _n("{name} merged {labels} into {into}"),
    _n("{name} took back: {labels} and {into} are as before"),
    _n("{name} started training {n}"),
    _n("{name} cancelled training {n}"),
    _n("{name} promoted {version}"),
    _n("{name} rolled back to {version}"),
    _n("{name} applies {n} rules to all items"),
    _n("{name} withdraws all labels of rules"),
    _n("{name} accepts drafts from {share} on"),
    _n("{name} takes {n} accepted drafts back"),
    _n("{n} drafts accepted, {audit} of them go to people for the audit"),
    _n("{n} accepted drafts were taken back"),
    _n("{file}: {n} items added, {known} were there, {failed} refused: {why}"),
    _n("{file}: {n} items added, {known} were there, {failed} refused"),
    _n("exported labels as {format}"),
    _n("exported the operation log"),
    _n("added webhook {n} to {host}"),
    _n("deleted webhook {n} to {host}"),
    _n("gave webhook {n} another key"),
    _n("asked for a backup"),
    _n("downloaded backup {name}"),
    _n("deleted backup {name}"),
    _n("asked the cluster for {n} unreadable items again"),
    _n("sent {n} refused labels again"),
)
