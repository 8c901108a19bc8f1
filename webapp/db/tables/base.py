"""The metadata that all tables share, and the columns that many have.

Called by the modules beside it, and by the migrations.
"""

from typing import Any

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def id_column() -> sa.Column[int]:
    """Return the number of a row, counted up by the database."""
    return sa.Column("id", Id, primary_key=True, autoincrement=True)


def project_column(**options: Any) -> sa.Column[int]:
    """Return the column of the project to which a row belongs and with which it goes."""
    return sa.Column("project_id", Id, sa.ForeignKey("projects.id", ondelete="CASCADE"), nullable=False, **options)
