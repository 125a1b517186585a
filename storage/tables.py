"""Which tables a database has now; the steps in storage/migrations/ create them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from storage.records import RELEASED, Payment, Status

metadata = sa.MetaData()


class Utc(sa.TypeDecorator[datetime]):
    """Aware datetimes, stored in UTC without a time zone, because SQLite has none."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        return value.replace(tzinfo=UTC) if value else None


payments = sa.Table(
    "payments",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("merchant", sa.String(64), nullable=False),
    sa.Column("idempotency_key", sa.String(64)),  # its digest
    sa.Column("payment_fingerprint", sa.String(64)),  # empty: erased, or cleared because the CVV took part in it
    sa.Column("fingerprint_key", sa.String(8)),  # the id of the FINGERPRINT_KEY that the digests of this row need
    sa.Column("status", sa.String(10), nullable=False),
    sa.Column("card_last4", sa.String(4), nullable=False),
    sa.Column("expiry_month", sa.Integer, nullable=False),
    sa.Column("expiry_year", sa.Integer, nullable=False),
    sa.Column("currency", sa.String(3), nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("created_at", Utc, nullable=False),
    # When the last request claimed the payment. This time and the next two are the store's (storage/clock.py).
    sa.Column("claimed_at", Utc, nullable=False),
    # A PENDING payment's first request may be running until then; afterwards the payment is unresolved.
    sa.Column("working_until", Utc, nullable=False),
    # When a look-up of a PENDING payment is due, and how many there were.
    sa.Column("look_up_at", Utc, nullable=False),
    sa.Column("look_ups", sa.Integer, nullable=False, default=0),
    # The last request that claimed the payment. The id of a request is the one that it gave to a new payment.
    sa.Column("attempt", sa.Uuid, nullable=False),
    # Counts the payments of one idempotency key: after a released one there may be another.
    sa.Column("key_use", sa.Integer, nullable=False),
    # The identity of the bank that the payment is sent to.
    sa.Column("bank", sa.Text, nullable=False),
    sa.Column("authorization_code", sa.String(64), nullable=False),
    sa.Column("erased_at", Utc),
    sa.UniqueConstraint("merchant", "idempotency_key", "key_use", name="payments_key_use"),
    sa.CheckConstraint("status IN ('AUTHORIZED', 'DECLINED', 'PENDING', 'RELEASED')", name="payments_status"),
    sa.CheckConstraint("(idempotency_key IS NULL) = (payment_fingerprint IS NULL)"),
    sa.Index("payments_created_at", "created_at"),
)
payment_columns = [payments.c[name] for name in Payment.__dataclass_fields__]
is_pending = payments.c.status == Status.PENDING
is_released = payments.c.status == RELEASED
sa.Index("payments_pending", payments.c.look_up_at, postgresql_where=is_pending, sqlite_where=is_pending)
sa.Index(
    "payments_key",
    payments.c.merchant,
    payments.c.idempotency_key,
    unique=True,
    postgresql_where=~is_released,
    sqlite_where=~is_released,
)
_is_kept = payments.c.erased_at.is_(None)
sa.Index("payments_to_erase", payments.c.created_at, postgresql_where=_is_kept, sqlite_where=_is_kept)

changes = sa.Table(
    "changes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("payment_id", sa.Uuid, sa.ForeignKey("payments.id"), nullable=False, index=True),
    sa.Column("changed_at", Utc, nullable=False),
    sa.Column("changed_by", sa.String(64), nullable=False),
    sa.Column("from_status", sa.String(10), nullable=False),
    sa.Column("to_status", sa.String(10), nullable=False),
    sa.Column("note", sa.String(500), nullable=False),
    sa.Column("authorization_code", sa.String(64), nullable=False),
)

bank_moves = sa.Table(
    "bank_moves",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("old", sa.Text, nullable=False),
    sa.Column("new", sa.Text, nullable=False),
    sa.Column("moved_at", Utc, nullable=False),
    sa.Column("moved_by", sa.String(64), nullable=False),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.String(12), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("merchant", sa.String(64), nullable=False),
    sa.Column("created_at", Utc, nullable=False),
    sa.Column("last_used_at", Utc),
    sa.Column("revoked_at", Utc),
)

api_key_changes = sa.Table(
    "api_key_changes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("key_id", sa.String(12), nullable=False),
    sa.Column("merchant", sa.String(64), nullable=False),
    sa.Column("changed_at", Utc, nullable=False),
    sa.Column("changed_by", sa.String(64), nullable=False),
    sa.Column("change", sa.String(10), nullable=False),
)

# Facts about the store, by name. The HMAC that identifies FINGERPRINT_KEY:
KEY_CHECK: Final = "key_check"
# The salt of the digests of idempotency keys, 64 hex digits:
KEY_SALT: Final = "key_salt"
# The oldest version of the schema whose gateways may use this one. A step that only expands the schema leaves it, one
# that older gateways can't work with raises it to its own version:
OLDEST_GATEWAY: Final = "oldest_gateway"
# Present if there are digests of idempotency keys that older gateways made, as HMACs under FINGERPRINT_KEY:
OLDER_DIGESTS: Final = "older_digests"
# When a gateway last tried whether the database takes writes:
TRIED_AT: Final = "tried_at"

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("value", sa.String(64), nullable=False),
)


def payment_of(row: Sequence[Any]) -> Payment:
    """Return the record in a row that begins with `payment_columns`."""
    values = dict(zip(Payment.__dataclass_fields__, row, strict=False))
    return Payment(**{**values, "status": Status(values["status"])})
