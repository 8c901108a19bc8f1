"""Sends what webhooks have to say, and tries again until it arrives or a day is over.

Owns batches of labels, the pauses between attempts and the end. At least once: a message is marked as sent after the answer, so a
pilot that dies in between sends it again, under the same id. Must never hold a transaction while it waits for an answer, nor let
one slow address hold up the others. Called by the pilot's webhook thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from labelloop.errors import LabelloopError
from webapp.db import webhooks
from webapp.db.engine import Database
from webapp.db.webhooks import DONE, GIVEN_UP, LABELS, WAITING, Delivery, Webhook
from webapp.webhooks import door, signing

logger = logging.getLogger(__name__)
BATCH_LABELS = 500
BATCH_S = 2.0
AT_ONCE = 8
TURN_S = 5.0  # of one webhook, so that a slow one does not keep the others waiting
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 3600.0
GIVEN_UP_AFTER_S = 86400.0
KEPT_S = 7 * 86400.0
SWEEP_S = 3600.0
Post = Callable[[str, bytes, Mapping[str, str], tuple[str, ...]], int]


def pause_s(attempts: int) -> float:
    """Return the seconds between attempt number `attempts` and the next: 10 s, 30 s, 90 s ... an hour."""
    return min(FIRST_PAUSE_S * 3.0 ** (min(attempts, 12) - 1), LONGEST_PAUSE_S)


def judge(delivery: Delivery, status: int | None, reason: str, now: float) -> tuple[int, float, str]:
    """Return what becomes of a message after an attempt: its state, when it goes again, and why."""
    if status is not None and 200 <= status < 300:
        return DONE, now, ""
    why = reason or f"the address answered {status}"
    if status == 410:
        return GIVEN_UP, now, f"{why}: it wants no more messages"
    if now - delivery.created_at >= GIVEN_UP_AFTER_S:
        return GIVEN_UP, now, f"given up after a day: {why}"
    return WAITING, now + pause_s(delivery.attempts + 1), why


class Sender:
    """One sender. `key` is the app's own; `post` is the way out."""

    def __init__(self, database: Database, key: bytes, allowed: tuple[str, ...], post: Post = door.post) -> None:
        self._database, self._key, self._allowed, self._post = database, key, allowed, post
        self._pool = ThreadPoolExecutor(AT_ONCE, "webhook")
        self._batched_s = float("-inf")
        self._swept_s = float("-inf")

    def cycle(self) -> int:
        """Put labels that wait into messages, send what is due; return how many were sent."""
        now_s = time.monotonic()
        if now_s - self._batched_s >= BATCH_S:
            self._batched_s = now_s
            self.batch_labels()
        if now_s - self._swept_s >= SWEEP_S:
            self._swept_s = now_s
            with self._database.write() as tx:
                webhooks.drop_old_deliveries(tx, time.time() - KEPT_S)
        with self._database.read() as tx:
            due = webhooks.due_deliveries(tx, time.time(), 8 * AT_ONCE)
        return sum(self._pool.map(self._send_all, _by_webhook(due)))

    def batch_labels(self) -> None:
        """Turn the labels noted so far into messages of up to `BATCH_LABELS`, one project each."""
        with self._database.read() as tx:
            waiting = webhooks.hooks_with_labels(tx)
        for webhook_id in waiting:
            with self._database.write() as tx:
                for slug, labels in webhooks.take_labels(tx, webhook_id, BATCH_LABELS).items():
                    text = f"{len(labels)} labels were saved"
                    webhooks.add_delivery(tx, webhook_id, LABELS, {"project": slug, "text": text, "labels": labels}, time.time())

    def close(self) -> None:
        """Wait for the messages that are on their way."""
        self._pool.shutdown(wait=True)

    def _send_all(self, messages: list[Delivery]) -> int:
        """Send the messages of one webhook in their order; the first failure leaves the rest for later."""
        until_s = time.monotonic() + TURN_S
        for at, delivery in enumerate(messages):
            if time.monotonic() > until_s or not self._send(delivery):
                return at
        return len(messages)

    def _send(self, delivery: Delivery) -> bool:
        with self._database.read() as tx:
            hook = webhooks.webhook_by_id(tx, delivery.webhook_id)
        if hook is None:
            return False
        status, reason = self._attempt(hook, delivery)
        now = time.time()
        state, next_at, why = judge(delivery, status, reason, now)
        with self._database.write() as tx:
            webhooks.note_attempt(tx, delivery.id, state, delivery.attempts + 1, next_at, status, why, now)
        if state != DONE:
            logger.warning("webhook %d, message %s: %s", hook.id, delivery.uid, why)
        return state == DONE

    def _attempt(self, hook: Webhook, delivery: Delivery) -> tuple[int | None, str]:
        body, timestamp = delivery.payload.encode(), int(time.time())
        secret = signing.secret_of(self._key, hook.id, hook.salt)
        try:
            return self._post(hook.url, body, signing.headers_of(secret, delivery.uid, timestamp, body), self._allowed), ""
        except LabelloopError as exc:
            return None, str(exc)


def _by_webhook(due: tuple[Delivery, ...]) -> list[list[Delivery]]:
    found: dict[int, list[Delivery]] = {}
    for delivery in due:
        found.setdefault(delivery.webhook_id, []).append(delivery)
    return list(found.values())
