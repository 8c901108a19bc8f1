"""What rules would do, at once: applied by the cluster to a sample of the items, as figures a rule and as examples.

Owns the sample (spread over the project, items that people labelled among them, the same from one keystroke to the next) and the
choice of examples. Must never apply a rule itself, nor write. Called by the rules endpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from labelloop import messages as m
from labelloop.errors import LabelloopError, NotFoundError, NotReadyError
from webapp.cluster_door import ClusterDoor
from webapp.db import rule_labels, tallies
from webapp.db.engine import Database, Tx
from webapp.db.items import LABELLED, UNSEEN, StoredItem, link_of
from webapp.db.projects import Project
from webapp.rules import wording

SAMPLE = 2000
_KNOWN = 1000  # of them labelled by people
_TRIES = 12
_EXAMPLES = 5
DEADLINE_S = 30.0


class Sample(msgspec.Struct, frozen=True):
    """Items to try rules on; `known` (n,) are people's labels by number, -1 = none."""

    items: tuple[StoredItem, ...]
    known: np.ndarray


class Tried(msgspec.Struct, frozen=True):
    """What the cluster said: `kept` are the places of the rules it applied, `errors` what is wrong with others."""

    kept: list[int]
    errors: dict[int, str]
    reply: m.RulesReply | None


def preview(database: Database, cluster: ClusterDoor | None, project: Project, rules: Sequence[dict[str, Any]], method: str) -> Any:
    """Return figures and examples of `rules` (as stored) on a sample. Raises what the cluster says of all of them together."""
    if cluster is None:
        raise NotReadyError("the app was started without a cluster: start `labelloop web` with --registry")
    with database.read() as tx:
        sample = take_sample(tx, project)
    tried = _try(cluster, project, sample, rules, method) if sample.items else Tried([], {}, None)
    return _Picture(project, sample, rules, tried).draw()


def take_sample(tx: Tx, project: Project) -> Sample:
    """Return up to `SAMPLE` items from all over the project, up to half of them labelled by people."""
    end = tallies.total(tx, project.id).items
    if end <= SAMPLE:
        found = rule_labels.items_after(tx, project.id, -1, SAMPLE)
    else:
        found = rule_labels.spread_items(tx, project, (LABELLED,), _KNOWN)
        found += rule_labels.spread_items(tx, project, UNSEEN, SAMPLE - len(found))
    texts = rule_labels.known_labels(tx, project, [item.number for item in found])
    place = project.label_set.numbers
    known = [place.get(texts.get(item.number, ""), -1) for item in found]
    return Sample(tuple(found), np.array(known, np.int16))


def _try(cluster: ClusterDoor, project: Project, sample: Sample, rules: Sequence[dict[str, Any]], method: str) -> Tried:
    """Apply the rules without those that the cluster refuses by name, so that one half-written rule hides no other."""
    errors: dict[int, str] = {}
    sent: list[int] = []
    ready: dict[int, dict[str, Any]] = {}
    for at, rule in enumerate(rules):
        if wording.is_enabled(rule):
            try:
                ready[at] = wording.to_cluster(project, rule)
                sent.append(at)
            except LabelloopError as exc:
                errors[at] = str(exc)
    for _ in range(_TRIES):
        if not sent:
            return Tried([], errors, None)
        try:
            return Tried(sent, errors, _ask(cluster, project, sample, [ready[at] for at in sent], method))
        except LabelloopError as exc:
            bad = wording.rule_at_fault(str(exc), [ready[at] for at in sent])
            if bad is None:
                raise
            errors[sent[bad]] = wording.without_name(str(exc), ready[sent[bad]])
            del sent[bad]
    return Tried([], errors, None)


