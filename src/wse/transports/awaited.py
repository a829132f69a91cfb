"""A WebSocket of somebody else's, who is awaited for each message and each send."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from ..codes import CloseCode, Reason
from ..handler import EAGER, start_task
from ..limits import Limits
from .base import Receiver, Transport

__all__ = ["AwaitedTransport", "End", "Frame"]

logger = logging.getLogger("wse.server")

_PATIENCE = 0.25
"""Seconds that a send may take before it counts as unwritten, where an owner takes none at once."""
_MOST_PATIENT = 8
"""Times `Limits.max_unwritten_bytes` that may wait meanwhile."""


class Frame(bytes):
    """A packed message to send."""

    text: str | None
    """It as text; None for a binary one."""


def _text(data: bytes) -> bytes:
    frame = Frame(data)
    frame.text = data.decode()
    return frame


def _binary(data: bytes) -> bytes:
    frame = Frame(data)
    frame.text = None
    return frame


class End(NamedTuple):
    """How a connection has ended."""

    code: int
    reason: str
    failed: bool = False
    """Whether the owner failed it for what the peer sent."""


class AwaitedTransport(Transport):
    """What carriers share whose owner has the socket, and the frames.

    Args:
        limits: Bounds on messages, and the time a close may take.
    """

    pings = False

    def __init__(self, limits: Limits) -> None:
        self.max_message_bytes = limits.max_message_bytes
        self._close_timeout = limits.close_timeout
        self._most_patient = _MOST_PATIENT * limits.max_unwritten_bytes
        self._loop = asyncio.get_running_loop()
        self._receiver: Receiver
        self._heard = self._loop.time()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._leaving: deque[Frame | End] = deque()
        self._unwritten = 0
        self._reader: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._idle: asyncio.Future[None] | None = None
        """What the writer waits for while there is nothing to send."""
        self._waits = False
        self._since = 0.0
        self._takes_time: bool | None = None
        """Whether the owner takes no message at once (granian); seen at the first of them."""
        self._owes_word = False
        """Whether somebody has seen that something is unwritten, and waits to hear of its end."""
        self._closing = False
        self._deadline: asyncio.TimerHandle | None = None
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()

    # -- the owner's ---------------------------------------------------------------------------

    @abstractmethod
    async def _next(self) -> str | bytes | End:
        """The next message, or the end."""

    @abstractmethod
    async def _send(self, frame: Frame) -> None:
        """Send a message.

        Raises:
            OSError: the peer is gone.
        """

    @abstractmethod
    async def _goodbye(self, end: End) -> None:
        """Send a close frame."""

    def _cut(self) -> None:
        """End the socket at once, where the owner lets us."""

    async def serve(self) -> None:
        """Carry until the connection has ended: the owner's handler returns then.

        Where the owner cancels it, the peer is told that the server closes.
        """
        self._reader = self._loop.create_task(self._read())
        try:
            await asyncio.shield(self._over)
        except asyncio.CancelledError:
            reason = Reason.SERVER_CLOSING
            if not self._closing:
                self._say_goodbye(reason.close_code, reason)
                self._lose(reason.close_code, reason)
            if self._writer is not None:
                await asyncio.wait({self._writer}, timeout=self._close_timeout)
            raise
        finally:
            self._lose(CloseCode.ABNORMAL, Reason.NO_REASON)
            self._end()
            tasks = [task for task in (self._reader, self._writer) if task is not None]
            for task in tasks:
                task.cancel()
            # granian ends no connection that is still asked for more.
            await asyncio.wait(tasks, timeout=self._close_timeout)
            self._gone.set_result(None)

    # -- the port ------------------------------------------------------------------------------

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def hand_over(self, receiver: Receiver) -> None:
        self._receiver = receiver

    @property
    def heard(self) -> float:
        return self._heard

    def framing(self, *, binary: bool) -> Callable[[bytes], bytes]:
        return _binary if binary else _text

    def write(self, frames: list[bytes]) -> None:
        if not self._closing:
            for frame in frames:
                assert isinstance(frame, Frame)
                self._leaving.append(frame)
                self._unwritten += len(frame)
            self._write()

    @property
    def unwritten(self) -> int:
        if not self._waits or (
            self._takes_time
            and self._loop.time() < self._since + _PATIENCE
            and self._unwritten < self._most_patient
        ):
            return 0
        self._owes_word = True
        return self._unwritten

    def close(self, code: int, reason: str) -> None:
        if not self._closing:
            self._closing = True
            self._say_goodbye(code, reason)

    def abort(self) -> None:
        self._closing = True
        self._cut()
        self._end()

    def pause_reading(self) -> None:
        self._may_read.clear()

    def resume_reading(self) -> None:
        self._may_read.set()

    async def wait_closed(self) -> None:
        await asyncio.shield(self._gone)

    def when_closed(self, tell: Callable[[Transport], object]) -> None:
        if self._gone.done():
            tell(self)
        else:
            self._gone.add_done_callback(lambda _: tell(self))

    # -- inside --------------------------------------------------------------------------------

    async def _read(self) -> None:
        while not self._closing:
            try:
                message = await self._next()
            except Exception:
                logger.exception("%r cannot read", self)
                message = End(CloseCode.ABNORMAL, Reason.NO_REASON)
            if not self._may_read.is_set():
                await self._may_read.wait()
            if isinstance(message, End):
                self._lose(message.code, message.reason, failed=message.failed)
                self._end()
            elif not self._closing:
                self._take(message)

    def _take(self, message: str | bytes) -> None:
        self._heard = self._loop.time()
        text = isinstance(message, str)
        data = message.encode(errors="replace") if isinstance(message, str) else message
        if len(data) <= self.max_message_bytes:
            self._receiver.receive(data, text)
            return
        self._receiver.flush()
        if not self._closing:  # the flush may have closed, on a peer too slow
            reason = Reason.MESSAGE_TOO_LARGE
            self.close(reason.close_code, reason)
            self._receiver.lost(reason.close_code, reason, failed=True)

    def _say_goodbye(self, code: int, reason: str) -> None:
        text = reason.encode()[:123].decode(errors="ignore")
        self._leaving.append(End(int(code), text))
        self._end_before_long()
        self._write()

    def _write(self) -> None:
        if self._over.done():
            return
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.set_result(None)
        elif self._writer is None:
            writer = start_task(self._loop, self._write_on())
            if not writer.done():
                self._writer = writer

    async def _write_on(self) -> None:
        """Send what waits; many owners take it without a pause.

        Where a task does not start at once (Python 3.11), it waits for more: that costs half of
        another task.
        """
        try:
            while await self._write_all():
                if EAGER:
                    self._writer = None
                else:
                    self._idle = more = self._loop.create_future()
                if self._owes_word:
                    self._owes_word = False
                    if not self._closing:
                        self._receiver.writable()
                if EAGER:
                    return
                await more
        except Exception as error:  # the peer is gone, and reading tells how; if not, before long
            logger.debug("%r cannot send: %s", self, type(error).__name__)
            if self._closing:
                self._end()
            else:
                self._end_before_long()

    async def _write_all(self) -> bool:
        """Send what waits; whether there may be more."""
        while self._leaving:
            self._waits = True
            first = self._leaving[0]
            if isinstance(first, End):
                await self._stop_reading()
                await self._goodbye(first)
                self._end()
                return False
            self._since = self._loop.time()
            if self._takes_time is None:
                self._loop.call_soon(self._see_whether_it_takes_time)
            await self._send(first)
            self._takes_time = self._takes_time or False
            self._unwritten -= len(first)
            self._waits = False
            self._leaving.popleft()
        return True

    def _see_whether_it_takes_time(self) -> None:
        if self._takes_time is None:
            self._takes_time = True

    async def _stop_reading(self) -> None:
        """Nothing is heard any more; and granian sends no close while it is asked for more."""
        if self._reader is not None and not self._reader.done():
            self._reader.cancel()
            await asyncio.wait({self._reader})

    def _lose(self, code: int, reason: str, *, failed: bool = False) -> None:
        if not self._closing:
            self._closing = True
            self._receiver.lost(code, reason, failed=failed)

    def _end_before_long(self) -> None:
        if self._deadline is None:
            self._deadline = self._loop.call_later(self._close_timeout, self.abort)

    def _end(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if not self._over.done():
            self._over.set_result(None)
