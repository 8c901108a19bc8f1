"""A Celery consumer that never gives up on its broker and comes back within two seconds of it.

Owns the reconnect pauses of workers, which Celery fixes at 2, 4, ... 32 s. Must never decide what is consumed. Named in the
settings of `roles.celery_app`; only workers import it.
"""

from __future__ import annotations

import logging
from typing import Any

from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
PAUSE_STEP_S = 0.3
LONGEST_PAUSE_S = 2.0


class PatientConsumer(Consumer):
    """Celery's consumer with short, endless reconnects."""

    def ensure_connected(self, conn: Any) -> Any:
        """Return `conn` once the broker answers, however long that takes; a shutdown ends the wait."""

        def say(exc: BaseException, interval_s: float) -> None:
            logger.warning("broker %s does not answer (%s), trying again in %.1f s", conn.as_uri(), exc, interval_s)

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
