"""Response codes: why a payment or an action was approved or declined, in the field's ranges and in our own words."""

from typing import Final

import bank
from store import Action, ActionStatus, Payment, Status

SUMMARIES: Final = {
    bank.APPROVED: "Approved",
    bank.DO_NOT_HONOUR: "Declined - do not honour",
}

# Where no code is recorded: older gateways recorded none, and an operator who settles a payment gives none.
OF_STATUS: Final[dict[Status | ActionStatus, str]] = {
    Status.AUTHORIZED: bank.APPROVED,
    Status.DECLINED: bank.DO_NOT_HONOUR,
    ActionStatus.APPROVED: bank.APPROVED,
    ActionStatus.DECLINED: bank.DO_NOT_HONOUR,
}


def code_of(record: Payment | Action) -> str | None:
    """Return the code of a payment or an action, None while it is PENDING."""
    return record.response_code or OF_STATUS.get(record.status)
