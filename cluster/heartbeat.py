"""The two loops of a manager's daemon: heartbeats to the registry, and upkeep of the node itself.

Owns their threads. Must never stop a role because the registry is silent. Two threads, because resuming a role may take
seconds and a node that says nothing meanwhile would count as dead. Built by manager_rpc.py.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable

import msgspec

from cluster.manager import Manager
from labelloop import tls
from labelloop.clients import RegistryClient
from labelloop.errors import LabelloopError
from labelloop.messages import Heartbeat
from labelloop.settings import Settings

logger = logging.getLogger(__name__)

_RENEWAL_LOOK_S = 600.0
_JITTER = 0.1


class Loop:
    """Calls `work` every `pause_s` seconds (give or take a tenth), or sooner after `hurry`, from `start` to `stop`."""

    def __init__(self, name: str, pause_s: float, work: Callable[[], None]) -> None:
        self._pause_s = pause_s
        self._work = work
        self._hurry = threading.Event()
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def hurry(self) -> None:
        """Have the next turn now."""
        self._hurry.set()

    def stop(self) -> None:
        """End after the turn in progress."""
        self._is_ending = True
        self._hurry.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_ending:
            self._hurry.clear()
            try:
                self._work()
            except Exception:  # the daemon loop
                logger.exception("a turn of %s failed, trying again", self._thread.name)
            if not self._is_ending:
                self._hurry.wait(self._pause_s * random.uniform(1 - _JITTER, 1 + _JITTER))


class Heartbeats:
    """Tells the registry each second how the node is; logs once when it goes silent and once when it is back."""

    def __init__(self, registry: str, manager: Manager, identity: tls.Identity, settings: Settings) -> None:
        self._manager = manager
        wire = msgspec.structs.replace(settings.wire, retries=0)  # the next heartbeat is the retry
        self._client = RegistryClient(registry, identity, wire)
        self._deadline_s = settings.cluster.dead_after_s / 2
        self._trouble = ""
        self._loop = Loop("heartbeat", settings.cluster.heartbeat_s, self._beat)

    def start(self) -> None:
        """Start beating; news goes out at once."""
        self._manager.on_change = self._loop.hurry
        self._loop.start()

    def stop(self) -> None:
        """Stop beating."""
        self._loop.stop()
        self._client.close()

    def _beat(self) -> None:
        status = self._manager.status()
        if self._manager.has_left:  # asked after the status was read: one without a role would bring the node an order
            return
        try:
            reply = self._client.heartbeat(Heartbeat(status=status), deadline_s=self._deadline_s)
        except LabelloopError as exc:
            if exc.code != self._trouble:
                logger.warning("the registry does not take heartbeats (%s: %s); roles go on", exc.code, exc)
            self._trouble = exc.code
            return
        if self._trouble:
            logger.info("the registry takes heartbeats again")
        self._trouble = ""
        self._manager.hear(reply)


class Upkeep:
    """Makes the node again what it was, mends its broker and membership, follows queues that moved, renews the certificate."""

    def __init__(self, registry: str, manager: Manager, identity: tls.Identity, settings: Settings) -> None:
        self._registry = registry
        self._manager = manager
        self._identity = identity
        self._settings = settings
        self._renewal_at_s = 0.0
        self._loop = Loop("upkeep", settings.cluster.heartbeat_s, self._turn)

    def start(self) -> None:
        """Start; the first turn resumes the last assignment at once."""
        self._loop.start()

    def stop(self) -> None:
        """End after the turn in progress."""
        self._loop.stop()

    def _turn(self) -> None:
        try:
            self._manager.resume()
            self._manager.tend()
        except LabelloopError as exc:
            self._manager.note_trouble(exc)
        if time.monotonic() >= self._renewal_at_s:
            self._renewal_at_s = time.monotonic() + _RENEWAL_LOOK_S
            with contextlib.suppress(FileNotFoundError):
                self._renew()

    def _renew(self) -> None:
        if not tls.is_renewal_due(self._identity):
            return
        try:
            tls.renew(self._registry, self._identity, self._settings.wire)
            logger.info("certificate renewed")
        except LabelloopError as exc:
            logger.warning("cannot renew the certificate: %s: %s; trying again in %.0f s", exc.code, exc, _RENEWAL_LOOK_S)
