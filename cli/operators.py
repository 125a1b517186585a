"""Operators: who runs a command, for the audit trail.

The operating system says who it is. The environment (LOGNAME, USER) says what the operator likes.
"""

import os
import pwd
import socket
import struct
from typing import Final

# struct ucred: the process, user and group ids (unix(7)).
_CREDENTIALS: Final = struct.Struct("iII")


def this_process() -> str:
    """Return who runs this process."""
    return _named(os.getuid())


def at(connection: socket.socket) -> str:
    """Return who runs the process at the other end of a Unix socket."""
    if not hasattr(socket, "SO_PEERCRED"):  # not on Linux: the socket's folder belongs to this user alone
        return this_process()
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _named(_CREDENTIALS.unpack(credentials)[1])


def _named(uid: int) -> str:
    try:
        return f"operator {uid} {pwd.getpwuid(uid).pw_name[:32]}"
    except KeyError:  # a container's user may have no name
        return f"operator {uid}"
