"""Where alembic meets the database: it is always handed an open transaction by `webapp.db.engine.Database.upgrade`."""

from alembic import context

from webapp.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
