"""What admins look at: the operation log, readings of the cluster, runs, webhooks, backups.

Must never hold a query. Called through `webapp.db.tables`.
"""

import sqlalchemy as sa

from webapp.db.tables.base import Id, id_column, metadata, project_column

operations = sa.Table(
    "operations",
    metadata,
    id_column(),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("user_id", Id),
    sa.Column("person", sa.Text, nullable=False),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("address", sa.Text, nullable=False),
    sa.Index(None, "person", "id"),
    sa.Index(None, "project", "id"),
    sa.Index(None, "kind", "id"),
)

readings = sa.Table(
    "readings",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("problem", sa.Text, nullable=False),
)

runs = sa.Table(
    "runs",
    metadata,
    project_column(primary_key=True),
    sa.Column("run", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("view", sa.Text, nullable=False),
    sa.Column("seen_at", sa.Double, nullable=False),
    sa.Index(None, "state"),
    sa.Index(None, "seen_at"),
)

webhooks = sa.Table(
    "webhooks",
    metadata,
    id_column(),
    sa.Column("project_id", Id, sa.ForeignKey("projects.id", ondelete="CASCADE"), index=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("events", sa.Text, nullable=False),
    sa.Column("has_labels", sa.Boolean, nullable=False),
    sa.Column("salt", sa.Text, nullable=False),
    sa.Column("made_by", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)

webhook_labels = sa.Table(
    "webhook_labels",
    metadata,
    sa.Column("webhook_id", Id, sa.ForeignKey("webhooks.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    sa.Column("annotation_id", Id, primary_key=True, autoincrement=False),
)

webhook_deliveries = sa.Table(
    "webhook_deliveries",
    metadata,
    id_column(),
    sa.Column("webhook_id", Id, sa.ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    sa.Column("uid", sa.Text, nullable=False, unique=True),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("state", sa.SmallInteger, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_at", sa.Double, nullable=False),
    sa.Column("status", sa.Integer),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("ended_at", sa.Double),
    sa.Index(None, "state", "next_at"),
    sa.Index(None, "webhook_id", "id"),
)

backups = sa.Table(
    "backups",
    metadata,
    id_column(),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("made_by", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("share", sa.Double, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
)
