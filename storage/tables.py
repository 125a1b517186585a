"""Which tables a database has now; the steps in storage/migrations/ create them."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from storage.records import RELEASED, Action, ActionStatus, ActionType, Payment, Status

metadata = sa.MetaData()


class Utc(sa.TypeDecorator[datetime]):
    """Aware datetimes, stored in UTC without a time zone, because SQLite has none."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        return value.replace(tzinfo=UTC) if value else None


class Json(sa.TypeDecorator[Mapping[str, str]]):
    """Names and texts, as JSON in ASCII, because PostgreSQL's own JSON can't hold U+0000; NULL if there are none."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Mapping[str, str] | None, dialect: sa.Dialect) -> str | None:  # noqa: ARG002
        return json.dumps(dict(value)) if value else None

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Mapping[str, str]:  # noqa: ARG002
        found: Mapping[str, str] = json.loads(value) if value else {}
        return found


# What actions have done to a payment's amount, and what they may still do.
BALANCES: Final = ("captured", "voided", "refunded", "held", "refund_held")

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
    sa.Column("reference", sa.String(80)),
    sa.Column("metadata", Json),
    sa.Column("card_scheme", sa.String(16)),
    sa.Column("authorization_code", sa.String(64), nullable=False),
    sa.Column("response_code", sa.String(5), nullable=False, default=""),
    sa.Column("updated_at", Utc),
    sa.Column("erased_at", Utc),
    *(sa.Column(name, sa.BigInteger, nullable=False, server_default="0") for name in BALANCES),
    sa.CheckConstraint(
        "captured >= 0 AND voided >= 0 AND held >= 0 AND captured + voided + held <= amount", name="payments_captured"
    ),
    sa.CheckConstraint(
        "refunded >= 0 AND refund_held >= 0 AND refunded + refund_held <= captured", name="payments_refunded"
    ),
    sa.UniqueConstraint("merchant", "idempotency_key", "key_use", name="payments_key_use"),
    sa.CheckConstraint("status IN ('AUTHORIZED', 'DECLINED', 'PENDING', 'RELEASED')", name="payments_status"),
    sa.CheckConstraint("(idempotency_key IS NULL) = (payment_fingerprint IS NULL)"),
    sa.Index("payments_created_at", "created_at"),
)
payment_columns = [payments.c[name] for name in Payment.__dataclass_fields__]
is_pending = payments.c.status == Status.PENDING
is_released = payments.c.status == RELEASED
sa.Index("payments_pending", payments.c.look_up_at, postgresql_where=is_pending, sqlite_where=is_pending)
_never_looked_up = sa.text("status = 'PENDING' AND look_ups = 0")
sa.Index("payments_new", payments.c.look_up_at, postgresql_where=_never_looked_up, sqlite_where=_never_looked_up)
sa.Index(
    "payments_key",
    payments.c.merchant,
    payments.c.idempotency_key,
    unique=True,
    postgresql_where=~is_released,
    sqlite_where=~is_released,
)
# Literals, so that both databases see that the indexes hold what is asked for.
is_shown = sa.text("status != 'RELEASED' AND erased_at IS NULL")
_place = payments.c.created_at, payments.c.id
sa.Index("payments_of_merchant", payments.c.merchant, *_place, postgresql_where=is_shown, sqlite_where=is_shown)
_has_reference = sa.text("reference IS NOT NULL AND status != 'RELEASED' AND erased_at IS NULL")
sa.Index(
    "payments_of_reference",
    payments.c.merchant,
    payments.c.reference,
    *_place,
    postgresql_where=_has_reference,
    sqlite_where=_has_reference,
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
    sa.Column("action_id", sa.Uuid),
)

actions = sa.Table(
    "actions",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("payment_id", sa.Uuid, sa.ForeignKey("payments.id"), nullable=False),
    sa.Column("merchant", sa.String(64), nullable=False),
    sa.Column("idempotency_key", sa.String(64)),  # its digest
    sa.Column("fingerprint", sa.String(64)),
    sa.Column("type", sa.String(10), nullable=False),
    sa.Column("status", sa.String(10), nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("releases", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.String(3), nullable=False),
    sa.Column("reason", sa.String(200)),
    sa.Column("reference", sa.String(80)),
    sa.Column("metadata", Json),
    sa.Column("response_code", sa.String(5), nullable=False),
    sa.Column("bank", sa.Text, nullable=False),
    sa.Column("created_at", Utc, nullable=False),
    sa.Column("updated_at", Utc, nullable=False),
    # As in `payments`.
    sa.Column("claimed_at", Utc, nullable=False),
    sa.Column("working_until", Utc, nullable=False),
    sa.Column("look_up_at", Utc, nullable=False),
    sa.Column("look_ups", sa.Integer, nullable=False, default=0),
    sa.Column("attempt", sa.Uuid, nullable=False),
    sa.CheckConstraint("type IN ('CAPTURE', 'VOID', 'REFUND')", name="actions_type"),
    sa.CheckConstraint("status IN ('APPROVED', 'DECLINED', 'PENDING')", name="actions_status"),
    sa.CheckConstraint("amount > 0 AND releases >= 0", name="actions_amount"),
    sa.CheckConstraint("(idempotency_key IS NULL) = (fingerprint IS NULL)", name="actions_fingerprint"),
    sa.UniqueConstraint("merchant", "idempotency_key", name="actions_key"),
    sa.Index("actions_of_payment", "payment_id", "created_at", "id"),
)
action_columns = [actions.c[name] for name in Action.__dataclass_fields__]
is_pending_action = actions.c.status == ActionStatus.PENDING
sa.Index("actions_pending", actions.c.look_up_at, postgresql_where=is_pending_action, sqlite_where=is_pending_action)
sa.Index("actions_new", actions.c.look_up_at, postgresql_where=_never_looked_up, sqlite_where=_never_looked_up)

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


def action_of(row: Sequence[Any]) -> Action:
    """Return the record in a row that begins with `action_columns`."""
    values = dict(zip(Action.__dataclass_fields__, row, strict=False))
    return Action(**{**values, "type": ActionType(values["type"]), "status": ActionStatus(values["status"])})
