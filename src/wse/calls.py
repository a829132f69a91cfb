"""The calls that one connection waits for."""

from __future__ import annotations

import asyncio
from typing import Any

from .errors import CallTimeout, WseError

__all__ = ["Calls"]


class Calls:
    """Stamps and the futures of their answers. Stamps count within the connection."""

    __slots__ = ("_count", "_waiting")

    def __init__(self) -> None:
        self._count = 0
        self._waiting: dict[str, asyncio.Future[Any]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, stamp: str) -> bool:
        return stamp in self._waiting

    def next_number(self) -> int:
        self._count += 1
        return self._count

    async def wait(self, stamp: str, timeout: float) -> Any:
        """The answer to `stamp`. Cancelling forgets the call.

        Raises:
            CallTimeout: none came within `timeout` seconds.
            WseError: what the answer says, or what `fail_all` was given.
        """
        loop = asyncio.get_running_loop()
        future = self._waiting[stamp] = loop.create_future()
        timer = loop.call_later(timeout, self.settle, stamp, CallTimeout())
        try:
            return await future
        finally:
            timer.cancel()
            self._waiting.pop(stamp, None)

    def settle(self, stamp: str, outcome: Any) -> None:
        """End a call with a result, or with a `WseError`; what nobody waits for is dropped."""
        future = self._waiting.pop(stamp, None)
        if future is None or future.done():
            return
        if isinstance(outcome, WseError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def fail_all(self, error: type[WseError]) -> None:
        """End every call."""
        for stamp in tuple(self._waiting):
            self.settle(stamp, error())  # type: ignore[call-arg]
