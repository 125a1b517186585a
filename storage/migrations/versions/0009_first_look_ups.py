"""Index payments and actions that were never looked up, so that they are found among many others that are due.

Older gateways keep working.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_NEVER_LOOKED_UP = sa.text("status = 'PENDING' AND look_ups = 0")


def upgrade() -> None:
    for table in ("payments", "actions"):
        rows = _NEVER_LOOKED_UP
        op.create_index(f"{table}_new", table, ["look_up_at"], postgresql_where=rows, sqlite_where=rows)
