"""The whole gateway as a user runs it, against the real simulator over HTTP."""

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
from tests import support
from tests.support import ROOT, Gateway, valid_payment, wait_until


@pytest.mark.parametrize(
    ("card_number", "status"), [(support.AUTHORIZED_CARD, "AUTHORIZED"), (support.DECLINED_CARD, "DECLINED")]
)
def test_a_payment_is_made_and_found_again(gateway: Gateway, card_number: str, status: str) -> None:
    """201 with the payment, and GET at its Location returns the same."""
    made = gateway.pay(card_number=card_number)
    assert made.status_code == 201
    assert made.headers["Content-Type"] == "application/json"
    payment = made.json()
    assert made.headers["Location"] == f"/api/v1/payments/{UUID(payment['id'])}"
    assert payment | {"id": "", "created_at": ""} == {
        "id": "",
        "status": status,
        "card_last4": card_number[-4:],
        "expiry_month": 12,
        "expiry_year": 2099,
        "currency": "GBP",
        "amount": 1050,
        "created_at": "",
    }
    assert payment["created_at"].endswith("Z")
    found = gateway.find(payment["id"])
    assert (found.status_code, found.json()) == (200, payment)
    assert gateway.find(payment["id"].upper()).json() == payment, "a UUID's letters have no case"


def test_an_unavailable_bank_is_503_and_nothing_is_kept(gateway: Gateway) -> None:
    """Safe to send again, after Retry-After."""
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
def test_every_row_of_the_table_of_bank_answers(gateway: Gateway, card_number: str, status: int) -> None:
    """Each misbehaviour of the bank that QA can ask for, as the merchant sees it."""
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


def test_an_unknown_payment_is_404_and_a_non_uuid_400(gateway: Gateway) -> None:
    """Two different mistakes of the caller."""
    unknown = gateway.find(str(uuid4()))
    assert (unknown.status_code, unknown.json()["code"]) == (404, "payment_not_found")
    for wrong in ("1", str(uuid4())[:-1], uuid4().hex, "{" + str(uuid4()) + "}", "0" * 8 + "-" * 28, "٣" * 36):
        answer = gateway.find(wrong)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "payment_id")


def test_a_hung_bank_holds_up_nothing_else() -> None:
    """With every call to the bank taken: reads, errors and the UI answer at once, payments are told to wait."""
    with Gateway(BANK_CONCURRENCY="2", BANK_CONNECT_TIMEOUT_S="0.3", BANK_TIMEOUT_S="4") as gateway:
        known = gateway.pay().json()["id"]
        with ThreadPoolExecutor(2) as pool:
            hanging = [pool.submit(gateway.pay, card_number=support.SILENT) for _ in range(2)]
            wait_until(lambda: gateway.pay().status_code == 503)
            started = time.monotonic()
            with requests.Session() as session:
                for _ in range(20):
                    assert session.get(f"{gateway.api}/payments/{known}", timeout=5).status_code == 200
                    assert session.post(f"{gateway.api}/payments", json={}, timeout=5).status_code == 400
                    assert session.get(f"{gateway.api}/ui/", timeout=5).status_code == 200
            assert time.monotonic() - started < 2, "60 answers, none of which waited for the bank"
            assert not any(call.done() for call in hanging)
            assert [call.result().status_code for call in hanging] == [202, 202]
        assert gateway.pay().status_code == 201, "and when the bank is back, payments go through"


def test_a_merchant_that_hangs_up_does_not_cancel_the_payment(gateway: Gateway) -> None:
    """The bank call goes on and its result is recorded."""

    def authorized() -> list[str]:
        return re.findall(r"payment_id=(\S+) outcome=AUTHORIZED", gateway.log)

    before = len(authorized())
    body = requests.Request("POST", f"{gateway.api}/payments", json=valid_payment(card_number=support.SLOW)).prepare()
    with gateway.connect() as connection:
        head = "".join(f"{name}: {value}\r\n" for name, value in body.headers.items())
        assert isinstance(body.body, bytes)
        connection.sendall(f"POST {body.path_url} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode() + body.body)
        time.sleep(0.5)  # the bank takes 2 s: long enough to have been asked, too short for its answer
    wait_until(lambda: len(authorized()) > before)
    assert gateway.find(authorized()[-1]).json()["status"] == "AUTHORIZED"


@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_what_is_in_flight(with_signal: signal.Signals) -> None:
    """The payment under way is answered 201, and the process exits with 0."""
    with Gateway(LOG_LEVEL="INFO") as gateway, ThreadPoolExecutor(1) as pool:
        gateway.pay()
        under_way = pool.submit(gateway.pay, card_number=support.SLOW)
        time.sleep(0.5)  # the bank takes 2 s
        assert gateway.stop(with_signal) == 0
        assert under_way.result().status_code == 201
        assert "Traceback" not in gateway.log


def test_a_gateway_that_is_forced_to_stop_calls_a_payment_pending() -> None:
    """Ctrl-C twice: the bank has been asked, so it is a 202 and not an error."""
    with Gateway(BANK_TIMEOUT_S="3") as gateway, ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(gateway.pay, card_number=support.SILENT)
        time.sleep(0.5)  # the bank never answers
        gateway.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert gateway.stop(signal.SIGINT) == 0
        answer = under_way.result()
        assert (answer.status_code, answer.json()["status"]) == (202, "PENDING")
        assert "Traceback" not in gateway.log


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nthis is no header 2222405343248877\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 503 2222405343248877\r\nContent-Length: 2222405343248877\r\nSet-Cookie: 2222405343248877\r\n\r\n",
        b"HTTP/1.1 2222405343248877\r\n\r\n",
        b"2222405343248877",
        b'HTTP/1.1 200 OK\r\nContent-Length: 34\r\n\r\n{"authorized": "2222405343248877"} ',
    ],
)
def test_a_bank_that_echoes_the_card_does_not_get_it_into_the_log(answer: bytes) -> None:
    """Wherever in its answer: libraries quote what they stumble over."""

    def echo(connection: socket.socket) -> None:
        connection.sendall(answer)
        connection.close()

    with support.scripted_bank(echo) as bank, Gateway(BANK_URL=bank.url, LOG_LEVEL="DEBUG") as gateway:
        assert gateway.pay().status_code in {202, 503}
        gateway.stop()
        assert support.AUTHORIZED_CARD not in gateway.log


