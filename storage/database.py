"""How the gateway connects to a database, and creates or upgrades its tables.

Alembic runs the steps in storage/migrations/ when a gateway that needs them starts, or at `run.py migrate`.
Several gateways may start on one database at the same time: one runs the steps, the others wait for it.

The version of the schema is its newest step. A newer schema names the oldest version that it serves
(`tables.OLDEST_GATEWAY`), so an older gateway can use it as long as it was only expanded.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import alembic.command
import alembic.config
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from storage.records import InvalidUrl, StoreMismatch, StoreUnavailable
from storage.tables import KEY_CHECK, OLDEST_GATEWAY, meta
from telemetry import causes

# Seconds that a SQLite writer waits for another, and that connecting to PostgreSQL may take.
BUSY_TIMEOUT_S: Final = 4
CONNECT_TIMEOUT_S: Final = 3

# The revision of the tables that gateways created before there were migrations.
FIRST_REVISION: Final = "0001"

_MIGRATE: Final = "`run.py migrate`"

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
    """Raise `StoreUnavailable` for every error of the database, with the cause instead of its message."""
    try:
        yield
    except sa.exc.TimeoutError:  # of SQLAlchemy's pool
        raise StoreUnavailable("no free connection") from None
    except (SQLAlchemyError, sqlite3.Error) as error:  # SQLite's own come from `_durable`
        raise StoreUnavailable(causes.of(error)) from None


class Database(NamedTuple):
    """A database that is ready to use.

    found_version: the version of the schema before a migration; None when the database was empty
    known_version: the version of the schema that this gateway knows
    """

    engine: sa.Engine
    found_version: str | None
    known_version: str


def connect(url: str, *, connections: int, key_checks: Sequence[str], migrate: bool, durable: bool) -> Database:
    """Connect to a database, and check that this gateway can use it.

    url: a SQLAlchemy URL
    connections: the most that may be open at once
    key_checks: digests that identify FINGERPRINT_KEY, which comes first, and FINGERPRINT_OLD_KEYS; the database holds
        that of FINGERPRINT_KEY, and until now must have held one of them
    migrate: create the tables or upgrade them; otherwise a database that needs this is a `StoreMismatch`
    durable: a PostgreSQL that may lose what it has committed is a `StoreMismatch`
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
        if migrate:
            _create(str(engine.url.database))
        _make_private(str(engine.url.database))
        sa.event.listen(engine, "connect", _durable)
    try:
        if durable and not sqlite:
            _check_durability(engine)
        if migrate:
            return _migrate(engine, key_checks)
        return _check(engine, key_checks)
    except Exception:
        engine.dispose()
        raise


def driver_options(engine: sa.Engine) -> dict[str, Any]:
    """Return the parameters with which the driver of a PostgreSQL engine connects."""
    _, options = engine.dialect.create_connect_args(engine.url)
    return {**options, **_POSTGRESQL}


def _create(file: str) -> None:
    """Create a SQLite file, unless it exists. SQLite would not say why it can't be created."""
    try:
        os.close(os.open(file, os.O_CREAT, 0o600))
    except FileNotFoundError:
        raise StoreUnavailable("no such folder") from None
    except OSError as error:
        raise StoreUnavailable(causes.of(error)) from None


def _make_private(file: str) -> None:
    """Let nobody but its owner read a SQLite file. SQLite gives the files that it creates beside it the same mode."""
    for name in (file, f"{file}-wal", f"{file}-shm"):
        with contextlib.suppress(OSError):  # it does not exist, or belongs to another user
            Path(name).chmod(0o600)


