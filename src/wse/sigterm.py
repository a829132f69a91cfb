"""SIGTERM in the process of a web server that would close every WebSocket at once."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol
from weakref import WeakKeyDictionary

__all__ = ["drain_at_sigterm"]


class _Close(Protocol):
    def __call__(self, *, drain: float) -> Awaitable[None]:
        """Send the devices away, within so many seconds."""


class _Farewell:
    """Sends the devices away before the web server of this process hears of SIGTERM.

    uvicorn closes all WebSockets when it hears of it, and granian tears them; the lifespan ends
    only after that. So the signal is passed on when the devices of all servers have gone, or at
    once when it comes again.
    """

    def __init__(self) -> None:
        self.closing: dict[_Close, float] = {}
        self._pass_on: Callable[[], Any] | None = None
        self._going: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Be told of SIGTERM first from now on, where a web server is told at all."""
        before = signal.getsignal(signal.SIGTERM)
        if (
            self._pass_on is not None
            or not callable(before)
            or threading.current_thread() is not threading.main_thread()
        ):
            return
        loop = asyncio.get_running_loop()
        if "sighandler" in getattr(before, "__name__", ""):
            # It hears through the loop, which does not tell what it had. What hears SIGTERM there
            # hears SIGINT too.
            loop.add_signal_handler(signal.SIGTERM, self._go)
            self._pass_on = partial(signal.raise_signal, signal.SIGINT)
        else:
            signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(self._go))
            self._pass_on = partial(before, signal.SIGTERM, None)

    def _go(self) -> None:
        assert self._pass_on is not None
        if self._going is None:
            self._going = asyncio.get_running_loop().create_task(self._leave(self._pass_on))
        else:
            self._pass_on()

    async def _leave(self, pass_on: Callable[[], Any]) -> None:
        try:
            async with asyncio.TaskGroup() as servers:
                for close, drain in self.closing.items():
                    servers.create_task(_closed(close, drain))
        finally:
            pass_on()


async def _closed(close: _Close, drain: float) -> None:
    await close(drain=drain)


_farewells: WeakKeyDictionary[asyncio.AbstractEventLoop, _Farewell] = WeakKeyDictionary()


def drain_at_sigterm(close: _Close, drain: float) -> None:
    """Have this called at SIGTERM, before the web server that runs this loop hears of it.

    Args:
        close: Sends the devices of a server away. Taken once, with its first `drain`.
        drain: Seconds for the devices to go.
    """
    farewell = _farewells.setdefault(asyncio.get_running_loop(), _Farewell())
    farewell.closing.setdefault(close, drain)
    farewell.watch()
