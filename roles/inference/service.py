"""inference_rpc: N forked processes behind one port that answer predict, predict_async, job, results, rank and rules.

Owns the handlers and the parent that forks. Must never import torch, onnxruntime, tensorflow or scikit-learn, nor start a thread
before the fork. Called by `scripts.start_inference --rpc`.
"""

from __future__ import annotations

import functools
import logging
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datastore_layout.root import Root, open_root, task_folder
from datastore_layout.tasks import read_spec
from labelloop import queues
from labelloop.errors import InternalError, InvalidInputError, NotReadyError
from labelloop.logs import set_process_context
from labelloop.messages import (
    REGION_CATEGORIES,
    JobKey,
    JobReply,
    JobRequest,
    Message,
    Predictions,
    PredictRequest,
    RankReply,
    RankRequest,
    ResultsReply,
    ResultsRequest,
    RoleConfig,
    RulesReply,
    RulesRequest,
    VotesRequest,
)
from labelloop.settings import Settings
from labelloop.tls import Identity
from labelloop.wire import Peer, Server
from roles.celery_app import import_sender, make_app
from roles.dead_letters import DeadLetters
from roles.inference.asking import Asker
from roles.inference.dispatch import Dispatcher
from roles.inference.forks import Family
from roles.inference.given_up import take_letter
from roles.inference.jobs import Jobs
from roles.inference.mailbox import Mailbox
from roles.inference.nodes import Nodes
from roles.inference.notices import NoticePipe, Notifier
from roles.inference.predicting import Interactive
from roles.inference.presence import dispatcher_seat, worker_seat
from roles.inference.ranking import Ranking
from roles.inference.swap import Swap
from roles.inference.voting import Voting
from roles.inference.warming import Warming

logger = logging.getLogger(__name__)

MOST_ITEMS = 10_000


class Service:
    """What one process of inference_rpc holds, made after the fork."""

    def __init__(self, config: RoleConfig, settings: Settings, root: Root, notices: NoticePipe, index: int) -> None:
        app = make_app(config, settings, "inference-rpc")
        self.root = root
        nodes = Nodes(config.state_dir, config.node)
        self.notifier = Notifier(app, nodes, notices)
        self.mailbox = Mailbox(app, queues.reply_queue(config.node, index), self.notifier.take)
        asker = Asker(app, self.mailbox, worker_seat(config.state_dir, config.node))
        self.swap = Swap(root, settings.inference, Warming(asker, nodes))
        self.jobs = Jobs(root, settings, self.swap.newest_of, self.notifier.notify)
        timeout_s = settings.inference.predict_timeout_s
        interactive = queues.interactive_queue(config.cluster_id)
        self.interactive = Interactive(asker, interactive, timeout_s)
        self.voting = Voting(root, asker, interactive, timeout_s, self.swap.version_of)
        self.ranking = Ranking(root, self.jobs, self.interactive, self.swap.version_of)
        self.dispatcher = Dispatcher(
            root,
            settings.inference,
            app,
            self.mailbox,
            dispatcher_seat(config.state_dir, config.node),
            notices,
            queues.bulk_queue(config.cluster_id),
            nodes,
        )
        dead = queues.dead_letter_queue("inference", config.cluster_id)
        self.dead_letters = DeadLetters(app, dead, functools.partial(take_letter, app, root)) if index == 0 else None
        self.app = app

    def start(self) -> None:
        self.mailbox.start()
        self.swap.start()
        self.dispatcher.start()
        if self.dead_letters is not None:
            self.dead_letters.start()

    def close(self) -> None:
        if self.dead_letters is not None:
            self.dead_letters.close()
        self.dispatcher.close()
        self.notifier.close()
        self.swap.close()
        self.mailbox.close()
        self.app.close()

    # ------------------------------------------------------------ handlers

    def predict(self, request: PredictRequest, peer: Peer) -> Predictions:
        """Answer each item now, by one version."""
        if len(request.items) > MOST_ITEMS:
            raise InvalidInputError(f"predict takes up to {MOST_ITEMS} items, got {len(request.items)}: use predict_async")
        folder = task_folder(self.root, request.task)
        version = request.version or self.swap.version_of(request.task)
        if not version:
            read_spec(folder)
            raise NotReadyError(f"no version of task {request.task!r} serves yet: submit labels, or ask for an embed-only job")
        manifest = self.jobs.manifest(folder, version)
        has_regions = manifest.category in REGION_CATEGORIES
        return self.interactive.predict(request.task, version, manifest.labels, request.items, has_regions)

    def predict_async(self, request: JobRequest, peer: Peer) -> JobReply:
        """Make a job durable and hint at it."""
        return self.jobs.accept(request)

    def job(self, request: JobKey, peer: Peer) -> JobReply:
        """Say how far a job is."""
        return self.jobs.view(request)

    def results(self, request: ResultsRequest, peer: Peer) -> ResultsReply:
        """Page a job's results, waiting up to a second for the next."""
        return self.jobs.results(request)

    def rank(self, request: RankRequest, peer: Peer) -> RankReply:
        """Order items by what teaches most."""
        return self.ranking.rank(request)

    def apply_rules(self, request: RulesRequest, peer: Peer) -> RulesReply:
        """Say what rules vote for, and the labels that follow."""
        return self.voting.apply_rules(request)

    def weigh_votes(self, request: VotesRequest, peer: Peer) -> RulesReply:
        """Say what votes of earlier calls amount to."""
        return self.voting.weigh_votes(request)


