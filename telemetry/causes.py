"""Why a call to a database or over the network failed, in a few words that hold no secret.

The message of a driver may quote a password, a host or a value, so it is never shown. The words are found by the codes
of the exception and of those that it was raised from: SQLSTATE (PostgreSQL), result codes of SQLite, and errno. libpq
gives no code when it can't connect; there, phrases of its message decide which words are shown.
"""

import errno
import re
import socket
import sqlite3
from collections.abc import Iterator
from typing import Final

_BY_SQLSTATE: Final = {
    "25006": "read only",
    "28000": "authentication failed",
    "28P01": "authentication failed",
    "3D000": "no such database",
    "42501": "permission denied",
    "42703": "no such column",
    "42P01": "no such table",
    "53100": "disk full",
    "53200": "out of memory",
    "53300": "too many connections",
    "55P03": "locked",
    "57P01": "shutting down",
    "57P02": "shutting down",
    "57P03": "starting up",
    "58030": "I/O error",
}

_BY_SQLITE_CODE: Final = {
    sqlite3.SQLITE_PERM: "permission denied",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_NOMEM: "out of memory",
    sqlite3.SQLITE_READONLY: "read only",
    sqlite3.SQLITE_IOERR: "I/O error",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_FULL: "disk full",
    sqlite3.SQLITE_CANTOPEN: "can't be opened",
    sqlite3.SQLITE_NOTADB: "not a database",
}

_BY_ERRNO: Final = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "connection lost",
    errno.EPIPE: "connection lost",
    errno.ETIMEDOUT: "timed out",
    errno.EHOSTUNREACH: "no route",
    errno.ENETUNREACH: "no route",
    errno.ENOENT: "no such file",
    errno.ENOTDIR: "no such folder",
    errno.EISDIR: "is a folder",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk full",
    errno.EROFS: "read only",
    errno.EMFILE: "too many open files",
}

# Of libpq and psycopg, and of SQLite for its code SQLITE_ERROR.
_BY_PHRASE: Final = (
    (re.compile(r"authentication failed|no password supplied|no pg_hba\.conf entry"), "authentication failed"),
    (re.compile(r'role ".*" does not exist'), "authentication failed"),
    (re.compile(r'database ".*" does not exist'), "no such database"),
    (re.compile(r"no such table"), "no such table"),
    (re.compile(r"no (such )?column"), "no such column"),
    (re.compile(r"Connection refused"), "refused"),
    (re.compile(r"No such file or directory"), "no such file"),
    (re.compile(r"Permission denied"), "permission denied"),
    (re.compile(r"failed to resolve host|could not translate host name"), "no such host"),
    (re.compile(r"timeout expired|timed out"), "timed out"),
    (re.compile(r"No route to host|Network is unreachable"), "no route"),
    (re.compile(r"too many clients|remaining connection slots"), "too many connections"),
    (re.compile(r"starting up|recovery mode|not yet accepting connections"), "starting up"),
    (re.compile(r"shutting down"), "shutting down"),
    (re.compile(r"certificate|SSL"), "TLS failed"),
    (re.compile(r"closed the connection|connection is closed|Connection reset|lost"), "connection lost"),
)


def of(error: BaseException) -> str:
    """Return why a call failed; if nothing tells it, the type of the exception."""
    found = (words for cause in _chain(error) if (words := _words(cause)) is not None)
    return next(found, type(error).__name__)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the exception and those that it was raised from; SQLAlchemy's have the driver's as `orig`."""
    while error is not None:
        yield error
        error = getattr(error, "orig", None) or error.__cause__ or error.__context__


def _words(error: BaseException) -> str | None:
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # without the extension
        return _BY_SQLITE_CODE.get(code) or _by_phrase(error)
    if hasattr(error, "sqlstate"):
        return _by_phrase(error) if error.sqlstate is None else _BY_SQLSTATE.get(error.sqlstate)
    if isinstance(error, socket.gaierror):
        return "no such host"
    if isinstance(error, OSError) and error.errno is not None:
        return _BY_ERRNO.get(error.errno)
    return "timed out" if isinstance(error, TimeoutError) else None


def _by_phrase(error: BaseException) -> str | None:
    text = str(error)
    return next((words for phrase, words in _BY_PHRASE if phrase.search(text)), None)
