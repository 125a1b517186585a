"""What can go wrong between the gateway and a bank: one class for each reaction of the caller.

    BankError
    ├── NotReached       money has not moved; sending the request again later is safe
    │   ├── Overloaded   no slot for a call was free in time, so nothing was sent
    │   └── Unavailable  the bank answered 503
    ├── Refused          money has not moved; the bank rejected our request, and sending it again is useless
    ├── NoAnswer         money may have moved; never report a decline, never send the request again blindly
    │   └── NoReply      no complete reply came
    ├── NotSupported     the bank has no such operation; nothing was sent
    └── NoLookUp         the bank cannot be asked for the outcome of a payment; an operator has to find out

A decline is not an error but a value. Messages are the gateway's own words. They hold nothing that the bank or the
merchant sent, so they can be logged.
"""


class BankError(Exception):
    """The bank neither authorized nor declined.

    sent: whether the request, or an earlier attempt of the same call, may have left the gateway
    """

    def __init__(self, reason: object = "", *, sent: bool = True) -> None:
        super().__init__(reason)
        self.sent = sent


class NotReached(BankError):
    """The request was never sent, or the bank answered 503."""


class Overloaded(NotReached):
    """Too many payments are in progress."""


class Unavailable(NotReached):
    """The bank, or a proxy in front of it, answered 503."""


class Refused(BankError):
    """The bank answered with a 4xx that says that the request itself is wrong."""


class NoAnswer(BankError):
    """The request may have arrived, and no readable answer, or one that leaves the outcome open, came back."""


class NoReply(NoAnswer):
    """The request may have arrived, and no complete reply came back in time."""


class NotSupported(BankError):
    """The bank has no such operation."""

    def __init__(self, reason: object = "the bank has no such operation") -> None:
        super().__init__(reason, sent=False)


class NoLookUp(BankError):
    """The bank offers no look-up of payments."""
