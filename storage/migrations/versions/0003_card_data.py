"""Clear the fingerprints that were made with the CVV, and salt the digests of idempotency keys.

The new name of the column stops the claims of gateways that still run an older version: they would neither find the
new digests nor accept a cleared fingerprint. They answer payments with an idempotency key with a 503.
"""

import secrets

import sqlalchemy as sa
from alembic import op

from storage.tables import KEY_SALT, OLDER_DIGESTS, meta

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("ALTER TABLE payments RENAME COLUMN fingerprint TO payment_fingerprint")
    op.add_column("payments", sa.Column("fingerprint_key", sa.String(8)))
    # The id of a key is the beginning of its key check (store.py), so the rows can name the key of their digests.
    cleared = op.get_bind().execute(
        sa.text(
            "UPDATE payments SET payment_fingerprint = '', fingerprint_key = "
            "(SELECT substr(value, 1, 8) FROM meta WHERE name = 'key_check') WHERE idempotency_key IS NOT NULL"
        )
    )
    facts = [{"name": KEY_SALT, "value": secrets.token_hex(32)}]
    if cleared.rowcount:
        facts.append({"name": OLDER_DIGESTS, "value": "yes"})
    op.bulk_insert(meta, facts)
