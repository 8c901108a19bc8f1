"""What annotators do, as functions: take the next items, answer, skip, undo.

Owns the order of things: the queue proposes, one database transaction decides, the queue is told afterwards. Must never wait for
the cluster; works with the queue down or empty, then by position from the database. Called by the API and the pages.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from labelloop.errors import ConflictError, UnreachableError
from webapp.db import leases, opinions, tallies
from webapp.db.engine import Database, Tx
from webapp.db.leases import Leased
from webapp.db.projects import Project
from webapp.labelling import answers, order
from webapp.labelling.answers import Answer, Saved
from webapp.people import desk, shares, withdrawing
from webapp.people.work import SLOTS
from webapp.queue import RankedQueue

logger = logging.getLogger(__name__)
MOST_AT_ONCE = 100
ROUNDS_SEEN_S = 30.0  # so long a person's own place among the begun items is trusted
SETTLE_S = 0.05  # so long labelled items are gathered before the queue is told
HEAD_ITEMS = 200  # of the order of asking that a fixed share is picked from
NOTHING_THERE = "nothing has been uploaded to label yet: an owner brings items in on the page Data"
NOTHING_LEFT = "no items are left to label: all are labelled or in other annotators' hands"


class Batch(msgspec.Struct, frozen=True):
    """Items in the annotator's hands now; `reason` says why there are none, '' otherwise."""

    items: tuple[Leased, ...]
    reason: str = ""


class Answered(msgspec.Struct, frozen=True):
    """A saved answer and the next items."""

    saved: Saved
    next: Batch


