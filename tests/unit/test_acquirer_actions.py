"""The acquirer's extension for captures, voids and refunds: the meaning of each answer, and when the bank has it."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from uuid import UUID

import pytest
import requests
import responses
from responses import matchers

from bank import ActionLookUp, ActionRequest, ActionResult, ActionType, BankError, NoAnswer, NoLookUp, NotReached
from bank.acquirer_actions import CAPABILITIES, KEPT_S, AcquirerActions
from bank.client import AcquiringBank
from bank.errors import NoReply, Refused
from bank.replies import MAX_REPLY_BYTES
from tests.support import kind_of, reply, scripted_bank

URL = "http://bank.test"
PAYMENT = UUID("3f2b8c1e-5a7d-4e0b-9c56-0d1e2f3a4b5c")
ACTION = UUID("0d4f8a6e-2c1b-4e7a-9f35-8b6c7d1e2f30")
OTHER = UUID("c4e1f7a3-9d2b-4a6c-b8e0-1f2a3b4c5d6e")


@pytest.fixture
def fake() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock() as mock:
        yield mock


def client(**changes: Any) -> AcquiringBank:
    return AcquiringBank(URL, **{"connect_timeout_s": 5, "timeout_s": 10, "retries": 0, "concurrency": 4, **changes})


def action(kind: ActionType = ActionType.CAPTURE, **changes: Any) -> ActionRequest:
    values = {"amount": 400, "currency": "GBP", "final": False, "answer_by": time.monotonic() + 60, **changes}
    trace = {"X-Request-ID": "the request"}
    return ActionRequest(action_id=ACTION, payment_id=PAYMENT, type=kind, merchant="acme", trace=trace, **values)


def outcome(call: Callable[[AcquiringBank], Any], **changes: Any) -> Any:
    """Return what a call returns, or the kind of its error."""
    bank = client(**changes)
    try:
        return asyncio.run(call(bank))
    except BankError as error:
        return kind_of(error)
    finally:
        bank.close()


@pytest.mark.parametrize(
    ("kind", "name", "extra"),
    [
        (ActionType.CAPTURE, "captures", {"final": False}),
        (ActionType.VOID, "voids", {}),
        (ActionType.REFUND, "refunds", {}),
    ],
)
def test_an_action_is_sent_under_its_payment(
    fake: responses.RequestsMock, kind: ActionType, name: str, extra: dict[str, object]
) -> None:
    """Its id is its idempotency key at the bank."""
    sent = {"action_id": str(ACTION), "amount": 400, "currency": "GBP", **extra}
    fake.post(
        f"{URL}/payments/{PAYMENT}/{name}",
        json={"action_id": str(ACTION), "approved": True},
        match=[
            matchers.json_params_matcher(sent),
            matchers.header_matcher({"Idempotency-Key": str(ACTION), "X-Request-ID": "the request"}),
        ],
    )
    methods = {
        ActionType.CAPTURE: AcquiringBank.capture,
        ActionType.VOID: AcquiringBank.void,
        ActionType.REFUND: AcquiringBank.refund,
    }
    assert outcome(lambda bank: methods[kind](bank, action(kind))) == ActionResult(approved=True, response_code="10000")


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, {"action_id": str(ACTION), "approved": False}, ActionResult(approved=False, response_code="20005")),
        (200, {"approved": True}, NoAnswer),
        (200, {"action_id": str(OTHER), "approved": True}, NoAnswer),
        (200, {"action_id": str(ACTION), "approved": "true"}, NoAnswer),
        (200, [], NoAnswer),
        (503, {}, NotReached),
        (503, {"action_id": str(OTHER)}, NoAnswer),
        (400, {}, Refused),
        (404, {"action_id": str(OTHER)}, NoAnswer),
        *[(status, {}, NoAnswer) for status in (201, 202, 204, 307, 408, 409, 425, 429, 499, 500, 502, 504)],
    ],
)
def test_each_answer_to_an_action_has_its_meaning(
    fake: responses.RequestsMock, status: int, body: object, expected: object
) -> None:
    """A decline is a value, and an answer that does not carry the action's id leaves open whether money moved."""
    fake.post(f"{URL}/payments/{PAYMENT}/captures", status=status, json=body)
    assert outcome(lambda bank: bank.capture(action())) == expected
    assert len(fake.calls) == 1


APPROVING = b'{"action_id": "%s", "approved": true' % str(ACTION).encode()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>Bad Gateway</html>", id="HTML"),
        pytest.param(APPROVING, id="cut off"),
        pytest.param(APPROVING + b', "approved": false}', id="a repeated name"),
        pytest.param(APPROVING + b', "x": NaN}', id="not a number"),
        pytest.param(APPROVING + b', "x": "\xff"}', id="not UTF-8"),
        pytest.param(APPROVING + b"}" + b" " * MAX_REPLY_BYTES, id="too large"),
    ],
)
def test_an_unreadable_answer_leaves_the_outcome_open(fake: responses.RequestsMock, body: bytes) -> None:
    """What can't be read in full says neither that the action was done nor that it was not."""
    fake.post(f"{URL}/payments/{PAYMENT}/captures", body=body)
    fake.get(f"{URL}/payments/{PAYMENT}/actions/{ACTION}", body=body)
    assert outcome(lambda bank: bank.capture(action())) is NoAnswer
    assert outcome(lambda bank: bank.look_up_action(PAYMENT, ACTION)) in (NoAnswer, NoLookUp)


