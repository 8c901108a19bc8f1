"""How the dispatcher of a task hears at once of a job that was accepted: by any process of its node, or on another node.

Owns the pipe that the forks of one node share, and the message to another node's inference_rpc. Must never be relied on: a notice
that is lost leaves its job to the sweep. Called by `service`.
"""

from __future__ import annotations

import logging
import os
import select
from concurrent.futures import ThreadPoolExecutor

from labelloop.errors import LabelloopError
from labelloop.messages import JobKey, decode, encode
from labelloop.queues import reply_queue
from roles.celery_app import RoleApp
from roles.inference.calls import Reply
from roles.inference.mailbox import deliver
from roles.inference.nodes import Nodes
from roles.inference.turns import JobName

logger = logging.getLogger(__name__)

NOTICE = "notice"


class NoticePipe:
    """A pipe made before the fork: any process of the family writes 'task job', the dispatcher reads."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def notify(self, task: str, job_id: str) -> None:
        """Say that a job was accepted. A full pipe drops the notice: the sweep finds the job."""
        try:
            os.write(self._write, f"{task} {job_id}\n".encode())
        except BlockingIOError:
            logger.warning("too many accepted jobs at once: %s waits for the sweep", job_id)

    def read(self, timeout_s: float) -> list[JobName]:
        """Return the jobs noticed within `timeout_s`; a torn line is left out."""
        if not select.select([self._read], [], [], timeout_s)[0]:
            return []
        try:
            data = os.read(self._read, 65536)
        except BlockingIOError:
            return []
        words = [line.split(" ") for line in data.decode("utf-8", "replace").splitlines()]
        return [(line[0], line[1]) for line in words if len(line) == 2]

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Notifier:
    """Tell the home of a task about its jobs; made after the fork. Any thread may call, none waits for the broker."""

    def __init__(self, app: RoleApp, nodes: Nodes, pipe: NoticePipe) -> None:
        self._app, self._nodes, self._pipe = app, nodes, pipe
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="notifier")

    def close(self) -> None:
        self._sender.shutdown(cancel_futures=True)

    def notify(self, task: str, job_id: str) -> None:
        """Say that a job waits."""
        home = self._nodes.home_of(task)
        if home == self._nodes.me:
            self._pipe.notify(task, job_id)
        else:
            self._sender.submit(self._tell, home, task, job_id)

    def _tell(self, home: str, task: str, job_id: str) -> None:
        notice = Reply(call=NOTICE, kind="job", body=encode(JobKey(task=task, job_id=job_id)))
        try:
            deliver(self._app, reply_queue(home, 0), notice)
        except LabelloopError as exc:
            logger.warning("%s, the home of task %s, hears nothing, so this node sends job %s: %s", home, task, job_id, exc)
            self._pipe.notify(task, job_id)

    def take(self, reply: Reply) -> None:
        """Pass on what another node says about a job; any other stray reply is dropped."""
        if reply.kind == "job":
            key = decode(JobKey, reply.body)
            self._pipe.notify(key.task, key.job_id)
