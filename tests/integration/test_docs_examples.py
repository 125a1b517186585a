"""The commands and examples in the documents are run as they are written."""

import hashlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from payments.states import LEADS_TO
from store import ActionType, State
from tests import support
from tests.support import ROOT, Gateway, reply, scripted_bank, wait_until

README, MERCHANTS, OPERATIONS, QA = (
    (ROOT / name).read_text() for name in ("README.md", "docs/merchants.md", "docs/operations.md", "docs/qa.md")
)
KEY = "pgw_test_" + "d" * 43
API = "http://127.0.0.1:8000/api/v1"
NODE = shutil.which("node")


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks in this language."""
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return found


@pytest.fixture(scope="module")
def merchants_gateway() -> Iterator[Gateway]:
    """A gateway that requires a key."""
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    with Gateway(key=KEY, API_KEYS=f"acme:{digest}") as running:
        yield running


def run_shell(script: str, api: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", script.replace(API, api)],
        env={"PATH": os.environ["PATH"], "API_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def split(response: str) -> tuple[str, set[str], dict[str, Any]]:
    """Return the status line, the names of the headers, and the body of what `curl -i` shows."""
    head, _, body = response.replace("\r\n", "\n").partition("\n\n")
    status, *headers = head.split("\n")
    return status, {header.partition(":")[0].lower() for header in headers}, json.loads(body)


def bodies(ran: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Return the bodies that several curls show one after the other."""
    return [json.loads(line) for line in ran.stdout.replace("}{", "}\n{").splitlines()]


def test_readme_shows_the_real_answer(gateway: Gateway) -> None:
    """The first curl gets the response shown, with another id and time; the others find, capture and refund it."""
    paying, finding = (block for block in blocks(README, "sh") if block.startswith("curl"))
    status, headers, payment = split(run_shell(paying, gateway.api).stdout)
    shown_status, shown_headers, shown = split(blocks(README, "http")[0])
    assert status == shown_status
    assert shown_headers <= headers
    own = ("id", "authorization_code", "created_at", "updated_at")
    assert payment == {**shown, **{name: payment[name] for name in own}}
    found = run_shell(finding.replace(shown["id"], payment["id"]), gateway.api)
    assert json.loads(found.stdout) == payment
    acting = next(block for block in blocks(README, "sh") if block.startswith("payment="))
    capture, refund, listed = bodies(run_shell(acting.replace(shown["id"], payment["id"]), gateway.api))
    assert [action["type"] for action in listed["data"]] == ["AUTHORIZATION", "CAPTURE", "REFUND"]
    assert listed["data"][1:] == [capture, refund]
    assert [(action["status"], action["amount"]) for action in (capture, refund)] == [
        ("APPROVED", 800),
        ("APPROVED", 300),
    ]


def test_the_curls_for_merchants_are_answered(merchants_gateway: Gateway) -> None:
    """The curls make a payment, repeat one with its key, and get the shown error word for word."""
    curls = [block for block in blocks(MERCHANTS, "sh") if block.startswith("curl")]
    _finding, paying, repeating, failing = curls
    for command, again in ((paying, False), (repeating, False), (repeating, True)):
        status, headers, payment = split(run_shell(command, merchants_gateway.api).stdout)
        assert (status, payment["status"]) == ("HTTP/1.1 201 Created", "AUTHORIZED")
        assert ("idempotent-replayed" in headers) is again
    problem = json.loads(run_shell(failing, merchants_gateway.api).stdout)
    assert problem == {**json.loads(blocks(MERCHANTS, "json")[0]), "instance": problem["instance"]}


def test_the_life_of_a_payment_for_merchants_is_lived(merchants_gateway: Gateway) -> None:
    """Each of its requests is answered as the text says, and the payment is found by its reference."""
    living = next(block for block in blocks(MERCHANTS, "sh") if block.startswith("payment_id="))
    *actions, listed = bodies(run_shell(living, merchants_gateway.api))
    assert [(action["type"], action["status"], action["amount"]) for action in actions] == [
        ("CAPTURE", "APPROVED", 400),
        ("CAPTURE", "APPROVED", 500),
        ("REFUND", "APPROVED", 100),
    ]
    assert [action["type"] for action in listed["data"]] == ["AUTHORIZATION", "CAPTURE", "CAPTURE", "REFUND"]
    finding, *_ = (block for block in blocks(MERCHANTS, "sh") if block.startswith("curl"))
    by_reference, captured = finding.splitlines()
    (found,) = json.loads(run_shell(by_reference, merchants_gateway.api).stdout)["data"]
    assert (found["status"], found["balances"]["total_voided"]) == ("PARTIALLY_REFUNDED", 150)
    assert json.loads(run_shell(captured, merchants_gateway.api).stdout) == {"data": [], "next_cursor": None}