class Handlers:
    """The table the server is built with before the fork; `service` is filled in after it."""

    def __init__(self) -> None:
        self.service: Service | None = None

    def table(self) -> dict[str, Callable[[Any, Peer], Message]]:
        names = ("predict", "predict_async", "job", "results", "rank", "apply_rules", "weigh_votes")
        return {name: functools.partial(self._call, name) for name in names}

    def _call(self, name: str, request: Message, peer: Peer) -> Message:
        if self.service is None:
            raise InternalError("this process answers before it has started")
        handler: Callable[[Any, Peer], Message] = getattr(self.service, name)
        return self.service.root.surely(lambda: handler(request, peer))


def make_server(config: RoleConfig, settings: Settings, handlers: Handlers) -> Server:
    """Return the server of `config`; it does not listen yet."""
    identity = Identity(Path(config.certificate_file), Path(config.key_file), Path(config.ca_file))
    return Server("inference", handlers.table(), identity, settings.wire, config.rpc_host, config.rpc_port)


def serve(config: RoleConfig, settings: Settings, server: Server, handlers: Handlers, notices: NoticePipe, index: int) -> int:
    """Answer calls in this forked process until SIGTERM."""
    set_process_context(node=config.node, role=f"inference-rpc-{index}")
    is_ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: is_ended.set())
    root = open_root(Path(config.datastore_root), config.cluster_id)
    service = Service(config, settings, root, notices, index)
    handlers.service = service
    service.start()
    server.start()
    logger.info("answering at %s:%d as process %d of %d", *server.address, index + 1, config.rpc_processes)
    while not is_ended.wait(3600):
        pass
    server.close(grace_s=2.0)
    service.close()
    return 0


def run(config: RoleConfig, settings: Settings) -> int:
    """Bind, fork `config.rpc_processes` children and keep them alive until SIGTERM; returns the exit status."""
    open_root(Path(config.datastore_root), config.cluster_id)
    handlers, notices = Handlers(), NoticePipe()
    server = make_server(config, settings, handlers)
    server.listen()
    import_sender(config.broker_url)
    if threading.active_count() != 1:
        raise InternalError(f"{threading.active_count()} threads run before the fork: a library was imported that starts them")
    logger.info("listening at %s:%d", *server.address)
    members = [
        (f"inference_rpc {index}", functools.partial(serve, config, settings, server, handlers, notices, index))
        for index in range(max(1, config.rpc_processes))
    ]
    return Family(members, settings.cluster.shutdown_grace_s).run()
