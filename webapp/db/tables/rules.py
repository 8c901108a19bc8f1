"""Rules, their votes, and the jobs that apply them.

Must never hold a query. Called through `webapp.db.tables`.
"""

import sqlalchemy as sa

from webapp.db.tables.base import Id, id_column, metadata, project_column

rule_sets = sa.Table(
    "rule_sets",
    metadata,
    project_column(primary_key=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("rules", sa.Text, nullable=False),
    sa.Column("least_confidence", sa.Double, nullable=False),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
)

rule_jobs = sa.Table(
    "rule_jobs",
    metadata,
    id_column(),
    project_column(index=True),
    sa.Column("user_id", Id, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("rules", sa.Text, nullable=False),
    sa.Column("least_confidence", sa.Double, nullable=False),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("place", sa.BigInteger, nullable=False),
    sa.Column("done", sa.BigInteger, nullable=False),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("labelled", sa.BigInteger, nullable=False),
    sa.Column("kept", sa.BigInteger, nullable=False),
    sa.Column("withdrawn", sa.BigInteger, nullable=False),
    sa.Column("unsure", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False),
    sa.Column("views", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
)

rule_votes = sa.Table(
    "rule_votes",
    metadata,
    sa.Column("item", Id, sa.ForeignKey("items.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    project_column(),
    sa.Column("job_id", Id, nullable=False),
    sa.Column("votes", sa.LargeBinary, nullable=False),
    sa.Column("is_conflict", sa.Boolean, nullable=False),
    sa.Column("said", sa.Integer),
    sa.Column("confidence", sa.Double),
    sa.Column("checked", sa.Text),
    sa.Index(None, "project_id", "confidence"),
    sa.Index(None, "project_id", "checked"),
    sa.Index(None, "project_id", "job_id"),
)
