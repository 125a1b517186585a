"""A database for payments: connecting to it, and bringing its tables to what this gateway needs.

The tables are made and changed by the steps in storage/migrations/, with Alembic, at the first start of a
gateway that needs them. Two gateways may start on one store at once: one of them does it.
"""

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

# How long a SQLite writer waits for another, and how long a connection to PostgreSQL may take to make.
BUSY_TIMEOUT_S: Final = 4
CONNECT_TIMEOUT_S: Final = 3

# The tables of gateways that knew no migrations.
FIRST_REVISION: Final = "0001"

_POSTGRESQL: Final = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    # A server that vanished frees its threads within seconds; the timeouts are in seconds and milliseconds.
    "keepalives_idle": 3,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 8_000,
    "prepare_threshold": None,  # a pooler like PgBouncer may hand each transaction to another session
}


@contextmanager
def available() -> Iterator[None]:
    """Turn every failure of the database into `StoreUnavailable`, without its words."""
    try:
        yield
    except SQLAlchemyError as error:
        raise StoreUnavailable(type(error).__name__) from None


def connect(url: str, *, connections: int, key_check: str, create: bool) -> sa.Engine:
    """Return an engine for a store that is ready to use.

    url: as SQLAlchemy writes it
    connections: how many may be open at once
    key_check: tells gateways with different FINGERPRINT_KEYs apart; the first one's is kept
    create: make the tables where there are none
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
    """What was answered 201 is on disk: WAL, and an fsync with every commit."""
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


@available()
def _prepare(engine: sa.Engine, key_check: str, *, create: bool) -> None:
    """Make or change the tables, and refuse a store that this gateway must not touch."""
    file = engine.url.database if engine.dialect.name == "sqlite" else None
    if not create and file is not None and not Path(file).exists():
        raise StoreMismatch("does not exist")
    with _alone(engine) as connection:
        used = sa.inspect(connection).has_table(meta.name)
        if not create and not used:
            raise StoreMismatch("has no payments: no gateway has used it yet")
        _migrate(connection, used=used)
        kept = connection.scalar(sa.select(meta.c.value).where(meta.c.name == "key_check"))
        if kept is None:
            connection.execute(sa.insert(meta).values(name="key_check", value=key_check))
        elif kept != key_check:
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
        known = ScriptDirectory.from_config(options).get_current_head()
        raise StoreMismatch(
            f"has schema version {revision}, and this gateway knows {known}: run the newer gateway"
        ) from None


@contextmanager
def _alone(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that no other gateway has at the same time: two may start on an empty store."""
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7300915)")  # any number of our own
        yield connection
        connection.commit()
