"""Create payments, their audit trail, and facts about the store."""

import sqlalchemy as sa
from alembic import op

from storage.tables import Utc

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "payments",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("merchant", sa.String(64), nullable=False),
        sa.Column("idempotency_key", sa.String(64)),
        sa.Column("fingerprint", sa.String(64)),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("card_last4", sa.String(4), nullable=False),
        sa.Column("expiry_month", sa.Integer, nullable=False),
        sa.Column("expiry_year", sa.Integer, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.Column("working_until", Utc, nullable=False),
        sa.Column("look_up_at", Utc, nullable=False),
        sa.Column("look_ups", sa.Integer, nullable=False),
        sa.UniqueConstraint("merchant", "idempotency_key"),
        sa.CheckConstraint("status IN ('AUTHORIZED', 'DECLINED', 'PENDING')"),
        sa.CheckConstraint("(idempotency_key IS NULL) = (fingerprint IS NULL)"),
    )
    op.create_index("payments_created_at", "payments", ["created_at"])
    pending = sa.text("status = 'PENDING'")
    op.create_index("payments_pending", "payments", ["look_up_at"], postgresql_where=pending, sqlite_where=pending)
    op.create_table(
        "changes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("payment_id", sa.Uuid, sa.ForeignKey("payments.id"), nullable=False, index=True),
        sa.Column("changed_at", Utc, nullable=False),
        sa.Column("changed_by", sa.String(64), nullable=False),
        sa.Column("from_status", sa.String(10), nullable=False),
        sa.Column("to_status", sa.String(10), nullable=False),
        sa.Column("note", sa.String(500), nullable=False),
    )
    meta = op.create_table(
        "meta",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.String(64), nullable=False),
    )
    op.bulk_insert(meta, [{"name": "schema_version", "value": "1"}])
