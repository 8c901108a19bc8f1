"""How a worker survives its broker and its children: a Celery consumer and a prefork pool with what they lack.

Owns six corrections. Celery reconnects after 2, 4, ... 32 s; here within two, for ever. Celery logs an acknowledgement that the
broker did not take and goes on, but kombu counts the message as held, so that a worker with a prefetch of one never takes
another; here it reconnects. A queue that is missing (RabbitMQ was emptied; its manager declares it again) or a channel that the
broker closed ends in a reconnect with a pause, not in a storm. Celery declares 28 `celery_delayed_*` queues where one
queue is replicated; here the step that does so is left out. Celery looks for dead children every five seconds; here twice a
second. Celery waits for a silent broker at each of four steps of its end, 3 s each; here a third of a second, because the next
life of this worker, on another broker, waits too. Must never decide what is consumed. Named in the settings of
`roles.celery_app`; only workers import it.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool
from celery.exceptions import CPendingDeprecationWarning
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

from roles.amqp import shorten_waits

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
PAUSE_STEP_S = 0.3
LONGEST_PAUSE_S = 2.0
LOOK_AT_CHILDREN_S = 0.5
REFUSED_PAUSE_S = 0.3
SAY_AGAIN_S = 30.0
_LEFT_OUT = "DelayedDelivery"


class PatientConsumer(Consumer):
    """Celery's consumer with short, endless reconnects, also after an acknowledgement that failed."""

    _unsettled = ""

    class Blueprint(Consumer.Blueprint):
        """Celery's steps without the one that declares queues for tasks with an ETA, which we never send."""

        default_steps = [step for step in Consumer.Blueprint.default_steps if not step.endswith(f":{_LEFT_OUT}")]

    def ensure_connected(self, conn: Any) -> Any:
        """Return `conn` once the broker answers, however long that takes; a shutdown ends the wait."""

        said_s = float("-inf")

        def say(exc: BaseException, interval_s: float) -> None:
            nonlocal said_s
            if time.monotonic() - said_s > SAY_AGAIN_S:
                said_s = time.monotonic()
                logger.warning("broker %s does not answer (%s), trying again for as long as it takes", conn.as_uri(), exc)

        connected = conn.ensure_connection(
            say,
            None,
            interval_start=FIRST_PAUSE_S,
            interval_step=PAUSE_STEP_S,
            interval_max=LONGEST_PAUSE_S,
            callback=maybe_shutdown,
        )
        self.first_connection_attempt = False
        self.broker_connection_retry_attempt = 0
        return connected

    def stop(self) -> None:
        """Stop consuming; a broker that has gone silent is not waited for long at each step of it."""
        shorten_waits(self.connection)
        super().stop()

    def call_soon_ack(self, p: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Acknowledge or reject a message in the event loop; the loop ends in a reconnect when the broker did not take it.

        The reconnect is asked for and not raised here: Celery also runs this while it closes a broken loop, and an error then
        leaves its poller half made, so that the worker reads nothing any more (seen).
        """
        if not self.hub:
            return super().call_soon_ack(p, *args, **kwargs)

        def settle() -> None:
            message = getattr(p, "__self__", None)
            try:
                p(*args, **kwargs)
            except self.connection_errors as exc:
                logger.warning("the broker did not take an acknowledgement: %s", exc)
            if message is None or message.acknowledged:
                return
            if self.task_consumer is None or message.channel is not self.task_consumer.channel:
                logger.info("message %s came over a connection that is gone: the broker delivers it again", message.delivery_tag)
                return
            self._unsettled = f"the broker did not take the acknowledgement of {message.delivery_tag}"

        return self.hub.call_soon(settle)

    def register_with_event_loop(self, hub: Any) -> None:
        """Look for failed acknowledgements at each turn of the loop."""
        self._unsettled = ""
        hub.on_tick.add(self._reconnect_if_unsettled)
        super().register_with_event_loop(hub)

    def _reconnect_if_unsettled(self) -> None:
        reason, self._unsettled = self._unsettled, ""
        if reason:
            raise ConnectionError(reason)

    def on_connection_error_after_connected(self, exc: BaseException) -> None:
        """Let go of the connection and, where the broker refused a queue or closed the channel, wait a moment."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CPendingDeprecationWarning)  # about a setting that we set
            super().on_connection_error_after_connected(exc)
        if self.hub is not None:
            self.hub.reset()  # whole again, also where Celery's own reset was cut short by an error
        if isinstance(exc, self.channel_errors):
            time.sleep(REFUSED_PAUSE_S)

    def on_connection_error_before_connected(self, exc: BaseException) -> None:
        """Wait a moment after a broker that answered with a refusal."""
        super().on_connection_error_before_connected(exc)
        time.sleep(REFUSED_PAUSE_S)


class WatchfulAsynPool(AsynPool):
    """Celery's prefork pool, looking for dead children more often."""

    @property
    def timers(self) -> Mapping[Callable[[], None], float]:
        """What the event loop calls, and how often, in seconds."""
        return {self.maintain_pool: LOOK_AT_CHILDREN_S}


class WatchfulPool(TaskPool):
    """The pool that a worker names."""

    Pool = WatchfulAsynPool
