"""What RabbitMQ gave up delivering, brought back to whoever must answer for it.

A message that was given back more often than the delivery limit allows lands in the dead-letter queue of its role. Owns the thread
that takes it from there. Must never drop one in silence: each is a line in the log and a call of `take`. Called by inference_rpc on
every inference node and by train_rpc; the embedded broker has no such queue and this does nothing there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from labelloop.errors import LabelloopError, RetryableError
from roles.amqp import quorum_queue
from roles.celery_app import CONTENT, RoleApp
from roles.listening import Listener

logger = logging.getLogger(__name__)

_PREFETCH = 8
PUT_BACK_S = 1.0


class DeadLetter(NamedTuple):
    """A call that the broker gave up: the task's name, its bytes, the queue it was on and why."""

    task_name: str
    payload: bytes
    queue: str
    reason: str


class DeadLetters:
    """Hand each dead letter of `queue` to `take`, which may raise RetryableError to get it again."""

    def __init__(self, app: RoleApp, queue: str, take: Callable[[DeadLetter], None]) -> None:
        self._take_letter = take
        self._is_on = app.outlet is not None
        self._listener = Listener(app, quorum_queue(queue), self._take, "dead-letters", prefetch=_PREFETCH, accept=[CONTENT])

    def start(self) -> None:
        if self._is_on:
            self._listener.start()

    def close(self) -> None:
        if self._is_on:
            self._listener.close()

    def _take(self, message: Any) -> None:
        try:
            letter = read_letter(message)
            logger.warning("%s on %s was given up by the broker (%s)", letter.task_name, letter.queue, letter.reason)
            self._take_letter(letter)
        except RetryableError as exc:
            logger.warning("a dead letter is put back: %s", exc)
            time.sleep(PUT_BACK_S)
            message.requeue()
            return
        except LabelloopError as exc:
            logger.error("a dead letter is dropped, the sweep finds what it was about: %s", exc)
        except Exception:  # the shell of one letter
            logger.exception("a dead letter is dropped, the sweep finds what it was about")
        message.ack()


def read_letter(message: Any) -> DeadLetter:
    """Return what a kombu message from a dead-letter queue says."""
    headers: Mapping[str, Any] = message.headers
    deaths = headers.get("x-death") or [{}]
    args = message.decode()[0]
    return DeadLetter(
        task_name=str(headers.get("task", "")),
        payload=bytes(args[0]),
        queue=str(deaths[0].get("queue", "")),
        reason=str(deaths[0].get("reason", "unknown")),
    )
