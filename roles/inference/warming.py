"""Make a version warm on every inference node of the cluster, before any message names it.

Owns the question and the judgement of the answers. Must never wait for a node that is dead or frozen: one whose worker takes
nothing within `TAKE_S` is left out, and loads the version with its first order. Called by `swap` on its warming threads.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from labelloop import queues
from labelloop.errors import InternalError, LabelloopError, PermanentError, RetryableError
from roles.inference.asking import Asker
from roles.inference.calls import WARM, WarmWork
from roles.inference.nodes import Nodes

logger = logging.getLogger(__name__)

WARM_S = 30.0
TAKE_S = 3.0
_THREADS = 16


class Verdict(enum.Enum):
    """What the answers of the nodes mean for a version."""

    WARM = "warm"
    REFUSED = "refused"
    UNKNOWN = "unknown"


def judge(answers: Mapping[str, LabelloopError | None], me: str) -> tuple[Verdict, str]:
    """Return what the nodes' answers mean, and why; None = warm there.

    One node that cannot load the files refuses the version: any order may reach that node. A node that did not answer
    decides nothing, unless none did.
    """
    for node, error in answers.items():
        if isinstance(error, PermanentError):
            return Verdict.REFUSED, f"{node}: {error}"
    silent = {node: error for node, error in answers.items() if error is not None}
    if len(silent) == len(answers):
        return Verdict.UNKNOWN, str(answers[me])
    if silent:
        return Verdict.WARM, "warm but for " + "; ".join(f"{node} ({error})" for node, error in silent.items())
    return Verdict.WARM, f"warm on {len(answers)} nodes"


class Warming:
    """Ask the nodes; any thread may."""

    def __init__(self, asker: Asker, nodes: Nodes) -> None:
        self._asker, self._nodes = asker, nodes
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="warm-node")

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def warm(self, task: str, version: str) -> tuple[Verdict, str]:
        """Return the verdict once every node has answered or was given up.

        Raises the error of this node when none said anything: UnreachableError, NoWorkerError, DeadlineError.
        """
        me = self._nodes.me
        asked = {node: self._pool.submit(self._ask, node, task, version) for node in self._nodes.others()}
        answers = {me: self._ask(me, task, version)}
        answers |= {node: future.result() for node, future in asked.items()}
        verdict, reason = judge(answers, me)
        mine = answers[me]
        if verdict is Verdict.UNKNOWN and mine is not None:
            raise mine
        return verdict, reason

    def _ask(self, node: str, task: str, version: str) -> LabelloopError | None:
        work = WarmWork(call="", reply_to="", task=task, version=version)
        is_mine = node == self._nodes.me
        try:
            if is_mine:
                self._asker.require_worker(queues.node_queue(node))
            reply = self._asker.ask(WARM, queues.node_queue(node), work, WARM_S, take_s=WARM_S if is_mine else TAKE_S)
        except (PermanentError, RetryableError) as exc:
            return exc
        if reply.kind == "lost":
            return InternalError(f"version {version} ended the workers that loaded it")
        return None
