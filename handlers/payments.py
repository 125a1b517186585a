"""The operations on payments, one function for each operationId, which translate between HTTP and payments/."""

import json
from typing import Any
from uuid import UUID

from starlette.responses import Response

import payments
import store
from handlers import problems, shown, times
from handlers.problems import Code, Problem
from payments import Paid, actions, idempotency
from payments.actions import Acted
from store import Action, ActionStatus, ActionType, Payment, State, Wanted
from telemetry import request_context


async def create_payment(body: dict[str, Any], user: str, idempotency_key: str | None, route: str) -> Response:
    """Answer POST /payments: 201 when the bank answered, 202 while the payment is in doubt. `user` is the merchant."""
    paid = await payments.pay(user, body, _key(idempotency_key))
    try:
        return _paid(paid, route)
    except Exception as error:  # the payment is recorded; the answer must say so
        problems.log_unexpected(error)
        return _paid(paid, route)


async def get_payment(payment_id: str, user: str) -> Response:
    """Answer GET /payments/{payment_id}. Another merchant's payment is not found."""
    payment = await _find(user, payment_id)
    _note(payment.id, payment.state())
    return _answer(shown.payment(payment), 200)


async def list_payments(
    *,
    user: str,
    reference: str | None,
    status: str | None,
    created_from: str | None,
    created_to: str | None,
    limit: int,
    cursor: str | None,
) -> Response:
    """Answer GET /payments with a page of the merchant's payments, newest first."""
    wanted = Wanted(
        merchant=user,
        reference=reference,
        state=State(status) if status else None,
        created_from=times.parse(created_from) if created_from else None,
        created_to=times.parse(created_to) if created_to else None,
        after=shown.position(cursor) if cursor else None,
        limit=limit,
    )
    page = await store.list_payments(wanted)
    next_cursor = shown.cursor(page.next) if page.next else None
    return _answer({"data": [shown.payment(payment) for payment in page.payments], "next_cursor": next_cursor}, 200)


async def capture_payment(
    body: dict[str, Any] | None, user: str, payment_id: str, idempotency_key: str | None, route: str
) -> Response:
    """Answer POST /payments/{payment_id}/captures: 201 when the bank answered, 202 while the action is PENDING."""
    values = {"final": True, **(body or {})}
    return await _act(ActionType.CAPTURE, values, await _find(user, payment_id), idempotency_key, route)


async def void_payment(
    body: dict[str, Any] | None, user: str, payment_id: str, idempotency_key: str | None, route: str
) -> Response:
    """Answer POST /payments/{payment_id}/voids, as a capture."""
    return await _act(ActionType.VOID, body or {}, await _find(user, payment_id), idempotency_key, route)


async def refund_payment(
    body: dict[str, Any] | None, user: str, payment_id: str, idempotency_key: str | None, route: str
) -> Response:
    """Answer POST /payments/{payment_id}/refunds, as a capture."""
    return await _act(ActionType.REFUND, body or {}, await _find(user, payment_id), idempotency_key, route)


async def list_actions(payment_id: str, user: str) -> Response:
    """Answer GET /payments/{payment_id}/actions with all actions, oldest first; the first one is the authorization."""
    payment = await _find(user, payment_id)
    made = [shown.action(action) for action in await store.list_actions(payment.id)]
    return _answer({"data": [await _authorization(payment), *made]}, 200)


async def get_action(payment_id: str, action_id: str, user: str) -> Response:
    """Answer GET /payments/{payment_id}/actions/{action_id}."""
    payment, wanted = await _find(user, payment_id), UUID(action_id)
    if wanted == payment.id:
        return _answer(await _authorization(payment), 200)
    action = await store.find_action(wanted)
    if action is None or action.payment_id != payment.id:
        raise Problem(Code.ACTION_NOT_FOUND)
    return _answer(shown.action(action), 200)


def _key(header: str | None) -> str | None:
    return idempotency.key_of(header) if header else None


async def _find(merchant: str, payment_id: str) -> Payment:
    payment = await payments.find(merchant, UUID(payment_id))
    if payment is None:
        raise Problem(Code.PAYMENT_NOT_FOUND)
    return payment


async def _authorization(payment: Payment) -> dict[str, Any]:
    decided_at = [line.changed_at for line in await store.history(payment.id) if line.action_id is None]
    return shown.authorization(payment, decided_at[-1] if decided_at else None)


async def _act(
    kind: ActionType, values: dict[str, Any], payment: Payment, idempotency_key: str | None, route: str
) -> Response:
    acted = await actions.act(payment, kind, values, _key(idempotency_key))
    path = f"{route.partition('/{')[0]}/{payment.id}/actions/{acted.action.id}"
    try:
        return _acted(acted, path)
    except Exception as error:  # the action is recorded; the answer must say so
        problems.log_unexpected(error)
        return _acted(acted, path)


def _paid(paid: Paid, route: str) -> Response:
    payment = paid.payment
    _note(payment.id, payment.state())
    status = 202 if paid.is_in_doubt() else 201
    return _answer(shown.payment(payment), status, f"{route}/{payment.id}", replayed=paid.replayed)


def _acted(acted: Acted, path: str) -> Response:
    action: Action = acted.action
    _note(action.payment_id, action.status)
    status = 202 if action.status is ActionStatus.PENDING else 201
    return _answer(shown.action(action), status, path, replayed=acted.replayed)


def _note(payment_id: UUID, outcome: str) -> None:
    """Note for the log what is answered."""
    context = request_context.now()
    context.payment_id, context.outcome = payment_id, outcome


def _answer(content: dict[str, Any], status: int, location: str = "", *, replayed: bool = False) -> Response:
    headers = {}
    if location:
        headers["Location"] = location
    if replayed and status == 201:  # in doubt, there is nothing yet to be repeated
        headers["Idempotent-Replayed"] = "true"
    return Response(json.dumps(content), status, headers, "application/json")
