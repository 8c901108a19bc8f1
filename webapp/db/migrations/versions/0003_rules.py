"""Labels from rules: the rules of a project, their application, the votes on each item, and where a label comes from."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _of_project(table: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_project_id_projects")
    return sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=name, ondelete="CASCADE")


def upgrade() -> None:
    op.add_column("annotations", sa.Column("source", sa.Text(), server_default="person", nullable=False))
    op.add_column("annotations", sa.Column("proba", sa.LargeBinary(), nullable=True))
    op.create_table(
        "rule_sets",
        sa.Column("project_id", _id(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("rules", sa.Text(), nullable=False),
        sa.Column("least_confidence", sa.Double(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        _of_project("rule_sets"),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_rule_sets")),
    )
    op.create_table(
        "rule_jobs",
        sa.Column("id", _id(), autoincrement=True, nullable=False),
        sa.Column("project_id", _id(), nullable=False),
        sa.Column("user_id", _id(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("kind", "rules", "method", "state", "phase", "views", "reason")),
        *(sa.Column(name, sa.Double(), nullable=False) for name in ("least_confidence", "created_at", "updated_at")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("place", "done", "total", "labelled")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("kept", "withdrawn", "unsure", "failed")),
        _of_project("rule_jobs"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_rule_jobs_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rule_jobs")),
    )
    op.create_index(op.f("ix_rule_jobs_project_id"), "rule_jobs", ["project_id"])
    op.create_index(op.f("ix_rule_jobs_state"), "rule_jobs", ["state"])
    op.create_table(
        "rule_votes",
        sa.Column("item", _id(), autoincrement=False, nullable=False),
        sa.Column("project_id", _id(), nullable=False),
        sa.Column("job_id", _id(), nullable=False),
        sa.Column("votes", sa.LargeBinary(), nullable=False),
        sa.Column("is_conflict", sa.Boolean(), nullable=False),
        sa.Column("said", sa.Integer(), nullable=True),
        sa.Column("confidence", sa.Double(), nullable=True),
        sa.Column("checked", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["item"], ["items.id"], name=op.f("fk_rule_votes_item_items"), ondelete="CASCADE"),
        _of_project("rule_votes"),
        sa.PrimaryKeyConstraint("item", name=op.f("pk_rule_votes")),
    )
    op.create_index(op.f("ix_rule_votes_project_id_confidence"), "rule_votes", ["project_id", "confidence"])
    op.create_index(op.f("ix_rule_votes_project_id_checked"), "rule_votes", ["project_id", "checked"])
    op.create_index(op.f("ix_rule_votes_project_id_job_id"), "rule_votes", ["project_id", "job_id"])


def downgrade() -> None:
    for table in ("rule_votes", "rule_jobs", "rule_sets"):
        op.drop_table(table)
    with op.batch_alter_table("annotations") as batch_op:
        batch_op.drop_column("proba")
        batch_op.drop_column("source")