class Labelling:
    """The labelling desk of one process. `in_background` runs a function later, off the annotator's path."""

    def __init__(
        self, database: Database, queue: RankedQueue, lease_s: float, in_background: Callable[[Callable[[], object]], None]
    ) -> None:
        self._database = database
        self._queue = queue
        self._lease_s = lease_s
        self._in_background = in_background
        self._settle_lock = threading.Lock()
        self._settled: list[tuple[int, str]] = []
        self._seen_rounds: dict[tuple[int, int], tuple[int, float]] = {}

    def take_next(self, project: Project, user_id: int, n: int, holding: Sequence[str] | None = None) -> Batch:
        """Lease up to `n` items; with `holding` (what the client has at hand) one's own other live leases come first."""
        candidates = self._claim(project, n) if project.work.assignment == "queue" else []
        with self._database.write() as tx:
            batch = self._take(tx, project, user_id, n, holding, candidates)
        self._tell_queue(project, candidates, batch.items)
        return batch

    def answer(self, project: Project, user_id: int, answer: Answer, n: int, holding: Sequence[str] | None = None) -> Answered:
        """Save an answer and lease up to `n` next items in the same transaction."""
        candidates = self._claim(project, n) if n and project.work.assignment == "queue" else []
        batch = Batch(())
        labelled: tuple[str, ...] = ()
        try:
            with self._database.write() as tx:
                saved = self._save(tx, project, user_id, answer)
                batch = self._take(tx, project, user_id, n, holding, candidates) if n else batch
            labelled = (saved.item_id,)
        finally:  # a refused answer gives the claimed items back too
            self._tell_queue(project, candidates, batch.items if labelled else (), labelled)
        return Answered(saved, batch)

    def undo(self, project: Project, user_id: int, item_id: str, is_owner: bool) -> tuple[Saved, Batch]:
        """Withdraw an item's label and lease the item to the same annotator again."""
        now = time.time()
        with self._database.write() as tx:
            again = withdrawing.undo(tx, project, user_id, item_id, now, self._lease_s) if project.is_shared else None
            if again is not None:
                return again[0], Batch(tuple(again[1]))
            saved = answers.save_undo(tx, project, user_id, item_id, is_owner, now)
            taken = leases.take(tx, project, user_id, 1, now, self._lease_s, [item_id])
        self._tell_queue(project, (), taken)
        return saved, Batch(tuple(taken))

    def give_back(self, project: Project, user_id: int, lease_id: str) -> str:
        """End a lease without an answer (skip); the item comes back for others. Raises ConflictError for a lease not one's own."""
        with self._database.write() as tx:
            skipped = opinions.skip(tx, project.id, user_id, lease_id) if project.is_shared else None
            if skipped is not None:
                return skipped
            item_id = leases.drop_lease(tx, project.id, user_id, lease_id)
        if item_id is None:
            raise ConflictError(f"lease {lease_id!r} is not yours or has been answered: take the next item")
        self._try(lambda: self._queue.give_back(project.id, item_id))
        return item_id

    def extend(self, project: Project, user_id: int, lease_ids: Sequence[str]) -> float:
        """Hold one's own leases for another full time; return until when."""
        expires_at = time.time() + self._lease_s
        with self._database.write() as tx:
            item_ids = leases.extend(tx, project.id, user_id, lease_ids, expires_at)
            if project.is_shared:
                opinions.extend(tx, project.id, user_id, lease_ids, expires_at)

        def tell() -> None:
            for item_id in item_ids:
                self._queue.hold(project.id, item_id, expires_at, 0.0)

        self._try(tell)
        return expires_at

    def _take(
        self, tx: Tx, project: Project, user_id: int, n: int, holding: Sequence[str] | None, candidates: Sequence[str]
    ) -> Batch:
        reason = self._why_none(tx, project)
        if reason:
            return Batch((), reason)
        now = time.time()
        if project.is_shared:
            return self._take_shared(tx, project, user_id, n, holding, candidates, now)
        own = leases.take_own(tx, project, user_id, n, now, self._lease_s, holding) if holding is not None else []
        got = own + leases.take(tx, project, user_id, n - len(own), now, self._lease_s, candidates)
        if len(got) < n:
            more = leases.take(tx, project, user_id, n - len(got), now, self._lease_s)
            if more and len(candidates) < n:  # the queue's head is used up, the database has more
                self._rebuild(project.id)
            got += more
        return Batch(tuple(got), "" if got else _why_nothing(tx, project))

    def _take_shared(
        self, tx: Tx, project: Project, user_id: int, n: int, holding: Sequence[str] | None, candidates: Sequence[str], now: float
    ) -> Batch:
        """The same where items go to several people, or something waits for somebody in person."""

        def take_free(missing: int) -> list[Leased]:
            own = leases.take_own(tx, project, user_id, missing, now, self._lease_s, holding) if holding is not None else []
            if project.work.assignment == "shares":
                head = self._head(project)
                places = shares.places_of(project.work, user_id)
                rest = (missing - len(own), now, self._lease_s, head, places, SLOTS)
                return own + leases.take_places(tx, project, user_id, *rest)
            got = own + leases.take(tx, project, user_id, missing - len(own), now, self._lease_s, candidates)
            return got + leases.take(tx, project, user_id, missing - len(got), now, self._lease_s)

        key = (project.id, user_id)
        after, until = self._seen_rounds.get(key, (0, now + ROUNDS_SEEN_S))
        after = 0 if now >= until else after
        taken = desk.take(tx, project, user_id, n, now, self._lease_s, holding, after, take_free)
        self._seen_rounds[key] = (taken.after, until if now < until else now + ROUNDS_SEEN_S)
        if taken.items:
            return Batch(tuple(taken.items))
        return Batch((), taken.reason or _why_nothing(tx, project))

    def _head(self, project: Project) -> list[str]:
        """Return the items that the model would ask next, without taking them: of fixed shares everybody finds their own."""
        try:
            return self._queue.head(project.id, HEAD_ITEMS)
        except UnreachableError as exc:
            logger.warning("items go out by position: %s", exc)
            return []

    def _save(self, tx: Tx, project: Project, user_id: int, answer: Answer) -> Saved:
        now = time.time()
        if not project.is_shared:
            return answers.save_answer(tx, project, user_id, answer, now)
        said = desk.save(tx, project, user_id, answer, now)
        if said is None:
            said = answers.save_answer(tx, project, user_id, answer, now)
            desk.after_label(tx, project, user_id, said, now)
        return said

    def _why_none(self, tx: Tx, project: Project) -> str:
        if project.is_paused:
            return "the project is paused by its owner"
        if project.budget and tallies.total(tx, project.id).labels >= project.budget:
            return f"the labelling budget of {project.budget} labels is reached"
        return ""

    def _claim(self, project: Project, n: int) -> list[str]:
        now = time.time()
        try:
            found = self._queue.claim(project.id, n, now, now + self._lease_s)
        except UnreachableError as exc:
            logger.warning("items go out by position: %s", exc)
            return []
        if found is None:
            self._rebuild(project.id)
        return found or []

    def _rebuild(self, project_id: int) -> None:
        self._in_background(lambda: order.rebuild_if_allowed(self._database, self._queue, project_id))

    def _tell_queue(self, project: Project, claimed: Sequence[str], got: Sequence[Leased], labelled: Sequence[str] = ()) -> None:
        """Let the queue follow what the database decided; a queue that is down is rebuilt later."""
        have = {leased.item_id for leased in got}
        asked = set(claimed)

        def tell() -> None:
            for item_id in claimed:
                if item_id not in have:
                    self._return_claim(project, item_id)
            for leased in got:
                if leased.item_id not in asked:
                    self._queue.hold(project.id, leased.item_id, leased.expires_at, 0.0)

        if have != asked:
            self._try(tell)
        if labelled:
            with self._settle_lock:
                is_first = not self._settled
                self._settled.extend((project.id, item_id) for item_id in labelled)
            if is_first:
                self._in_background(self._settle)

    def _settle(self) -> None:
        """Take what was labelled out of the queues, all that comes within a moment in one call a project.

        Nobody waits for it: whatever is out goes to no one else, and the database knows what is labelled.
        """
        time.sleep(SETTLE_S)
        with self._settle_lock:
            settled, self._settled = self._settled, []
        gone: dict[int, list[str]] = {}
        for project_id, item_id in settled:
            gone.setdefault(project_id, []).append(item_id)
        for project_id, item_ids in gone.items():
            self._try(functools.partial(self._queue.settle, project_id, item_ids))

    def _return_claim(self, project: Project, item_id: str) -> None:
        with self._database.read() as tx:
            out_until = leases.out_until(tx, project.id, item_id)
        if out_until is None:
            self._queue.settle(project.id, (item_id,))
        elif out_until <= time.time():
            self._queue.give_back(project.id, item_id)
        else:
            self._queue.hold(project.id, item_id, out_until, 0.0)

    def _try(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except UnreachableError as exc:
            logger.warning("the queue is told later: %s", exc)


def _why_nothing(tx: Tx, project: Project) -> str:
    return NOTHING_LEFT if tallies.total(tx, project.id).items else NOTHING_THERE
