"""After a new version: drafts first for the head of the queue, then for the whole pool, then a new order, swapped in at once.

Owns the drafts of blocks and the project's ranking. Must never blank a draft: old ones stay until the new ones replace them. Called
by the pilot, one project at a time a thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from labelloop import messages as m
from labelloop.errors import DeadlineError, InvalidInputError, UnreachableError
from labelloop.settings import PilotSettings
from webapp.cluster_door import ClusterDoor
from webapp.db import events, items, rankings, scores
from webapp.db.drafts import pack_answers, unpack
from webapp.db.engine import Database
from webapp.db.items import NewDraft, StoredItem
from webapp.db.projects import Project
from webapp.db.scores import Block
from webapp.kinds.values import Value
from webapp.labelling import order
from webapp.pilot.embed import Embedder, job_id, messages_of
from webapp.pilot.regions import draft_of
from webapp.pilot.results import answers_of, columns_of, marked_drafts, matrix_of, read_results
from webapp.pilot.scoring import Action, View, next_order, usable_strategy
from webapp.queue import RankedQueue

logger = logging.getLogger(__name__)
COLD_ITEMS = 20_000
RANK_DEADLINE_S = 120.0
HEAD_DEADLINE_S = 20.0


class Orderer:
    """Keeps drafts and order those of the serving version."""

    def __init__(
        self,
        database: Database,
        queue: RankedQueue,
        cluster: ClusterDoor,
        embedder: Embedder,
        latest: Mapping[int, m.ProgressReply],
        settings: PilotSettings,
        ended: threading.Event,
    ) -> None:
        self._database = database
        self._queue = queue
        self._cluster = cluster
        self._embedder = embedder
        self._latest = latest
        self._settings = settings
        self._ended = ended
        self._reasons: dict[int, str] = {}

    def cycle(self, project: Project) -> Action:
        """Do the project's next step and return what it was."""
        progress = self._latest.get(project.id)
        if progress is None:
            return Action.REST
        action, reason = next_order(self._view(project, progress))
        if self._reasons.get(project.id) != reason:
            self._reasons[project.id] = reason
            logger.info("%s: %s: %s", project.slug, action.value, reason)
        if action is Action.RESCORE:
            self._rescore(project, progress.serving, progress.pointer)
        elif action is Action.RANK:
            self._rank_cold(project)
        return action

    def _view(self, project: Project, progress: m.ProgressReply) -> View:
        with self._database.read() as tx:
            scored = scores.read_scored(tx, project.id)
            return View(
                serving=progress.serving,
                pointer=progress.pointer,
                scored_version=scored.version,
                scored_pointer=scored.pointer,
                is_ordered=scored.is_ordered,
                in_blocks=scores.n_in_blocks(tx, project.id),
                ranked_items=scored.ranked_items,
                has_backlog=bool(items.open_items_after(tx, project.id, scored.position, 1)),
                unbound=scores.n_unbound(tx, project.id),
                strategy=project.strategy,
                ranked_strategy=scored.strategy,
                parameters=project.strategy_parameters,
                ranked_parameters=scored.parameters,
            )

    # ------------------------------------------------------------ a version

    def _rescore(self, project: Project, version: str, pointer: int) -> None:
        self._score_head(project, version, pointer)
        self._embed_unbound(project)
        with self._database.read() as tx:
            blocks = {block.shard: block for block in scores.list_blocks(tx, project.id) if block.shard}
        if not blocks:
            return
        request = m.JobRequest(
            task=project.slug, job_id=job_id(f"pool-{pointer}", version, list(blocks)), shards=tuple(blocks), version=version
        )
        self._score_blocks(project, blocks, request, pointer)
        n_items = sum(len(block.numbers) for block in blocks.values())
        self._rank(project, request.job_id, version, pointer, n_items)

    def _score_head(self, project: Project, version: str, pointer: int) -> None:
        """Score the items that are likely next; a queue that does not answer has no head."""
        try:
            head = self._queue.head(project.id, self._settings.head_items)
        except UnreachableError as exc:
            logger.warning("%s: no head to score first: %s", project.slug, exc)
            return
        with self._database.read() as tx:
            found = list(items.items_by_id(tx, project.id, head).values())
        if not found:
            return
        request = m.PredictRequest(task=project.slug, items=messages_of(project, found), version=version)
        answer = self._cluster.inference().predict(request, deadline_s=HEAD_DEADLINE_S)
        drafts = _marked_head(project, found, answer) if project.kind_rules.shape else _plain_head(project, found, answer)
        with self._database.write() as tx:
            scores.save_head(tx, project.id, pointer, drafts)

    def _score_blocks(self, project: Project, blocks: Mapping[str, Block], request: m.JobRequest, pointer: int) -> None:
        lost: list[int] = []
        for page, chunk in read_results(self._cluster, request, False, lambda: self._why_stop(project, pointer), self._ended):
            block = blocks[chunk.shard]
            if chunk.proba is None or chunk.n_items != len(block.numbers):
                lost.append(block.id)
                continue
            with self._database.write() as tx:
                scores.save_answers(tx, block.id, chunk.version, pointer, answers_of(project, page.labels, chunk))
                scores.save_head(tx, project.id, pointer, marked_drafts(project, block.numbers.tolist(), page.labels, chunk))
        if lost:
            logger.warning(
                "%s: %d blocks have no features for version %s, embedding again", project.slug, len(lost), request.version
            )
            with self._database.write() as tx:
                scores.unbind_shards(tx, lost)
            raise UnreachableError(f"{len(lost)} blocks of {project.slug!r} must be embedded again")

    def _why_stop(self, project: Project, pointer: int) -> str:
        newest = self._latest[project.id].pointer
        return f"pointer {newest} came while {pointer} was scored" if newest > pointer else ""

    def _embed_unbound(self, project: Project) -> None:
        with self._database.read() as tx:
            unbound = [block for block in scores.list_blocks(tx, project.id) if not block.shard]
        for block in unbound:
            with self._database.read() as tx:
                wanted = scores.open_items_of(tx, [int(number) for number in block.numbers])
            if wanted:
                self._embedder.embed(project, wanted)
            with self._database.write() as tx:
                scores.drop_block(tx, block.id)

    # ------------------------------------------------------------ the order

    def _rank_cold(self, project: Project) -> None:
        """Order by typicality while no model serves: a job over the first items, whose features are cached by now."""
        with self._database.read() as tx:
            in_blocks = scores.n_in_blocks(tx, project.id)
            position = scores.read_scored(tx, project.id).position
            pool = [i for i in items.open_items_after(tx, project.id, -1, COLD_ITEMS) if i.position <= position]
        if not pool:
            return
        request = m.JobRequest(
            task=project.slug, job_id=job_id("cold", "", [item.item_id for item in pool]), items=messages_of(project, pool)
        )
        for _ in read_results(self._cluster, request, False, lambda: self._why_stop(project, 0), self._ended):
            pass
        self._rank(project, request.job_id, "", 0, in_blocks)

    def _rank(self, project: Project, job: str, version: str, pointer: int, n_items: int) -> None:
        with self._database.read() as tx:
            labelled = tuple(items.labelled_ids(tx, project.id))
        strategy, parameters = usable_strategy(project.strategy, project.strategy_parameters, version)
        request = m.RankRequest(
            task=project.slug,
            strategy=strategy,
            parameters=parameters,
            n=order.QUEUE_ITEMS if n_items > order.QUEUE_ITEMS else 0,
            job_id=job,
            exclude=labelled,
            seed=pointer,
        )
        ranked, problem = self._ask(request)
        self._save(project, ranked, version, pointer, n_items, problem)

    def _ask(self, request: m.RankRequest) -> tuple[m.RankReply, str]:
        """Return the order, and why 'auto' had to stand in for the strategy that was asked for ('' = it did not)."""
        inference = self._cluster.inference()
        try:
            return inference.rank(request, deadline_s=RANK_DEADLINE_S), ""
        except (InvalidInputError, DeadlineError) as exc:
            if request.strategy == "auto":
                raise
            logger.warning("%s: the order is by 'auto': %s", request.task, exc)
            instead = msgspec.structs.replace(request, strategy="auto", parameters={})
            return inference.rank(instead, deadline_s=RANK_DEADLINE_S), str(exc)

    def _save(self, project: Project, ranked: m.RankReply, version: str, pointer: int, n_items: int, problem: str) -> None:
        values: np.ndarray = matrix_of(ranked.scores)
        with self._database.write() as tx:
            rankings.save_ranking(
                tx, project.id, ranked.version, ranked.strategy, ranked.reason, ranked.item_ids, values, time.time()
            )
            scores.change_scored(tx, project.id, is_ordered=False, pointer=pointer, version=version)
            if project.kind_rules.shape is None:  # drafts of marks have no other place
                scores.drop_head_before(tx, project.id, pointer)
        order.rebuild(self._database, self._queue, project.id)
        with self._database.write() as tx:
            asked = {"strategy": project.strategy, "parameters": project.strategy_parameters, "problem": problem}
            before = scores.read_scored(tx, project.id).problem
            scores.change_scored(tx, project.id, is_ordered=True, ranked_items=n_items, **asked)
            if problem and problem != before:
                events.add_event(tx, project.id, "order", problem, None, time.time())
        logger.info("%s: %d items in order: %s", project.slug, len(ranked.item_ids), ranked.reason)


def _plain_head(project: Project, found: Sequence[StoredItem], answer: m.Predictions) -> list[tuple[int, NewDraft]]:
    """Return the drafts of single items in a project of labels; items that failed have none."""
    columns = columns_of(project, answer.labels)
    records = pack_answers(matrix_of(answer.proba), columns, project.is_multilabel, len(project.numbered))
    drafts = []
    for item, record in zip(found, records, strict=True):
        draft = unpack(record, project.numbered, project.is_multilabel)
        if draft is not None:
            drafts.append((item.number, NewDraft(Value(draft[0]), answer.version, draft[1])))
    return drafts


def _marked_head(project: Project, found: Sequence[StoredItem], answer: m.Predictions) -> list[tuple[int, NewDraft]]:
    """Return the drafts of single items in a project of marks; items that failed have none."""
    failed = {error.item_id for error in answer.failed}
    rows = zip(found, answer.regions, matrix_of(answer.proba), strict=True)
    return [(item.number, draft_of(project, one, row, answer.version)) for item, one, row in rows if item.item_id not in failed]
