"""The control socket: how an operator's command reaches payments in a gateway's memory.

Any process can open a database, so with a database the commands use it directly. Only the gateway can read its
memory: with STORE_URL=memory: it listens on a Unix socket that only its own user can open, and runs the commands that
are sent there.
"""

import argparse
import asyncio
import json
import os
import socket
import tempfile
from pathlib import Path

import cli
from cli import operators
from cli.answer import Answer
from merchants import Merchants


def path_for(port: int) -> Path:
    """Return the path of the socket of the gateway on this port."""
    return Path(tempfile.gettempdir()) / f"payment-gateway-{os.getuid()}" / f"{port}.sock"


async def listen(port: int, parser: argparse.ArgumentParser, merchants: Merchants, *, live: bool) -> asyncio.Server:
    """Run the commands that are sent to the socket, until the server is closed. Raises `OSError`.

    port: the port of the gateway
    live: whether payments move money
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            sent = json.loads(await reader.readline())
            options = parser.parse_args(sent["arguments"])
            if "file" in options:  # it is relative to the folder of the operator, not to the gateway's
                options.file = Path(sent["folder"]) / options.file
            operator = operators.at(writer.get_extra_info("socket"))
            answer = await cli.run(options, operator, merchants, live=live)
        except (Exception, SystemExit):  # argparse exits on unknown arguments; the gateway must go on
            answer = Answer(1, message="the gateway does not understand this command")
        writer.write(json.dumps(answer).encode())
        writer.close()

    path = path_for(port)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    _check_owner(path)
    path.unlink(missing_ok=True)
    return await asyncio.start_unix_server(serve, path)


def send(port: int, arguments: list[str]) -> Answer:
    """Let the gateway on this port run a command.

    Raises `OSError` when no gateway listens there.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path_for(port)))
        _check_owner(path_for(port))
        connection.sendall(json.dumps({"arguments": arguments, "folder": str(Path.cwd())}).encode() + b"\n")
        return Answer(*json.loads(b"".join(iter(lambda: connection.recv(65536), b""))))


def _check_owner(path: Path) -> None:
    # Any user can create a folder with this name in the folder of temporary files.
    folder = path.parent.stat()
    if folder.st_uid != os.getuid() or folder.st_mode & 0o077:
        raise PermissionError(f"{path.parent} does not belong to this user alone")
