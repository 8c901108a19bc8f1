"""A whole cluster in memory that keeps the contract of train_rpc, inference_rpc and the registry, for tests of the pilot.

Its model is the simplest there is: the share of each label among the labels it was trained on, moved by the item's text. It can be
taken down, lose what it took in, refuse, and publish.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable

import numpy as np

from labelloop import messages as m
from labelloop.errors import ConflictError, InvalidInputError, LabelloopError, NotFoundError, NotReadyError, UnreachableError
from learning.weak import Items, apply_rules, read_rules
from roles.inference.weighing import read_numbers, weigh
from roles.train.validation import rejection, why_reject


class SmallCluster:
    """Registry, train master and inference node in one. `is_down` makes every call fail as unreachable."""

    def __init__(self) -> None:
        self.is_down = False
        self.master = "10.0.0.1:7001"
        self.tasks: dict[str, m.TaskSpec] = {}
        self.batches: dict[tuple[str, str], m.SubmitRequest] = {}
        self.submits: list[str] = []
        self.log: dict[tuple[str, str, int], m.Sample] = {}
        self.is_processing = True
        self.rejected: set[tuple[str, str, int]] = set()
        self.refused: dict[str, str] = {}
        self.versions: dict[str, list[m.VersionView]] = {}
        self.pointers: dict[str, int] = {}
        self.jobs: dict[tuple[str, str], m.JobRequest] = {}
        self.job_versions: dict[tuple[str, str], str] = {}
        self.shards: dict[tuple[str, str], tuple[str, ...]] = {}
        self.unreadable: set[str] = set()
        self.rank_requests: list[m.RankRequest] = []
        self.refused_strategies: dict[str, LabelloopError] = {}
        self.closed = False
        self.rule_calls: list[m.RulesRequest] = []
        self.weighed: list[m.VotesRequest] = []
        self.runs: dict[str, list[m.RunView]] = {}
        self.node_views: tuple[m.NodeView, ...] = ()
        self.on_rules: Callable[[m.RulesRequest], None] | None = None

    # ------------------------------------------------------------ the door

    def registry(self) -> SmallCluster:
        return self._up()

    def train(self) -> SmallCluster:
        return self._up()

    def inference(self) -> SmallCluster:
        return self._up()

    def topology(self) -> m.Topology:
        self._up()
        return m.Topology(epoch=1, train_rpc=self.master, inference_rpc=("10.0.0.2:7002",))

    def nodes(self, request: m.Empty = m.Empty(), deadline_s: float | None = None) -> m.NodesReply:
        return m.NodesReply(nodes=self.node_views, epoch=1, cluster_id="c1")

    def actions(self, request: m.Empty = m.Empty(), deadline_s: float | None = None) -> m.ActionsReply:
        return m.ActionsReply(actions=(m.Action(at="2026-01-02T03:04:05Z", what="form", reason="2 nodes asked for"),))

    def run_log(self, request: m.RunLogRequest, deadline_s: float | None = None) -> m.RunLogReply:
        self._known(request.task)
        return m.RunLogReply(text=f"epoch 1 of run {request.run}\n", attempt=1)

    def close(self) -> None:
        self.closed = True

    def _up(self) -> SmallCluster:
        if self.is_down:
            raise UnreachableError("the cluster is down")
        return self

    def _known(self, task: str) -> m.TaskSpec:
        if task not in self.tasks:
            raise NotFoundError(f"task {task!r} was never opened")
        return self.tasks[task]

    def open_task(self, request: m.OpenTaskRequest, deadline_s: float | None = None) -> m.OpenTaskReply:
        known = self.tasks.get(request.spec.task)
        if known is not None and known.revision > request.spec.revision:
            raise ConflictError(f"task {request.spec.task!r} has revision {known.revision}")
        self.tasks[request.spec.task] = request.spec
        return m.OpenTaskReply(task=request.spec.task, revision=request.spec.revision)

    # ------------------------------------------------------------ train

    def submit(self, request: m.SubmitRequest, deadline_s: float | None = None) -> m.SubmitReply:
        self._known(request.task)
        known = self.batches.get((request.task, request.batch_id))
        if known is not None and known != request:
            raise ConflictError(f"batch {request.batch_id!r} was used with other content")
        self.batches[request.task, request.batch_id] = request
        self.submits.append(request.batch_id)
        spec = self.tasks[request.task]
        bad = [(one, why_reject(one, spec, frozenset(spec.extra.labels))) for one in request.samples]
        rejected = tuple(rejection(one, reason) for one, reason in bad if reason is not None)
        self.rejected.update((request.task, error.item_id, error.revision) for error in rejected)
        if self.is_processing:
            self.process()
        return m.SubmitReply(batch_id=request.batch_id, accepted=len(request.samples) - len(rejected), rejected=rejected)

    def process(self) -> None:
        """Let the data worker write everything into the label log."""
        for (task, _), batch in self.batches.items():
            for sample in batch.samples:
                if sample.item_id not in self.refused and (task, sample.item_id, sample.revision) not in self.rejected:
                    self.log[task, sample.item_id, sample.revision] = sample

    def forget(self) -> None:
        """Lose every batch that is not in the log: a new master with an empty intake."""
        self.batches.clear()
        self.master = "10.0.0.9:7001"

    def merged(self, task: str) -> dict[str, m.Sample]:
        """Return the newest revision of each item that is labelled."""
        newest: dict[str, m.Sample] = {}
        for (of, item_id, revision), sample in self.log.items():
            if of == task and (item_id not in newest or newest[item_id].revision < revision):
                newest[item_id] = sample
        return {item_id: sample for item_id, sample in newest.items() if not sample.is_deleted}

    def _state(self, task: str, key: m.ItemKey) -> m.ItemState:
        name, revision = key.item_id, key.revision
        taken = any(
            s.item_id == name and s.revision == revision for (t, _), b in self.batches.items() if t == task for s in b.samples
        )
        if (task, name, revision) in self.log:
            return m.ItemState(item_id=name, revision=revision, state="done")
        if name in self.refused and taken:
            return m.ItemState(item_id=name, revision=revision, state="failed", reason=self.refused[name])
        return m.ItemState(item_id=name, revision=revision, state="waiting" if taken else "unknown")

    def progress(self, request: m.ProgressRequest, deadline_s: float | None = None) -> m.ProgressReply:
        self._known(request.task)
        labels = len(self.merged(request.task))
        return m.ProgressReply(
            task=request.task,
            states=tuple(self._state(request.task, key) for key in request.items),
            labels=labels,
            labels_to_next=10,
            next_training="next training in 10 labels",
            serving=self.serving(request.task),
            pointer=self.pointers.get(request.task, 0),
            run=next((run for run in self.runs.get(request.task, []) if run.state in ("queued", "running")), None),
        )

    def models(self, request: m.TaskRequest, deadline_s: float | None = None) -> m.ModelsReply:
        return m.ModelsReply(
            task=request.task,
            versions=tuple(reversed(self.versions.get(request.task, []))),
            runs=tuple(reversed(self.runs.get(request.task, []))),
        )

    def publish(self, task: str, accuracy: float = 0.9) -> str:
        """Train and serve a new version."""
        known = self.versions.setdefault(task, [])
        version = f"model-{len(known) + 1}"
        known[:] = [m.VersionView(**{**_as_dict(view), "is_serving": False}) for view in known]
        known.append(
            m.VersionView(
                version=version,
                run=len(known) + 1,
                algorithm="shares",
                encoder="none",
                labels=len(self.merged(task)),
                metrics={"accuracy": accuracy},
                is_serving=True,
                was_served=True,
            )
        )
        self.pointers[task] = self.pointers.get(task, 0) + 1
        return version

    def serving(self, task: str) -> str:
        """Return the serving version, '' = none."""
        return next((view.version for view in self.versions.get(task, []) if view.is_serving), "")

    def cancel(self, request: m.CancelRequest, deadline_s: float | None = None) -> m.RunView:
        return m.RunView(run=request.run, attempt=1, state="cancelled", algorithm="", encoder="", labels=0, reason=request.reason)

    def promote(self, request: m.PromoteRequest, deadline_s: float | None = None) -> m.PointerReply:
        self.pointers[request.task] += 1
        self.versions[request.task] = [
            m.VersionView(**{**_as_dict(view), "is_serving": view.version == request.version})
            for view in self.versions[request.task]
        ]
        return m.PointerReply(version=request.version, pointer=self.pointers[request.task], reason=request.reason)

    def rollback(self, request: m.TaskRequest, deadline_s: float | None = None) -> m.PointerReply:
        return self.promote(
            m.PromoteRequest(task=request.task, version=self.versions[request.task][-2].version, reason="rolled back")
        )

    # ------------------------------------------------------------ inference

    def proba(self, task: str, version: str, ids: tuple[str, ...]) -> np.ndarray:
        """Return (n, n_labels) float32 that depends on item and version only."""
        n = len(self._known(task).extra.labels)
        out = np.zeros((len(ids), n), np.float32)
        for row, item_id in enumerate(ids):
            digest = hashlib.blake2b(f"{version}/{item_id}".encode(), digest_size=16).digest()
            raw = np.frombuffer(digest, np.uint8)[:n].astype(np.float32) + 1
            out[row] = raw / raw.sum()
        return out

    def regions(self, task: str, version: str, ids: tuple[str, ...]) -> tuple[tuple[m.Region, ...], ...]:
        """Return what is found in each item of a task of boxes or spans: one region of its likeliest label, placed by the version's
        number; nothing in items called empty-..."""
        spec = self._known(task)
        if spec.extra.kind != "regions":
            return ()
        place = int(version.partition("-")[2]) / 64
        where = (0.25, place, 0.5, 0.25) if spec.category == "object-detection" else (0, 64 * place)
        proba = self.proba(task, version, ids)
        best = [(spec.extra.labels[int(row.argmax())], float(row.max())) for row in proba]
        return tuple(
            () if one.startswith(("empty-", *self.unreadable)) else (m.Region(label, where, sure),)
            for one, (label, sure) in zip(ids, best, strict=True)
        )

    def predict(self, request: m.PredictRequest, deadline_s: float | None = None) -> m.Predictions:
        version = request.version or self.serving(request.task)
        ids = tuple(item.item_id for item in request.items)
        proba = self.proba(request.task, version, ids)
        failed = tuple(m.ItemError(item_id=i, code="unreadable_item", reason="broken") for i in ids if i in self.unreadable)
        for row, item_id in enumerate(ids):
            if item_id in self.unreadable:
                proba[row] = 0
        labels = self._known(request.task).extra.labels
        found = self.regions(request.task, version, ids)
        return m.Predictions(version=version, labels=labels, item_ids=ids, proba=_array(proba), failed=failed, regions=found)

    def predict_async(self, request: m.JobRequest, deadline_s: float | None = None) -> m.JobReply:
        self._known(request.task)
        if request.items and request.shards:
            raise InvalidInputError("items and shards: send two jobs")
        key = (request.task, request.job_id)
        if key not in self.jobs:
            self.jobs[key] = request
            self.job_versions[key] = request.version or self.serving(request.task)
        chunks = len(request.shards) or -(-len(request.items) // 4)
        return m.JobReply(
            task=request.task, job_id=request.job_id, version=self.job_versions[key], chunks=chunks, done=chunks, state="done"
        )

    def job(self, request: m.JobKey, deadline_s: float | None = None) -> m.JobReply:
        return self.predict_async(self.jobs[request.task, request.job_id])

    def results(self, request: m.ResultsRequest, deadline_s: float | None = None) -> m.ResultsReply:
        key = (request.task, request.job_id)
        job, version = self.jobs[key], self.job_versions[key]
        parts = job.shards or tuple(range(0, len(job.items), 4))
        wanted = range(request.after + 1, min(len(parts), request.after + 1 + request.limit))
        chunks = tuple(self._chunk(job, version, at, request.with_ids) for at in wanted)
        labels = self._known(request.task).extra.labels if version else ()
        return m.ResultsReply(
            task=request.task,
            job_id=request.job_id,
            version=version,
            labels=labels,
            chunks=chunks,
            is_complete=request.after + 1 + len(chunks) >= len(parts),
        )

    def _chunk(self, job: m.JobRequest, version: str, at: int, with_ids: bool) -> m.ChunkResult:
        failed: tuple[m.ItemError, ...] = ()
        if job.shards:
            shard = job.shards[at]
            if (job.task, shard) not in self.shards:
                error = m.ItemError(item_id="", code="not_found", reason=f"no shard {shard}")
                return m.ChunkResult(chunk=at, shard=shard, version=version, item_ids=(), n_items=0, failed=(error,))
            ids = self.shards[job.task, shard]
        else:
            asked = tuple(item.item_id for item in job.items[4 * at : 4 * at + 4])
            ids = tuple(i for i in asked if i not in self.unreadable)
            failed = tuple(m.ItemError(item_id=i, code="unreadable_item", reason="broken") for i in asked if i in self.unreadable)
            shard = "s-" + hashlib.blake2b("/".join(ids).encode(), digest_size=6).hexdigest()
            self.shards[job.task, shard] = ids
        proba = _array(self.proba(job.task, version, ids)) if version else None
        named = ids if with_ids or not job.shards else ()
        found = self.regions(job.task, version, ids) if version else ()
        return m.ChunkResult(
            chunk=at, shard=shard, version=version, item_ids=named, n_items=len(ids), proba=proba, failed=failed, regions=found
        )

    def rank(self, request: m.RankRequest, deadline_s: float | None = None) -> m.RankReply:
        self.rank_requests.append(request)
        if request.strategy in self.refused_strategies:
            raise self.refused_strategies[request.strategy]
        job, version = self.jobs[request.task, request.job_id], self.job_versions[request.task, request.job_id]
        ids = [i for shard in job.shards for i in self.shards[request.task, shard]] or [item.item_id for item in job.items]
        ids = [i for i in ids if i not in set(request.exclude) and i not in self.unreadable]
        scores = 1 - self.proba(request.task, version, tuple(ids)).max(axis=1) if ids else np.zeros(0, np.float32)
        best = np.argsort(-scores, kind="stable")[: request.n or None]
        strategy = "margin" if version else "typiclust"
        return m.RankReply(
            strategy=strategy,
            version=version,
            item_ids=tuple(ids[i] for i in best),
            scores=_array(scores[best].astype(np.float32)),
            reason=f"{strategy} of {len(ids)}",
        )

    # ------------------------------------------------------------ rules

    def apply_rules(self, request: m.RulesRequest, deadline_s: float | None = None) -> m.RulesReply:
        self._up()
        self.rule_calls.append(request)
        if self.on_rules is not None:
            self.on_rules(request)
        labels = self._known(request.task).extra.labels
        rules = read_rules(request.rules, len(labels))
        asking = next((rule for rule in rules if type(rule).__name__ == "ModelOpinion"), None)
        if asking is not None and not self.serving(request.task):
            raise NotReadyError(f"rule {asking.name!r} asks the serving model, and no version of {request.task!r} serves yet")
        ids = tuple(item.item_id for item in request.items)
        models = {"serving": self.proba(request.task, self.serving(request.task), ids)} if asking is not None else None
        votes = apply_rules(rules, Items(_columns(request.items), models=models), len(labels))
        bad = [at for at, item_id in enumerate(ids) if item_id in self.unreadable]
        votes[bad] = -1
        failed = tuple(m.ItemError(item_id=ids[at], code="unreadable_item", reason="broken") for at in bad)
        known = np.array(request.known, np.int64) if request.known else None
        return weigh(self._known(request.task), tuple(rule.name for rule in rules), votes, known, request.method, failed)

    def weigh_votes(self, request: m.VotesRequest, deadline_s: float | None = None) -> m.RulesReply:
        self._up()
        self.weighed.append(request)
        votes = read_numbers("votes", request.votes, (-1, len(request.names)))
        known = None if request.known is None else read_numbers("known", request.known, (len(votes),))
        return weigh(self._known(request.task), request.names, votes, known, request.method)


def _columns(items: tuple[m.Item, ...]) -> dict[str, list[object]]:
    """Return the columns behind data: links: `text`, or those of table rows."""
    bodies = [base64.b64decode(item.link.partition("base64,")[2]).decode() for item in items]
    if not items[0].link.startswith("data:application/json"):
        return {"text": list(bodies)}
    rows = [json.loads(body) for body in bodies]
    return {name: [row.get(name) for row in rows] for name in sorted({name for row in rows for name in row})}


def _array(values: np.ndarray) -> m.Array:
    return m.Array(dtype=str(values.dtype), shape=values.shape, data=np.ascontiguousarray(values).tobytes())


def _as_dict(view: m.VersionView) -> dict[str, object]:
    return {name: getattr(view, name) for name in view.__struct_fields__}
