"""Create API keys."""

import sqlalchemy as sa
from alembic import op

from storage.tables import Utc

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(12), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("merchant", sa.String(64), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.Column("last_used_at", Utc),
        sa.Column("revoked_at", Utc),
    )
    # A gateway that knows no API keys would accept any caller; with this version it refuses the store.
    op.execute("UPDATE meta SET value = '2' WHERE name = 'schema_version'")
