"""How a database is copied while gateways use it."""

import os
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from storage.records import BackupFailed


def back_up(url: str, file: Path) -> None:
    """Copy a SQLite database into a new file with SQLite's online backup, which holds no writer up.

    The copy is what was committed when it began, whatever version the tables have.
    Raises `BackupFailed` with the reason.
    """
    source = Path(str(sa.make_url(url).database))
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        raise BackupFailed(f"{file} exists already") from None
    except OSError as error:
        raise BackupFailed(f"{file} can't be created: {error.strerror}") from None
    try:
        with (
            closing(sqlite3.connect(f"file:{quote(str(source))}?mode=rw", uri=True)) as live,
            closing(sqlite3.connect(file)) as copy,
        ):
            live.backup(copy)
            (problem,) = copy.execute("PRAGMA quick_check").fetchone()
    except sqlite3.Error as error:
        file.unlink()
        raise BackupFailed(f"{source} can't be copied: {type(error).__name__}") from None
    if problem != "ok":
        raise BackupFailed(f"{file} is damaged, and so is {source}")


def commands(url: str, file: Path) -> tuple[str, str]:
    """Return the command lines that copy a PostgreSQL database and that restore the copy, without the password."""
    given = sa.make_url(url)
    shown = sa.URL.create("postgresql", given.username, None, given.host, given.port, given.database, given.query)
    copied = shown.render_as_string(hide_password=False)
    restored = shown.set(database="NEW_DATABASE").render_as_string(hide_password=False)
    return (
        shlex.join(["pg_dump", "--format=custom", f"--file={file}", f"--dbname={copied}"]),
        shlex.join(["pg_restore", "--exit-on-error", f"--dbname={restored}", str(file)]),
    )
