"""A job's results as drafts: pages through what the cluster has answered, chunk by chunk.

Owns the way from probabilities to records. Called by `webapp.pilot.embed` and `webapp.pilot.ordering`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from labelloop import messages as m
from labelloop.errors import CancelledError, InvalidInputError
from webapp.cluster_door import ClusterDoor
from webapp.db.drafts import empty_answers, pack_answers
from webapp.db.items import NewDraft
from webapp.db.projects import Project
from webapp.pilot.regions import drafts_of

PAGE_CHUNKS = 64
DEADLINE_S = 30.0


def read_results(
    cluster: ClusterDoor, request: m.JobRequest, with_ids: bool, why_stop: Callable[[], str], ended: threading.Event
) -> Iterator[tuple[m.ResultsReply, m.ChunkResult]]:
    """Send a job and yield its chunks as they come, in order. Raises CancelledError with the reason when `why_stop` gives one."""
    cluster.inference().predict_async(request, deadline_s=DEADLINE_S)
    after = -1
    while True:
        if reason := "the pilot ends" if ended.is_set() else why_stop():
            raise CancelledError(reason)
        asked = m.ResultsRequest(task=request.task, job_id=request.job_id, after=after, limit=PAGE_CHUNKS, with_ids=with_ids)
        page = cluster.inference().results(asked, deadline_s=DEADLINE_S)
        for chunk in page.chunks:
            after = chunk.chunk
            yield page, chunk
        if page.is_complete:
            return
        if not page.chunks:
            ended.wait(0.02)


def answers_of(project: Project, labels: Sequence[str], chunk: m.ChunkResult) -> np.ndarray:
    """Return one record a row of a chunk; rows of failed items, and all of an embed-only chunk, say "no answer", and so do those of
    marks, whose drafts have rows of their own (`marked_drafts`)."""
    if chunk.proba is None or project.kind_rules.shape:
        return empty_answers(chunk.n_items, project.is_multilabel, len(project.numbered))
    return pack_answers(matrix_of(chunk.proba), columns_of(project, labels), project.is_multilabel, len(project.numbered))


def marked_drafts(
    project: Project, numbers: Sequence[int], labels: Sequence[str], chunk: m.ChunkResult
) -> list[tuple[int, NewDraft]]:
    """Return the drafts of a chunk's items, by number, in a project of marks; none where no model answered."""
    if project.kind_rules.shape is None or chunk.proba is None or len(chunk.regions) != len(numbers):
        return []
    columns_of(project, labels)
    return drafts_of(project, numbers, chunk.regions, matrix_of(chunk.proba), chunk.version)


def matrix_of(array: m.Array) -> np.ndarray:
    """Return an array message as (n, k) numpy."""
    return np.frombuffer(array.data, np.dtype(array.dtype)).reshape(array.shape)


def columns_of(project: Project, labels: Sequence[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the project's number of each of the version's labels, of merged ones that of today.

    Raises InvalidInputError for one the project never had.
    """
    try:
        return np.array([project.label_set.numbers[label] for label in labels], np.int64)
    except KeyError as exc:
        raise InvalidInputError(f"a version of {project.slug!r} answers with labels the project does not have: {exc}") from exc
