"""Running a program's loop: uvloop where it is installed, and an end on SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, cast

__all__ = ["loop_factory", "run", "run_until_signal", "signalled"]

T = TypeVar("T")


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop of uvloop, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return cast(Callable[[], asyncio.AbstractEventLoop], uvloop.new_event_loop)


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, on the fastest loop there is."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main)


def _signals() -> asyncio.Queue[signal.Signals]:
    """SIGINT and SIGTERM, as they come."""
    came: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Windows has no signal handlers on the loop; there Ctrl-C cancels the wait.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, came.put_nowait, number)
    return came


async def signalled() -> None:
    """Wait for SIGINT or SIGTERM."""
    await _signals().get()


def run_until_signal(
    context: AbstractAsyncContextManager[Any],
    *,
    entered: Callable[[], None],
    hurry: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """Enter the context, say so, stay until SIGINT or SIGTERM, and leave it in order.

    Args:
        context: What is entered.
        entered: Called then.
        hurry: Makes leaving short. It is called for SIGINT, which comes from a person who waits,
            and for a second signal.
    """

    async def main() -> None:
        async with context:
            entered()
            came = _signals()
            first = await came.get()
            hurrying = asyncio.create_task(_hurry(first, came, hurry))
        hurrying.cancel()

    with contextlib.suppress(KeyboardInterrupt):
        run(main())


async def _hurry(
    first: signal.Signals,
    came: asyncio.Queue[signal.Signals],
    hurry: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    if first is not signal.SIGINT:
        await came.get()
    await hurry()
