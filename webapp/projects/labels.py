"""Labels of a project as its owner changes them: rename, merge, take back; what is written in the background.

Owns the order of things: names change at once and for everybody, what was said under earlier names is read as what it means today
from that moment, and the pilot writes it anew item by item, for the cluster and for exports. See
docs/decisions/0014-labels-keep-their-numbers.md. Called by the API and the pages.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from labelloop.errors import ConflictError, InvalidInputError
from webapp.db import bulk, events, imports, live, project_jobs, projects, rule_sets, tallies
from webapp.db.engine import Database, Tx
from webapp.db.project_jobs import ProjectJob
from webapp.db.projects import Project
from webapp.db.users import User
from webapp.kinds.catalogue import kind_of
from webapp.kinds.label_set import LabelSet
from webapp.projects.status import find_trouble

KINDS = ("rename", "merge")


def rename(database: Database, project: Project, user: User, label: str, name: str) -> ProjectJob:
    """Call a label something else. Raises InvalidInputError, ConflictError."""
    check_name(name)
    with database.write() as tx:
        now_project = _fresh(tx, project)
        _check_idle(tx, project)
        new = now_project.label_set.rename(label, name)
        said = f"{user.name} renamed label {label!r} to {name!r}"
        return _change(tx, now_project, user, new, "rename", {"gone": [label], "into": name}, said)


def merge(database: Database, project: Project, user: User, labels: Sequence[str], into: str) -> ProjectJob:
    """Let labels be one from now on. Raises InvalidInputError, ConflictError."""
    with database.write() as tx:
        now_project = _fresh(tx, project)
        _check_idle(tx, project)
        new = now_project.label_set.merge(labels, into, kind_of(project.kind).least_labels)
        gone = [label for label in dict.fromkeys(labels) if label != into]
        said = f"{user.name} merged {', '.join(map(repr, gone))} into {into!r}"
        return _change(tx, now_project, user, new, "merge", {"gone": gone, "into": into}, said)


def take_back(database: Database, project: Project, user: User) -> ProjectJob:
    """Undo the last rename or merge that stands. Raises ConflictError when there is none."""
    with database.write() as tx:
        now_project = _fresh(tx, project)
        last = _last_standing(tx, project.id)
        if last is None:
            raise ConflictError("no label was renamed or merged here: there is nothing to undo")
        if last.state in project_jobs.LIVE:
            project_jobs.mark(tx, last.id, "cancelled", f"undone by {user.name}", time.time())
        gone, into = list(last.detail["gone"]), str(last.detail["into"])
        if into not in now_project.labels or set(gone) & set(now_project.labels):
            raise ConflictError(f"label {into!r} has changed since in another way: rename or merge by hand")
        new = now_project.label_set.take_back(gone, into, last.kind == "rename", last.detail["before"])
        detail = {"undoes": last.id, "of": last.kind, "gone": gone, "into": into}
        said = f"{user.name} took back: {', '.join(map(repr, gone))} and {into!r} are as before"
        return _change(tx, now_project, user, new, "undo", detail, said)


def check_name(label: str) -> None:
    """Raise InvalidInputError for what is no name of a label."""
    if not 1 <= len(label) <= 100 or label != label.strip() or any(ord(c) < 32 for c in label):
        raise InvalidInputError(f"label {label[:110]!r}: use 1 to 100 characters without spaces at the ends")


def _fresh(tx: Tx, project: Project) -> Project:
    """Return the project locked as it is now. Raises ConflictError while something works with its names of before."""
    projects.lock_project(tx, project.id)
    if any(job.state in ("waiting", "running") for job in imports.list_jobs(tx, project.id)):
        raise ConflictError("an import is running: wait for its end, then change the labels")
    if bulk.live_job(tx, project.id) is not None:
        raise ConflictError("drafts are being accepted in bulk: wait for the end, or cancel it, then change the labels")
    if any(job.kind == "copy" and job.detail["source"] == project.id for job in project_jobs.live_jobs(tx)):
        raise ConflictError("the project is being copied: wait for the end, then change the labels")
    if rule_sets.live_job(tx, project.id) is not None:
        raise ConflictError("rules are being applied: wait for the end, or cancel it, then change the labels")
    return projects.find_project(tx, project.slug)


def _check_idle(tx: Tx, project: Project) -> None:
    """Raise ConflictError while an earlier change is being written: each must know its own items, to be undone."""
    if any(job.state in project_jobs.LIVE for job in project_jobs.list_jobs(tx, project.id)):
        raise ConflictError("the labels are still being written anew in the background: wait for the end, or undo that first")


def _change(tx: Tx, project: Project, user: User, new: LabelSet, kind: str, detail: dict[str, Any], said: str) -> ProjectJob:
    now = time.time()
    projects.change_project(tx, project.id, {"labels": new.labels, "places": new.places}, is_spec_change=True)
    _rename_in_rules(tx, project.id, new, now)
    events.add_event(tx, project.id, "labels", said, user.id, now, {"kind": kind, **detail})
    count = tallies.total(tx, project.id).labels + tallies.ruled(tx, project.id)
    return project_jobs.add_job(tx, project.id, user.id, kind, {**detail, "before": project.labels}, count, now)


def _rename_in_rules(tx: Tx, project_id: int, labels: LabelSet, now: float) -> None:
    """Let the stored rules speak of the labels by the names of today."""
    stored = rule_sets.read_rules(tx, project_id)
    rules = tuple(_rule_now(rule, labels) for rule in stored.rules)
    if rules != stored.rules:
        rule_sets.save_rules(tx, project_id, msgspec.structs.replace(stored, rules=rules, updated_at=now))


def _rule_now(rule: dict[str, Any], labels: LabelSet) -> dict[str, Any]:
    out = dict(rule)
    if isinstance(out.get("label"), str):
        out["label"] = labels.name_now(out["label"])
    if isinstance(out.get("entries"), dict):
        out["entries"] = {k: labels.name_now(v) if isinstance(v, str) else v for k, v in out["entries"].items()}
    if isinstance(out.get("labels"), list):
        out["labels"] = [labels.name_now(v) if isinstance(v, str) else v for v in out["labels"]]
    return out


def _last_standing(tx: Tx, project_id: int) -> ProjectJob | None:
    """Return the newest change of labels that was not undone."""
    jobs = [job for job in project_jobs.list_jobs(tx, project_id, 200) if job.kind in (*KINDS, "undo")]
    undone = {job.detail["undoes"] for job in jobs if job.kind == "undo"}
    return next((job for job in jobs if job.kind in KINDS and job.id not in undone), None)


def state(database: Database, project: Project) -> dict[str, Any]:
    """Return the labels with their earlier names, what may be undone, and how far the work in the background is."""
    with database.read() as tx:
        last = _last_standing(tx, project.id)
        jobs = [job for job in project_jobs.list_jobs(tx, project.id, 20) if job.kind in (*KINDS, "undo")]
        trouble = find_trouble(live.read_pilot(tx), time.time())
    labels = project.label_set
    earlier = {name: [old for old in sorted(labels.left) if labels.name_now(old) == name] for name in project.labels}
    is_live = bool(jobs) and jobs[0].state in project_jobs.LIVE
    return {
        "labels": [{"name": name, "earlier": earlier[name]} for name in project.labels],
        "undo": {"kind": last.kind, "gone": last.detail["gone"], "into": last.detail["into"]} if last else None,
        "job": job_reply(jobs[0]) if jobs else None,
        "trouble": trouble if is_live else "",
    }


def job_reply(job: ProjectJob) -> dict[str, Any]:
    """Return a job as JSON shows it."""
    names = ("id", "kind", "state", "done", "total", "changed", "reason", "created_at", "updated_at")
    return {name: getattr(job, name) for name in names} | {"share": round(job.share, 4)}
