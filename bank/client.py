"""The acquiring bank over HTTP: its protocol, and the meaning of each of its answers.

This module guarantees three things:

* When money may have moved, the outcome is `NoAnswer` and nothing else.
* Only a request that the bank certainly did not process is sent again.
* No exception holds the request. Exceptions of `requests` hold it, card number included, so none of them leaves
  this module, not even as a `__context__`.
"""

import asyncio
import copy
import json
import time
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, Self, TypeVar
from uuid import UUID

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from bank import deadline, replies, waiting
from bank.acquirer_actions import AcquirerActions
from bank.errors import BankError, NoAnswer, NoLookUp, NoReply, NotReached
from bank.interface import (
    APPROVED,
    DO_NOT_HONOUR,
    ActionLookUp,
    ActionRequest,
    ActionResult,
    ActionType,
    Authorization,
    AuthorizationRequest,
    Bank,
    LookUp,
)
from bank.request_headers import HEADERS
from telemetry import metrics

R = TypeVar("R")

# The longest time in seconds for a look-up, retries included: others wait behind it.
LOOK_UP_S: Final = 3.0

# Threads that connect, which takes a few milliseconds. When connecting hangs, a call that waits for a thread ends
# after BANK_CONNECT_TIMEOUT_S as well.
CONNECT_THREADS: Final = 32

# The first retry is immediate. Before the second and later ones the wait is 0.2 s, 0.4 s, ... up to 1 s, plus up to
# 0.1 s of jitter, so that gateways that lost the bank at the same time do not return at the same time.
BACKOFF_FACTOR_S: Final = 0.1
BACKOFF_MAX_S: Final = 1.0
BACKOFF_JITTER_S: Final = 0.1


class AcquiringBank(Bank):
    """A bank that speaks the acquirer's protocol at `{url}/payments`, and perhaps its extension for actions."""

    def __init__(
        self,
        url: str,
        *,
        connect_timeout_s: float,
        timeout_s: float,
        retries: int,
        concurrency: int,
        ca_file: str | None = None,
        client_cert: str | None = None,
    ) -> None:
        self._url = url.rstrip("/") + "/payments"
        self._connect_timeout_s = connect_timeout_s
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(CONNECT_THREADS, thread_name_prefix="bank")
        self._verify, self._cert = ca_file or True, client_cert
        # No session: it would keep cookies, and take proxies, .netrc and CA bundles from the environment.
        self._adapter = _Adapter(pool_maxsize=concurrency, max_retries=_retry(retries))
        self._post = requests.Request("POST", self._url).prepare()
        self._actions = AcquirerActions(url.rstrip("/"), self._send)

    async def authorize(self, request: AuthorizationRequest) -> Authorization:
        """Ask the bank to authorize a payment.

        Takes at most `timeout_s`, retries included. Raises `NotReached`, `Refused` or `NoAnswer`.
        """
        seconds = min(self._timeout_s, request.answer_by - time.monotonic())
        return await self._call(seconds, lambda: self._authorize(request))

    async def look_up(self, payment_id: UUID) -> LookUp:
        """Ask the bank for the outcome of a payment, as the built-in simulator offers it.

        Raises `NoLookUp` for every reply that names no payment. A 404, for example, can come from a server
        without look-up, and must not be read as "unknown". Only `"final": true` beside "unknown" is the bank's promise
        never to authorize the payment.
        """
        seconds = min(self._timeout_s, LOOK_UP_S)
        return await self._call(seconds, lambda: self._look_up(payment_id))

    async def supports(self, action: ActionType) -> bool:
        """Return whether the bank has the extension for actions, of which it is asked once a minute at most.

        Raises a `BankError` if that is not known now.
        """
        seconds = min(self._timeout_s, LOOK_UP_S)
        return action in await self._actions.capabilities(partial(self._call, seconds))

    async def capture(self, request: ActionRequest) -> ActionResult:
        """Capture an authorized payment, as `Bank.capture` says; the other actions likewise."""
        seconds = min(self._timeout_s, request.answer_by - time.monotonic())
        return await self._call(seconds, lambda: self._actions.act(request))

    void = refund = capture

    async def look_up_action(self, payment_id: UUID, action_id: UUID) -> ActionLookUp:
        """Ask the bank for the outcome of an action; otherwise as `look_up`."""
        seconds = min(self._timeout_s, LOOK_UP_S)
        return await self._call(seconds, lambda: self._actions.look_up(payment_id, action_id))

    def close(self) -> None:
        """Close the pooled connections; wait up to BANK_CONNECT_TIMEOUT_S for those being made."""
        self._threads.shutdown()
        self._adapter.close()

    def _authorize(self, request: AuthorizationRequest) -> Authorization:
        # A bank that supports Idempotency-Key never authorizes the same payment twice.
        payment_id = str(request.payment_id)
        identity = {"Idempotency-Key": payment_id, **request.trace}
        body = json.dumps(_protocol(request)).encode()
        content = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        post = copy.copy(self._post)
        # HTTPAdapter needs a mapping; a dict costs less than requests' case-insensitive one.
        post.headers = {**HEADERS, **content, **identity}  # type: ignore[assignment]
        post.body = body
        with self._send(post) as response:
            reply = replies.decision(response, partial(replies.check_id, what="payment", wanted=payment_id))
        return _authorization(reply, request.card_number)

    def _look_up(self, payment_id: UUID) -> LookUp:
        with self._send(requests.Request("GET", f"{self._url}/{payment_id}", HEADERS).prepare()) as response:
            reply = replies.information(response)
        if not isinstance(reply, dict) or "payment_id" not in reply:
            raise NoLookUp("this bank offers no look-up")
        replies.check_id(reply, "payment", str(payment_id))
        known: dict[object, bool | None] = {"authorized": True, "declined": False, "unknown": None}
        if reply.get("status") not in known:
            raise NoAnswer("the bank's reply is not readable")
        authorized = known[reply["status"]]
        final = authorized is None and reply.get("final") is True
        return LookUp(authorized, final=final, code=replies.code_of(reply) if authorized else "")

    def _send(self, request: requests.PreparedRequest) -> requests.Response:
        return self._adapter.send(
            request,
            timeout=(self._connect_timeout_s, self._timeout_s),
            stream=True,  # replies.py limits the size of the body
            verify=self._verify,
            cert=self._cert,
        )

    def _call(self, seconds: float, call: Callable[[], R]) -> Awaitable[R]:
        return waiting.run(lambda: self._guarded(seconds, call))

    def _guarded(self, seconds: float, call: Callable[[], R]) -> R:
        """Make a call within `seconds`; turn every exception into a `BankError` without the original's text."""
        deadline.start(seconds, self._threads)
        try:
            return call()
        except BankError as error:
            outcome = error
        except Exception as error:  # the kind does not matter: what counts is whether anything was sent
            kind = type(error).__name__
            outcome = NoReply(kind) if deadline.was_sent() else NotReached(kind)
            _forget(error)
        outcome.sent = deadline.any_was_sent()
        if isinstance(outcome, NoAnswer):
            deadline.close_connection()
        try:
            raise outcome.with_traceback(None)  # outside the except block: no __context__
        finally:
            del outcome  # it would refer to itself through this frame, and keep the request


