"""How payments are erased in a database: what goes, what stays, and what the audit trail says of it.

What is kept of the card goes, with the fingerprint, which is made of it, and so does free text: the notes of operators,
and the merchant's references, metadata and reasons. The id, the merchant, the amount, the status, the times and the
digest of the idempotency key stay: a repeated key must never become a second payment. A released claim is erased like
a payment, and stays for the same reason.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import sqlalchemy as sa

from storage.clock import now
from storage.records import AUTOMATIC, ERASED, Change, fields_of
from storage.tables import OLDEST_GATEWAY, actions, changes, is_pending, meta, payments

# The first version of the schema whose gateways expect erased payments. An older one would show what is left of them.
SINCE: Final = "0006"

_nothing_is_held = sa.and_(payments.c.held == 0, payments.c.refund_held == 0)
_may_be_erased = sa.and_(~is_pending, payments.c.erased_at.is_(None), _nothing_is_held)
_require_newer = sa.update(meta).where(meta.c.name == OLDEST_GATEWAY, meta.c.value < SINCE).values(value=SINCE)


def older(connection: sa.Connection, age: timedelta, limit: int) -> Sequence[UUID]:
    """Return payments that are older than this and may be erased, oldest first, each to one process."""
    created_before = connection.execute(sa.select(now())).scalar_one() - age
    old = sa.select(payments.c.id).where(_may_be_erased, payments.c.created_at < created_before)
    return connection.scalars(old.order_by(payments.c.created_at).limit(limit).with_for_update(skip_locked=True)).all()


def erase(connection: sa.Connection, payment_ids: Sequence[UUID], erased_by: str, note: str) -> list[Change]:
    """Erase those of these payments that may be erased; return the lines of the audit trail.

    The first erasure in a database ends the work of gateways that do not know that a payment may be erased.
    """
    at = datetime.now(UTC)
    emptied = {
        "card_last4": "",
        "expiry_month": 0,
        "expiry_year": 0,
        "payment_fingerprint": sa.case((payments.c.payment_fingerprint.is_not(None), "")),
        "reference": None,
        "metadata": {},
        "card_scheme": None,
        "erased_at": at,
    }
    statement = sa.update(payments).where(payments.c.id.in_(payment_ids), _may_be_erased).values(emptied)
    erased = connection.execute(statement.returning(payments.c.id, payments.c.status)).all()
    lines = [
        Change(
            payment_id=payment_id,
            changed_at=at,
            changed_by=erased_by,
            from_status=status,
            to_status=ERASED,
            note=note,
        )
        for payment_id, status in erased
    ]
    if lines:
        connection.execute(_require_newer)
        of_payments = actions.c.payment_id.in_([line.payment_id for line in lines])
        connection.execute(sa.update(actions).where(of_payments).values(reason=None, reference=None, metadata={}))
        free_text = sa.and_(changes.c.payment_id.in_([line.payment_id for line in lines]), changes.c.note != "")
        connection.execute(sa.update(changes).where(free_text, changes.c.changed_by.not_in(AUTOMATIC)).values(note=""))
        connection.execute(sa.insert(changes).inline(), [fields_of(line) for line in lines])
    return lines
