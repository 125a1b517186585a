"""How the gateway connects to a database, and creates or upgrades its tables.

Alembic runs the steps in storage/migrations/ when a gateway that needs them starts. Several gateways may
start on one database at the same time: one runs the steps, the others wait for it.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import alembic.command
import alembic.config
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from storage.records import InvalidUrl, StoreMismatch, StoreUnavailable
from storage.tables import meta

# Seconds that a SQLite writer waits for another, and that connecting to PostgreSQL may take.
BUSY_TIMEOUT_S: Final = 4
CONNECT_TIMEOUT_S: Final = 3

# The revision of the tables that gateways created before there were migrations.
FIRST_REVISION: Final = "0001"

_POSTGRESQL: Final = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    # Free the threads within 10 s when the server vanishes: seconds, then a count, then milliseconds.
    "keepalives_idle": 3,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 8_000,
    "prepare_threshold": None,  # a pooler like PgBouncer may hand each transaction to another session
}


@contextmanager
def available() -> Iterator[None]:
    """Raise `StoreUnavailable` for every error of the database, without its message, which may hold a secret."""
    try:
        yield
    except SQLAlchemyError as error:
        raise StoreUnavailable(type(error).__name__) from None


def connect(url: str, *, connections: int, key_check: str, create: bool) -> sa.Engine:
    """Return an engine for a database whose tables are ready to use.

    url: a SQLAlchemy URL
    connections: the most that may be open at once
    key_check: a digest that identifies FINGERPRINT_KEY; a new database stores it, any other must hold the same
    create: create the tables in a database that has none
    Raises `InvalidUrl`, `StoreMismatch` and `StoreUnavailable`.
    """
    sqlite = url.startswith("sqlite")
    try:
        engine = sa.create_engine(
            url,
            pool_size=connections,
            max_overflow=0,
            pool_pre_ping=not sqlite,  # a restart of the server costs no payment
            pool_timeout=CONNECT_TIMEOUT_S,
            hide_parameters=True,
            connect_args={"timeout": BUSY_TIMEOUT_S} if sqlite else _POSTGRESQL,
        )
    except (ArgumentError, TypeError, ValueError):
        raise InvalidUrl from None  # the message of SQLAlchemy may hold the password
    if sqlite:
        sa.event.listen(engine, "connect", _durable)
    try:
        _prepare(engine, key_check, create=create)
    except Exception:
        engine.dispose()
        raise
    return engine


def _durable(connection: Any, _record: Any) -> None:
    """Make SQLite call fsync for every commit, so that a payment answered 201 is on disk."""
    _use_wal(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _use_wal(connection: Any) -> None:
    """Switch the file to WAL. SQLite's own timeout does not apply when another connection is writing."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


@available()
def _prepare(engine: sa.Engine, key_check: str, *, create: bool) -> None:
    """Create or upgrade the tables. Raises `StoreMismatch` for a database that this gateway must not change."""
    file = engine.url.database if engine.dialect.name == "sqlite" else None
    if not create and file is not None and not Path(file).exists():
        raise StoreMismatch("does not exist")
    with _exclusive_transaction(engine) as connection:
        used = sa.inspect(connection).has_table(meta.name)
        if not create and not used:
            raise StoreMismatch("has no payments: no gateway has used it yet")
        _migrate(connection, used=used)
        stored = connection.scalar(sa.select(meta.c.value).where(meta.c.name == "key_check"))
        if stored is None:
            connection.execute(sa.insert(meta).values(name="key_check", value=key_check))
        elif stored != key_check:
            raise StoreMismatch("was made with another FINGERPRINT_KEY")


def _migrate(connection: sa.Connection, *, used: bool) -> None:
    options = alembic.config.Config()
    options.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    options.attributes["connection"] = connection
    revision = MigrationContext.configure(connection).get_current_revision()
    if used and revision is None:
        alembic.command.stamp(options, FIRST_REVISION)
    try:
        alembic.command.upgrade(options, "head")
    except CommandError:
        head = ScriptDirectory.from_config(options).get_current_head()
        raise StoreMismatch(
            f"has schema version {revision}, and this gateway knows {head}: run the newer gateway"
        ) from None


@contextmanager
def _exclusive_transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Begin a transaction that excludes the other gateways that start on this database."""
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA secure_delete=ON")  # overwrite what a migration clears
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql(
                "SELECT pg_advisory_xact_lock(7300915)"
            )  # an arbitrary number, the same in every gateway
        yield connection
        connection.commit()
