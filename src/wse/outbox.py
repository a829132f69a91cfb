"""What waits to leave one connection, and its bound; one message for many connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from typing import Protocol as Interface

from .errors import MessageTooLarge
from .limits import Limits
from .protocol import Protocol, check_type
from .transports.base import Transport

__all__ = ["Flusher", "Outbox", "Parcel", "Wire"]

Wire = tuple[Protocol, Callable[[bytes], bytes]]
"""How a connection's messages look on the wire: its protocol, and its transport's framing."""


class Outbox:
    """Frames in the order in which they were sent.

    They leave together, in one write for each turn of the loop. While the transport still holds
    what it was given before, they wait here.
    """

    __slots__ = (
        "_bytes_left",
        "_frames",
        "_frames_left",
        "_handed",
        "_handed_size",
        "_limits",
        "_size",
        "_spare",
        "_spare_bytes",
        "crowded",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._frames: list[bytes] = []
        self._size = 0
        self._handed: list[int] = []
        self._handed_size = 0
        self._spare = self._spare_bytes = 0
        self._reckon()
        self.crowded = False
        """Whether what waits may be above a bound, so that a `flush` should tell."""

    def append(self, frame: bytes) -> bool:
        """Add a frame; true when it is the first to wait."""
        frames = self._frames
        frames.append(frame)
        count = len(frames)
        size = self._size = self._size + len(frame)
        self.crowded = count > self._frames_left or size > self._bytes_left
        return count == 1

    def repeat(self, frames: list[bytes]) -> None:
        """Add frames that were within the bounds before, and are sent again: they do not count."""
        self._frames.extend(frames)
        size = sum(len(frame) for frame in frames)
        self._size += size
        self._spare, self._spare_bytes = len(frames), size
        self._handed, self._handed_size = [], 0
        self._reckon()

    @property
    def is_empty(self) -> bool:
        """Whether the transport has been handed everything."""
        return not self._frames

    @property
    def size(self) -> int:
        """Bytes that wait here."""
        return self._size

    def flush(self, transport: Transport, *, forced: bool = False) -> bool:
        """Hand everything to the transport, if it has written what it had or if `forced`.

        Returns:
            Whether the peer keeps up. A single message into an empty outbox is always in order.
        """
        frames = self._frames
        if frames and (forced or not transport.unwritten):
            self._frames = []
            self.crowded = False
            size, self._size = self._size, 0
            transport.write(frames)
            if transport.unwritten:
                self._handed = [len(frame) for frame in reversed(frames)]
                self._handed_size = size
            elif not self._handed:
                return True
        unwritten = transport.unwritten
        if not unwritten:
            self._spare = self._spare_bytes = 0
        messages = len(self._frames) + self._count_handed(unwritten)
        self._reckon()
        return messages <= 1 or (
            messages <= self._limits.max_unwritten_messages + self._spare
            and self._size + unwritten <= self._limits.max_unwritten_bytes + self._spare_bytes
        )

    def clear(self) -> None:
        """Forget what waits here."""
        self._frames = []
        self._size = 0
        self.crowded = False

    def _reckon(self) -> None:
        """How much may wait here, beside what the transport holds."""
        limits = self._limits
        self._frames_left = limits.max_unwritten_messages + self._spare - len(self._handed)
        self._bytes_left = limits.max_unwritten_bytes + self._spare_bytes - self._handed_size

    def _count_handed(self, unwritten: int) -> int:
        """How many of the frames that the transport was given it has not written whole."""
        handed = self._handed
        while handed and self._handed_size - handed[-1] >= unwritten:
            self._handed_size -= handed.pop()
        return len(handed)


class _Sender(Interface):
    """A connection: not its bound method, which would be one more object for the collector."""

    def flush(self) -> None:
        """Write what waits."""


class Flusher:
    """The connections with something to send, flushed together at the end of the loop's turn.

    One `call_soon` for all of them costs a quarter of one for each. Of a broadcast to thousands,
    which would hold the loop for long, so many are flushed in each turn.
    """

    _MOST = 256

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[_Sender] = []

    def add(self, sender: _Sender) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(sender)

    def _flush(self) -> None:
        batch, self._waiting = self._waiting[: self._MOST], self._waiting[self._MOST :]
        if self._waiting:
            self._loop.call_soon(self._flush)
        for sender in batch:
            sender.flush()


class Parcel:
    """One message for many connections, packed once for each protocol, framed once for each wire.

    Args:
        type: The message type.
        payload: Its payload; packed when first asked for.
        limit: Bytes that a packed message may have.
    """

    __slots__ = ("_data", "_frames", "_limit", "_payload", "_type")

    def __init__(self, type: str, payload: Any, limit: int) -> None:
        self._type = check_type(type)
        self._payload = payload
        self._limit = limit
        self._data: dict[Protocol, bytes] = {}
        self._frames: dict[Wire, bytes] = {}

    def data(self, protocol: Protocol) -> bytes:
        """The message as this protocol packs it.

        Raises:
            TypeError: the payload cannot be encoded.
            MessageTooLarge: it is above the limit.
        """
        data = self._data.get(protocol)
        if data is None:
            data = protocol.event(self._type, self._payload)
            if len(data) > self._limit:
                raise MessageTooLarge({"size": len(data), "limit": self._limit})
            self._data[protocol] = data
        return data

    def frame(self, wire: Wire) -> bytes:
        """The message as it goes over this wire."""
        frame = self._frames.get(wire)
        if frame is None:
            protocol, framing = wire
            frame = self._frames[wire] = framing(self.data(protocol))
        return frame
