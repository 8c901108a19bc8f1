"""Which version a process writes into its messages, moved only to what is warm on the nodes: the hot swap.

Owns, per task in use, the pointer number it has seen and the version it serves. Must never go to a lower number, serve a version
whose files changed, or load a model itself. Called by `service` and `jobs` (which version now) on RPC threads; one thread looks
at the pointers.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from datastore_layout.models import Pointer, current, pointer_history
from datastore_layout.root import Root, task_folder
from labelloop.errors import IntegrityError, LabelloopError, RetryableError
from labelloop.settings import InferenceSettings
from roles.inference.warming import Verdict, Warming

logger = logging.getLogger(__name__)

IN_USE_S = 600.0
PAUSE_S = 0.5


@dataclass
class _Serving:
    """One task as this process serves it; `refused` are pointer numbers whose model does not load."""

    number: int = 0
    version: str = ""
    asked_s: float = 0.0
    not_before_s: float = 0.0
    refused: frozenset[int] = frozenset()
    lock: threading.Lock = field(default_factory=threading.Lock)


def next_swap(number: int, refused: frozenset[int], pointer: Pointer | None) -> tuple[Pointer | None, str]:
    """Return (the pointer to warm, reason), None = stay."""
    if pointer is None:
        return None, "no version serves yet"
    if pointer.number <= number:
        return None, f"pointer {pointer.number} is not above {number}, which was seen"
    if pointer.number in refused:
        return None, f"pointer {pointer.number} names a version that was refused"
    return pointer, f"pointer {pointer.number} is new: {pointer.reason}"


class Swap:
    """The serving versions of one inference_rpc process."""

    def __init__(self, root: Root, settings: InferenceSettings, warming: Warming) -> None:
        self._root, self._settings, self._warming = root, settings, warming
        self._tasks: dict[str, _Serving] = {}
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="swap", daemon=True)
        self._warmers = ThreadPoolExecutor(4, thread_name_prefix="warm")

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._is_stopping.set()
        self._thread.join()
        self._warmers.shutdown(cancel_futures=True)
        self._warming.close()

    def version_of(self, task: str) -> str:
        """Return the version that serves `task` now, '' while none does; the first call of a task warms it."""
        serving = self._tasks.setdefault(task, _Serving())
        serving.asked_s = time.monotonic()
        if not serving.version:
            self._move(task, serving)
        return serving.version

    def newest_of(self, task: str) -> str:
        """Return the version for a new job: the newest pointer's once it proved to load, the serving one when it is refused.

        While no worker answers, the newest pointer's unproved: a job waits for workers anyway.
        """
        serving = self._tasks.setdefault(task, _Serving())
        serving.asked_s = time.monotonic()
        try:
            self._move(task, serving)
        except RetryableError as exc:
            pointer, _ = next_swap(serving.number, serving.refused, current(task_folder(self._root, task)))
            if pointer is not None:
                logger.warning("task %s: a job takes %s before it is warm: %s", task, pointer.version, exc)
                return pointer.version
        return serving.version

    def _watch(self) -> None:
        while not self._is_stopping.wait(self._settings.poll_s):
            now_s = time.monotonic()
            for task, serving in list(self._tasks.items()):
                if now_s - serving.asked_s <= IN_USE_S and now_s >= serving.not_before_s and not serving.lock.locked():
                    self._look(task, serving)

    def _look(self, task: str, serving: _Serving) -> None:
        try:
            target, _ = next_swap(serving.number, serving.refused, current(task_folder(self._root, task)))
        except LabelloopError as exc:
            logger.warning("task %s: its pointer cannot be read, %s stays: %s", task, serving.version or "nothing", exc)
            serving.not_before_s = time.monotonic() + PAUSE_S
            return
        if target is not None:
            self._warmers.submit(self._move_quietly, task, serving)

    def _move_quietly(self, task: str, serving: _Serving) -> None:
        try:
            self._move(task, serving)
        except RetryableError as exc:
            logger.warning("task %s: %s stays for now: %s", task, serving.version or "no version", exc)
            serving.not_before_s = time.monotonic() + PAUSE_S
        except Exception:  # a thread's last frame: the watcher asks again
            logger.exception("task %s: the swap fell", task)
            serving.not_before_s = time.monotonic() + PAUSE_S

    def _move(self, task: str, serving: _Serving) -> None:
        """Warm what the newest pointer names, then serve it; a refused version leaves the serving one, or goes one pointer back."""
        with serving.lock:
            folder = task_folder(self._root, task)
            target, reason = next_swap(serving.number, serving.refused, current(folder))
            if target is None:
                return
            candidates = [target] if serving.version else [target, *reversed(pointer_history(folder)[:-1])]
            for pointer in candidates:
                if self._is_warmed(task, serving, pointer):
                    serving.version, serving.number = pointer.version, max(serving.number, pointer.number)
                    logger.info("task %s: %s serves now: %s", task, pointer.version, reason)
                    return
            if not serving.version:
                raise IntegrityError(f"no published version of task {task!r} loads: see the log, then publish or roll back")

    def _is_warmed(self, task: str, serving: _Serving, pointer: Pointer) -> bool:
        if pointer.number in serving.refused:
            return False
        verdict, reason = self._warming.warm(task, pointer.version)
        if verdict is Verdict.WARM:
            logger.info("task %s: %s is %s", task, pointer.version, reason)
            return True
        logger.error("task %s: pointer %d is refused, %s stays: %s", task, pointer.number, serving.version or "none", reason)
        serving.refused |= {pointer.number}
        return False
