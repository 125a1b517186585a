"""Chaos test: under load, gateways are killed, the database is stopped and the bank drops connections.

    python -m tests.chaos [--seconds 60] [--seed N] [--store sqlite|postgresql] [--clients 8]

Two gateways share a database and a bank. Clients send payments with idempotency keys to either gateway,
and retry until they have a final answer, as the documents tell merchants to do. Meanwhile gateways are
killed with SIGKILL and started again, PostgreSQL is stopped in immediate mode and started again, and
for some cards the bank drops the connection before or after its decision. At the end the simulator's
ledger and the payments in the database are compared one by one, and database and logs are searched for
card numbers and CVVs.
"""

import argparse
import asyncio
import contextlib
import random
import re
import secrets
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

import store
from bank.simulator import Simulator
from store import Status
from tests import postgres, support
from tests.support import Gateway

# Four digits that occur in no amount and no card number here; CVVs are searched for as whole words.
CVV = "7391"

MISBEHAVING = [support.DROPPED, support.DROPPED_BEFORE, support.SILENT, support.FAILED, support.GARBAGE]


@dataclass
class Tally:
    """What happened during the run, for the report."""

    requests: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    outages: int = 0
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)  # the last answer, by idempotency key
    cards: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Cluster:
    """Two gateways, either of which may be down when a client calls it."""

    def __init__(self, settings: dict[str, str], folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._gateways = [self._start() for _ in range(2)]
        self._logs: list[str] = []

    def _start(self) -> Gateway:
        return Gateway(cwd=self._folder, settings=self._settings, LOG_LEVEL="DEBUG")

    def api(self, rng: random.Random) -> str:
        return rng.choice(self._gateways).api

    def kill(self, number: int) -> None:
        """Kill one with SIGKILL, and start another in its place."""
        self._gateways[number].process.kill()
        self._end(self._gateways[number])
        while True:
            with contextlib.suppress(AssertionError):  # while the database is down it does not start
                self._gateways[number] = self._start()
                return
            time.sleep(0.2)

    def stop(self) -> str:
        """Stop both, and return everything that any gateway printed."""
        for gateway in self._gateways:
            gateway.process.terminate()
            self._end(gateway)
        return "".join(self._logs)

    def _end(self, gateway: Gateway) -> None:
        gateway.__exit__()
        self._logs += [gateway.banner, gateway.log]


class Client(threading.Thread):
    """A merchant that makes payments until the time is up, and retries each until it has an answer."""

    def __init__(self, cluster: Cluster, rng: random.Random, until: float, tally: Tally) -> None:
        super().__init__()
        self._cluster, self._rng, self._until, self._tally = cluster, rng, until, tally
        self._session = requests.Session()
        self._session.trust_env = False

    def run(self) -> None:
        with self._session:
            while time.monotonic() < self._until:
                body = support.valid_payment(
                    card_number=self._card(), amount=self._rng.randint(10_000, 10**11), cvv=CVV
                )
                with self._tally.lock:
                    self._tally.cards.add(body["card_number"])
                key = secrets.token_hex(16)
                while not self._is_final(self._send(key, body)):
                    time.sleep(0.1)

    def _card(self) -> str:
        if self._rng.random() < 0.2:
            return self._rng.choice(MISBEHAVING)
        card = f"{self._rng.randint(4 * 10**14, 5 * 10**14 - 1)}{self._rng.randint(1, 9)}"  # a 0 is always a 503
        return self._card() if card.endswith(CVV) else card  # the last four digits are recorded

    def _send(self, key: str, body: dict[str, Any]) -> str:
        url = f"{self._cluster.api(self._rng)}/payments"
        try:
            answer = self._session.post(url, json=body, headers={"Idempotency-Key": key}, timeout=30)
        except requests.RequestException:
            outcome = "no answer"
        else:
            outcome = str(answer.status_code)
            self._note(key, answer)
        with self._tally.lock:
            self._tally.requests[outcome] += 1
        return outcome

    def _note(self, key: str, answer: requests.Response) -> None:
        with self._tally.lock:
            if answer.status_code in {201, 202}:
                payment, before = answer.json(), self._tally.answers.get(key)
                if before and (before["id"] != payment["id"] or before["status"] not in {payment["status"], "PENDING"}):
                    self._tally.faults.append(f"the answer for key {key} changed: {before} then {payment}")
                self._tally.answers[key] = payment
            elif answer.status_code not in {409, 503}:
                self._tally.faults.append(f"an unexpected answer: {answer.status_code} {answer.text}")

    def _is_final(self, outcome: str) -> bool:
        """Return whether to stop retrying. Most merchants do not wait for a PENDING payment."""
        if outcome == "202":
            return self._rng.random() < 0.7 or time.monotonic() > self._until
        return outcome not in {"409", "503", "no answer"} or (outcome == "503" and time.monotonic() > self._until)


def disturb(cluster: Cluster, server: postgres.Postgres | None, rng: random.Random, until: float, tally: Tally) -> None:
    """Kill gateways and stop the database at random until the time is up."""
    while time.monotonic() < until:
        time.sleep(rng.uniform(0.2, 1.5))
        if server is not None and rng.random() < 0.25:
            server.stop()
            time.sleep(rng.uniform(0, 1.5))
            server.start()
            tally.outages += 1
        else:
            cluster.kill(rng.randrange(2))
            tally.kills += 1


def compare(ledger: dict[str, dict[str, Any]], table: dict[str, Any], tally: Tally) -> dict[str, int]:
    """Compare the bank's ledger, the payments in the database and the answers; return the numbers of differences."""
    authorized = {payment_id for payment_id, entry in ledger.items() if entry["authorized"]}
    recorded = {payment_id for payment_id, payment in table.items() if payment.status is Status.AUTHORIZED}
    amounts = Counter(ledger[payment_id]["amount"] for payment_id in authorized)
    answered = {
        answer["id"]: answer["status"] for answer in tally.answers.values() if answer["status"] != Status.PENDING
    }
    return {
        "authorized by the bank and not in the table (losses)": len(authorized - recorded),
        "AUTHORIZED in the table and not by the bank": len(recorded - authorized),
        "authorized twice for one key (doubles)": sum(count - 1 for count in amounts.values()),
        "still PENDING": sum(payment.status is Status.PENDING for payment in table.values()),
        "answers that are not what the table says": sum(
            payment_id not in table or table[payment_id].status != status for payment_id, status in answered.items()
        ),
        "other faults": len(tally.faults),
    }


def leaks(texts: dict[str, str], cards: set[str]) -> list[str]:
    """Return every card number, and every CVV that is a whole word, with the text around it.

    Durations are skipped, because they may hold any digits: `ms=7391.0`.
    """
    numbers = "|".join(map(re.escape, cards)) or "$^"
    pattern = re.compile(rf"(?:{numbers})|(?<![\w.-])(?<!ms=){CVV}(?![\w-])")
    return [
        f"{name}: {text[max(0, found.start() - 60) : found.end() + 60]!r}"
        for name, text in texts.items()
        for found in pattern.finditer(text)
    ]


def run(options: argparse.Namespace, folder: Path, server: postgres.Postgres | None) -> int:
    """Run the load and the disturbances, compare and report; return the number of faults."""
    url = server.new_database() if server else f"sqlite:///{folder / 'payments.db'}"
    simulator = Simulator(latency_s=0.02)
    simulator.start()
    settings = {
        "STORE_URL": url,
        "FINGERPRINT_KEY": secrets.token_hex(32),
        "BANK_URL": simulator.url,
        "BANK_TIMEOUT_S": "0.5",
        "BANK_CONNECT_TIMEOUT_S": "0.2",
    }
    cluster, tally = Cluster(settings, folder), Tally()
    print(f"chaos: {options.seconds:g} s, seed {options.seed}, {options.store}, 2 gateways, {options.clients} clients")
    _load(options, cluster, server, tally)
    table = _resolved(settings)
    log = cluster.stop()
    ledger = requests.get(f"{simulator.url}/ledger", timeout=30).json()
    simulator.stop()
    faults = compare(ledger, table, tally)
    leaked = leaks(_texts(url, server, log), tally.cards)
    tally.faults += leaked  # for the report
    faults["card numbers or CVVs in files, dump or logs"] = len(leaked)
    _report(tally, ledger, table, faults)
    return sum(faults.values())


def _load(options: argparse.Namespace, cluster: Cluster, server: postgres.Postgres | None, tally: Tally) -> None:
    started = time.monotonic()
    until = started + options.seconds
    rngs = [random.Random(options.seed + number) for number in range(options.clients + 1)]
    threads: list[threading.Thread] = [Client(cluster, rng, until, tally) for rng in rngs[1:]]
    threads.append(threading.Thread(target=disturb, args=[cluster, server, rngs[0], until, tally]))
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(min(5, options.seconds / 4))
        print(
            f"  {time.monotonic() - started:4.0f} s  {sum(tally.requests.values())} requests  "
            f"{len(tally.answers)} payments  {tally.kills} kills  {tally.outages} outages",
            flush=True,
        )


def _resolved(settings: dict[str, str]) -> dict[str, Any]:
    """Wait at most a minute until no payment is PENDING, and return all payments by id."""
    store.configure(settings["STORE_URL"], fingerprint_key=bytes.fromhex(settings["FINGERPRINT_KEY"]))
    deadline = time.monotonic() + 60
    while asyncio.run(store.search(Status.PENDING, limit=1)) and time.monotonic() < deadline:
        time.sleep(0.5)
    table = {str(payment.id): payment for payment in asyncio.run(store.search(limit=10**9))}
    store.close()
    return table


def _texts(url: str, server: postgres.Postgres | None, log: str) -> dict[str, str]:
    if server is not None:
        return {"log": log, "dump": server.dump(url)}
    path = Path(url.removeprefix("sqlite:///"))
    files = {file.name: file.read_bytes().decode("latin-1") for file in path.parent.glob("payments.db*")}
    with contextlib.closing(sqlite3.connect(path)) as database:
        dump = "\n".join(database.iterdump())
    # Four digits occur in binary files by chance, so these are searched for card numbers only.
    return {"log": log, "dump": dump, **{name: text.replace(CVV, "") for name, text in files.items()}}


def _report(tally: Tally, ledger: dict[str, Any], table: dict[str, Any], faults: dict[str, int]) -> None:
    authorized = sum(entry["authorized"] for entry in ledger.values())
    statuses = Counter(payment.status.value for payment in table.values())
    print(f"\nrequests             {sum(tally.requests.values())}  {dict(sorted(tally.requests.items()))}")
    print(f"bank authorizations  {authorized}")
    print(f"payments in table    {len(table)}  {dict(sorted(statuses.items()))}")
    print(f"kills                {tally.kills}")
    print(f"database outages     {tally.outages}\n")
    for name, count in faults.items():
        print(f"{count:6}  {name}")
    for fault in tally.faults[:10]:
        print(f"        {fault}")


def main() -> int:
    """Read the command line and run; return 1 when there was a fault, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="postgresql")
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        server = stack.enter_context(postgres.running()) if options.store == "postgresql" else None
        faults = run(options, Path(folder), server)
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main())