def _ask(cluster: ClusterDoor, project: Project, sample: Sample, rules: list[dict[str, Any]], method: str) -> m.RulesReply:
    given = tuple(m.Item(item_id=i.item_id, link=link_of(project.category, i.link, i.content)) for i in sample.items)
    known = tuple(sample.known.tolist()) if (sample.known >= 0).any() else ()
    request = m.RulesRequest(task=project.slug, rules=msgspec.json.encode(rules), items=given, known=known, method=method)
    try:
        return cluster.inference().apply_rules(request, deadline_s=DEADLINE_S)
    except NotFoundError as exc:
        raise NotReadyError("the cluster does not know this project yet: the pilot tells it within seconds") from exc


class _Picture:
    """One answer being put together: figures of each rule, and numbers of the sample's items as examples."""

    def __init__(self, project: Project, sample: Sample, rules: Sequence[dict[str, Any]], tried: Tried) -> None:
        self._project, self._sample, self._rules, self._tried = project, sample, rules, tried
        n = len(sample.items)
        self._votes = read_array(tried.reply.votes) if tried.reply else np.full((n, 0), -1, np.int16)
        self._used: dict[int, None] = {}

    def draw(self) -> dict[str, Any]:
        reply, sample = self._tried.reply, self._sample
        uncovered = np.flatnonzero((self._votes < 0).all(axis=1)) if reply else np.zeros(0, np.int64)
        shown: dict[str, Any] = {
            "rules": [self._rule(at, rule) for at, rule in enumerate(self._rules)],
            "uncovered": self._some(uncovered),
            "n_items": len(sample.items),
            "n_known": int((sample.known >= 0).sum()),
            "coverage": reply.coverage if reply else 0.0,
            "overlap": reply.overlap if reply else 0.0,
            "conflict": reply.conflict if reply else 0.0,
            "method": reply.method if reply else "none",
            "reason": reply.reason if reply else "",
            "failed": len(reply.failed) if reply else 0,
            "failed_reason": reply.failed[0].reason if reply and reply.failed else "",
        }
        labels = self._project.numbered
        shown["items"] = {
            str(i): {"item": sample.items[i], "known": labels[sample.known[i]] if sample.known[i] >= 0 else ""} for i in self._used
        }
        return shown

    def _rule(self, at: int, rule: dict[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = {"name": str(rule.get("name", "")), "error": self._tried.errors.get(at, ""), "view": None}
        if at not in self._tried.kept or self._tried.reply is None:
            return out | {"hits": [], "fights": []}
        column = self._tried.kept.index(at)
        said = self._votes[:, column]
        hits = [{"item": i, "label": self._project.label_of(said[i])} for i in self._some(np.flatnonzero(said >= 0))]
        return out | {"view": self._tried.reply.rules[column], "hits": hits, "fights": self._fights(column)}

    def _fights(self, column: int) -> list[dict[str, Any]]:
        """Return the rules that say something else of the same items, those that do it most first."""
        said, others = self._votes[:, column : column + 1], self._votes
        differs = (said >= 0) & (others >= 0) & (said != others)
        counts = differs.sum(axis=0)
        order = [int(j) for j in np.argsort(-counts, kind="stable")[:3] if counts[j]]
        labels = self._project.numbered
        return [
            {
                "with": str(self._rules[self._tried.kept[j]].get("name", "")),
                "n": int(counts[j]),
                "items": [
                    {"item": i, "label": labels[self._votes[i, column]], "other": labels[self._votes[i, j]]}
                    for i in self._some(np.flatnonzero(differs[:, j]), 2)
                ],
            }
            for j in order
        ]

    def _some(self, rows: np.ndarray, n: int = _EXAMPLES) -> list[int]:
        """Return some of the rows, spread, and remember to show them."""
        chosen = [int(i) for i in rows[np.linspace(0, len(rows) - 1, min(n, len(rows))).astype(int)]] if len(rows) else []
        self._used.update(dict.fromkeys(chosen))
        return chosen


def read_array(array: m.Array) -> np.ndarray:
    """Return an array of a message."""
    return np.frombuffer(array.data, array.dtype).reshape(array.shape)
