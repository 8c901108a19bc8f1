"""People at work: several opinions an item, items with a known answer, reviews, drafts accepted in bulk."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None
_TABLES = ("rounds", "opinions", "gold", "reviews", "review_steps", "bulk_jobs", "bulk_items")


def _id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _text(*names: str, nullable: bool = False) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text(), nullable=nullable) for name in names]


def _numbers(*names: str, nullable: bool = False) -> list[sa.Column[int]]:
    return [sa.Column(name, _id(), nullable=nullable) for name in names]


def _times(*names: str, nullable: bool = False) -> list[sa.Column[float]]:
    return [sa.Column(name, sa.Double(), nullable=nullable) for name in names]


def _to(table: str, column: str, target: str, ondelete: str | None = None) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_{column}_{target}")
    return sa.ForeignKeyConstraint([column], [f"{target}.id"], name=name, ondelete=ondelete)


def _make(table: str, *parts: sa.schema.SchemaItem, key: str = "id", index: tuple[tuple[str, ...], ...] = ()) -> None:
    """Create a table of a project, with its number unless `key` names another column, and its indexes."""
    own = [sa.Column("id", _id(), autoincrement=True, nullable=False)] if key == "id" else []
    item: list[sa.schema.SchemaItem] = []
    if table != "bulk_jobs":
        item = [sa.Column("item", _id(), autoincrement=False, nullable=False), _to(table, "item", "items", "CASCADE")]
    project = [sa.Column("project_id", _id(), nullable=False), _to(table, "project_id", "projects", "CASCADE")]
    op.create_table(table, *own, *project, *item, *parts, sa.PrimaryKeyConstraint(key, name=op.f(f"pk_{table}")))
    for columns in index:
        op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, list(columns))


def upgrade() -> None:
    op.add_column("projects", sa.Column("work", sa.Text(), nullable=False, server_default="{}"))
    op.add_column("projects", sa.Column("has_errands", sa.Boolean(), nullable=False, server_default=sa.false()))
    _make_opinions()
    _make_reviews()
    _make_bulk()


def _make_opinions() -> None:
    _make(
        "rounds",
        *_text("purpose"),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("wanted", "taken", "given")),
        *_times("agreement", nullable=True),
        *_numbers("job_id", nullable=True),
        *_times("created_at"),
        sa.UniqueConstraint("item", name=op.f("uq_rounds_item")),
        index=(("project_id", "state", "id"), ("job_id",)),
    )
    _make(
        "opinions",
        *_numbers("user_id"),
        *_text("purpose"),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        *_text("lease_id"),
        *_times("expires_at", "seconds", "draft_confidence", nullable=True),
        *_text("labels", "value", "draft", "draft_version", "draft_value", "key", nullable=True),
        sa.Column("is_right", sa.Boolean(), nullable=True),
        *_times("at"),
        _to("opinions", "user_id", "users"),
        sa.UniqueConstraint("item", "user_id", name=op.f("uq_opinions_item_user_id")),
        sa.UniqueConstraint("lease_id", name=op.f("uq_opinions_lease_id")),
        sa.UniqueConstraint("project_id", "key", name=op.f("uq_opinions_project_id_key")),
        index=(("project_id", "user_id", "purpose", "state"), ("project_id", "expires_at")),
    )
    _make(
        "gold",
        *_numbers("user_id"),
        *_text("labels"),
        *_text("value", nullable=True),
        *_times("created_at"),
        _to("gold", "user_id", "users"),
        key="item",
        index=(("project_id",),),
    )


def _make_reviews() -> None:
    _make(
        "reviews",
        *_text("state", "reason", "labels"),
        *_numbers("author_id", "holder_id", nullable=True),
        *_text("value", "lease_id", nullable=True),
        *_times("agreement", "expires_at", nullable=True),
        *_times("at"),
        _to("reviews", "author_id", "users"),
        _to("reviews", "holder_id", "users"),
        key="item",
        index=(("project_id", "state", "at"),),
    )
    _make(
        "review_steps",
        *_numbers("user_id"),
        *_numbers("author_id", nullable=True),
        *_text("action", "labels", "comment"),
        *_text("value", nullable=True),
        *_times("at"),
        _to("review_steps", "user_id", "users"),
        _to("review_steps", "author_id", "users"),
        index=(("item",), ("project_id", "author_id")),
    )


def _make_bulk() -> None:
    counts = ("place", "done", "total", "accepted", "withdrawn")
    _make(
        "bulk_jobs",
        *_numbers("user_id"),
        sa.Column("audit", sa.Integer(), nullable=False),
        *_text("state", "reason"),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in counts),
        *_times("least_confidence", "created_at", "updated_at"),
        _to("bulk_jobs", "user_id", "users"),
        index=(("project_id",), ("state",)),
    )
    _make("bulk_items", *_numbers("job_id"), key="item", index=(("job_id", "item"),))


def downgrade() -> None:
    for table in reversed(_TABLES):
        op.drop_table(table)
    with op.batch_alter_table("projects") as batch_op:
        batch_op.drop_column("has_errands")
        batch_op.drop_column("work")
