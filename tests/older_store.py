"""Databases as gateways of earlier versions left them, for tests of an upgrade."""

from collections.abc import Iterator
from contextlib import contextmanager

import alembic.command
import alembic.config
import sqlalchemy as sa

from tests.support import ROOT


@contextmanager
def made(url: str, revision: str) -> Iterator[sa.Connection]:
    """Create the tables of a revision in an empty database, and yield a connection to fill them."""
    options = alembic.config.Config()
    options.set_main_option("script_location", str(ROOT / "storage" / "migrations"))
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        options.attributes["connection"] = connection
        alembic.command.upgrade(options, revision)
        yield connection
    engine.dispose()
