"""How HTTP code that blocks waits on the event loop without blocking it: in a greenlet.

`requests` knows nothing of asyncio. In a thread of its own each call handed the interpreter's lock to
the event loop and back at every read, write and poll: of the 4 ms of CPU that a payment took with 64 of
them, a third. Here a call runs on the event loop's thread; where it would wait, the greenlet it runs
in is left, and the loop comes back to it when there is something to go on with. A call that waits costs
memory and no thread.
"""

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

R = TypeVar("R")


async def run(call: Callable[[], R]) -> R:
    """Make a call in which `wait` and `until_ready` may be called, and return what it returns.

    A task that is cancelled meanwhile raises `asyncio.CancelledError` inside the call, where it waits.
    """
    caller = greenlet(call)
    caller.gr_context = getcurrent().gr_context  # the same context variables
    result: Any = caller.switch()
    while not caller.dead:
        try:
            value = await result
        except BaseException:
            result = caller.throw(*sys.exc_info())
        else:
            result = caller.switch(value)
    returned: R = result
    return returned


def wait(awaitable: Awaitable[R]) -> R:
    """Wait for something on the event loop, inside of `run`."""
    caller = getcurrent().parent
    assert caller is not None, "waiting.run() comes first"
    result: R = caller.switch(awaitable)
    return result


def until_ready(sock: socket.socket, seconds: float, *, to_read: bool) -> None:
    """Wait until there is something to read, or room to write. Raises `TimeoutError` after `seconds`."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()
    timer = loop.call_later(seconds, _set, ready, False)  # noqa: FBT003  # its arguments have no names
    watch, forget = (loop.add_reader, loop.remove_reader) if to_read else (loop.add_writer, loop.remove_writer)
    watch(sock, _set, ready, True)  # noqa: FBT003
    try:
        if not wait(ready):
            raise TimeoutError("the deadline of the call has passed")
    finally:
        timer.cancel()
        forget(sock)


def _set(ready: "asyncio.Future[bool]", value: bool) -> None:  # noqa: FBT001
    if not ready.done():
        ready.set_result(value)
