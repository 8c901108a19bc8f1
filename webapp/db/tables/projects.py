"""Projects, who belongs to them, what happens to them, and jobs that change many rows of one.

Must never hold a query. Called through `webapp.db.tables`.
"""

import sqlalchemy as sa

from webapp.db.tables.base import Id, id_column, metadata, project_column

projects = sa.Table(
    "projects",
    metadata,
    id_column(),
    sa.Column("slug", sa.Text, nullable=False, unique=True),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("category", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("target", sa.Double, nullable=False),
    sa.Column("budget", sa.Integer, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("strategy", sa.Text, nullable=False),
    sa.Column("strategy_parameters", sa.Text, nullable=False, server_default="{}"),
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
    sa.Column("work", sa.Text, nullable=False, server_default="{}"),
    sa.Column("has_errands", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("places", sa.Text, nullable=False, server_default="[]"),
    sa.Column("limits", sa.Text, nullable=False, server_default="{}"),
    sa.Column("archived_at", sa.Double),
    sa.Column("deleted_at", sa.Double),
)

project_jobs = sa.Table(
    "project_jobs",
    metadata,
    id_column(),
    project_column(index=True),
    sa.Column("user_id", Id, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("place", sa.BigInteger, nullable=False),
    sa.Column("done", sa.BigInteger, nullable=False),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("changed", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
)

members = sa.Table(
    "members",
    metadata,
    project_column(primary_key=True),
    sa.Column("user_id", Id, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True),
    sa.Column("role", sa.Text, nullable=False),
)

events = sa.Table(
    "events",
    metadata,
    id_column(),
    project_column(),
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
    id_column(),
    project_column(index=True),
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
    id_column(),
    sa.Column("job_id", Id, sa.ForeignKey("import_jobs.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("line", sa.BigInteger, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
)

export_jobs = sa.Table(
    "export_jobs",
    metadata,
    id_column(),
    project_column(index=True),
    sa.Column("user_id", Id, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("format", sa.Text, nullable=False),
    sa.Column("options", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("place", sa.Text, nullable=False),
    sa.Column("done", sa.BigInteger, nullable=False),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("refused", sa.BigInteger, nullable=False),
    sa.Column("problems", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
)

picture_sizes = sa.Table(
    "picture_sizes",
    metadata,
    project_column(primary_key=True),
    sa.Column("item_id", sa.Text, primary_key=True),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
)
