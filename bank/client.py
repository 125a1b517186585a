"""The acquiring bank over HTTP: its protocol, and what each of its answers means.

The protocol and the table of answers are in README.md. What this module guarantees is that money
that may have moved is never reported as anything but `NoAnswer`, that only what certainly did not
happen is tried again, and that no exception carries the request: those of `requests` do, card
number and all, so none of them leaves this module, not even as a `__context__`.
"""

import json
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from bank import deadline
from bank.errors import BankError, NoAnswer, NotReached, Refused
from bank.interface import AuthorizationRequest

MAX_REPLY_BYTES: Final = 64 * 1024

# The first retry is immediate; before the second and later ones 0.2 s, 0.4 s, ... up to 1 s, plus
# up to 0.1 s of jitter, so that gateways that lost the bank together do not come back together.
BACKOFF_FACTOR_S: Final = 0.1
BACKOFF_MAX_S: Final = 1.0
BACKOFF_JITTER_S: Final = 0.1


class AcquiringBank:
    """A bank that speaks the acquirer's protocol at `{url}/payments`."""

    def __init__(self, url: str, *, connect_timeout_s: float, timeout_s: float, retries: int, concurrency: int) -> None:
        self._url = url.rstrip("/") + "/payments"
        self._connect_timeout_s = connect_timeout_s
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy, .netrc or CA bundle from the environment
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = _Adapter(pool_maxsize=concurrency, max_retries=_retry(retries))
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def authorize(self, request: AuthorizationRequest) -> bool:
        """Ask the bank to authorize the payment; True when it did, False when it declined.

        Takes at most `timeout_s`, retries included. Raises `NotReached`, `Refused`, `NoAnswer`.
        """
        deadline.start(self._timeout_s)
        outcome: bool | BankError
        try:
            outcome = self._ask(request)
        except BankError as error:
            outcome = error
        except Exception as error:  # whatever it was: what counts is whether anything was sent
            kind = type(error).__name__
            outcome = NoAnswer(kind) if deadline.was_sent() else NotReached(kind)
        if isinstance(outcome, BankError):
            raise outcome.with_traceback(None)  # outside the except block: no __context__
        return outcome

    def close(self) -> None:
        """Close the pooled connections."""
        self._session.close()

    def _ask(self, request: AuthorizationRequest) -> bool:
        with self._session.post(
            self._url,
            json=_protocol(request),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            timeout=(self._connect_timeout_s, self._timeout_s),
            allow_redirects=False,  # they would carry the card elsewhere
            stream=True,  # the body is read below, no more of it than is allowed
        ) as response:
            status = response.status_code
            if status == 200:
                return _authorized(_read(response))
            if status == 503:
                raise NotReached("the bank answered 503")
            if 400 <= status <= 499:
                raise Refused(f"the bank answered {status}")
            raise NoAnswer(f"the bank answered {status}")


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, connections: int, maxsize: int, *args: Any, **kwargs: Any) -> None:
        del args  # `block`: a call that finds no pooled connection opens one; BANK_CONCURRENCY bounds them
        self.poolmanager = deadline.DeadlinePools(num_pools=connections, maxsize=maxsize, **kwargs)


def _retry(retries: int) -> Retry:
    """Retry what certainly did not happen: no connection, or a 503. Everything else is raised."""
    return Retry(
        total=retries,
        connect=retries,
        status=retries,
        status_forcelist=[503],
        allowed_methods=["POST"],
        read=False,
        other=0,
        redirect=False,
        raise_on_status=False,
        respect_retry_after_header=False,  # the merchant is waiting, and gets a Retry-After from us
        backoff_factor=BACKOFF_FACTOR_S,
        backoff_max=BACKOFF_MAX_S,
        backoff_jitter=BACKOFF_JITTER_S,
    )


def _protocol(request: AuthorizationRequest) -> dict[str, str | int]:
    return {
        "card_number": request.card_number,
        "expiry_date": f"{request.expiry_month:02}/{request.expiry_year:04}",
        "currency": request.currency,
        "amount": request.amount,
        "cvv": request.cvv,
    }


def _read(response: requests.Response) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(8 * 1024):
        body += chunk
        if len(body) > MAX_REPLY_BYTES:
            raise NoAnswer("the bank's reply is too large")
    return bytes(body)


def _authorized(body: bytes) -> bool:
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        reply = None
    if not isinstance(reply, dict) or not isinstance(reply.get("authorized"), bool):
        raise NoAnswer("the bank's reply can't be read")
    authorized: bool = reply["authorized"]
    return authorized
