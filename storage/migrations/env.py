"""What Alembic runs the steps with: the transaction that storage/database.py has begun."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
