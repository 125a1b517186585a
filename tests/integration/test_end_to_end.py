"""The whole gateway, started as a user starts it, with the simulator as its bank."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import requests

from bank.simulator import Simulator
from config import VERSION
from tests import support
from tests.support import CHECKED, ROOT, Gateway, valid_payment, wait_until


@pytest.mark.parametrize(
    ("card_number", "status"), [(support.AUTHORIZED_CARD, "AUTHORIZED"), (support.DECLINED_CARD, "DECLINED")]
)
def test_a_payment_is_made_and_found_again(gateway: Gateway, card_number: str, status: str) -> None:
    """POST answers 201 with the payment, and GET at its Location returns the same."""
    made = gateway.pay(card_number=card_number)
    assert made.status_code == 201
    assert made.headers["Content-Type"] == "application/json"
    payment = made.json()
    assert made.headers["Location"] == f"/api/v1/payments/{UUID(payment['id'])}"
    is_authorized, left = status == "AUTHORIZED", 1050 * (status == "AUTHORIZED")
    assert bool(payment["authorization_code"]) == is_authorized
    assert payment | {"id": "", "authorization_code": "", "created_at": "", "updated_at": ""} == {
        "id": "",
        "status": status,
        "response_code": "10000" if is_authorized else "20005",
        "response_summary": "Approved" if is_authorized else "Declined - do not honour",
        "authorization_code": "",
        "card_last4": card_number[-4:],
        "card_scheme": "mastercard",
        "expiry_month": 12,
        "expiry_year": 2099,
        "currency": "GBP",
        "amount": 1050,
        "balances": {
            "total_authorized": left,
            "total_captured": 0,
            "total_refunded": 0,
            "total_voided": 0,
            "available_to_capture": left,
            "available_to_void": left,
            "available_to_refund": 0,
        },
        "reference": None,
        "metadata": {},
        "created_at": "",
        "updated_at": "",
    }
    assert payment["updated_at"] > payment["created_at"]
    assert payment["created_at"].endswith("Z")
    found = gateway.find(payment["id"])
    assert (found.status_code, found.json()) == (200, payment)
    assert gateway.find(payment["id"].upper()).json() == payment, "the case of a UUID does not matter"


def test_an_unavailable_bank_is_a_503_with_retry_after(gateway: Gateway) -> None:
    """The merchant may send the same request again after Retry-After."""
    answer = gateway.pay(card_number=support.UNAVAILABLE_CARD)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert answer.json()["code"] == "bank_unavailable"


@pytest.mark.parametrize(
    ("card_number", "status"),
    [
        (support.SLOW, 201),
        (support.SILENT, 202),
        (support.DROPPED, 202),
        (support.GARBAGE, 202),
        (support.REFUSED, 500),
        (support.FAILED, 202),
        (support.DRIPPING, 202),
        (support.NOT_A_BOOLEAN, 202),
        (support.OVERSIZED, 202),
        (support.REDIRECT, 202),
        (support.ACCEPTED, 202),
    ],
)
def test_every_misbehaviour_of_the_bank_has_its_status(gateway: Gateway, card_number: str, status: int) -> None:
    """The merchant gets a 201, 202 or 500 in time, and none of the bank's words."""
    started = time.monotonic()
    answer = gateway.pay(card_number=card_number)
    assert answer.status_code == status
    assert time.monotonic() - started < 5, "BANK_TIMEOUT_S is 3 here"
    if status == 202:
        payment = answer.json()
        assert payment["status"] == "PENDING"
        assert answer.headers["Location"] == f"/api/v1/payments/{payment['id']}"
        assert gateway.find(payment["id"]).json() == payment
    for words in ("demand", "Gateway", "bank answered", card_number):
        assert words not in answer.text


def test_an_unknown_payment_is_a_404_and_an_invalid_id_a_400(gateway: Gateway) -> None:
    """A UUID that names no payment is not found, and any other text is an invalid payment_id."""
    unknown = gateway.find(str(uuid4()))
    assert (unknown.status_code, unknown.json()["code"]) == (404, "payment_not_found")
    for wrong in ("1", str(uuid4())[:-1], uuid4().hex, "{" + str(uuid4()) + "}", "0" * 8 + "-" * 28, "٣" * 36):
        answer = gateway.find(wrong)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "payment_id")