def test_a_busy_port_is_one_clear_line() -> None:
    """Not a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = _run("--port", str(port))
    assert run.returncode == 1
    assert run.stderr == f"can't listen on HOST 127.0.0.1, PORT {port}: Address already in use\n"


def test_a_wrong_setting_is_one_clear_line() -> None:
    """From the command line as from the environment."""
    run = _run("--port", "http")
    assert run.returncode == 1
    assert run.stderr == "PORT is 'http'; allowed: an integer from 0 to 65535\n"


def test_help_names_every_setting() -> None:
    """What an operator can set, without opening a file."""
    run = _run("--help")
    assert run.returncode == 0
    for name in ("BANK_URL", "BANK_TIMEOUT_S", "SUPPORTED_CURRENCIES", "STORE_URL", "WORKERS", "--bank-url"):
        assert name in run.stdout


def _run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd=ROOT)


def test_it_says_where_everything_is_and_a_curl_that_works(gateway: Gateway) -> None:
    """The line is run as it was printed."""
    assert "no money moves" in gateway.banner
    curl = gateway.banner.splitlines()[-1].strip()
    answer = subprocess.run(curl, shell=True, capture_output=True, text=True, timeout=30, check=True)  # noqa: S602
    assert answer.stdout.startswith("HTTP/1.1 201")


def test_the_simulator_runs_alone_and_bank_url_finds_it() -> None:
    """`python -m bank.simulator`, then --bank-url over BANK_URL."""
    command = [sys.executable, "-m", "bank.simulator", "--port", "0", "--latency", "0.3"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as simulator:
        assert simulator.stdout is not None
        url = simulator.stdout.readline().split()[3].rstrip(";")
        with Gateway("--bank-url", url, BANK_URL="http://127.0.0.1:1") as gateway:
            assert f"{url} (set by BANK_URL)" in gateway.banner
            assert "no money moves" not in gateway.banner
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
    """The words are the official simulator's."""
    simulator = Simulator()
    simulator.start()
    request = {"card_number": "1", "expiry_date": "04/2030", "currency": "GBP", "amount": 100, "cvv": "123", **body}
    request = {name: value for name, value in request.items() if value is not None}
    answer = requests.post(f"{simulator.url}/payments", json=request, timeout=10)
    assert (answer.status_code, answer.json()) == (status, reply)
    simulator.stop()


def test_the_simulator_never_authorizes_what_it_said_it_never_heard_of() -> None:
    """Its "unknown" ends a payment as declined, so a request that arrives later is declined too."""
    simulator = Simulator()
    simulator.start()
    payment_id = str(uuid4())
    asked = requests.get(f"{simulator.url}/payments/{payment_id}", timeout=10)
    assert asked.json() == {"payment_id": payment_id, "status": "unknown"}
    late = {"card_number": "1", "expiry_date": "04/2030", "currency": "GBP", "amount": 100, "cvv": "123"}
    answer = requests.post(f"{simulator.url}/payments", json=late, headers={"Idempotency-Key": payment_id}, timeout=10)
    assert answer.json()["authorized"] is False
    simulator.stop()


def test_currencies_can_be_replaced() -> None:
    """What is accepted, what is said to be accepted and what is served are the same."""
    with Gateway(SUPPORTED_CURRENCIES="EUR,JPY") as gateway:
        assert gateway.pay(currency="JPY").json()["currency"] == "JPY"
        refused = gateway.pay(currency="GBP")
        assert refused.json()["detail"] == "currency must be one of EUR, JPY."
        served = requests.get(f"{gateway.api}/openapi.json", timeout=10).json()
        assert served["components"]["schemas"]["Currency"]["enum"] == ["EUR", "JPY"]
        for example in ("Authorized", "Declined"):
            value = served["components"]["examples"][example]["value"]
            assert requests.post(f"{gateway.api}/payments", json=value, timeout=10).status_code == 201


def test_a_limit_changed_in_the_yaml_is_a_behaviour_changed(tmp_path: Path) -> None:
    """No code is touched."""
    copied = shutil.copytree(ROOT, tmp_path / "copy", ignore=shutil.ignore_patterns(".*", "tests", "__pycache__"))
    contract = copied / "payment_gateway_api.yaml"
    text = contract.read_text()
    text = text.replace("maximum: 999999999999\n          example: 1050\n        cvv", "maximum: 500\n        cvv")
    text = text.replace("minLength: 14\n          maxLength: 19", "minLength: 12\n          maxLength: 15")
    contract.write_text(text.replace("x-max-bytes: 16384", "x-max-bytes: 200"))
    with Gateway(script=copied / "run.py", cwd=copied) as gateway:
        answer = gateway.pay()
        assert answer.json()["detail"] == (
            "card_number must be a string of 12 to 15 ASCII digits; amount must be an integer from 1 to 500."
        )
        assert gateway.pay(amount=500, card_number="424242424241").status_code == 201
        assert gateway.pay(cvv="1" * 200).status_code == 413


def test_concurrent_payments_do_not_mix(gateway: Gateway) -> None:
    """Sixty at once: each merchant gets the answer for its own card and amount."""
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
