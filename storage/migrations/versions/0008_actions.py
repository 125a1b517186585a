"""Create actions, and record at a payment what they have done to its amount.

Older gateways keep working: the first action, not this step, makes them too old (storage/actions.py).
"""

import sqlalchemy as sa
from alembic import op

from storage.tables import Utc

revision = "0008"
down_revision = "0007"

# The constraint follows the last of the columns that it mentions: SQLite can add it only with a column.
_COLUMNS = {
    "captured": None,
    "voided": None,
    "held": (
        "payments_captured",
        "captured >= 0 AND voided >= 0 AND held >= 0 AND captured + voided + held <= amount",
    ),
    "refunded": None,
    "refund_held": (
        "payments_refunded",
        "refunded >= 0 AND refund_held >= 0 AND refunded + refund_held <= captured",
    ),
}
_PENDING = sa.text("status = 'PENDING'")


def upgrade() -> None:
    for name, constraint in _COLUMNS.items():
        check = " CONSTRAINT {} CHECK ({})".format(*constraint) if constraint else ""
        op.execute(f"ALTER TABLE payments ADD COLUMN {name} BIGINT NOT NULL DEFAULT 0{check}")
    op.add_column("changes", sa.Column("action_id", sa.Uuid))
    if op.get_bind().dialect.name == "sqlite":  # PostgreSQL's trigger compares whole rows
        _keep_action_id()
    op.create_table(
        "actions",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("payment_id", sa.Uuid, sa.ForeignKey("payments.id"), nullable=False),
        sa.Column("merchant", sa.String(64), nullable=False),
        sa.Column("idempotency_key", sa.String(64)),
        sa.Column("fingerprint", sa.String(64)),
        sa.Column("type", sa.String(10), nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("releases", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("reason", sa.String(200)),
        sa.Column("reference", sa.String(80)),
        sa.Column("metadata", sa.Text),
        sa.Column("response_code", sa.String(5), nullable=False),
        sa.Column("bank", sa.Text, nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.Column("updated_at", Utc, nullable=False),
        sa.Column("claimed_at", Utc, nullable=False),
        sa.Column("working_until", Utc, nullable=False),
        sa.Column("look_up_at", Utc, nullable=False),
        sa.Column("look_ups", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Uuid, nullable=False),
        sa.CheckConstraint("type IN ('CAPTURE', 'VOID', 'REFUND')", name="actions_type"),
        sa.CheckConstraint("status IN ('APPROVED', 'DECLINED', 'PENDING')", name="actions_status"),
        sa.CheckConstraint("amount > 0 AND releases >= 0", name="actions_amount"),
        sa.CheckConstraint("(idempotency_key IS NULL) = (fingerprint IS NULL)", name="actions_fingerprint"),
        sa.UniqueConstraint("merchant", "idempotency_key", name="actions_key"),
    )
    op.create_index("actions_of_payment", "actions", ["payment_id", "created_at", "id"])
    op.create_index("actions_pending", "actions", ["look_up_at"], postgresql_where=_PENDING, sqlite_where=_PENDING)


def _keep_action_id() -> None:
    """Let a note of an erased payment be cleared, as step 0006 does, and not what this step adds to its row."""
    (statement,) = op.get_bind().execute(sa.text("SELECT sql FROM sqlite_master WHERE name = 'changes_update'")).one()
    op.execute("DROP TRIGGER changes_update")
    op.execute(statement.replace("NEW.note IS ''", "NEW.note IS '' AND NEW.action_id IS OLD.action_id"))
