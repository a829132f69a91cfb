"""The calls that one connection waits for."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any

from .errors import CallTimeout, WseError

__all__ = ["Calls"]


class Calls:
    """Stamps and the futures of their answers. Stamps count within the connection.

    All share one timer, which stays when they are answered: one for each would cost more than all
    the rest here.
    """

    __slots__ = ("_count", "_next", "_timer", "_waiting")

    def __init__(self) -> None:
        self._count = 0
        self._waiting: dict[str, tuple[asyncio.Future[Any], float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next = inf

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
        future: asyncio.Future[Any] = loop.create_future()
        deadline = loop.time() + timeout
        self._waiting[stamp] = future, deadline
        if deadline < self._next:
            self._wake_at(loop, deadline)
        try:
            return await future
        finally:
            self._waiting.pop(stamp, None)

    def settle(self, stamp: str, outcome: Any) -> None:
        """End a call with a result, or with a `WseError`; what nobody waits for is dropped."""
        future, _ = self._waiting.pop(stamp, (None, 0.0))
        if future is None or future.done():
            return
        if isinstance(outcome, WseError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def fail_all(self, error: type[WseError]) -> None:
        """End every call."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._next = None, inf
        for stamp in tuple(self._waiting):
            self.settle(stamp, error())  # type: ignore[call-arg]

    def _wake_at(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._next = loop.call_at(deadline, self._expire, loop), deadline

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer, self._next = None, inf
        now = loop.time()
        for stamp, (_, deadline) in tuple(self._waiting.items()):
            if deadline <= now:
                self.settle(stamp, CallTimeout())
        first = min((deadline for _, deadline in self._waiting.values()), default=inf)
        if first < inf:
            self._wake_at(loop, first)
