"""What asking the bank for an authorization and for an action have in common."""

from typing import Final

import bank
import store

# The bank did not process the request: nothing is recorded of it.
NOT_PROCESSED: Final = (bank.NotReached, bank.Refused, bank.NotSupported)

# Who settles, in the audit trail.
GATEWAY: Final = "gateway"

# Seconds of a request that the store may take, half of them before the bank is asked. The first request
# with a key counts as running until the bank's deadline and these seconds have passed.
STORE_S: Final = 2.0

# Seconds until the first look-up of what the bank has not answered: a bank that is slow to answer is likely to know the
# outcome by then.
LOOK_UP_S: Final = 2.0


def reason(error: BaseException) -> str:
    """Return the message of an exception of the gateway's own; any other may quote a card, so return its type."""
    return str(error) if isinstance(error, (bank.BankError, store.StoreUnavailable)) else type(error).__name__
