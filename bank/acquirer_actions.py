"""Captures, voids and refunds at the acquirer: an extension of its protocol, which a bank may lack.

    GET  {url}/capabilities                              {"actions": ["captures", "voids", "refunds"]}
    POST {url}/payments/{payment_id}/captures            {"action_id": ..., "approved": true}
    GET  {url}/payments/{payment_id}/actions/{action_id} {"action_id": ..., "status": "approved"}

Whether a bank has the extension is asked before anything else, because a bank without it may answer what it does not
know with 200 (docs/decisions/capabilities.md). A reply about an action counts only if it carries that action's id.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final
from uuid import UUID

import requests

from bank import replies
from bank.errors import NoAnswer, NoLookUp
from bank.interface import APPROVED, DO_NOT_HONOUR, ActionLookUp, ActionRequest, ActionResult, ActionType
from bank.request_headers import HEADERS

# Seconds for which an answer about capabilities is kept.
KEPT_S: Final = 60.0

# The names of actions in paths and in the answer about capabilities.
NAMES: Final = {ActionType.CAPTURE: "captures", ActionType.VOID: "voids", ActionType.REFUND: "refunds"}

# The only answer that says that the bank has the extension.
CAPABILITIES: Final = {"actions": list(NAMES.values())}

_Send = Callable[[requests.PreparedRequest], requests.Response]
_Call = Callable[[Callable[[], frozenset[ActionType]]], Awaitable[frozenset[ActionType]]]


class AcquirerActions:
    """The extension of one bank.

    url: the bank's, without a slash at its end
    send: sends a request within a call to the bank
    clock: seconds that only grow
    """

    def __init__(self, url: str, send: _Send, clock: Callable[[], float] = time.monotonic) -> None:
        self._url, self._send, self._clock = url, send, clock
        self._known: frozenset[ActionType] = frozenset()
        self._known_until = clock()
        self._asking: asyncio.Task[frozenset[ActionType]] | None = None

    async def capabilities(self, call: _Call) -> frozenset[ActionType]:
        """Return the actions that the bank can do. Callers at the same time share one request.

        call: makes a call to the bank
        """
        if self._clock() >= self._known_until:
            if self._asking is None:
                self._asking = asyncio.create_task(self._ask(call))
                self._asking.add_done_callback(_retrieve)
            return await asyncio.shield(self._asking)
        return self._known

    def act(self, request: ActionRequest) -> ActionResult:
        """Send an action, and return what the bank decided."""
        action_id = str(request.action_id)
        sent = {"action_id": action_id, "amount": request.amount, "currency": request.currency}
        if request.type is ActionType.CAPTURE:
            sent["final"] = request.final
        headers = {
            **HEADERS,
            "Content-Type": "application/json",
            "Idempotency-Key": action_id,
            **request.trace,
        }
        url = f"{self._url}/payments/{request.payment_id}/{NAMES[request.type]}"
        post = requests.Request("POST", url, headers, data=json.dumps(sent)).prepare()
        with self._send(post) as response:
            reply = replies.decision(response, partial(replies.check_id, what="action", wanted=action_id))
        if not isinstance(reply, dict) or "action_id" not in reply or not isinstance(reply.get("approved"), bool):
            raise NoAnswer("the bank's reply is not readable")
        return ActionResult(reply["approved"], APPROVED if reply["approved"] else DO_NOT_HONOUR)

    def look_up(self, payment_id: UUID, action_id: UUID) -> ActionLookUp:
        """Return the outcome of an action."""
        url = f"{self._url}/payments/{payment_id}/actions/{action_id}"
        with self._send(requests.Request("GET", url, HEADERS).prepare()) as response:
            reply = replies.information(response)
        if not isinstance(reply, dict) or "action_id" not in reply:
            raise NoLookUp("this bank offers no look-up of actions")
        replies.check_id(reply, "action", str(action_id))
        match reply.get("status"):
            case "approved":
                return ActionLookUp(approved=True, response_code=APPROVED)
            case "declined":
                return ActionLookUp(approved=False, response_code=DO_NOT_HONOUR)
            case "unknown":
                return ActionLookUp(approved=None, final=reply.get("final") is True)
        raise NoAnswer("the bank's reply is not readable")

    async def _ask(self, call: _Call) -> frozenset[ActionType]:
        try:
            self._known = await call(self._read_capabilities)
            self._known_until = self._clock() + KEPT_S
        finally:
            self._asking = None
        return self._known

    def _read_capabilities(self) -> frozenset[ActionType]:
        with self._send(requests.Request("GET", f"{self._url}/capabilities", HEADERS).prepare()) as response:
            reply = replies.information(response)
        return frozenset(NAMES) if reply == CAPABILITIES else frozenset()


def _retrieve(asking: "asyncio.Task[frozenset[ActionType]]") -> None:
    """Mark the exception as retrieved: the callers may be gone."""
    if not asking.cancelled():
        asking.exception()
