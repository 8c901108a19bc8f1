"""A Celery worker with tasks that tests need, as a process: `python -m tests.support_worker CONFIG POOL CONCURRENCY [QUEUE ...]`.

Owns echo, sleep and suicide tasks. Run by tests/contract/test_celery_app.py and test_celery_rabbitmq.py.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path

import celery
import msgspec

from labelloop.logs import set_up_logs
from labelloop.messages import Item, RoleConfig, decode
from labelloop.settings import BrokerSettings, LogSettings, Settings, TrainSettings
from roles.celery_app import make_app, run_worker

QUEUES = ("first", "second")


def role_config(broker_url: str, result_url: str, folder: Path, concurrency: int = 1, role: str = "train") -> RoleConfig:
    """Return the configuration of a node `n1` whose datastore is below `folder`."""
    return RoleConfig(
        node="n1",
        ip="127.0.0.2",
        role=role,  # type: ignore[arg-type]
        is_master=True,
        master_host="n1",
        cluster_id="c1",
        epoch=1,
        datastore_root=str(folder / "root"),
        broker_url=broker_url,
        result_url=result_url,
        rpc_host="127.0.0.2",
        rpc_port=0,
        rpc_processes=1,
        concurrency=concurrency,
        certificate_file="",
        key_file="",
        ca_file="",
        state_dir=str(folder),
    )


def add_tasks(app: celery.Celery, folder: Path) -> None:
    """Register the tasks on `app`; each call leaves a line in `folder`/calls."""

    def note(word: str) -> None:
        with (folder / "calls").open("a") as out:
            out.write(f"{word} {os.getpid()}\n")

    @app.task(name="echo")
    def echo(payload: bytes) -> bytes:
        note(f"echo {decode(Item, payload).item_id[:40]}")
        return payload

    @app.task(name="sleep")
    def sleep(payload: bytes) -> bytes:
        note("sleep")
        time.sleep(float(decode(Item, payload).item_id))
        return payload

    @app.task(name="fall_once")
    def fall_once(payload: bytes) -> bytes:
        note("fall")
        if not (folder / "fell").exists():
            (folder / "fell").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return payload

    @app.task(name="fall")
    def fall(payload: bytes) -> bytes:
        note("fall")
        os.kill(os.getpid(), signal.SIGKILL)
        return payload

    @app.task(name="sleep_once")
    def sleep_once(payload: bytes) -> bytes:
        note("sleep_once")
        if not (folder / "slept").exists():
            (folder / "slept").touch()
            time.sleep(float(decode(Item, payload).item_id))
        return payload

    @app.task(name="raise")
    def fail(payload: bytes) -> bytes:
        raise ValueError("on purpose")

    @app.task(name="facts")
    def facts(payload: bytes) -> bytes:
        return f"{os.environ['OMP_NUM_THREADS']} {os.getppid()} {len(logging.getLogger().handlers)}".encode()


def main(config_file: str, pool: str, concurrency: str, *queues: str) -> int:
    """Run the worker until SIGTERM."""
    config = msgspec.json.decode(Path(config_file).read_bytes(), type=RoleConfig)
    set_up_logs(LogSettings())
    limit_s = 4.0 if config.broker_url.startswith("redis") else 30.0
    settings = Settings(
        train=TrainSettings(task_limit_s=limit_s),
        broker=BrokerSettings(visibility_timeout_s=5, heartbeat_s=1.0, confirm_timeout_s=2.0),
    )
    app = make_app(config, settings, "t")
    add_tasks(app, Path(config.state_dir))
    return run_worker(app, queues or QUEUES, int(concurrency), pool, "test@n1")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