def _durable(connection: Any, _record: Any) -> None:
    """Make SQLite call fsync for every commit, so that a payment answered 201 is on disk."""
    _use_wal(connection)
    # secure_delete overwrites what is deleted or erased. It is the default of some builds of SQLite, Debian's for one.
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
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
def _migrate(engine: sa.Engine, key_checks: Sequence[str]) -> Database:
    """Create or upgrade the tables. Raises `StoreMismatch` for a database that this gateway must not change."""
    with _exclusive_transaction(engine) as connection:
        options = _options(connection)
        found, known = _version(connection), _known_version(options)
        if _is_newer(found, options):
            _check_served(connection, known)
        else:
            if found == FIRST_REVISION:
                alembic.command.stamp(options, FIRST_REVISION)
            alembic.command.upgrade(options, "head")
        stored = _stored_key_check(connection, key_checks)
        if stored is None:
            connection.execute(sa.insert(meta).values(name=KEY_CHECK, value=key_checks[0]))
        elif stored != key_checks[0]:
            connection.execute(sa.update(meta).where(meta.c.name == KEY_CHECK).values(value=key_checks[0]))
    return Database(engine, found, known)


@available()
def _check_durability(engine: sa.Engine) -> None:
    """Raise `StoreMismatch` if PostgreSQL confirms commits that are not on its disk yet."""
    with engine.connect() as connection:
        for name in ("synchronous_commit", "fsync"):
            if connection.exec_driver_sql(f"SHOW {name}").scalar_one() == "off":
                raise StoreMismatch(
                    f"has {name} off, so a crash may lose payments that were answered; STORE_DURABILITY=any allows that"
                )


@available()
def _check(engine: sa.Engine, key_checks: Sequence[str]) -> Database:
    """Raise `StoreMismatch` for a database that has to be migrated first, or that this gateway can't use."""
    file = engine.url.database if engine.dialect.name == "sqlite" else None
    if file is not None and not Path(file).exists():
        raise StoreMismatch(f"does not exist; {_MIGRATE} creates it")
    with engine.connect() as connection:
        options = _options(connection)
        found, known = _version(connection), _known_version(options)
        if found is None:
            raise StoreMismatch(f"has no tables; {_MIGRATE} creates them")
        if _is_newer(found, options):
            _check_served(connection, known)
        elif found != known:
            raise StoreMismatch(
                f"has schema version {found}, and this command needs {known}: run {_MIGRATE} or start a gateway of "
                "this version, which both upgrade it"
            )
        _stored_key_check(connection, key_checks)
    return Database(engine, found, known)


def _options(connection: sa.Connection) -> alembic.config.Config:
    options = alembic.config.Config()
    options.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    options.attributes["connection"] = connection
    return options


def _version(connection: sa.Connection) -> str | None:
    """Return the version of the schema, None when there are no tables."""
    if not sa.inspect(connection).has_table(meta.name):
        return None
    return MigrationContext.configure(connection).get_current_revision() or FIRST_REVISION


def _known_version(options: alembic.config.Config) -> str:
    head = ScriptDirectory.from_config(options).get_current_head()
    assert head is not None
    return head


def _is_newer(version: str | None, options: alembic.config.Config) -> bool:
    known = {script.revision for script in ScriptDirectory.from_config(options).walk_revisions()}
    return version is not None and version not in known


def _check_served(connection: sa.Connection, known: str) -> None:
    """Raise `StoreMismatch` unless a newer schema serves the gateways of this version."""
    oldest = oldest_gateway(connection)
    if oldest > known:
        raise StoreMismatch(
            f"serves gateways with schema version {oldest} or newer, and this one has {known}: run the newer gateway"
        )


def oldest_gateway(connection: sa.Connection) -> str:
    """Return the oldest version that the schema serves."""
    return connection.scalar(sa.select(meta.c.value).where(meta.c.name == OLDEST_GATEWAY)) or ""


def _stored_key_check(connection: sa.Connection, key_checks: Sequence[str]) -> str | None:
    """Return the key check in the database, None in a new one. Raises `StoreMismatch` if it is of another key."""
    stored: str | None = connection.scalar(sa.select(meta.c.value).where(meta.c.name == KEY_CHECK))
    if stored is not None and stored not in key_checks:
        raise StoreMismatch("was made with another FINGERPRINT_KEY, which is not in FINGERPRINT_OLD_KEYS either")
    return stored


@contextmanager
def _exclusive_transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Begin a transaction that excludes the other gateways that start on this database."""
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql(
                "SELECT pg_advisory_xact_lock(7300915)"
            )  # an arbitrary number, the same in every gateway
        yield connection
        connection.commit()
