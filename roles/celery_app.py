"""The one factory of Celery apps: how messages travel between a role's service and its workers.

Owns every Celery setting, the payload encoding, `send` and `call` for senders, `run_worker` for workers. Must never know a task's
meaning, declare a queue (`cluster.broker` does), import torch, onnxruntime or tensorflow, or use ETA, countdown, retry, events or
remote control: waiting is the sweep's job and status comes from heartbeats. Called by roles/* and scripts/start_*. A message body
is one MessagePack array whose single argument is the bytes of a `labelloop.messages` struct; no other content type is accepted.

The URL decides: `redis://` is the embedded broker, `amqp://` and `amqps://` a RabbitMQ, whose side of things is `roles.amqp`.
An app belongs to the process that made it: make it after forking. `send` and `call` may be used from any thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import amqp.exceptions
import billiard.exceptions
import billiard.util
import celery
import celery.exceptions
import kombu
import kombu.exceptions
import msgspec
from celery import signals
from celery.result import AsyncResult
from kombu.serialization import register

from labelloop.errors import DeadlineError, InternalError, SettingsError, UnreachableError
from labelloop.messages import Message, RoleConfig, encode
from labelloop.queues import is_replicated
from labelloop.settings import Settings
from roles.amqp import CONNECT_S, Outlet, classic_queue, is_amqp, quorum_queue, tls_options, transport_options

logger = logging.getLogger(__name__)

CONTENT = "labelloop"
RESULT_LIFE_S = 300
WATCHFUL_POOL = "roles.celery_consumer:WatchfulPool"
BROKER_ERRORS = (kombu.exceptions.OperationalError, OSError, amqp.exceptions.AMQPError)

# glibc maps and unmaps each large tensor afresh unless told otherwise; measured: EfficientNet 31 -> 117 images a second.
# Set by whoever starts a worker, because glibc reads them before main().
ALLOCATOR_ENVIRONMENT: Mapping[str, str] = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
_SENDER_MODULES = ("celery.app.amqp", "celery.app.routes", "celery.app.task", "celery.loaders.app", "celery.worker")
_WORKER_MODULES = (
    *("celery.apps.worker", "celery.backends.base", "celery.events.dispatcher", "celery.events.receiver", "celery.worker.consumer"),
    *("kombu.matcher", "kombu.pidbox", "billiard.popen_fork", "billiard.sharedctypes", "billiard.synchronize"),
    "roles.celery_consumer",
)
_PR_SET_PDEATHSIG = 1
_CHATTY_LOGGERS = ("celery.worker.strategy", "celery.app.trace", "celery.redirected")  # a line and a repr per message

register(
    CONTENT,
    msgspec.msgpack.Encoder(enc_hook=str).encode,
    msgspec.msgpack.Decoder().decode,
    content_type="application/x-labelloop",
    content_encoding="binary",
)


class RoleApp(celery.Celery):  # type: ignore[misc]
    """A Celery app with the way out to its broker. `outlet` is None on the embedded broker, whose own pool does."""

    outlet: Outlet | None = None

    def close(self) -> None:
        """Close all connections."""
        if self.outlet is not None:
            self.outlet.close()
        super().close()


def make_app(config: RoleConfig, settings: Settings, name: str) -> RoleApp:
    """Return the Celery app of one role process on `config.broker_url` and `config.result_url` ('' = no results).

    Raises SettingsError when a task may outlive the broker's patience, which would deliver it twice.
    """
    _check_patience(config.broker_url, settings)
    app = RoleApp(name, broker=config.broker_url, backend=config.result_url or None, set_as_current=False)
    app.conf.update(_configuration(config, settings))
    if is_amqp(config.broker_url):
        app.outlet = Outlet(lambda on_blocked: app.connection_for_write(transport_options={"on_blocked": on_blocked}))
    return app


def _check_patience(broker_url: str, settings: Settings) -> None:
    field = "consumer_timeout_s" if is_amqp(broker_url) else "visibility_timeout_s"
    patience_s = getattr(settings.broker, field)
    if settings.train.task_limit_s >= patience_s:
        raise SettingsError(
            f"train.task_limit_s ({settings.train.task_limit_s}) must be below broker.{field} ({patience_s}), "
            "or a running task is delivered twice"
        )


def _configuration(config: RoleConfig, settings: Settings) -> dict[str, Any]:
    return {
        "accept_content": [CONTENT],
        "result_accept_content": [CONTENT],
        "task_serializer": CONTENT,
        "result_serializer": CONTENT,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        "task_time_limit": settings.train.task_limit_s,
        "task_ignore_result": True,
        "result_expires": RESULT_LIFE_S,
        "result_backend_transport_options": {"retry_policy": {"timeout": 5.0, "max_retries": 5}},
        "redis_socket_connect_timeout": 2.0,
        "redis_socket_keepalive": True,
        "task_publish_retry": False,
        "task_send_sent_event": False,
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_proc_alive_timeout": 60.0,
        "worker_lost_wait": 0.5,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_consumer": "roles.celery_consumer:PatientConsumer",
        "broker_connection_retry": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_connection_timeout": CONNECT_S,
        "broker_channel_error_retry": True,
        "broker_heartbeat": settings.broker.heartbeat_s,
        "broker_heartbeat_checkrate": 2.0,
        "broker_use_ssl": tls_options(config),
        "broker_pool_limit": 32,
        "broker_transport_options": _transport_options(config.broker_url, settings),
        "task_default_exchange": "",
        "task_default_queue": f"{config.role}.{config.node}.unrouted",
    }


def _transport_options(broker_url: str, settings: Settings) -> dict[str, Any]:
    """Return what the transport needs in order to lose nothing and wait for nothing."""
    if is_amqp(broker_url):
        return transport_options(settings.broker)
    return {
        "visibility_timeout": settings.broker.visibility_timeout_s,
        "unacked_restore_interval": settings.broker.unacked_restore_interval_s,
        "unacked_restore_throttle": 1,
        "queue_order_strategy": "priority",
        "socket_connect_timeout": 2.0,
        "socket_keepalive": True,
        "health_check_interval": 5,
    }


# ---------------------------------------------------------------- senders


@functools.lru_cache(maxsize=256)
def _queue(name: str) -> kombu.Queue:
    return quorum_queue(name) if is_replicated(name) else classic_queue(name)


def send(app: RoleApp, task_name: str, message: Message, queue: str, *, wants_result: bool = False) -> AsyncResult:
    """Put `message` as a call of `task_name` on `queue`; the task gets its bytes as the only argument.

    Returns the handle of the call, of use only with `wants_result` (the worker then stores the task's bytes for 5 minutes).
    Raises UnreachableError when the broker does not take it; nothing was queued, or the hint may be queued twice.
    """

    def put(producer: kombu.Producer | None, **options: Any) -> AsyncResult:
        return app.send_task(
            task_name,
            (encode(message),),
            queue=_queue(queue),
            ignore_result=not wants_result,
            argsrepr="",
            kwargsrepr="",
            producer=producer,
            **options,
        )

    try:
        if app.outlet is None:
            return put(None)
        confirm_s = app.conf.broker_transport_options["read_timeout"]
        return app.outlet.publish(functools.partial(put, mandatory=True, timeout=confirm_s, confirm_timeout=confirm_s))
    except (*BROKER_ERRORS, UnreachableError) as exc:
        raise UnreachableError(f"broker {_shown(app)} does not take messages for {queue!r}: {exc}") from exc


def call(app: RoleApp, task_name: str, message: Message, queue: str, timeout_s: float) -> bytes:
    """Send `message`, wait for the task and return the bytes that it returned.

    Raises UnreachableError (broker away), DeadlineError (no answer within `timeout_s`), InternalError (the task raised or
    was killed at its limit: its log has the traceback; tasks answer expected errors in their bytes).
    """
    handle = send(app, task_name, message, queue, wants_result=True)
    try:
        return bytes(handle.get(timeout=timeout_s, interval=0.05, disable_sync_subtasks=False))
    except (celery.exceptions.TimeoutError, TimeoutError) as exc:
        raise DeadlineError(f"no worker answered {task_name} on {queue!r} within {timeout_s:g} s") from exc
    except BROKER_ERRORS as exc:
        raise UnreachableError(f"broker {_shown(app)} went away while {task_name} ran: {exc}") from exc
    except (celery.exceptions.CeleryError, billiard.exceptions.TimeLimitExceeded, RuntimeError, ValueError) as exc:
        raise InternalError(f"{task_name} failed in its worker: {exc}; see the worker's log") from exc
    finally:
        with contextlib.suppress(*BROKER_ERRORS, RuntimeError):
            handle.forget()


def _shown(app: RoleApp) -> str:
    return str(app.connection_for_write().as_uri())


# ---------------------------------------------------------------- workers


def threads_for(concurrency: int) -> int:
    """Return how many threads one of `concurrency` worker children may use: its share of the cores, at least one."""
    return max(1, len(os.sched_getaffinity(0)) // max(1, concurrency))


def import_sender(broker_url: str) -> None:
    """Import what `send` needs, in a process that forks senders: each fork, and each that replaces one, finds it there."""
    for module in _SENDER_MODULES:
        importlib.import_module(module)
    kombu.Connection(broker_url).transport_cls  # noqa: B018  # reading it imports the transport


def import_worker(broker_url: str) -> None:
    """Import what `run_worker` needs, in a process that forks workers; no model library, no numpy, no thread."""
    import_sender(broker_url)
    for module in _WORKER_MODULES:
        importlib.import_module(module)
    billiard.util.get_pdeathsig()  # parses a declaration of C for 60 ms, which each child of a pool would do anew


def _begin_child(threads: int) -> None:
    """Bind a fresh worker child to its parent's life and to its share of the cores, before any model library is imported."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = str(threads)


def run_worker(
    app: RoleApp,
    queues: Sequence[str],
    concurrency: int,
    pool: str,
    hostname: str,
    on_child: Callable[[int], None] | None = None,
) -> int:
    """Consume `queues` (earlier ones first) until SIGTERM or SIGINT and return the exit status.

    `on_child(threads)` runs in each child before its first task (in this process for pool 'solo'). SIGTERM lets running tasks
    end. A broker that is away, at start or later, is waited for without end.
    """
    threads = threads_for(concurrency)

    def begin(**_: Any) -> None:
        if pool == "prefork":
            _begin_child(threads)
        if on_child is not None:
            on_child(threads)

    def keep_logs(**_: Any) -> None:
        """Keep Celery from touching the loggers: the composition root has set them up."""

    for chatty in _CHATTY_LOGGERS:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    signals.setup_logging.connect(keep_logs, weak=False)
    signals.worker_process_init.connect(begin, weak=False)
    for name in queues:
        app.amqp.queues.add(_queue(name))
    worker = app.Worker(
        hostname=hostname,
        pool=WATCHFUL_POOL if pool == "prefork" else pool,
        concurrency=concurrency,
        queues=list(queues),
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        optimization="fair",
    )
    worker.start()
    return int(worker.exitcode or 0)
