"""The schema: every table and index of the app.

Owns names and types; a change here needs a migration beside it (a test compares the two). Must never hold a query. Rules: no query
on the labelling path may look at more rows than it returns plus the live leases, so counts are kept in `tallies`, drafts in blocks,
and `items` is reached by (project, item_id), by (project, state, position) or by its number only. Times: seconds since 1970 (UTC).
"""

from webapp.db.tables.accounts import tickets, tokens, users
from webapp.db.tables.admin import backups, operations, readings, runs, webhook_deliveries, webhook_labels, webhooks
from webapp.db.tables.base import Id, metadata
from webapp.db.tables.labels import (
    annotations,
    blocks,
    head_drafts,
    items,
    label_studio_annotations,
    leases,
    live,
    outbox,
    pilot_state,
    rankings,
    retries,
    scoring,
    tallies,
    versions,
)
from webapp.db.tables.people import bulk_items, bulk_jobs, gold, opinions, review_steps, reviews, rounds
from webapp.db.tables.projects import (
    events,
    export_jobs,
    import_errors,
    import_jobs,
    members,
    picture_sizes,
    project_jobs,
    projects,
)
from webapp.db.tables.rules import rule_jobs, rule_sets, rule_votes

__all__ = [
    "Id",
    "annotations",
    "backups",
    "blocks",
    "bulk_items",
    "bulk_jobs",
    "events",
    "export_jobs",
    "gold",
    "head_drafts",
    "import_errors",
    "import_jobs",
    "items",
    "label_studio_annotations",
    "leases",
    "live",
    "members",
    "metadata",
    "operations",
    "opinions",
    "outbox",
    "picture_sizes",
    "pilot_state",
    "project_jobs",
    "projects",
    "rankings",
    "readings",
    "retries",
    "review_steps",
    "reviews",
    "rounds",
    "rule_jobs",
    "rule_sets",
    "rule_votes",
    "runs",
    "scoring",
    "tallies",
    "tickets",
    "tokens",
    "users",
    "versions",
    "webhook_deliveries",
    "webhook_labels",
    "webhooks",
]
