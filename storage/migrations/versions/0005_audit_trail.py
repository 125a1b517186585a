"""Create the audit trail of API keys, let the audit trail only grow, and name the oldest gateway that is served."""

import sqlalchemy as sa
from alembic import op

from storage.tables import OLDEST_GATEWAY, Utc, meta

revision = "0005"
down_revision = "0004"

_REFUSE = "refuse_change_of_audit_trail"
_REFUSAL = "the audit trail can only grow"


def upgrade() -> None:
    op.create_table(
        "api_key_changes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("key_id", sa.String(12), nullable=False),
        sa.Column("merchant", sa.String(64), nullable=False),
        sa.Column("changed_at", Utc, nullable=False),
        sa.Column("changed_by", sa.String(64), nullable=False),
        sa.Column("change", sa.String(10), nullable=False),
    )
    for table in ("changes", "api_key_changes", "bank_moves"):
        for statement in _append_only(table, op.get_bind().dialect.name):
            op.execute(statement)
    op.bulk_insert(meta, [{"name": OLDEST_GATEWAY, "value": revision}])


def _append_only(table: str, dialect: str) -> list[str]:
    """Return the statements that let a table accept new rows only."""
    if dialect == "postgresql":
        refuse = f"EXECUTE FUNCTION {_REFUSE}()"
        raises = f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$"
        return [
            f"CREATE OR REPLACE FUNCTION {_REFUSE}() RETURNS trigger LANGUAGE plpgsql AS {raises}",
            f"CREATE TRIGGER {table}_rows BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW {refuse}",
            f"CREATE TRIGGER {table}_all BEFORE TRUNCATE ON {table} FOR EACH STATEMENT {refuse}",
        ]
    refuse = f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
    exists = f"EXISTS (SELECT 1 FROM {table} WHERE id = NEW.id)"  # noqa: S608  # our own names
    return [
        f"CREATE TRIGGER {table}_update BEFORE UPDATE ON {table} {refuse}",
        f"CREATE TRIGGER {table}_delete BEFORE DELETE ON {table} {refuse}",
        # REPLACE deletes a row without firing a trigger for it.
        f"CREATE TRIGGER {table}_replace BEFORE INSERT ON {table} WHEN {exists} {refuse}",
    ]