def _forget(error: BaseException) -> None:
    """Clear the frames that an exception passed: they hold the request, and refer to the exception that refers to them.

    Otherwise the card would stay in memory until the garbage collector runs.
    """
    chain: BaseException | None = error
    while chain is not None:
        traceback.clear_frames(chain.__traceback__)
        chain.__traceback__ = None
        chain = chain.__context__


class _Adapter(HTTPAdapter):
    """An adapter for one bank, without what `requests` does for other servers: it takes a tenth of a payment's CPU.

    The overridden methods are those that `HTTPAdapter` offers for this.
    """

    _pool: Any = None

    def init_poolmanager(self, connections: int, maxsize: int, *args: Any, **kwargs: Any) -> None:
        del args  # `block`: a call that finds no free connection opens one; BANK_CONCURRENCY limits their number
        self.poolmanager = deadline.DeadlinePools(num_pools=connections, maxsize=maxsize, **kwargs)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        if self._pool is None:
            self._pool = super().get_connection_with_tls_context(*args, **kwargs)
        return self._pool

    def request_url(self, request: requests.PreparedRequest, proxies: object) -> str:  # noqa: ARG002
        return request.path_url  # there is no proxy

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """Make a response with what is read of it: its status and body. Cookies and headers of a bank are not used."""
        response = requests.Response()
        response.status_code, response.raw, response.request = resp.status, resp, req
        return response

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()  # PoolManager.clear() leaves it to the garbage collector, and `_pool` is a reference
        super().close()


class _Retry(Retry):
    """Retries that wait on the event loop and are counted.

    urllib3 calls `increment` before each further attempt; it raises when no attempt is left.
    """

    def sleep(self, response: object = None) -> None:  # noqa: ARG002  # the bank's Retry-After is ignored
        waiting.wait(asyncio.sleep(min(self.get_backoff_time(), deadline.left_s())))

    def increment(self, *args: Any, **kwargs: Any) -> Self:
        if kwargs.get("error") is not None:
            _forget(kwargs["error"])  # the history of the retries holds it
        further = super().increment(*args, **kwargs)
        metrics.BANK_RETRIES.inc()
        return further


def _retry(retries: int) -> Retry:
    """Retry only when the bank certainly did not process the request: no connection, or a 503."""
    return _Retry(
        total=retries,
        connect=retries,
        status=retries,
        status_forcelist=[503],
        allowed_methods=["GET", "POST"],
        read=False,
        other=0,
        redirect=False,
        raise_on_status=False,
        respect_retry_after_header=False,  # the merchant is waiting
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


def _authorization(reply: Any, card_number: str) -> Authorization:
    if not isinstance(reply, dict) or not isinstance(reply.get("authorized"), bool):
        raise NoAnswer("the bank's reply is not readable")
    code, authorized = replies.code_of(reply), reply["authorized"]
    response_code = APPROVED if authorized else DO_NOT_HONOUR
    return Authorization(authorized, code="" if card_number in code else code, response_code=response_code)
