"""What can go wrong between the gateway and a bank: one class per thing the caller does differently.

    BankError
    ├── NotReached   money certainly has not moved; asking again later is safe
    │   └── Overloaded   likewise; it was not even tried, there are too many payments already
    ├── Refused      money certainly has not moved; the bank faults our call, asking again is useless
    ├── NoAnswer     money may have moved; never call it declined, never ask again blindly
    └── NoLookUp     the bank can't be asked what became of a payment; a person has to find out

A decline is no error but a value. Messages are the gateway's own words: nothing that the bank said
and nothing that the merchant sent, so they can be logged as they are.
"""


class BankError(Exception):
    """The bank gave neither an authorization nor a decline."""


class NotReached(BankError):
    """The request was never sent, or the bank answered 503."""


class Overloaded(NotReached):
    """More payments are under way than may be at the bank at once and wait for it."""


class Refused(BankError):
    """The bank answered 4xx: the request that the gateway made is at fault."""


class NoAnswer(BankError):
    """The request may have arrived, and no readable answer came back."""


class NoLookUp(BankError):
    """The bank does not offer to look payments up."""
