"""Rules as their pages ask for them: read, save, apply, withdraw, and how right their labels were.

Owns what an owner may do with rules. Must never wait for the cluster (`preview` alone does). Called by the rules endpoints.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from labelloop.errors import ConflictError, InvalidInputError
from webapp.db import events, live, rule_labels, rule_sets, tallies
from webapp.db.engine import Database, Tx
from webapp.db.projects import Project
from webapp.db.rule_sets import RuleJob, RuleSet
from webapp.db.users import User
from webapp.projects.status import find_trouble
from webapp.rules import wording

LEAST, MOST = 0.0, 1.0
COLUMN_ROWS = 20


def why_not(project: Project) -> str:
    """Return why rules cannot label the items of a project, '' = they can."""
    if project.is_multilabel:
        return "an item of this project takes several labels, and rules give one"
    is_theirs = project.is_learned and project.kind_rules.is_single
    return "" if is_theirs else "rules give one label to a whole item, and projects of this kind are labelled in another way"


def read(database: Database, project: Project) -> RuleSet:
    """Return the project's rules."""
    with database.read() as tx:
        return rule_sets.read_rules(tx, project.id)


def names_applied(database: Database, project: Project) -> tuple[str, ...]:
    """Return the names of the rules that were applied last."""
    with database.read() as tx:
        job = rule_sets.last_job(tx, project.id, "apply")
    return wording.names_of(job.rules) if job else ()


def columns_of(database: Database, project: Project) -> list[str]:
    """Return what rules may read of the items: the text of texts, the columns of the first rows; nothing of pictures."""
    if project.category != "tables":
        return ["text"] if project.category == "text-classification" else []
    with database.read() as tx:
        rows = rule_labels.items_after(tx, project.id, -1, COLUMN_ROWS)
    return list(
        dict.fromkeys(name for row in rows if row.content for name in msgspec.json.decode(row.content, type=dict[str, Any]))
    )


def save(database: Database, project: Project, user: User, given: Mapping[str, Any]) -> RuleSet:
    """Replace the rules that the writer saw. Raises InvalidInputError, ConflictError."""
    least, method = given["least_confidence"], given["method"]
    if not LEAST <= least <= MOST:
        raise InvalidInputError(f"least_confidence {least!r}: use a share from 0 to 1")
    if method not in wording.METHODS:
        raise InvalidInputError(f"method {method!r}: use one of {', '.join(wording.METHODS)}")
    new = RuleSet(given["revision"], wording.check_stored(given["rules"]), least, method, time.time())
    with database.write() as tx:
        return rule_sets.save_rules(tx, project.id, new)


def apply(database: Database, project: Project, user: User) -> RuleJob:
    """Queue the application of the saved rules to all items. Raises ConflictError, InvalidInputError."""
    problem = why_not(project)
    if problem:
        raise ConflictError(problem)
    with database.write() as tx:
        rules = rule_sets.read_rules(tx, project.id)
        if not wording.names_of(rules.rules):
            raise InvalidInputError("there is no rule to apply: write one, or switch one on")
        wording.encode_rules(project, rules.rules)
        total = 2 * tallies.total(tx, project.id).items
        events.add_event(
            tx, project.id, "rules", f"{user.name} applies {len(rules.rules)} rules to all items", user.id, time.time()
        )
        return rule_sets.add_job(tx, project.id, user.id, "apply", rules, total, time.time())


def withdraw(database: Database, project: Project, user: User) -> RuleJob:
    """Queue the withdrawal of every label that only rules gave. Raises ConflictError."""
    with database.write() as tx:
        rules = rule_sets.read_rules(tx, project.id)
        total = tallies.ruled(tx, project.id)
        events.add_event(tx, project.id, "rules", f"{user.name} withdraws all labels of rules", user.id, time.time())
        return rule_sets.add_job(tx, project.id, user.id, "withdraw", rules, total, time.time())


def cancel(database: Database, project: Project, user: User, job_id: int) -> RuleJob:
    """End the job that waits or runs; what it has written stays. Raises NotFoundError, ConflictError."""
    with database.write() as tx:
        return rule_sets.cancel_job(tx, project.id, job_id, f"cancelled by {user.name}", time.time())


def state(database: Database, project: Project) -> dict[str, Any]:
    """Return how far the rules are: the newest job, how many labels are theirs, how often people corrected them."""
    with database.read() as tx:
        job = rule_sets.last_job(tx, project.id)
        trouble = find_trouble(live.read_pilot(tx), time.time())
        return {
            "job": job_reply(job) if job else None,
            "rule_labels": tallies.ruled(tx, project.id),
            "labels": tallies.total(tx, project.id).labels,
            "trouble": trouble if job is not None and job.state in rule_sets.LIVE else "",
            "measured": measure(tx, project),
        }


def job_reply(job: RuleJob) -> dict[str, Any]:
    """Return a job as JSON shows it."""
    names = (
        "id",
        "kind",
        "state",
        "phase",
        "labelled",
        "kept",
        "withdrawn",
        "unsure",
        "failed",
        "reason",
        "created_at",
        "updated_at",
    )
    share = 1.0 if job.state == "done" else min(job.done / job.total, 1.0) if job.total else 0.0
    return {name: getattr(job, name) for name in names} | {"share": round(share, 4), "views": job.views}


def measure(tx: Tx, project: Project) -> dict[str, Any]:
    """Return how many labels of rules people looked at, how many they corrected, and the same of each rule's votes."""
    rows = rule_labels.checked(tx, project.id)
    jobs = rule_sets.jobs_by_id(tx, project.id, {row[0] for row in rows})
    names = {job_id: wording.names_of(job.rules) for job_id, job in jobs.items()}
    place, now = project.label_set.numbers, project.label_set.resolved
    wrong, by_rule = 0, dict[str, list[int]]()
    for job_id, votes, said, person in rows:
        right = place.get(person, -1)
        wrong += now[said] != right
        for name, vote in zip(names.get(job_id, ()), votes.tolist(), strict=False):
            if vote >= 0:
                counts = by_rule.setdefault(name, [0, 0])
                counts[0] += 1
                counts[1] += now[vote] != right
    rules = [{"name": name, "checked": n, "wrong": bad} for name, (n, bad) in by_rule.items()]
    return {"checked": len(rows), "wrong": wrong, "rules": rules}
