"""Administration: the operation log, the last readings of cluster and disk, runs, webhooks and their outbox, backups."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _number() -> "sa.Column[int]":
    return sa.Column("id", _ID, autoincrement=True, nullable=False)


def _text(*names: str) -> "list[sa.Column[str]]":
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


_REFUSAL = "the operation log is append-only"


def upgrade() -> None:
    _admin()
    _webhooks()
    _guard_the_log()


def _guard_the_log() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for what in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER operations_no_{what.lower()} BEFORE {what} ON operations "
                f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION refuse_change_of_operations() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$"
    )
    op.execute(
        "CREATE TRIGGER operations_no_change BEFORE UPDATE OR DELETE ON operations "
        "FOR EACH ROW EXECUTE FUNCTION refuse_change_of_operations()"
    )


def _admin() -> None:
    op.create_table(
        "operations",
        _number(),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("user_id", _ID, nullable=True),
        *_text("person", "project", "kind", "text", "address"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
    )
    for name in ("person", "project", "kind"):
        op.create_index(op.f(f"ix_operations_{name}_id"), "operations", [name, "id"])
    op.create_table(
        "readings",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        *_text("value", "problem"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_readings")),
    )
    op.create_table(
        "runs",
        sa.Column("project_id", _ID, nullable=False),
        sa.Column("run", sa.Integer(), autoincrement=False, nullable=False),
        *_text("state", "view"),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_runs_project_id_projects"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("project_id", "run", name=op.f("pk_runs")),
    )
    op.create_index(op.f("ix_runs_state"), "runs", ["state"])
    op.create_index(op.f("ix_runs_seen_at"), "runs", ["seen_at"])
    op.create_table(
        "retries",
        sa.Column("item", _ID, autoincrement=False, nullable=False),
        sa.Column("project_id", _ID, nullable=False),
        sa.Column("asked_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["item"], ["items.id"], name=op.f("fk_retries_item_items"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_retries_project_id_projects"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("item", name=op.f("pk_retries")),
    )
    op.create_index(op.f("ix_retries_project_id"), "retries", ["project_id"])
    op.create_table(
        "backups",
        _number(),
        *_text("state", "made_by", "name"),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("share", sa.Double(), nullable=False),
        *_text("reason"),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backups")),
    )


def _webhooks() -> None:
    op.create_table(
        "webhooks",
        _number(),
        sa.Column("project_id", _ID, nullable=True),
        *_text("url", "events"),
        sa.Column("has_labels", sa.Boolean(), nullable=False),
        *_text("salt", "made_by"),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_webhooks_project_id_projects"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_index(op.f("ix_webhooks_project_id"), "webhooks", ["project_id"])
    op.create_table(
        "webhook_labels",
        sa.Column("webhook_id", _ID, autoincrement=False, nullable=False),
        sa.Column("annotation_id", _ID, autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("fk_webhook_labels_webhook_id_webhooks"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("webhook_id", "annotation_id", name=op.f("pk_webhook_labels")),
    )
    op.create_table(
        "webhook_deliveries",
        _number(),
        sa.Column("webhook_id", _ID, nullable=False),
        *_text("uid", "event", "payload"),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.Double(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        *_text("reason"),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("fk_webhook_deliveries_webhook_id_webhooks"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        sa.UniqueConstraint("uid", name=op.f("uq_webhook_deliveries_uid")),
    )
    op.create_index(op.f("ix_webhook_deliveries_state_next_at"), "webhook_deliveries", ["state", "next_at"])
    op.create_index(op.f("ix_webhook_deliveries_webhook_id_id"), "webhook_deliveries", ["webhook_id", "id"])


def downgrade() -> None:
    for name in ("webhook_deliveries", "webhook_labels", "webhooks", "backups", "retries", "runs", "readings", "operations"):
        op.drop_table(name)
    if op.get_bind().dialect.name != "sqlite":
        op.execute("DROP FUNCTION refuse_change_of_operations()")
