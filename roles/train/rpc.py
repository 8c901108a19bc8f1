"""The one train_rpc process: service, sweep and collector over one memory.

Owns their assembly. Must never train. Called by `scripts.start_train --rpc`.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datastore_layout.root import Root, open_root
from labelloop import nodefiles
from labelloop.errors import NotReadyError
from labelloop.messages import Message, RoleConfig
from labelloop.queues import dead_letter_queue
from labelloop.settings import Settings
from labelloop.tls import Identity
from labelloop.wire import Peer, Server
from roles.celery_app import make_app, send
from roles.dead_letters import DeadLetters
from roles.train.collector import Collector
from roles.train.given_up import GivenUp
from roles.train.hinter import Hinter
from roles.train.service import TrainService
from roles.train.sweep import Sweep
from roles.train.tasks import Tasks

logger = logging.getLogger(__name__)

Handler = Callable[[Any, Peer], Message]
_MASTERS_OWN = ("train", "promote", "rollback")


def run_train_rpc(config: RoleConfig, settings: Settings, ending: threading.Event) -> None:
    """Serve until `ending` is set. Raises NotReadyError when the datastore is not mounted, OSError when the port is taken."""
    root = open_root(Path(config.datastore_root), config.cluster_id)
    app = make_app(config, settings, "labelloop-train-rpc")
    hinter = Hinter(functools.partial(send, app), config.master_host)
    tasks = Tasks(root, settings.train)
    why_alone = functools.partial(nodefiles.why_alone, Path(config.state_dir))
    sweep = Sweep(root, tasks, hinter, settings, why_alone=why_alone)
    collector = Collector(tasks, settings)
    service = TrainService(tasks, hinter, sweep.wake)
    dead_letters = DeadLetters(app, dead_letter_queue("train", config.master_host), GivenUp(tasks, sweep.wake).take)
    identity = Identity(Path(config.certificate_file), Path(config.key_file), Path(config.ca_file))
    server = Server(
        "train",
        _watching(root, _unless_alone(service.handlers(), why_alone)),
        identity,
        settings.wire,
        config.rpc_host,
        config.rpc_port,
    )
    server.listen()
    hinter.start()
    sweep.start()
    collector.start()
    dead_letters.start()
    server.start()
    logger.info("train_rpc answers at %s:%d", *server.address)
    ending.wait()
    server.close()
    dead_letters.close()
    sweep.close()
    collector.close()
    hinter.close()
    app.close()


def _unless_alone(handlers: Mapping[str, Handler], why_alone: Callable[[], str]) -> Mapping[str, Handler]:
    """Return the handlers such that a master which may have been replaced starts no training and moves no pointer."""

    def guarded(handler: Handler) -> Handler:
        def call(request: Any, peer: Peer) -> Message:
            if reason := why_alone():
                raise NotReadyError(reason)
            return handler(request, peer)

        return call

    return {name: guarded(handler) if name in _MASTERS_OWN else handler for name, handler in handlers.items()}


def _watching(root: Root, handlers: Mapping[str, Handler]) -> Mapping[str, Handler]:
    """Return the handlers such that nothing counts as missing for good while the datastore's mount is away."""

    def watched(handler: Handler) -> Handler:
        return lambda request, peer: root.surely(lambda: handler(request, peer))

    return {name: watched(handler) for name, handler in handlers.items()}
