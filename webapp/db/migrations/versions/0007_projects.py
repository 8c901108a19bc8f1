"""Projects: labels by number with their earlier names, archive, deletion with a way back, work in the background, time an item."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def _id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("projects", sa.Column("places", sa.Text(), server_default="[]", nullable=False))
    op.add_column("projects", sa.Column("limits", sa.Text(), server_default="{}", nullable=False))
    op.add_column("projects", sa.Column("archived_at", sa.Double(), nullable=True))
    op.add_column("projects", sa.Column("deleted_at", sa.Double(), nullable=True))
    op.add_column("annotations", sa.Column("job_id", _id(), nullable=True))
    op.add_column("tallies", sa.Column("timed", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("tallies", sa.Column("seconds", sa.Double(), server_default="0", nullable=False))
    op.create_table(
        "project_jobs",
        sa.Column("id", _id(), autoincrement=True, nullable=False),
        sa.Column("project_id", _id(), nullable=False),
        sa.Column("user_id", _id(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("kind", "detail", "state", "phase", "reason")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("place", "done", "total", "changed")),
        *(sa.Column(name, sa.Double(), nullable=False) for name in ("created_at", "updated_at")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_project_jobs_project_id_projects"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_project_jobs_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_project_jobs")),
    )
    for column in ("project_id", "state"):
        op.create_index(op.f(f"ix_project_jobs_{column}"), "project_jobs", [column])


def downgrade() -> None:
    op.drop_table("project_jobs")
    for table, column in (
        *(("tallies", name) for name in ("seconds", "timed")),
        ("annotations", "job_id"),
        *(("projects", name) for name in ("deleted_at", "archived_at", "limits", "places")),
    ):
        op.drop_column(table, column)
