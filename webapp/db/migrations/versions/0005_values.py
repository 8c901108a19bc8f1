"""What is said beside the labels: marks, relations, numbers, texts; of annotations, leases and drafts."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_COLUMNS = (("annotations", "value"), ("annotations", "draft_value"), ("leases", "draft_value"), ("head_drafts", "value"))


def upgrade() -> None:
    for table, column in _COLUMNS:
        op.add_column(table, sa.Column(column, sa.Text(), nullable=True))


def downgrade() -> None:
    for table, column in _COLUMNS:
        op.drop_column(table, column)
