"""Chaos test: under load, gateways are killed, the database is stopped and the bank misbehaves.

    python -m tests.chaos [--seconds 60] [--seed N] [--store sqlite|postgresql] [--clients 8] [--without FAULT ...]

Two gateways share a database and a bank. Clients send payments with idempotency keys to either gateway,
and retry until they have a final answer, as the documents tell merchants to do. Meanwhile gateways are
killed with SIGKILL and started again, PostgreSQL is stopped in immediate mode and started again, and
for some cards the bank drops the connection before or after its decision. These faults can be left out:

    lies     the bank authorizes, and a proxy answers 503
    late     the bank decides or answers long after the gateway has given up
    strays   the bank sends a second reply, with the contrary decision
    skew     the clock of one gateway is a minute fast or slow
    moves    a gateway starts again with another BANK_URL

At the end the ledgers of the banks, the payments in the database and the answers that merchants got are compared one
by one, and database and logs are searched for card numbers and CVVs.
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
import trustme

import store
from store import State, Status
from tests import postgres, support
from tests.chaos.faulty_bank import FAULTS, FaultyBank
from tests.support import Gateway

SKEWED = Path(__file__).parents[1] / "skewed_clock.py"

# Four digits that occur in no amount and no card number here; CVVs are searched for as whole words.
CVV = "7391"

# Seconds by which the clock of the second gateway differs, one of these at each start.
SKEWS_S = [-60, 0, 60]

# Seconds after the end of the load in which clients still retry.
PATIENCE_S = 30

ALL_FAULTS = [*FAULTS, "skew", "moves"]

MISBEHAVING = [support.DROPPED, support.DROPPED_BEFORE, support.SILENT, support.FAILED, support.GARBAGE]


@dataclass
class Tally:
    """What happened during the run, for the report."""

    requests: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    moves: int = 0
    outages: int = 0
    drawn: Counter[str] = field(default_factory=Counter)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)  # the last answer, by idempotency key
    cards: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Cluster:
    """Two gateways, either of which may be down when a client calls it.

    banks: the banks between which gateways move
    skews_s: by how many seconds the clock of the second gateway may differ
    faults: answers of gateways that have ended, which break the contract
    """

    def __init__(
        self, settings: dict[str, str], folder: Path, banks: list[FaultyBank], skews_s: list[int], rng: random.Random
    ) -> None:
        self._settings, self._folder, self._banks, self._skews_s, self._rng = settings, folder, banks, skews_s, rng
        self._at = [0, 0]
        self._gateways = [self._start(number) for number in range(2)]
        self._logs: list[str] = []
        self.faults: list[str] = []

    def _start(self, number: int) -> Gateway:
        settings = {
            **self._settings,
            "BANK_URL": self._banks[self._at[number]].url,
            "CLOCK_OFFSET_S": str(self._rng.choice(self._skews_s) if number else 0),
        }
        return Gateway(script=SKEWED, cwd=self._folder, settings=settings, LOG_LEVEL="DEBUG")

    def api(self, rng: random.Random) -> str:
        return rng.choice(self._gateways).api

    def bank_of(self, number: int) -> int:
        return self._at[number]

    def at_other_bank(self, number: int) -> int:
        return (self._at[number] + 1) % len(self._banks)

    def kill(self, number: int, bank: int) -> None:
        """Kill one with SIGKILL, and start another in its place, at this bank."""
        self._at[number] = bank
        self._gateways[number].process.kill()
        self._end(self._gateways[number])
        while True:
            with contextlib.suppress(AssertionError):  # while the database is down it does not start
                self._gateways[number] = self._start(number)
                return
            time.sleep(0.2)

    def spread(self) -> None:
        """Let each bank have a gateway, whose clock is right, so that all payments can be resolved."""
        self._skews_s = [0]
        for number in range(2):
            self.kill(number, number % len(self._banks))

    def stop(self) -> str:
        """Stop both, and return everything that any gateway printed."""
        for gateway in self._gateways:
            gateway.process.terminate()
            self._end(gateway)
        return "".join(self._logs)

    def _end(self, gateway: Gateway) -> None:
        try:
            gateway.__exit__()
        except AssertionError as error:
            self.faults.append(str(error))
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
        return outcome not in {"409", "503", "no answer"} or time.monotonic() > self._until + PATIENCE_S


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
            number = rng.randrange(2)
            bank = cluster.at_other_bank(number) if rng.random() < 0.3 else cluster.bank_of(number)
            tally.moves += bank != cluster.bank_of(number)
            cluster.kill(number, bank)
            tally.kills += 1


def compare(ledgers: list[dict[str, dict[str, Any]]], table: dict[str, Any], tally: Tally) -> dict[str, int]:
    """Compare the banks' ledgers, the payments in the database and the answers; return the numbers of differences."""
    entries = [(payment_id, entry) for ledger in ledgers for payment_id, entry in ledger.items() if entry["authorized"]]
    authorized = {payment_id for payment_id, _ in entries}
    recorded = {payment_id for payment_id, payment in table.items() if payment.status is Status.AUTHORIZED}
    amounts = Counter(entry["amount"] for _, entry in entries)  # each key has an amount of its own
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
        "answers that are not what the bank's ledger says": sum(
            (status == Status.AUTHORIZED) != (payment_id in authorized) for payment_id, status in answered.items()
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
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    faults = [fault for fault in ALL_FAULTS if fault not in options.without]
    banks = [FaultyBank(authority, faults, options.seed + number) for number in range(1 + ("moves" in faults))]
    settings = {
        "STORE_URL": url,
        "FINGERPRINT_KEY": secrets.token_hex(32),
        "BANK_CA_FILE": str(folder / "authority.pem"),
        "BANK_TIMEOUT_S": "0.5",
        "BANK_CONNECT_TIMEOUT_S": "0.2",
    }
    rng = random.Random(options.seed)
    cluster, tally = Cluster(settings, folder, banks, SKEWS_S if "skew" in faults else [0], rng), Tally()
    print(f"chaos: {options.seconds:g} s, seed {options.seed}, {options.store}, 2 gateways, {options.clients} clients")
    _load(options, cluster, server, tally)
    cluster.spread()
    table = _resolved(settings)
    log = cluster.stop()
    tally.faults += cluster.faults
    ledgers = [bank.ledger() for bank in banks]
    for bank in banks:
        bank.stop()
        tally.drawn += bank.counts
    differences = compare(ledgers, table, tally)
    leaked = leaks(_texts(url, server, log), tally.cards)
    tally.faults += leaked  # for the report
    differences["card numbers or CVVs in files, dump or logs"] = len(leaked)
    _report(tally, ledgers, table, differences)
    return sum(differences.values())


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
    """Wait at most two minutes until no payment is PENDING, and return all payments by id."""
    store.configure(settings["STORE_URL"], fingerprint_key=bytes.fromhex(settings["FINGERPRINT_KEY"]))
    deadline = time.monotonic() + 120
    while asyncio.run(store.search(State.PENDING, limit=1)) and time.monotonic() < deadline:
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


def _report(tally: Tally, ledgers: list[dict[str, Any]], table: dict[str, Any], differences: dict[str, int]) -> None:
    authorized = sum(entry["authorized"] for ledger in ledgers for entry in ledger.values())
    statuses = Counter(payment.status.value for payment in table.values())
    print(f"\nrequests             {sum(tally.requests.values())}  {dict(sorted(tally.requests.items()))}")
    print(f"bank authorizations  {authorized}")
    print(f"payments in table    {len(table)}  {dict(sorted(statuses.items()))}")
    print(f"faults of the bank   {sum(tally.drawn.values())}  {dict(sorted(tally.drawn.items()))}")
    print(f"kills                {tally.kills}")
    print(f"changes of BANK_URL  {tally.moves}")
    print(f"database outages     {tally.outages}\n")
    for name, count in differences.items():
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
    parser.add_argument("--without", nargs="*", choices=ALL_FAULTS, default=[], help="faults to leave out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        server = stack.enter_context(postgres.running()) if options.store == "postgresql" else None
        faults = run(options, Path(folder), server)
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main())
