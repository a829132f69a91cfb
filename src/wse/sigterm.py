"""SIGTERM in the process of a web server that would close every WebSocket at once."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

__all__ = ["Farewell"]


class Farewell:
    """Sends the devices away before the web server of this process hears of SIGTERM.

    uvicorn closes all WebSockets when it hears of it, and granian tears them; the lifespan ends
    only after that. So the signal is passed on when the devices have gone, or at once when it comes
    again.

    Args:
        close: Sends the devices away, within so many seconds.
    """

    def __init__(self, close: Callable[[float], Coroutine[Any, Any, None]]) -> None:
        self._close = close
        self._pass_on: Callable[[], Any] | None = None
        self._drain = 0.0
        self._going: asyncio.Task[None] | None = None

    def watch(self, drain: float) -> None:
        """Be told of SIGTERM first from now on, where a web server is told at all.

        Args:
            drain: Seconds for the devices to go.
        """
        before = signal.getsignal(signal.SIGTERM)
        if (
            self._pass_on is not None
            or not callable(before)
            or threading.current_thread() is not threading.main_thread()
        ):
            return
        self._drain = drain
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
            await self._close(self._drain)
        finally:
            pass_on()
