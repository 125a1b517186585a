"""The operator's commands on payments in memory: they are done inside the running gateway.

A database is open to `run.py pending` and the like from any process; the gateway's memory is not. So
a gateway with STORE_URL=memory: listens on a Unix socket that only its own user can open, and the
commands are sent there.
"""

import argparse
import asyncio
import json
import os
import socket
import tempfile
from pathlib import Path

import cli


def path_for(port: int) -> Path:
    """Return where the gateway on this port listens for commands."""
    return Path(tempfile.gettempdir()) / f"payment-gateway-{os.getuid()}" / f"{port}.sock"


async def listen(port: int, parser: argparse.ArgumentParser, *, live: bool) -> asyncio.Server:
    """Do the commands that come, until the server is closed.

    live: whether payments move money, for the prefix of keys
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            sent = json.loads(await reader.readline())
            answer = await cli.run(parser.parse_args(sent["arguments"]), sent["operator"], live=live)
        except (Exception, SystemExit):  # argparse exits at what it does not know; the gateway must not
            answer = 1, "the gateway does not understand this command"
        writer.write(json.dumps(answer).encode())
        writer.close()

    path = path_for(port)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    _check_owner(path)
    path.unlink(missing_ok=True)
    return await asyncio.start_unix_server(serve, path)


def send(port: int, arguments: list[str], operator: str) -> tuple[int, str]:
    """Have a command done by the gateway on this port; returns the exit status and what to show.

    Raises `OSError` when none runs there.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path_for(port)))
        _check_owner(path_for(port))
        connection.sendall(json.dumps({"arguments": arguments, "operator": operator}).encode() + b"\n")
        status, text = json.loads(b"".join(iter(lambda: connection.recv(65536), b"")))
    return status, text


def _check_owner(path: Path) -> None:
    """Anybody may make a folder of this name where temporary files are."""
    folder = path.parent.stat()
    if folder.st_uid != os.getuid() or folder.st_mode & 0o077:
        raise PermissionError(f"{path.parent} is not this user's own")