def test_a_bank_that_hangs_delays_only_payments() -> None:
    """While every slot is taken, reads, errors and the UI are answered at once, and payments are a 503."""
    with Gateway(BANK_CONCURRENCY="2", BANK_CONNECT_TIMEOUT_S="0.3", BANK_TIMEOUT_S="4") as gateway:
        known = gateway.pay().json()["id"]
        with ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(gateway.pay, card_number=support.SILENT) for _ in range(2)]
            wait_until(lambda: gateway.pay().status_code == 503)
            started = time.monotonic()
            with requests.Session() as session:
                for _ in range(20):
                    assert session.get(f"{gateway.api}/payments/{known}", timeout=5).status_code == 200
                    assert session.post(f"{gateway.api}/payments", json={}, timeout=5).status_code == 400
                    assert session.get(f"{gateway.api}/ui/", timeout=5).status_code == 200
            assert time.monotonic() - started < 2, "none of the 60 requests waits for the bank"
            assert not any(call.done() for call in calls)
            assert [call.result().status_code for call in calls] == [202, 202]
        assert gateway.pay().status_code == 201, "payments succeed again once the slots are free"


def test_a_merchant_that_disconnects_does_not_cancel_the_payment(gateway: Gateway) -> None:
    """The call to the bank continues, and its result is recorded."""

    def authorized() -> list[str]:
        return re.findall(r"payment_id=(\S+) outcome=AUTHORIZED", gateway.log)

    before = len(authorized())
    body = requests.Request("POST", f"{gateway.api}/payments", json=valid_payment(card_number=support.SLOW)).prepare()
    with gateway.connect() as connection:
        head = "".join(f"{name}: {value}\r\n" for name, value in body.headers.items())
        assert isinstance(body.body, bytes)
        connection.sendall(f"POST {body.path_url} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode() + body.body)
        time.sleep(0.5)  # the bank takes 2 s: long enough to have been asked, too short for its answer
    wait_until(lambda: len(authorized()) > before)
    assert gateway.find(authorized()[-1]).json()["status"] == "AUTHORIZED"


@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_gateway_after_the_requests_in_progress(with_signal: signal.Signals) -> None:
    """A payment in progress is answered with 201, and the process exits with status 0."""
    with Gateway(LOG_LEVEL="INFO") as gateway, ThreadPoolExecutor(1) as pool:
        gateway.pay()
        in_progress = pool.submit(gateway.pay, card_number=support.SLOW)
        time.sleep(0.5)  # the bank takes 2 s
        assert gateway.stop(with_signal) == 0
        assert in_progress.result().status_code == 201
        assert "Traceback" not in gateway.log


def test_a_payment_that_a_forced_stop_interrupts_is_pending() -> None:
    """After a second Ctrl-C a payment that the bank was asked for is answered with 202, not with an error."""
    with Gateway(BANK_TIMEOUT_S="3") as gateway, ThreadPoolExecutor(1) as pool:
        in_progress = pool.submit(gateway.pay, card_number=support.SILENT)
        time.sleep(0.5)  # the bank never answers
        gateway.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert gateway.stop(signal.SIGINT) == 0
        answer = in_progress.result()
        assert (answer.status_code, answer.json()["status"]) == (202, "PENDING")
        assert "Traceback" not in gateway.log


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nnot a header 2222405343248877\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 503 2222405343248877\r\nContent-Length: 2222405343248877\r\nSet-Cookie: 2222405343248877\r\n\r\n",
        b"HTTP/1.1 2222405343248877\r\n\r\n",
        b"2222405343248877",
        b'HTTP/1.1 200 OK\r\nContent-Length: 34\r\n\r\n{"authorized": "2222405343248877"} ',
    ],
)
def test_a_card_number_in_the_banks_reply_is_not_logged(answer: bytes) -> None:
    """A card number in the reply's status line, headers or body stays out of the log; libraries quote invalid ones."""

    def echo(connection: socket.socket) -> None:
        connection.sendall(answer)
        connection.close()

    with support.scripted_bank(echo) as bank, Gateway(BANK_URL=bank.url, LOG_LEVEL="DEBUG") as gateway:
        assert gateway.pay().status_code in {202, 503}
        gateway.stop()
        assert support.AUTHORIZED_CARD not in gateway.log


