"""Record what merchants find payments by and what is shown of them, and create the indexes of lists.

Older gateways keep working. They record no reference and no metadata, because they accept none.
"""

import sqlalchemy as sa
from alembic import op

from storage.tables import Utc

revision = "0007"
down_revision = "0006"

_SHOWN = sa.text("status != 'RELEASED' AND erased_at IS NULL")
_SHOWN_WITH_REFERENCE = sa.text("reference IS NOT NULL AND status != 'RELEASED' AND erased_at IS NULL")


def upgrade() -> None:
    for column in (
        sa.Column("reference", sa.String(80)),
        sa.Column("metadata", sa.Text),
        sa.Column("card_scheme", sa.String(16)),
        sa.Column("response_code", sa.String(5), nullable=False, server_default=""),
        sa.Column("updated_at", Utc),
    ):
        op.add_column("payments", column)
    for name, columns, rows in (
        ("payments_of_merchant", ["merchant", "created_at", "id"], _SHOWN),
        ("payments_of_reference", ["merchant", "reference", "created_at", "id"], _SHOWN_WITH_REFERENCE),
    ):
        op.create_index(name, "payments", columns, postgresql_where=rows, sqlite_where=rows)
