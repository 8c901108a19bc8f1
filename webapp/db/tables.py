"""The schema: every table and index of the app.

Owns names and types; a change here needs a migration beside it (a test compares the two). Must never hold a query. Rules: no query
on the labelling path may look at more rows than it returns plus the live leases, so counts are kept in `tallies`, drafts in blocks,
and `items` is reached by (project, item_id), by (project, state, position) or by its number only. Times: seconds since 1970 (UTC).
"""

from typing import Any

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _id() -> sa.Column[int]:
    return sa.Column("id", Id, primary_key=True, autoincrement=True)


def _project(**options: Any) -> sa.Column[int]:
    return sa.Column("project_id", Id, sa.ForeignKey("projects.id", ondelete="CASCADE"), nullable=False, **options)


users = sa.Table(
    "users",
    metadata,
    _id(),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("password_hash", sa.Text, nullable=False),
    sa.Column("is_admin", sa.Boolean, nullable=False),
    sa.Column("is_active", sa.Boolean, nullable=False),
    sa.Column("session_key", sa.Text, nullable=False),
    sa.Column("locale", sa.Text, nullable=False, server_default=""),
    sa.Column("created_at", sa.Double, nullable=False),
)

tokens = sa.Table(
    "tokens",
    metadata,
    _id(),
    sa.Column("user_id", Id, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
    sa.Column("created_at", sa.Double, nullable=False),
)

projects = sa.Table(
    "projects",
    metadata,
    _id(),
    sa.Column("slug", sa.Text, nullable=False, unique=True),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("category", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("target", sa.Double, nullable=False),
    sa.Column("budget", sa.Integer, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("strategy", sa.Text, nullable=False),
    sa.Column("algorithm", sa.Text, nullable=False),
    sa.Column("encoder", sa.Text, nullable=False),
    sa.Column("is_comparer_on", sa.Boolean, nullable=False),
    sa.Column("retrain_labels", sa.Integer, nullable=False),
    sa.Column("parameters", sa.Text, nullable=False),
    sa.Column("instructions", sa.Text, nullable=False),
    sa.Column("is_paused", sa.Boolean, nullable=False),
    sa.Column("spec_revision", sa.Integer, nullable=False),
    sa.Column("opened_revision", sa.Integer, nullable=False),
    sa.Column("next_position", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)

members = sa.Table(
    "members",
    metadata,
    _project(primary_key=True),
    sa.Column("user_id", Id, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True),
    sa.Column("role", sa.Text, nullable=False),
)

items = sa.Table(
    "items",
    metadata,
    _id(),
    _project(),
    sa.Column("item_id", sa.Text, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("state", sa.SmallInteger, nullable=False, server_default="0"),
    sa.Column("link", sa.Text),
    sa.Column("content", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("revision", sa.Integer, nullable=False, server_default="0"),
    sa.Column("annotation_id", Id),
    sa.Column("block_id", Id),
    sa.Column("block_row", sa.Integer),
    sa.UniqueConstraint("project_id", "item_id"),
    sa.Index(None, "project_id", "state", "position"),
)

annotations = sa.Table(
    "annotations",
    metadata,
    _id(),
    _project(),
    sa.Column("item", Id, sa.ForeignKey("items.id", ondelete="CASCADE"), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("is_deleted", sa.Boolean, nullable=False),
    sa.Column("user_id", Id, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("draft", sa.Text),
    sa.Column("draft_version", sa.Text),
    sa.Column("is_corrected", sa.Boolean, nullable=False),
    sa.Column("seconds", sa.Double),
    sa.Column("lease_id", sa.Text),
    sa.Column("key", sa.Text),
    sa.Column("window_no", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.UniqueConstraint("item", "revision"),
    sa.UniqueConstraint("lease_id"),
    sa.UniqueConstraint("project_id", "key"),
)

outbox = sa.Table(
    "outbox",
    metadata,
    _id(),
    _project(),
    sa.Column("annotation_id", Id, nullable=False),
    sa.Column("state", sa.SmallInteger, nullable=False),
    sa.Column("batch_id", sa.Text),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("master", sa.Text),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("sent_at", sa.Double),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Index(None, "state", "project_id", "id"),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("item", Id, sa.ForeignKey("items.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    _project(),
    sa.Column("user_id", Id, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("lease_id", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False, index=True),
    sa.Column("draft", sa.Text),
    sa.Column("draft_version", sa.Text),
    sa.Column("draft_confidence", sa.Double),
    sa.Index(None, "project_id", "user_id"),
)

tallies = sa.Table(
    "tallies",
    metadata,
    _project(primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("stripe", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("items", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("labels", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("drafted", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("corrected", sa.BigInteger, nullable=False, server_default="0"),
)

blocks = sa.Table(
    "blocks",
    metadata,
    _id(),
    _project(index=True),
    sa.Column("shard", sa.Text, nullable=False),
    sa.Column("n_items", sa.Integer, nullable=False),
    sa.Column("item_numbers", sa.LargeBinary, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("pointer", sa.BigInteger, nullable=False),
    sa.Column("record_bytes", sa.Integer, nullable=False),
    sa.Column("answers", sa.LargeBinary, nullable=False),
)

head_drafts = sa.Table(
    "head_drafts",
    metadata,
    sa.Column("item", Id, sa.ForeignKey("items.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    _project(index=True),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("pointer", sa.BigInteger, nullable=False),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("confidence", sa.Double, nullable=False),
)

rankings = sa.Table(
    "rankings",
    metadata,
    _project(primary_key=True),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("strategy", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("item_ids", sa.LargeBinary, nullable=False),
    sa.Column("scores", sa.LargeBinary, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)

scoring = sa.Table(
    "scoring",
    metadata,
    _project(primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("pointer", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
)

versions = sa.Table(
    "versions",
    metadata,
    _project(primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("labels", sa.Integer, nullable=False),
    sa.Column("accuracy", sa.Double),
    sa.Column("is_serving", sa.Boolean, nullable=False),
    sa.Column("view", sa.Text, nullable=False),
)

live = sa.Table(
    "live",
    metadata,
    _project(primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("progress", sa.Text, nullable=False),
    sa.Column("problem", sa.Text, nullable=False),
)

pilot_state = sa.Table(
    "pilot_state",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("sentence", sa.Text, nullable=False),
    sa.Column("is_connected", sa.Boolean, nullable=False),
)

events = sa.Table(
    "events",
    metadata,
    _id(),
    _project(),
    sa.Column("user_id", Id),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Index(None, "project_id", "id"),
)

import_jobs = sa.Table(
    "import_jobs",
    metadata,
    _id(),
    _project(index=True),
    sa.Column("user_id", Id, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("options", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("offset_bytes", sa.BigInteger, nullable=False),
    sa.Column("total_bytes", sa.BigInteger, nullable=False),
    sa.Column("line", sa.BigInteger, nullable=False),
    sa.Column("added", sa.BigInteger, nullable=False),
    sa.Column("known", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
)

import_errors = sa.Table(
    "import_errors",
    metadata,
    _id(),
    sa.Column("job_id", Id, sa.ForeignKey("import_jobs.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("line", sa.BigInteger, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
)
