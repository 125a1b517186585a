"""The machine, which the tests of all processes of a run share, unless one of them needs it alone."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def use(folder: Path, *, alone: bool) -> Iterator[None]:
    """Use the machine until the block ends, with others, or alone: others wait, and nobody who comes later is first.

    folder: the same for all processes of a run
    """
    with (folder / "entrance.lock").open("a") as entrance, (folder / "machine.lock").open("a") as machine:
        fcntl.flock(entrance, fcntl.LOCK_EX)
        fcntl.flock(machine, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone:
            fcntl.flock(entrance, fcntl.LOCK_UN)
        yield
