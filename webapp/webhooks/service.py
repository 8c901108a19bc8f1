"""Webhooks as functions: add, list, delete, another key, try out, see and repeat deliveries.

Owns who may do so: owners for their project's, admins for those of the whole app. Must never show a key a second time. Called by
the API and the pages.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from labelloop.errors import InvalidInputError
from labelloop.settings import Settings
from webapp.db import operations, webhooks
from webapp.db.engine import Database, Tx
from webapp.db.projects import Project
from webapp.db.users import User
from webapp.db.webhooks import EVENTS, Delivery, Webhook
from webapp.rooms import secret_key
from webapp.webhooks import door, signing

MOST_WEBHOOKS = 20


class Desk:
    """The webhooks of one project, or of the whole app (`project` None). Whoever makes one has asked who may."""

    def __init__(self, database: Database, settings: Settings, project: Project | None) -> None:
        self._database, self._settings, self._project = database, settings, project
        self._project_id = project.id if project else None
        self._slug = project.slug if project else ""

    def add(self, user: User, url: str, events: Sequence[str]) -> tuple[Webhook, str]:
        """Add a webhook; return it with its key, which is shown this once.

        Raises InvalidInputError (address, events, too many), UnsafeLinkError, UnreachableError (the name does not resolve).
        """
        wanted = check_events(events)
        door.resolve(door.parse_url(url), self._settings.web.allowed_webhook_networks)
        with self._database.write() as tx:
            if len(webhooks.list_webhooks(tx, self._project_id)) >= MOST_WEBHOOKS:
                raise InvalidInputError(f"there are {MOST_WEBHOOKS} webhooks here already: delete one first")
            made = webhooks.add_webhook(tx, self._project_id, url, wanted, _salt(), user.name, time.time())
            self._log(tx, f"added webhook {made.id} to {door.parse_url(url).host}")
        return made, self._secret(made)

    def list_all(self) -> tuple[Webhook, ...]:
        """Return the webhooks, oldest first."""
        with self._database.read() as tx:
            return webhooks.list_webhooks(tx, self._project_id)

    def drop(self, webhook_id: int) -> None:
        """Delete a webhook with what it has not said yet. Raises NotFoundError."""
        with self._database.write() as tx:
            found = webhooks.find_webhook(tx, self._project_id, webhook_id)
            webhooks.drop_webhook(tx, found.id)
            self._log(tx, f"deleted webhook {found.id} to {door.parse_url(found.url).host}")

    def renew_secret(self, webhook_id: int) -> str:
        """Give a webhook another key and return it; the old one is of no use any more. Raises NotFoundError."""
        with self._database.write() as tx:
            webhooks.find_webhook(tx, self._project_id, webhook_id)
            webhooks.set_salt(tx, webhook_id, _salt())
            self._log(tx, f"gave webhook {webhook_id} another key")
            return self._secret(webhooks.find_webhook(tx, self._project_id, webhook_id))

    def try_out(self, webhook_id: int) -> str:
        """Queue a test message; return its id. Raises NotFoundError."""
        with self._database.write() as tx:
            webhooks.find_webhook(tx, self._project_id, webhook_id)
            data = {"project": self._slug, "text": "a test, asked for on the page of webhooks", "detail": {}}
            return webhooks.add_delivery(tx, webhook_id, webhooks.TEST, data, time.time())

    def list_deliveries(self, webhook_id: int, before: int, n: int) -> tuple[Delivery, ...]:
        """Return up to `n` messages of a webhook, newest first. Raises NotFoundError."""
        with self._database.read() as tx:
            webhooks.find_webhook(tx, self._project_id, webhook_id)
            return webhooks.list_deliveries(tx, webhook_id, before, n)

    def send_again(self, webhook_id: int, delivery_id: int) -> None:
        """Let a message go out again under its old id. Raises NotFoundError."""
        with self._database.write() as tx:
            webhooks.find_webhook(tx, self._project_id, webhook_id)
            webhooks.send_again(tx, webhook_id, delivery_id, time.time())

    def _secret(self, hook: Webhook) -> str:
        return signing.secret_of(secret_key(self._settings), hook.id, hook.salt)

    def _log(self, tx: Tx, text: str) -> None:
        operations.add_operation(tx, "webhook", text, self._slug)


def _salt() -> str:
    return secrets.token_hex(16)


def check_events(events: Sequence[str]) -> tuple[str, ...]:
    """Return the events in their order, each once. Raises InvalidInputError naming one that does not exist."""
    for event in events:
        if event not in EVENTS:
            raise InvalidInputError(f"event {event[:80]!r}: use some of {', '.join(EVENTS)}")
    if not events:
        raise InvalidInputError(f"no event is chosen: use some of {', '.join(EVENTS)}")
    return tuple(event for event in EVENTS if event in events)
