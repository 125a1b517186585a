"""Keep released claims, and record the attempts of a payment, its bank and its authorization code.

The bank of older payments is not known. An older gateway can't claim payments in these tables, because its rows have
no attempt.
"""

import sqlalchemy as sa
from alembic import op

from storage.tables import Utc

revision = "0004"
down_revision = "0003"

_STATUSES = "status IN ('AUTHORIZED', 'DECLINED', 'PENDING', 'RELEASED')"
_NOT_RELEASED = sa.text("status != 'RELEASED'")


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _copy_table()
    else:
        _alter_table()
    op.create_index(
        "payments_key",
        "payments",
        ["merchant", "idempotency_key"],
        unique=True,
        postgresql_where=_NOT_RELEASED,
        sqlite_where=_NOT_RELEASED,
    )
    op.add_column("changes", sa.Column("authorization_code", sa.String(64), nullable=False, server_default=""))
    op.create_table(
        "bank_moves",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("old", sa.Text, nullable=False),
        sa.Column("new", sa.Text, nullable=False),
        sa.Column("moved_at", Utc, nullable=False),
        sa.Column("moved_by", sa.String(64), nullable=False),
    )


def _alter_table() -> None:
    inspector = sa.inspect(op.get_bind())
    for constraint in inspector.get_unique_constraints("payments"):
        op.drop_constraint(str(constraint["name"]), "payments")
    for check in inspector.get_check_constraints("payments"):
        if "status" in check["sqltext"]:
            op.drop_constraint(str(check["name"]), "payments")
    op.add_column("payments", sa.Column("attempt", sa.Uuid))
    op.add_column("payments", sa.Column("key_use", sa.Integer))
    op.add_column("payments", sa.Column("bank", sa.Text))
    op.add_column("payments", sa.Column("authorization_code", sa.String(64)))
    op.add_column("payments", sa.Column("claimed_at", Utc))
    op.execute(
        "UPDATE payments SET attempt = id, key_use = 1, bank = 'unknown', authorization_code = '',"
        " claimed_at = created_at"
    )
    for name in ("attempt", "key_use", "bank", "authorization_code", "claimed_at"):
        op.alter_column("payments", name, nullable=False)
    op.create_unique_constraint("payments_key_use", "payments", ["merchant", "idempotency_key", "key_use"])
    op.create_check_constraint("payments_status", "payments", _STATUSES)


def _copy_table() -> None:
    """Make the table anew: SQLite can't drop a constraint. The audit trail refers to its rows until the commit."""
    op.execute("PRAGMA defer_foreign_keys = ON")
    op.execute("CREATE TABLE payments_0003 AS SELECT * FROM payments")
    op.drop_table("payments")
    op.create_table(
        "payments",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("merchant", sa.String(64), nullable=False),
        sa.Column("idempotency_key", sa.String(64)),
        sa.Column("payment_fingerprint", sa.String(64)),
        sa.Column("fingerprint_key", sa.String(8)),
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
        sa.Column("attempt", sa.Uuid, nullable=False),
        sa.Column("key_use", sa.Integer, nullable=False),
        sa.Column("bank", sa.Text, nullable=False),
        sa.Column("authorization_code", sa.String(64), nullable=False),
        sa.Column("claimed_at", Utc, nullable=False),
        sa.UniqueConstraint("merchant", "idempotency_key", "key_use", name="payments_key_use"),
        sa.CheckConstraint(_STATUSES, name="payments_status"),
        sa.CheckConstraint("(idempotency_key IS NULL) = (payment_fingerprint IS NULL)"),
    )
    op.execute(
        "INSERT INTO payments SELECT id, merchant, idempotency_key, payment_fingerprint, fingerprint_key, status,"
        " card_last4, expiry_month, expiry_year, currency, amount, created_at, working_until, look_up_at, look_ups,"
        " id, 1, 'unknown', '', created_at FROM payments_0003"
    )
    op.drop_table("payments_0003")
    op.create_index("payments_created_at", "payments", ["created_at"])
    pending = sa.text("status = 'PENDING'")
    op.create_index("payments_pending", "payments", ["look_up_at"], sqlite_where=pending)
