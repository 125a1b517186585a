"""Wait on the event loop inside code that is not asynchronous, such as `requests`.

A call runs in a greenlet on the event loop's thread. Where it would block, it switches back to the event loop, which
resumes it when the socket is ready. A waiting call costs memory and no thread.
docs/decisions/requests-on-the-event-loop.md gives the reasons.
"""

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

R = TypeVar("R")


async def run(call: Callable[[], R]) -> R:
    """Make a call that may use `wait` and `until_ready`, and return its result.

    When the task is cancelled, the call raises `asyncio.CancelledError` where it waits.
    """
    caller = greenlet(call)
    caller.gr_context = getcurrent().gr_context  # the call sees the task's context variables
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
    """Wait for `awaitable` on the event loop; callable only inside `run`."""
    caller = getcurrent().parent
    assert caller is not None, "call waiting.run() first"
    result: R = caller.switch(awaitable)
    return result


def until_ready(sock: socket.socket, seconds: float, *, to_read: bool) -> None:
    """Wait until a read or a write would not block. Raises `TimeoutError` after `seconds`."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()
    timer = loop.call_later(seconds, _set, ready, False)  # noqa: FBT003  # call_later takes no keywords
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
