"""Causes: each failure of a database or a connection becomes a few words, without the driver's message."""

import contextlib
import errno
import os
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import store
from store import StoreUnavailable
from telemetry import causes
from tests.postgres import Postgres
from tests.support import free_port

SECRET = "s3cret"


def _read_only(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA query_only=ON")
        connection.execute("CREATE TABLE other (id INTEGER)")


def _full(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE payments (id INTEGER)")
        connection.execute("PRAGMA max_page_count=2")
        connection.execute("INSERT INTO payments VALUES (randomblob(100000))")


def _no_table(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("SELECT 1 FROM payments")


def _no_column(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE payments (id INTEGER)")
        connection.execute("SELECT missing FROM payments")


def _locked(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as one, contextlib.closing(sqlite3.connect(file, 0)) as other:
        one.execute("BEGIN IMMEDIATE")
        other.execute("BEGIN IMMEDIATE")


def _no_database(file: Path) -> None:
    file.write_text("not a database" * 100)
    _no_table(file)


def _no_folder(file: Path) -> None:
    sqlite3.connect(file / "payments.db")


def _refused(_file: Path) -> None:
    with free_port() as port:
        pass
    socket.create_connection(("127.0.0.1", port))


def _no_file(file: Path) -> None:
    file.open()


def _no_host(_file: Path) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def _disk_full(_file: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _raised_from_another(_file: Path) -> None:
    try:
        _no_host(_file)
    except OSError:
        raise RuntimeError(SECRET) from None


def _unknown(_file: Path) -> None:
    raise RuntimeError(SECRET)


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        (_read_only, "read only"),
        (_full, "disk full"),
        (_no_table, "no such table"),
        (_no_column, "no such column"),
        (_locked, "locked"),
        (_no_database, "not a database"),
        (_no_folder, "can't be opened"),
        (_refused, "refused"),
        (_no_file, "no such file"),
        (_no_host, "no such host"),
        (_disk_full, "disk full"),
        (_raised_from_another, "no such host"),
        (_unknown, "RuntimeError"),
    ],
)
def test_a_failure_has_its_words(tmp_path: Path, fail: Callable[[Path], None], words: str) -> None:
    """The exceptions are real ones of SQLite, of the operating system, and of Python."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  # each has another type
        fail(tmp_path / "payments.db")
    assert causes.of(caught.value) == words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"database": "nothing"}, "no such database"),
        ({"username": "nobody"}, "authentication failed"),
        ({"query": {"host": "/nowhere"}}, "no such file"),
        ({"query": {"host": "127.0.0.1", "port": "1"}}, "refused"),
        ({"query": {"host": "nothing.invalid"}}, "no such host"),
    ],
)
def test_a_postgresql_that_can_not_be_used_stops_the_start_with_its_words(
    postgresql: Postgres, change: dict[str, Any], words: str
) -> None:
    """The message is the words only, so it has neither the user nor the password."""
    url = sa.make_url(postgresql.new_database()).set(password=SECRET, **change)
    with pytest.raises(StoreUnavailable) as caught:
        store.configure(url.render_as_string(hide_password=False), fingerprint_key=bytes(32))
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("file", "words"),
    [("nothing/payments.db", "no such folder"), ("folder", "is a folder"), ("file", "not a database")],
)
def test_a_sqlite_file_that_can_not_be_used_stops_the_start_with_its_words(
    tmp_path: Path, file: str, words: str
) -> None:
    """It says what is wrong with the path, which SQLite itself would not."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("not a database" * 100)
    with pytest.raises(StoreUnavailable) as caught:
        store.configure(f"sqlite:///{tmp_path / file}", fingerprint_key=bytes(32))
    assert str(caught.value) == words