def test_a_busy_port_is_reported_in_one_line() -> None:
    """The gateway exits with the host, the port and the system's reason, without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = _run("--port", str(port))
    assert run.returncode == 1
    assert run.stderr == f"can't listen on HOST 127.0.0.1, PORT {port}: Address already in use\n"


def test_an_invalid_setting_is_reported_in_one_line() -> None:
    """An invalid value on the command line ends the start as one in the environment does."""
    run = _run("--port", "http")
    assert run.returncode == 1
    assert run.stderr == "PORT is 'http'; allowed: an integer from 0 to 65535\n"


def test_the_version_is_printed() -> None:
    """`run.py --version` prints the version and needs no setting."""
    run = _run("--version")
    assert (run.returncode, run.stdout) == (0, f"payment-gateway {VERSION}\n")


def test_help_lists_the_settings() -> None:
    """`run.py --help` shows the settings, and the options that override some of them."""
    run = _run("--help")
    assert run.returncode == 0
    for name in ("BANK_URL", "BANK_TIMEOUT_S", "SUPPORTED_CURRENCIES", "STORE_URL", "WORKERS", "--bank-url"):
        assert name in run.stdout


def _run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd=ROOT)


def test_the_curl_command_in_the_banner_makes_a_payment(gateway: Gateway) -> None:
    """The command is run as printed, and the banner says that no money moves."""
    assert "no money moves" in gateway.banner
    curl = gateway.banner.splitlines()[-1].strip()
    answer = subprocess.run(curl, shell=True, capture_output=True, text=True, timeout=30, check=True)  # noqa: S602
    assert answer.stdout.startswith("HTTP/1.1 201")


def test_the_simulator_runs_as_a_process_of_its_own() -> None:
    """A gateway pays at the simulator that --bank-url names, which overrides BANK_URL."""
    command = [sys.executable, "-m", "bank.simulator", "--port", "0", "--latency", "0.3"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as simulator:
        assert simulator.stdout is not None
        url = simulator.stdout.readline().split()[3].rstrip(";")
        with Gateway("--bank-url", url, BANK_URL="http://127.0.0.1:1") as gateway:
            assert f"{url} (set by BANK_URL)" in gateway.banner
            assert "no money moves" not in gateway.banner, "this gateway does not know that its bank is a simulator"
            started = time.monotonic()
            assert gateway.pay().status_code == 201
            assert time.monotonic() - started > 0.3
        simulator.terminate()
        assert simulator.wait(10) == 0


@pytest.mark.parametrize(
    ("body", "status", "reply"),
    [
        ({"cvv": None}, 400, {"error_message": "Not all required properties were sent in the request"}),
        ({"card_number": "x"}, 400, {"errorMessage": "The request supplied is not supported by the simulator"}),
        ({"card_number": ""}, 400, {"errorMessage": "The request supplied is not supported by the simulator"}),
        ({"card_number": "2222405343248870"}, 503, {}),
        ({"card_number": "2222405343248872"}, 200, {"authorized": False, "authorization_code": ""}),
    ],
)
def test_the_simulator_follows_the_published_rules(
    body: dict[str, str | None], status: int, reply: dict[str, object]
) -> None:
    """It replies with the status and the body of the official simulator."""
    simulator = Simulator()
    simulator.start()
    request = {"card_number": "1", "expiry_date": "04/2030", "currency": "GBP", "amount": 100, "cvv": "123", **body}
    request = {name: value for name, value in request.items() if value is not None}
    answer = requests.post(f"{simulator.url}/payments", json=request, timeout=10)
    assert (answer.status_code, answer.json()) == (status, reply)
    simulator.stop()


def test_the_simulator_declines_a_payment_that_it_called_unknown() -> None:
    """It says that "unknown" is final, and keeps that promise: a request that arrives later is declined."""
    simulator = Simulator()
    simulator.start()
    payment_id = str(uuid4())
    asked = requests.get(f"{simulator.url}/payments/{payment_id}", timeout=10)
    assert asked.json() == {"payment_id": payment_id, "status": "unknown", "final": True}
    late = {"card_number": "1", "expiry_date": "04/2030", "currency": "GBP", "amount": 100, "cvv": "123"}
    answer = requests.post(f"{simulator.url}/payments", json=late, headers={"Idempotency-Key": payment_id}, timeout=10)
    assert answer.json()["authorized"] is False
    simulator.stop()


def test_the_simulator_looks_a_payment_up() -> None:
    """Its outcome, with the code of an authorization."""
    simulator = Simulator()
    simulator.start()
    payment = {"expiry_date": "04/2030", "currency": "GBP", "amount": 100, "cvv": "123"}
    for card_number, status in (("1", "authorized"), ("2", "declined")):
        headers = {"Idempotency-Key": status}
        made = requests.post(
            f"{simulator.url}/payments", json={**payment, "card_number": card_number}, headers=headers, timeout=10
        )
        code = made.json()["authorization_code"]
        found = requests.get(f"{simulator.url}/payments/{status}", timeout=10)
        assert found.json() == {"payment_id": status, "status": status, "authorization_code": code}
        assert bool(code) is (status == "authorized")
    simulator.stop()


def test_currencies_can_be_replaced() -> None:
    """The accepted currencies are those of the error message and of the served contract."""
    with Gateway(SUPPORTED_CURRENCIES="EUR,JPY") as gateway:
        assert gateway.pay(currency="JPY").json()["currency"] == "JPY"
        refused = gateway.pay(currency="GBP")
        assert refused.json()["detail"] == "currency must be one of EUR, JPY."
        served = requests.get(f"{gateway.api}/openapi.json", timeout=10).json()
        assert served["components"]["schemas"]["Currency"]["enum"] == ["EUR", "JPY"]
        for example in ("Authorized", "Declined"):
            value = served["components"]["examples"][example]["value"]
            assert requests.post(f"{gateway.api}/payments", json=value, timeout=10).status_code == 201


def test_a_limit_that_changes_in_the_contract_changes_the_behaviour(tmp_path: Path) -> None:
    """Limits of fields and of the body come from the YAML alone; no code changes."""
    copied = shutil.copytree(ROOT, tmp_path / "copy", ignore=shutil.ignore_patterns(".*", "__pycache__"))
    contract = copied / "payment_gateway_api.yaml"
    text = contract.read_text()
    text = text.replace("maximum: 999999999999\n          example: 1050\n        cvv", "maximum: 500\n        cvv")
    text = text.replace("minLength: 14\n          maxLength: 19", "minLength: 12\n          maxLength: 15")
    contract.write_text(text.replace("x-max-bytes: 65536", "x-max-bytes: 200"))
    with Gateway(script=copied / CHECKED.relative_to(ROOT), cwd=copied) as gateway:
        answer = gateway.pay()
        assert answer.json()["detail"] == (
            "card_number must be a string of 12 to 15 ASCII digits; amount must be an integer from 1 to 500."
        )
        assert gateway.pay(amount=500, card_number="424242424241").status_code == 201
        assert gateway.pay(cvv="1" * 200).status_code == 413


def test_concurrent_payments_do_not_mix(gateway: Gateway) -> None:
    """Each of sixty payments from twenty clients gets the response for its own card and amount."""
    barrier = threading.Barrier(20)

    def pay(number: int) -> bool:
        if number < 20:
            barrier.wait(10)
        answer = requests.post(
            f"{gateway.api}/payments",
            json=valid_payment(amount=number + 1, card_number=f"222240534324{number:03}{number % 9 + 1}"),
            timeout=30,
        ).json()
        wanted = "AUTHORIZED" if (number % 9 + 1) % 2 else "DECLINED"
        return (answer["amount"], answer["status"]) == (number + 1, wanted)

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(pay, range(60)))
