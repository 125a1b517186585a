"""What a later gateway may answer: fields and values that the contract does not have today."""

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any, Final

from tests.support import UNKNOWN_ID, reply, scripted_bank, shown_payment

PAYMENT: Final = shown_payment(UNKNOWN_ID)
FIELD_ERROR: Final = {"field": "payment_id", "code": "wrong_format", "message": "must be new"}
PROBLEM: Final = {
    "type": "about:blank",
    "title": "Bad Request",
    "status": 400,
    "detail": "payment_id must be new.",
    "code": "validation_failed",
    "instance": "5b1f7a52-64f0-4f0e-9d3a-2f4b8f6c1e7d",
    "errors": [FIELD_ERROR],
}

# The answers to look-ups of the payments in IDS, by what is new in them.
ANSWERS: Final[dict[str, dict[str, Any]]] = {
    "field": {**PAYMENT, "sent": True, "balances": {**PAYMENT["balances"], "sent": 0}},
    "field of a problem": {**PROBLEM, "help": "", "errors": [{**FIELD_ERROR, "hint": ""}]},
    "status": {**PAYMENT, "status": "NEW_VALUE"},
    "code": {**PROBLEM, "code": "NEW_VALUE"},
    "field code": {**PROBLEM, "errors": [{**FIELD_ERROR, "code": "NEW_VALUE"}]},
}
IDS: Final = {name: f"00000000-0000-4000-8000-{number:012}" for number, name in enumerate(ANSWERS, 1)}


@contextlib.contextmanager
def later_gateway() -> Iterator[str]:
    """Run a server that answers look-ups with ANSWERS, and yield its URL."""
    answers = {IDS[name]: answer for name, answer in ANSWERS.items()}

    def script(connection: socket.socket) -> None:
        answer = answers[server.current.request.split()[1].decode().rpartition("/")[2]]
        status, media_type = (400, "application/problem+json") if "title" in answer else (200, "application/json")
        reply(status, json.dumps(answer).encode(), f"Content-Type: {media_type}")(connection)

    with scripted_bank(script) as server:
        yield server.url