def test_an_action_without_a_reply_may_have_been_done() -> None:
    """The bank closes the connection: that is no answer, and the action is not sent again."""
    with scripted_bank(lambda connection: connection.close()) as bank:
        assert error_of(bank.url, action(), retries=2) == (NoReply, True)
    assert len(bank.requests) == 1


def test_an_action_that_waited_too_long_is_not_sent() -> None:
    """After `answer_by` the action counts as abandoned, so the bank must not get it any more."""
    with scripted_bank(reply(200, APPROVING + b"}")) as bank:
        assert error_of(bank.url, action(answer_by=time.monotonic() - 1)) == (NotReached, False)
    assert bank.requests == []


def error_of(url: str, request: ActionRequest, *, retries: int = 0) -> tuple[type[BankError], bool]:
    """Return the class of the error that a capture raises, and whether it may have left the gateway."""
    bank = AcquiringBank(url, connect_timeout_s=5, timeout_s=5, retries=retries, concurrency=1)
    try:
        with pytest.raises(BankError) as raised:
            asyncio.run(bank.capture(request))
    finally:
        bank.close()
    return type(raised.value), raised.value.sent


def test_a_503_is_tried_again_with_the_same_id(fake: responses.RequestsMock) -> None:
    fake.post(f"{URL}/payments/{PAYMENT}/captures", status=503)
    fake.post(f"{URL}/payments/{PAYMENT}/captures", json={"action_id": str(ACTION), "approved": True})
    assert outcome(lambda bank: bank.capture(action()), retries=1).approved
    assert {call.request.headers["Idempotency-Key"] for call in fake.calls} == {str(ACTION)}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, {"status": "approved"}, ActionLookUp(approved=True, response_code="10000")),
        (200, {"status": "declined"}, ActionLookUp(approved=False, response_code="20005")),
        (200, {"status": "unknown", "final": True}, ActionLookUp(approved=None, final=True)),
        (200, {"status": "unknown"}, ActionLookUp(approved=None, final=False)),
        (200, {"status": "unknown", "final": 1}, ActionLookUp(approved=None, final=False)),
        (200, {"status": "approved", "action_id": str(OTHER)}, NoAnswer),
        (200, {"status": "?"}, NoAnswer),
        (404, {}, NoLookUp),
        (503, {}, NotReached),
        (500, {}, NoAnswer),
    ],
)
def test_each_answer_to_a_look_up_has_its_meaning(
    fake: responses.RequestsMock, status: int, body: dict[str, object], expected: object
) -> None:
    """Only `"final": true` beside "unknown" is the bank's promise never to do the action."""
    fake.get(f"{URL}/payments/{PAYMENT}/actions/{ACTION}", status=status, json={"action_id": str(ACTION), **body})
    assert outcome(lambda bank: bank.look_up_action(PAYMENT, ACTION)) == expected


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, json.dumps(CAPABILITIES), True),
        (200, "", False),
        (200, "{}", False),
        (200, '{"actions": ["captures", "voids"]}', False),
        (200, '{"actions": ["captures", "voids", "refunds"], "more": 1}', False),
        (200, '{"error_message": "Not all required properties were sent in the request"}', False),
        (307, "", False),
        (400, "", False),
        (404, "", False),
        (408, "", NoAnswer),
        (429, "", NoAnswer),
        (500, "", NoAnswer),
        (503, "", NotReached),
    ],
)
def test_only_the_exact_answer_says_that_the_bank_has_actions(
    fake: responses.RequestsMock, status: int, body: str, expected: object
) -> None:
    """A failure says nothing. Everything else says that it has none."""
    fake.get(f"{URL}/capabilities", status=status, body=body)
    for kind in ActionType:
        fake.calls.reset()
        assert outcome(partial(AcquiringBank.supports, action=kind)) == expected
        assert len(fake.calls) == 1


def test_an_answer_about_capabilities_is_kept_and_a_failure_is_not() -> None:
    """For 60 s. Callers at the same time share one request."""
    now, asked = 0.0, 0
    replies: list[frozenset[ActionType] | BankError] = [NoAnswer("failed"), frozenset(), frozenset(ActionType)]

    async def call(_: object) -> frozenset[ActionType]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        answer = replies.pop(0)
        if isinstance(answer, BankError):
            raise answer
        return answer

    def send(request: requests.PreparedRequest) -> requests.Response:
        raise AssertionError(request)

    async def scenario() -> None:
        nonlocal now
        actions = AcquirerActions(URL, send, lambda: now)
        failed = await asyncio.gather(*(actions.capabilities(call) for _ in range(3)), return_exceptions=True)
        assert ([type(each) for each in failed], asked) == ([NoAnswer] * 3, 1)
        assert await asyncio.gather(*(actions.capabilities(call) for _ in range(3))) == [frozenset()] * 3
        now = KEPT_S - 1
        assert (await actions.capabilities(call), asked) == (frozenset(), 2)
        now = KEPT_S
        assert (await actions.capabilities(call), asked) == (frozenset(ActionType), 3)

    asyncio.run(scenario())
