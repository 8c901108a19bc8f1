"""What runs inside a small docker for a test: evaluates Python expressions, one JSON line each, on that node's `RabbitBroker`.

Called by `tests.support_dockers`; never by anything else. `broker`, `InviteReply`, `QueueSpec`, `Move` and the AMQP helpers below
are there for the expressions.
"""

from __future__ import annotations

import json
import logging
import ssl
import sys
import time
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import amqp
import msgspec

from cluster.broker import QueueSpec
from cluster.broker.rabbitmq import RabbitBroker
from cluster.broker.rabbitmq_queues import Move
from labelloop.errors import LabelloopError
from labelloop.messages import InviteReply
from labelloop.settings import Settings
from labelloop.tls import Identity


def connect(url: str, identity: list[str] | None = None) -> amqp.Connection:
    """Return an open connection to an amqp:// or amqps:// URL; `identity` = certificate, key and CA files."""
    parts = urlsplit(url)
    context: Any = False
    if parts.scheme == "amqps":
        assert identity is not None
        context = {"ca_certs": identity[2], "cert_reqs": ssl.CERT_REQUIRED}
        if identity[0]:
            context |= {"certfile": identity[0], "keyfile": identity[1]}
    connection = amqp.Connection(
        host=f"{parts.hostname}:{parts.port}",
        userid=parts.username,
        password=parts.password,
        ssl=context,
        connect_timeout=5,
        read_timeout=10,
        write_timeout=10,
        confirm_publish=True,
    )
    connection.connect()
    return connection


def publish(url: str, queue: str, bodies: list[str]) -> int:
    """Publish persistent messages to a queue, each confirmed; return how many."""
    with connect(url) as connection:
        channel = connection.channel()
        for body in bodies:
            channel.basic_publish_confirm(amqp.Message(body, delivery_mode=2), routing_key=queue, mandatory=True, timeout=10)
        return len(bodies)


def fetch_all(url: str, queue: str, is_acked: bool = True) -> list[str]:
    """Return the bodies of all ready messages of a queue."""
    bodies = []
    with connect(url) as connection:
        channel = connection.channel()
        while (message := channel.basic_get(queue)) is not None:
            bodies.append(message.body if isinstance(message.body, str) else message.body.decode())
            if is_acked:
                channel.basic_ack(message.delivery_tag)
    return bodies


def refuse(url: str, queue: str) -> int:
    """Fetch one message again and again, giving it back each time, until the queue is empty; return how often it came."""
    with connect(url) as connection:
        channel = connection.channel()
        times, empty = 0, 0
        while empty < 20:
            message = channel.basic_get(queue)
            if message is None:
                empty += 1
                time.sleep(0.05)
                continue
            times, empty = times + 1, 0
            channel.basic_reject(message.delivery_tag, requeue=True)
        return times


def ssl_serial(url: str, identity: list[str]) -> str:
    """Return the serial number of the certificate that the server of an amqps:// URL shows now."""
    with connect(url, identity) as connection:
        return str(connection.transport.sock.getpeercert()["serialNumber"])


def timed(broker: RabbitBroker, n: int) -> float:
    """Return the mean seconds of one question to the server."""
    began_s = time.perf_counter()
    for _ in range(n):
        broker._server.look()
    return (time.perf_counter() - began_s) / n


def main() -> None:
    """Answer until the input ends."""
    config = json.loads(sys.argv[1])
    logging.basicConfig(filename=Path(config["state"]) / "agent.log", level=logging.DEBUG)
    settings = msgspec.convert(config["settings"], Settings)
    identity = Identity(*map(Path, config["identity"]))
    broker = RabbitBroker(config["hostname"], config["ip"], Path(config["state"]), "testcluster", identity, settings)
    names = {
        **globals(),
        "broker": broker,
        "identity": config["identity"],
        "QueueSpec": QueueSpec,
        "InviteReply": InviteReply,
        "Move": Move,
    }
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            value = eval(asked["expression"], {**names, **asked["values"]})
            answer = {"value": msgspec.to_builtins(value)}
        except LabelloopError as exc:
            answer = {"code": exc.code, "reason": str(exc)}
        except Exception:
            answer = {"failure": traceback.format_exc()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
