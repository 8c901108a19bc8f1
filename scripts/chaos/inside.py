"""What chaos does inside a docker: count replicas, empty the queues of its broker, put poison into them.

    python -m scripts.chaos.inside replicas
    python -m scripts.chaos.inside purge ROLE_CONFIG SECONDS QUEUE ...
    python -m scripts.chaos.inside poison ROLE_CONFIG QUEUE ...

Owns no state. Must never print a URL. Runs in the docker, where the broker listens on the loopback. Called by
`ground` and `hurts`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from amqp.exceptions import NotFound

from cluster.broker.rabbitmq_config import Paths
from cluster.broker.rabbitmq_control import Control
from cluster.broker.rabbitmq_queues import LIST_REPLICATED, Replicas
from cluster.state import read_state
from labelloop.errors import NotFoundError
from labelloop.messages import RoleConfig
from labelloop.settings import read_settings
from roles.celery_app import make_app

_PURGE_EVERY_S = 0.005
POISON = (b"\xff\xfe not a message", b"", b'{"task": 1}')


def replicas(settings_port: int) -> dict[str, int]:
    """Return queue → replicas, as this docker's broker lists them."""
    control = Control(socket.gethostname(), settings_port, Paths().data)
    listed = msgspec.convert(control.ask("where its queues are", LIST_REPLICATED, 10.0), tuple[Replicas, ...])
    return {queue.name: len(queue.nodes) for queue in listed}


def _with_channel(config_file: Path, act: Callable[[Any], None]) -> None:
    config = read_state(config_file, RoleConfig)
    if config is None:
        raise NotFoundError(f"{config_file} is not there: this node has no such role process")
    app = make_app(config, read_settings(None), "chaos")
    try:
        with app.connection_for_write() as connection:
            act(connection)
    finally:
        app.close()


def _is_there(connection: Any, queue: str) -> bool:
    channel = connection.channel()  # one of its own: the broker closes it where the queue is not there
    try:
        channel.queue_declare(queue, passive=True)
    except NotFound:
        return False
    channel.close()
    return True


def purge(config_file: Path, seconds: float, queues: Sequence[str]) -> int:
    """Throw away every message that waits in `queues`, again and again for a while; return how many there were.

    A queue that is not there has none: a train node that never led has declared nothing.
    """
    gone: list[int] = []

    def act(connection: Any) -> None:
        end_s = time.monotonic() + seconds
        there = [queue for queue in queues if _is_there(connection, queue)]
        with connection.channel() as channel:
            while time.monotonic() < end_s:
                gone.extend(int(channel.queue_purge(queue) or 0) for queue in there)
                time.sleep(_PURGE_EVERY_S)

    _with_channel(config_file, act)
    return sum(gone)


def poison(config_file: Path, queues: Sequence[str]) -> int:
    """Put messages that no worker can read into `queues`; return how many."""

    def act(connection: Any) -> None:
        with contextlib.closing(connection.Producer()) as producer:
            for queue in queues:
                for body in POISON:
                    producer.publish(body, exchange="", routing_key=queue, content_type="application/x-poison", delivery_mode=2)

    _with_channel(config_file, act)
    return len(queues) * len(POISON)


def main(argv: Sequence[str]) -> int:
    """Run one of the three and print what it counted."""
    if argv[0] == "replicas":
        print(json.dumps(replicas(read_settings(None).broker.distribution_port)))
    elif argv[0] == "purge":
        print(purge(Path(argv[1]), float(argv[2]), argv[3:]))
    else:
        print(poison(Path(argv[1]), argv[2:]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
