"""How Alembic connects: inside the transaction that storage/database.py began."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
