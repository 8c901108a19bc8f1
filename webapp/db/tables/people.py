"""People at work: rounds of opinions, known answers, reviews, acceptance in bulk.

Must never hold a query. Called through `webapp.db.tables`.
"""

import sqlalchemy as sa

from webapp.db.tables.base import Id, id_column, metadata, project_column

rounds = sa.Table(
    "rounds",
    metadata,
    id_column(),
    project_column(),
    sa.Column("item", Id, sa.ForeignKey("items.id", ondelete="CASCADE"), nullable=False, unique=True),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("state", sa.SmallInteger, nullable=False),
    sa.Column("wanted", sa.Integer, nullable=False),
    sa.Column("taken", sa.Integer, nullable=False),
    sa.Column("given", sa.Integer, nullable=False),
    sa.Column("agreement", sa.Double),
    sa.Column("job_id", Id),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Index(None, "project_id", "state", "id"),
    sa.Index(None, "job_id"),
)

opinions = sa.Table(
    "opinions",
    metadata,
    id_column(),
    project_column(),
    sa.Column("item", Id, sa.ForeignKey("items.id", ondelete="CASCADE"), nullable=False),
    sa.Column("user_id", Id, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("state", sa.SmallInteger, nullable=False),
    sa.Column("lease_id", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Double),
    sa.Column("labels", sa.Text),
    sa.Column("value", sa.Text),
    sa.Column("is_right", sa.Boolean),
    sa.Column("seconds", sa.Double),
    sa.Column("draft", sa.Text),
    sa.Column("draft_version", sa.Text),
    sa.Column("draft_confidence", sa.Double),
    sa.Column("draft_value", sa.Text),
    sa.Column("key", sa.Text),
    sa.Column("at", sa.Double, nullable=False),
    sa.UniqueConstraint("item", "user_id"),
    sa.UniqueConstraint("lease_id"),
    sa.UniqueConstraint("project_id", "key"),
    sa.Index(None, "project_id", "user_id", "purpose", "state"),
    sa.Index(None, "project_id", "expires_at"),
)

gold = sa.Table(
    "gold",
    metadata,
    sa.Column("item", Id, sa.ForeignKey("items.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    project_column(index=True),
    sa.Column("user_id", Id, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("value", sa.Text),
    sa.Column("created_at", sa.Double, nullable=False),
)

reviews = sa.Table(
    "reviews",
    metadata,
    sa.Column("item", Id, sa.ForeignKey("items.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    project_column(),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("author_id", Id, sa.ForeignKey("users.id")),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("value", sa.Text),
    sa.Column("agreement", sa.Double),
    sa.Column("lease_id", sa.Text),
    sa.Column("holder_id", Id, sa.ForeignKey("users.id")),
    sa.Column("expires_at", sa.Double),
    sa.Column("at", sa.Double, nullable=False),
    sa.Index(None, "project_id", "state", "at"),
)

review_steps = sa.Table(
    "review_steps",
    metadata,
    id_column(),
    project_column(),
    sa.Column("item", Id, sa.ForeignKey("items.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("user_id", Id, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("author_id", Id, sa.ForeignKey("users.id")),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("value", sa.Text),
    sa.Column("comment", sa.Text, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Index(None, "project_id", "author_id"),
)

bulk_jobs = sa.Table(
    "bulk_jobs",
    metadata,
    id_column(),
    project_column(index=True),
    sa.Column("user_id", Id, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("least_confidence", sa.Double, nullable=False),
    sa.Column("audit", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("place", sa.BigInteger, nullable=False),
    sa.Column("done", sa.BigInteger, nullable=False),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("accepted", sa.BigInteger, nullable=False),
    sa.Column("withdrawn", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
)

bulk_items = sa.Table(
    "bulk_items",
    metadata,
    sa.Column("item", Id, sa.ForeignKey("items.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    project_column(),
    sa.Column("job_id", Id, nullable=False),
    sa.Index(None, "job_id", "item"),
)
