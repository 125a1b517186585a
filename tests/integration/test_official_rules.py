"""The acquirer's public simulator, played by mountebank, which its rules are written for: it only authorizes."""

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import requests

from tests import support, tools
from tests.integration.test_actions import act, authorized, code_of
from tests.support import Gateway, wait_until

pytestmark = tools.needed

FIELDS: Final = ("card_number", "expiry_date", "currency", "amount", "cvv")
MISSING: Final = {"error_message": "Not all required properties were sent in the request"}
UNSUPPORTED: Final = {"errorMessage": "The request supplied is not supported by the simulator"}


def stub(last_digits: str, status: int, body: Any) -> dict[str, Any]:
    """Answer payments whose card number ends in one of these digits."""
    is_payment = {"equals": {"method": "POST", "path": "/payments"}}
    card = {"matches": {"body": {"card_number": f"^[0-9]*[{last_digits}]$"}}}
    return {"predicates": [is_payment, card], "responses": [answer(status, body)]}


def answer(status: int, body: Any) -> dict[str, Any]:
    return {"is": {"statusCode": status, "headers": {"Content-Type": "application/json"}, "body": body}}


def imposter(port: int) -> dict[str, Any]:
    incomplete = [{"not": {"exists": {"body": {field: True}}}} for field in FIELDS]
    of_payment = {"equals": {"method": "POST", "path": "/payments"}}
    code = "0bb07405-6d44-4b50-a14f-7ae0beff13ad"
    stubs = [
        {"predicates": [of_payment, {"or": incomplete}], "responses": [answer(400, MISSING)]},
        stub("13579", 200, {"authorized": True, "authorization_code": code}),
        stub("2468", 200, {"authorized": False, "authorization_code": ""}),
        stub("0", 503, {}),
        {"predicates": [of_payment], "responses": [answer(400, UNSUPPORTED)]},
    ]
    return {"protocol": "http", "port": port, "host": "127.0.0.1", "recordRequests": True, "stubs": stubs}


@pytest.fixture(scope="module")
def ports() -> Iterator[tuple[int, int]]:
    """The ports of mountebank itself and of the bank that it plays."""
    free = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    control, played = (listener.getsockname()[1] for listener in free)
    for listener in free:
        listener.close()
    options = ["--port", str(control), "--host", "127.0.0.1", "--nologfile", "--pidfile", "/dev/null"]
    command = [str(tools.MODULES / ".bin" / "mb"), *options]
    with subprocess.Popen(command, env=tools.environment(), stdout=subprocess.DEVNULL) as mb:
        try:
            wait_until(lambda: is_up(control), 60)
            created = requests.post(f"http://127.0.0.1:{control}/imposters", json=imposter(played), timeout=30)
            assert created.status_code == 201, created.text
            yield control, played
        finally:
            mb.terminate()


def is_up(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/", timeout=5).ok
    except requests.ConnectionError:
        return False


def asked(ports: tuple[int, int]) -> list[str]:
    """Return the method and path of each request that the bank got."""
    played = requests.get(f"http://127.0.0.1:{ports[0]}/imposters/{ports[1]}", timeout=30).json()
    return [f"{request['method']} {request['path']}" for request in played["requests"]]


def test_authorizing_works_and_the_rest_is_not_supported(ports: tuple[int, int], tmp_path: Path) -> None:
    """The bank is asked what it can do, which it does not know, and is never sent an action."""
    settings = {"BANK_RETRIES": "0"}
    not_supported = (409, "not_supported_by_bank", False)
    with Gateway(cwd=tmp_path, BANK_URL=f"http://127.0.0.1:{ports[1]}", settings=settings) as gateway:
        payment_id = authorized(gateway)
        assert gateway.pay(card_number=support.DECLINED_CARD).json()["status"] == "DECLINED"
        assert gateway.pay(card_number=support.UNAVAILABLE_CARD).status_code == 503
        for name in ("captures", "voids"):
            assert code_of(act(gateway, payment_id, name)) == not_supported
        assert code_of(gateway.pay(capture=True)) == not_supported
        shown = gateway.find(payment_id).json()
        assert (shown["status"], shown["balances"]["total_captured"]) == ("AUTHORIZED", 0)
        assert json.dumps(shown).count("0bb07405-6d44-4b50-a14f-7ae0beff13ad") == 1
    assert asked(ports) == ["POST /payments"] * 3 + ["GET /capabilities"]