def test_the_table_for_merchants_is_that_of_the_code() -> None:
    """docs/merchants.md has the same states, actions and results in its table and in its diagram."""
    section = MERCHANTS.split("## The life of a payment")[1].split("\n## ")[0]
    table: dict[State, dict[ActionType, frozenset[State]]] = {}
    drawn = set()
    for line in section.splitlines():
        cells = [re.findall(r"`([A-Z_]+)`", cell) for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            actions = {
                kind: frozenset(map(State, cell)) for kind, cell in zip(ActionType, cells[1:], strict=True) if cell
            }
            table |= dict.fromkeys(map(State, cells[0]), actions)
        arrow = re.fullmatch(r" +([A-Z_]+) --> ([A-Z_]+): (.+)", line)
        if arrow is not None:
            drawn |= {(arrow[1], ActionType(name.upper()), arrow[2]) for name in arrow[3].split(", ")}
    assert table == LEADS_TO
    listed = {(state, *result) for state, actions in LEADS_TO.items() for result in actions.items()}
    assert drawn == {(state, kind, after) for state, kind, states in listed for after in states}


def _shell(source: str, folder: Path) -> list[str]:
    script = folder / "pay.sh"
    script.write_text(source)
    return ["sh", str(script)]


def _python(source: str, folder: Path) -> list[str]:
    script = folder / "pay.py"
    script.write_text(source)
    return [sys.executable, str(script)]


def _javascript(source: str, folder: Path) -> list[str]:
    script = folder / "pay.mjs"
    script.write_text(source)
    return [NODE or "node", str(script)]


EXAMPLES = [
    pytest.param(_shell, next(block for block in blocks(MERCHANTS, "sh") if block.startswith("#!")), id="curl"),
    pytest.param(_python, blocks(MERCHANTS, "python")[0], id="python"),
    pytest.param(
        _javascript,
        blocks(MERCHANTS, "js")[0],
        id="javascript",
        marks=pytest.mark.skipif(NODE is None, reason="node is not installed"),
    ),
]
example = pytest.mark.parametrize(("write", "source"), EXAMPLES)
Write = Callable[[str, Path], list[str]]


def pay(write: Write, source: str, folder: Path, api: str, card_number: str) -> subprocess.CompletedProcess[str]:
    """Run an example as a program, with another gateway and another card."""
    assert API in source
    assert support.AUTHORIZED_CARD in source
    return subprocess.run(
        write(source.replace(API, api).replace(support.AUTHORIZED_CARD, card_number), folder),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "API_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@example
@pytest.mark.parametrize(
    "card_and_status",
    [
        (support.AUTHORIZED_CARD, "AUTHORIZED"),
        (support.DECLINED_CARD, "DECLINED"),
        (support.DROPPED, "AUTHORIZED"),  # after some answers with 202
    ],
    ids=["authorized", "declined", "pending first"],
)
def test_an_example_pays(
    write: Write, source: str, card_and_status: tuple[str, str], merchants_gateway: Gateway, tmp_path: Path
) -> None:
    """Each example ends with the final status of its payment."""
    card_number, status = card_and_status
    ran = pay(write, source, tmp_path, merchants_gateway.api, card_number)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert status in ran.stdout


@example
def test_an_example_reports_a_refused_payment(
    write: Write, source: str, merchants_gateway: Gateway, tmp_path: Path
) -> None:
    """A 400 is shown and not sent again, and the exit status is not 0."""
    ran = pay(write, source, tmp_path, merchants_gateway.api, "42")
    assert ran.returncode != 0
    assert "validation_failed" in ran.stderr


def hang_up(connection: socket.socket) -> None:
    """Close the connection without an answer; a script for `ScriptedBank`."""
    connection.shutdown(socket.SHUT_RDWR)


PAID = reply(201, b'{"status": "AUTHORIZED"}')
AGAIN = {status: reply(status, b"{}", "Retry-After: 1") for status in (202, 409, 429, 502, 503, 504)}


@example
@pytest.mark.parametrize(
    "first",
    [
        pytest.param([AGAIN[202], AGAIN[409]], id="202 409"),
        pytest.param([AGAIN[429], AGAIN[503]], id="429 503"),
        pytest.param([AGAIN[502], AGAIN[504]], id="502 504"),
        pytest.param([hang_up], id="no answer"),
        pytest.param([reply(500, b'{"detail": "The gateway could not process the request."}')], id="500"),
    ],
)
def test_an_example_sends_the_same_request_with_the_same_key(
    write: Write, source: str, first: list[Callable[[socket.socket], None]], tmp_path: Path
) -> None:
    """It does so after every response that is not final, until the payment is final."""
    answers = iter([*first, PAID])
    with scripted_bank(lambda connection: next(answers)(connection)) as server:
        ran = pay(write, source, tmp_path, server.url, support.AUTHORIZED_CARD)
    assert ran.returncode == 0, ran.stderr
    assert "AUTHORIZED" in ran.stdout
    assert len(server.requests) == len(first) + 1
    assert len({request.partition(b"\r\n\r\n")[2] for request in server.requests}) == 1
    keys = [re.findall(rb"(?i)\r\nidempotency-key: (\S+)\r\n", request) for request in server.requests]
    assert len(keys[0]) == 1
    assert keys == [keys[0]] * len(keys)


@example
@pytest.mark.parametrize(
    "last",
    [
        reply(422, b'{"code": "idempotency_key_reused"}'),
        reply(500, b'{"detail": "The gateway could not process the request. Nothing was charged."}'),
    ],
    ids=["422", "500"],
)
def test_an_example_does_not_retry_a_final_error(
    write: Write, source: str, last: Callable[[socket.socket], None], tmp_path: Path
) -> None:
    """One request is sent, and the exit status is not 0."""
    with scripted_bank(last) as server:
        ran = pay(write, source, tmp_path, server.url, support.AUTHORIZED_CARD)
    assert ran.returncode != 0
    assert len(server.requests) == 1


def operator_commands() -> list[str]:
    """Return the lines of docs/operations.md that begin with the alias `gateway`, or with `curl`.

    test_from_nothing.py follows the section that is left out here.
    """
    section = OPERATIONS[OPERATIONS.index("## From nothing to two gateways") :]
    others = OPERATIONS.replace(section[: section.index("\n## ", 1)], "")
    lines = (line for block in blocks(others, "sh") for line in block.splitlines())
    return [line for line in lines if line.startswith(("gateway ", "curl "))]


@pytest.mark.timeout(300)
def test_the_operators_commands_work(tmp_path: Path) -> None:
    """Each command in docs/operations.md succeeds in its order there, with the ids of an existing payment and key."""
    settings = {"STORE_URL": f"sqlite:///{tmp_path / 'payments.db'}", "FINGERPRINT_KEY": "0f" * 32}
    kinds = set()
    key_id = ""

    def script(connection: socket.socket) -> None:
        """Answer nothing to payments, which leaves one unresolved until the command settles it; approve actions."""
        head, _, body = bank.current.request.partition(b"\r\n\r\n")
        if head.startswith(b"GET /capabilities "):
            reply(200, b'{"actions": ["captures", "voids", "refunds"]}')(connection)
        elif head.startswith(b"POST /payments/"):
            reply(200, json.dumps({"action_id": json.loads(body)["action_id"], "approved": True}).encode())(connection)
        else:
            hang_up(connection)

    with scripted_bank(script) as bank, Gateway(cwd=tmp_path, settings=settings, BANK_URL=bank.url) as gateway:
        settings["BANK_URL"] = bank.url
        payment_id = gateway.pay().json()["id"]
        statement = f"payment_id,amount,currency,outcome\n{payment_id},1050,GBP,authorized\n"
        (tmp_path / "statement.csv").write_text(statement)

        def run(*arguments: str) -> str:
            ran = subprocess.run(
                [sys.executable, ROOT / "run.py", *arguments],
                cwd=tmp_path,
                env={"PATH": os.environ["PATH"], **settings},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert ran.returncode == 0, f"{arguments}: {ran.stderr}"
            return ran.stdout

        wait_until(lambda: payment_id in run("pending"))
        for line in operator_commands():
            if line.startswith("curl "):
                answered = run_shell(line.replace("http://127.0.0.1:8000", gateway.root), gateway.api)
                assert json.loads(answered.stdout)["store"] == "ok"
                continue
            given = re.sub(r"\b1f0c9a4be2d7\b", key_id, line)
            given = re.sub(r"\b3f2b8c1e-5a7d-4e0b-9c56-0d1e2f3a4b5c\b", payment_id, given)
            arguments = shlex.split(given, comments=True)[1:]
            printed = run(*arguments)
            kinds.add(" ".join(arguments[:2]) if arguments[0] == "keys" else arguments[0])
            if line.startswith("gateway keys create acme --live"):
                key_id = json.loads(printed)["id"]
    assert kinds == {
        "--version",
        "migrate",
        "backup",
        "fingerprint-keys",
        "keys create",
        "keys list",
        "keys revoke",
        "keys history",
        "pending",
        "show",
        "settle",
        "capture",
        "void",
        "refund",
        "erase",
        "history",
        "payments",
        "reconcile",
        "same-bank",
    }


def test_the_simulator_starts_as_qa_starts_it() -> None:
    """The command in docs/qa.md, on a free port, serves the ledger."""
    command = next(line for block in blocks(QA, "sh") for line in block.splitlines() if "bank.simulator" in line)
    arguments = shlex.split(command.replace("8080", "0"))[1:]
    with subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            found = re.search(r"http://\S+(?=;)", process.stdout.readline())
            assert found is not None
            assert requests.get(f"{found[0]}/ledger", timeout=10).json() == {}
        finally:
            process.terminate()


def test_the_scripted_fault_in_qa_md_works() -> None:
    """The Python example of docs/qa.md passes."""
    exec(blocks(QA, "python")[0], {"scripted_bank": scripted_bank, "reply": reply, "Gateway": Gateway})  # noqa: S102
