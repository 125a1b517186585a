"""What PostgreSQL has committed is on its disk, or the gateway does not start."""

import pytest
import sqlalchemy as sa

import store
from store import StoreMismatch
from tests.integration.test_operator import command, settings
from tests.postgres import Postgres
from tests.support import Gateway

FINGERPRINT_KEY = bytes.fromhex(settings("")["FINGERPRINT_KEY"])


def with_setting(postgresql: Postgres, setting: str) -> str:
    """Return the URL of a database with tables, and with this setting."""
    url = postgresql.new_database()
    store.migrate(url, fingerprint_key=FINGERPRINT_KEY)
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {engine.url.database} SET {setting}")
    engine.dispose()
    return url


def test_asynchronous_commits_stop_a_start_and_a_command(postgresql: Postgres) -> None:
    """One line says what is wrong and what allows it; then the gateway starts."""
    url = with_setting(postgresql, "synchronous_commit = off")
    problem = "has synchronous_commit off, so a crash may lose payments that were answered; STORE_DURABILITY=any"
    with pytest.raises(AssertionError, match=problem):
        Gateway(settings=settings(url))
    with Gateway(settings=settings(url), STORE_DURABILITY="any") as gateway:
        assert gateway.pay().status_code == 201
        refused = command(url, "payments")
        assert refused.returncode == 1
        assert problem in refused.stderr
        assert gateway.operate("payments").returncode == 0


@pytest.mark.parametrize("value", ["on", "local", "remote_apply"])
def test_other_commits_are_durable(postgresql: Postgres, value: str) -> None:
    """They wait for the disk at least."""
    store.configure(with_setting(postgresql, f"synchronous_commit = {value}"), fingerprint_key=FINGERPRINT_KEY)
    store.close()


def test_a_server_without_fsync_is_refused(own_postgresql: Postgres) -> None:
    """Its commits are on no disk. It is a setting of the server."""
    url = own_postgresql.new_database()
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("ALTER SYSTEM SET fsync = off")
    engine.dispose()
    own_postgresql.stop()
    own_postgresql.start()
    with pytest.raises(StoreMismatch, match="has fsync off"):
        store.configure(url, fingerprint_key=FINGERPRINT_KEY)
