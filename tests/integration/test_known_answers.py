"""The bank's answers are known: its authorization code is recorded, or in the log until an operator records it."""

import json
import socket

import requests
import sqlalchemy as sa

from bank.simulator import Simulator
from tests import support
from tests.integration.test_operator import command, settings
from tests.support import Gateway, reply, scripted_bank, wait_until

CODE = "A1B2-77"


def shown(database_url: str, payment_id: str) -> tuple[str, str]:
    """Return the status and the authorization code that an operator sees, after comparing list and history."""
    (payment,) = json.loads(command(database_url, "payments", "--json").stdout)
    assert payment["id"] == payment_id
    (change,) = json.loads(command(database_url, "history", payment_id, "--json").stdout)
    assert change["code"] == payment["code"]
    return payment["status"], payment["code"]


def test_the_authorization_code_is_kept_with_the_payment(database_url: str) -> None:
    """Operators and merchants see it, also when a look-up found it."""
    simulator = Simulator()
    simulator.start()
    with Gateway(settings=settings(database_url), BANK_URL=simulator.url, BANK_TIMEOUT_S="0.5") as gateway:
        for card, expected in ((support.AUTHORIZED_CARD, 201), (support.DROPPED, 202), (support.DECLINED_CARD, 201)):
            answer = gateway.pay(card_number=card)
            assert answer.status_code == expected
            is_authorized = answer.json()["status"] == "AUTHORIZED"
            assert bool(answer.json()["authorization_code"]) == is_authorized
        payments: list[dict[str, str]] = []

        def settled() -> bool:
            payments[:] = json.loads(command(database_url, "payments", "--json").stdout)
            return all(payment["status"] != "PENDING" for payment in payments)

        wait_until(settled, 30)
        ledger = requests.get(f"{simulator.url}/ledger", timeout=10).json()
        assert {payment["id"]: payment["code"] for payment in payments} == {
            payment_id: entry["authorization_code"] for payment_id, entry in ledger.items()
        }
        assert sorted(bool(payment["code"]) for payment in payments) == [False, True, True]
    simulator.stop()


def test_an_answer_that_the_store_does_not_take_is_in_the_log(database_url: str) -> None:
    """The gateway ends before the store takes it. An operator records it from the log, with its code."""
    engine = sa.create_engine(database_url)
    is_sqlite = engine.dialect.name == "sqlite"
    others: list[sa.Connection] = []
    answer = reply(200, json.dumps({"authorized": True, "authorization_code": CODE}).encode())

    def prevent_writing_and_answer(connection: socket.socket) -> None:
        if not others:  # the first request is the payment, which is claimed already
            others.append(engine.connect())
            # PostgreSQL would do what waits for a lock when the lock is gone, also without the gateway.
            others[0].exec_driver_sql("BEGIN IMMEDIATE" if is_sqlite else "ALTER TABLE changes RENAME TO hidden")
            if not is_sqlite:
                others[0].commit()
        answer(connection)

    with scripted_bank(prevent_writing_and_answer) as bank:
        with Gateway(settings=settings(database_url), BANK_URL=bank.url) as gateway:
            pending = gateway.pay()
            assert (pending.status_code, pending.json()["status"]) == (202, "PENDING")
            payment_id = pending.json()["id"]
            what = f"the bank's answer AUTHORIZED with the authorization code {CODE}"

            def errors(what: str) -> list[str]:
                lines = gateway.log.splitlines()
                return [line for line in lines if " ERROR " in line and payment_id in line and what in line]

            wait_until(lambda: errors(f"{what} is not recorded yet"))
            assert gateway.stop() == 0
            assert errors(f"{what} was not recorded before the gateway stopped")
        if is_sqlite:
            others[0].rollback()
        else:
            others[0].exec_driver_sql("ALTER TABLE hidden RENAME TO changes")
            others[0].commit()
        others[0].close()
        engine.dispose()
        by_hand = ("--note", "from the log", "--code", CODE)
        wait_until(lambda: command(database_url, "settle", payment_id, "authorized", *by_hand).returncode == 0, 40)
        assert shown(database_url, payment_id) == ("AUTHORIZED", CODE)
        assert command(database_url, "settle", payment_id, "authorized", *by_hand[:3], "x" * 65).returncode == 2
        assert (
            command(database_url, "settle", payment_id, "authorized", *by_hand[:3], support.AUTHORIZED_CARD).returncode
            == 2
        )
