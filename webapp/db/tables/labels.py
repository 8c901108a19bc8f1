"""Items, annotations, leases and drafts: the labelling path, and the outbox to the cluster.

Must never hold a query. Called through `webapp.db.tables`.
"""

import sqlalchemy as sa

from webapp.db.tables.base import Id, id_column, metadata, project_column

items = sa.Table(
    "items",
    metadata,
    id_column(),
    project_column(),
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
    id_column(),
    project_column(),
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
    sa.Column("source", sa.Text, nullable=False, server_default="person"),
    sa.Column("proba", sa.LargeBinary),
    sa.Column("value", sa.Text),
    sa.Column("draft_value", sa.Text),
    sa.Column("job_id", Id),
    sa.UniqueConstraint("item", "revision"),
    sa.UniqueConstraint("lease_id"),
    sa.UniqueConstraint("project_id", "key"),
)

outbox = sa.Table(
    "outbox",
    metadata,
    id_column(),
    project_column(),
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
    project_column(),
    sa.Column("user_id", Id, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("lease_id", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False, index=True),
    sa.Column("draft", sa.Text),
    sa.Column("draft_version", sa.Text),
    sa.Column("draft_confidence", sa.Double),
    sa.Column("draft_value", sa.Text),
    sa.Index(None, "project_id", "user_id"),
)

tallies = sa.Table(
    "tallies",
    metadata,
    project_column(primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("stripe", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("items", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("labels", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("drafted", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("corrected", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("timed", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("seconds", sa.Double, nullable=False, server_default="0"),
)

blocks = sa.Table(
    "blocks",
    metadata,
    id_column(),
    project_column(index=True),
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
    project_column(index=True),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("pointer", sa.BigInteger, nullable=False),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("confidence", sa.Double, nullable=False),
    sa.Column("value", sa.Text),
)

rankings = sa.Table(
    "rankings",
    metadata,
    project_column(primary_key=True),
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
    project_column(primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("pointer", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
)

versions = sa.Table(
    "versions",
    metadata,
    project_column(primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("labels", sa.Integer, nullable=False),
    sa.Column("accuracy", sa.Double),
    sa.Column("is_serving", sa.Boolean, nullable=False),
    sa.Column("view", sa.Text, nullable=False),
)

live = sa.Table(
    "live",
    metadata,
    project_column(primary_key=True),
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

retries = sa.Table(
    "retries",
    metadata,
    sa.Column("item", Id, sa.ForeignKey("items.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    project_column(index=True),
    sa.Column("asked_at", sa.Double, nullable=False),
)

label_studio_annotations = sa.Table(
    "label_studio_annotations",
    metadata,
    project_column(primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("item_id", sa.Text, nullable=False),
    sa.Column("annotation_id", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
)
