"""Let payments be erased: when each was, an index of those that are not, and notes that can be cleared.

Older gateways keep working: the first erasure, not this step, makes them too old (storage/erasure.py).
"""

import sqlalchemy as sa
from alembic import op

from storage.tables import Utc

revision = "0006"
down_revision = "0005"

_NOT_ERASED = sa.text("erased_at IS NULL")
_FUNCTION = "refuse_change_unless_erased"
_REFUSAL = "the audit trail can only grow"
_ERASED = "EXISTS (SELECT 1 FROM payments WHERE id = OLD.payment_id AND erased_at IS NOT NULL)"
_KEPT = ("id", "payment_id", "changed_at", "changed_by", "from_status", "to_status", "authorization_code")


def upgrade() -> None:
    op.add_column("payments", sa.Column("erased_at", Utc))
    op.create_index(
        "payments_to_erase", "payments", ["created_at"], postgresql_where=_NOT_ERASED, sqlite_where=_NOT_ERASED
    )
    for statement in _clearable(op.get_bind().dialect.name):
        op.execute(statement)


def _clearable(dialect: str) -> list[str]:
    """Return the statements that let a note of an erased payment be cleared, and nothing else of the audit trail."""
    if dialect == "postgresql":
        clears = f"TG_OP = 'UPDATE' AND NEW.note = '' AND {_ERASED}"
        body = (
            f"BEGIN IF {clears} THEN OLD.note := ''; IF NEW IS NOT DISTINCT FROM OLD THEN RETURN NEW; END IF; END IF;"
            f" RAISE EXCEPTION '{_REFUSAL}'; END"
        )
        check = f"EXECUTE FUNCTION {_FUNCTION}()"
        return [
            f"CREATE FUNCTION {_FUNCTION}() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$",
            "DROP TRIGGER changes_rows ON changes",
            f"CREATE TRIGGER changes_rows BEFORE UPDATE OR DELETE ON changes FOR EACH ROW {check}",
        ]
    clears = " AND ".join(["NEW.note IS ''", *(f"NEW.{name} IS OLD.{name}" for name in _KEPT), _ERASED])
    refuse = f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
    return [
        "DROP TRIGGER changes_update",
        f"CREATE TRIGGER changes_update BEFORE UPDATE ON changes WHEN NOT ({clears}) {refuse}",
    ]
