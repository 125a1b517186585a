"""PgBouncer hands each transaction to any session of PostgreSQL, and the gateway works through it all the same."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from bank.simulator import Simulator
from tests import support
from tests.integration.test_operator import settings
from tests.postgres import Postgres
from tests.support import Gateway, wait_until

CONFIGURATION = """
[databases]
{name} = host={host} dbname={name} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
max_client_conn = 100
server_reset_query =
logfile = {folder}/log
pidfile = {folder}/pid
"""


@pytest.fixture
def pooled_url(postgresql: Postgres, tmp_path: Path) -> Iterator[str]:
    """A database behind PgBouncer in transaction mode, with three sessions for all connections."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    url = sa.make_url(postgresql.new_database())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = tmp_path / "pgbouncer.ini"
    file.write_text(CONFIGURATION.format(name=url.database, host=url.query["host"], port=port, folder=tmp_path))
    tmp_path.chmod(0o777)  # PgBouncer does not run as root
    for folder in tmp_path.parents[:3]:
        folder.chmod(folder.stat().st_mode | 0o011)
    with subprocess.Popen([program, "-q", "-u", "nobody", file], cwd=tmp_path) as process:
        try:
            wait_until(lambda: _accepts_connections(port))
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/{url.database}"
        finally:
            process.terminate()


def _accepts_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_payments_go_through_a_pooler_in_transaction_mode(pooled_url: str, simulator: Simulator) -> None:
    """Two gateways with more connections than sessions pay, read, capture and replay at once."""
    options = {**settings(pooled_url), "BANK_URL": simulator.url}
    with Gateway(settings=options) as first, Gateway(settings=options) as second, ThreadPoolExecutor(16) as pool:

        def send(gateway: Gateway, path: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
            """Post until the answer is final, and return it."""
            while True:
                answer = requests.post(f"{gateway.api}/{path}", json=body, headers={"Idempotency-Key": key}, timeout=60)
                if answer.status_code == 201:
                    return dict(answer.json())
                assert answer.status_code == 409, answer.text

        def live(number: int) -> str:
            gateway, key = (first, second)[number % 2], f"key {number // 4}"
            paid = send(gateway, "payments", key, support.valid_payment())
            captured = send(gateway, f"payments/{paid['id']}/captures", f"capture {key}", {})
            assert (paid["status"], captured["status"]) == ("AUTHORIZED", "APPROVED")
            assert second.find(paid["id"]).json()["status"] == "CAPTURED"
            return str(paid["id"])

        assert len(set(pool.map(live, range(80)))) == 20
