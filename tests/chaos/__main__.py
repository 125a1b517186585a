"""Chaos test: under load, gateways are killed, the database is stopped and the bank misbehaves.

    python -m tests.chaos [--seconds 60] [--seed N] [--store sqlite|postgresql] [--clients 8] [--without FAULT ...]

Two gateways share a database and a bank. Clients send payments, captures, voids and refunds with idempotency keys to
either gateway, and retry until they have a final answer, as the documents tell merchants to do. Meanwhile gateways are
killed with SIGKILL, at any time and in batches of writes, and started again. PostgreSQL is stopped in immediate mode
and started again. For some cards the bank drops the connection before or after its decision. These faults can be left
out:

    lies     the bank does its work, and a proxy answers 503
    late     the bank decides or answers long after the gateway has given up
    strays   the bank sends a second reply, with the contrary decision
    skew     the clock of one gateway is a minute fast or slow
    moves    a gateway starts again with another BANK_URL

At the end the ledgers of the banks, the payments and actions in the database and the answers that merchants got are
compared one by one, and database and logs are searched for card numbers and CVVs.
"""

import argparse
import asyncio
import contextlib
import random
import secrets
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import trustme

import store
from store import Action, Payment, State
from tests import postgres
from tests.chaos.cluster import Cluster
from tests.chaos.comparison import Ledger, compare, leaks
from tests.chaos.faulty_bank import FAULTS, FaultyBank
from tests.chaos.merchant import CVV, Client
from tests.chaos.tally import Tally

# Seconds by which the clock of the second gateway differs, one of these at each start.
SKEWS_S = [-60, 0, 60]

ALL_FAULTS = [*FAULTS, "skew", "moves"]


def disturb(cluster: Cluster, server: postgres.Postgres | None, rng: random.Random, until: float, tally: Tally) -> None:
    """Kill gateways and stop the database at random until the time is up."""
    while time.monotonic() < until:
        time.sleep(rng.uniform(0.2, 1.5))
        tally.deaths += cluster.replace_dead()
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
    table, actions = asyncio.run(_resolved(settings))
    log = cluster.stop()
    tally.faults += cluster.faults
    ledgers = [bank.ledger() for bank in banks]
    for bank in banks:
        bank.stop()
        tally.drawn += bank.counts
    differences = compare(ledgers, table, actions, tally)
    leaked = leaks(_texts(url, server, log), tally.cards)
    tally.faults += leaked  # for the report
    differences["card numbers or CVVs in files, dump or logs"] = len(leaked)
    _report(tally, ledgers, table, actions, differences)
    return sum(differences.values())


def _load(options: argparse.Namespace, cluster: Cluster, server: postgres.Postgres | None, tally: Tally) -> None:
    started = time.monotonic()
    until = started + options.seconds
    rngs = [random.Random(options.seed + number) for number in range(options.clients + 1)]
    disturbing = threading.Thread(target=disturb, args=[cluster, server, rngs[0], until, tally])
    threads = [*(Client(cluster, rng, until, tally) for rng in rngs[1:]), disturbing]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(min(5, options.seconds / 4))
        if not disturbing.is_alive():  # clients still wait for answers
            tally.deaths += cluster.replace_dead()
        print(
            f"  {time.monotonic() - started:4.0f} s  {sum(tally.requests.values())} requests  "
            f"{len(tally.answers)} payments  {tally.kills} kills  {tally.outages} outages",
            flush=True,
        )


async def _resolved(settings: dict[str, str]) -> tuple[dict[str, Payment], dict[str, Action]]:
    """Wait at most two minutes until nothing is PENDING, and return all payments and all actions by id."""
    store.configure(settings["STORE_URL"], fingerprint_key=bytes.fromhex(settings["FINGERPRINT_KEY"]))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if not await store.search(State.PENDING, limit=1) and not (await store.unresolved_stats()).count:
            break
        await asyncio.sleep(0.5)
    table = {str(payment.id): payment for payment in await store.search(limit=10**9)}
    actions = {str(action.id): action for payment in table.values() for action in await store.list_actions(payment.id)}
    store.close()
    return table, actions


def _texts(url: str, server: postgres.Postgres | None, log: str) -> dict[str, str]:
    if server is not None:
        return {"log": log, "dump": server.dump(url)}
    path = Path(url.removeprefix("sqlite:///"))
    files = {file.name: file.read_bytes().decode("latin-1") for file in path.parent.glob("payments.db*")}
    with contextlib.closing(sqlite3.connect(path)) as database:
        dump = "\n".join(database.iterdump())
    # Four digits occur in binary files by chance, so these are searched for card numbers only.
    return {"log": log, "dump": dump, **{name: text.replace(CVV, "") for name, text in files.items()}}


def _report(
    tally: Tally,
    ledgers: Sequence[Ledger],
    table: Mapping[str, Payment],
    actions: Mapping[str, Action],
    differences: dict[str, int],
) -> None:
    authorized = sum(entry["authorized"] for ledger in ledgers for entry in ledger.values())
    states = Counter(payment.state().value for payment in table.values())
    done = Counter(f"{action.type} {action.status}" for action in actions.values())
    print(f"\nrequests             {sum(tally.requests.values())}  {dict(sorted(tally.requests.items()))}")
    print(f"bank authorizations  {authorized}")
    print(f"payments in table    {len(table)}  {dict(sorted(states.items()))}")
    print(f"actions in table     {len(actions)}  {dict(sorted(done.items()))}")
    print(f"faults of the bank   {sum(tally.drawn.values())}  {dict(sorted(tally.drawn.items()))}")
    print(f"kills                {tally.kills}")
    print(f"deaths in a batch    {tally.deaths}")
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
