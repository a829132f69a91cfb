"""What may have to be sent again, and what has come: the counts of one session, at one end."""

from __future__ import annotations

import asyncio
from typing import Protocol as Interface

from .errors import ProtocolViolation
from .limits import Limits

__all__ = ["AckTimer", "Ring"]

_ACK_DELAY = 0.2
"""Seconds after which what has come is acknowledged."""
_MOST_PLACES = 16
"""Times `Limits.max_kept_messages` that places may be, where a peer acknowledges nothing."""


class Ring:
    """The messages that were sent and that the peer has not acknowledged, in their order.

    They are numbered from 1, as the peer counts them. A place may be empty: what need not be sent
    again has a number all the same, until the peer comes back.

    Args:
        limits: How much is kept.
    """

    __slots__ = (
        "_acked",
        "_due_bytes",
        "_due_messages",
        "_frames",
        "_gone",
        "_heard_bytes",
        "_kept",
        "_limits",
        "_size",
        "_told",
        "_written",
        "owes",
        "received",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._frames: list[bytes | None] = []
        self._size = 0
        self._kept = 0
        self._gone = 0
        self._acked = 0
        self._written: int | None = None
        self.received = 0
        """How many counted messages of the peer's have come."""
        self._told = 0
        self._heard_bytes = 0
        self.owes = False
        """Whether an acknowledgement is on its way: `AckTimer` has been asked for it."""
        self.agree(limits.max_kept_messages, limits.max_kept_bytes)

    def __len__(self) -> int:
        """How many messages are kept."""
        return self._kept

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._size

    @property
    def sent(self) -> int:
        """How many counted messages were sent."""
        return self._gone + len(self._frames)

    @property
    def unacked(self) -> int:
        """How many of them the peer has not acknowledged."""
        return self.sent - self._acked

    @property
    def is_full(self) -> bool:
        """Whether one more would drive the oldest out."""
        limits = self._limits
        return self._kept >= limits.max_kept_messages or self._size >= limits.max_kept_bytes

    # -- out ---------------------------------------------------------------------------------

    def append(self, frame: bytes, *, keep: bool = True) -> None:
        """Number a message that is sent, and keep it."""
        if keep:
            self._frames.append(frame)
            self._kept += 1
            self._size += len(frame)
        else:
            self._frames.append(None)

    def forget(self, frame: bytes) -> None:
        """Empty the place of this message, which need not be sent again."""
        for place in range(len(self._frames) - 1, -1, -1):
            if self._frames[place] is frame:
                self._kept -= 1
                self._size -= len(frame)
                self._frames[place] = None
                return

    def trim(self) -> None:
        """Let the oldest fall out, once everything has been handed to the carrier."""
        limits = self._limits
        kept, size, places = self._kept, self._size, len(self._frames)
        most = _MOST_PLACES * limits.max_kept_messages
        count = 0
        while (
            kept > limits.max_kept_messages or size > limits.max_kept_bytes or places - count > most
        ):
            frame = self._frames[count]
            if frame is not None:
                kept -= 1
                size -= len(frame)
            count += 1
        self._drop(count)

    def suspend(self) -> None:
        """The connection is lost: what is sent from now on cannot have come."""
        self._written = self.sent
        self.trim()

    @property
    def has_gap(self) -> bool:
        """Whether something fell out that was sent since then, so that nobody can come back."""
        return self._written is not None and self._gone > self._written

    def ack(self, received: int) -> None:
        """The peer has so many.

        Raises:
            ProtocolViolation: fewer than it said before, or more than were sent.
        """
        self._check(received)
        self._acked = received
        self._drop(received - self._gone)

    def reaches(self, received: int) -> bool:
        """Whether everything after so many is still here.

        Raises:
            ProtocolViolation: fewer than the peer said before, or more than were sent.
        """
        self._check(received)
        return received >= self._gone

    def rewind(self, received: int) -> list[bytes]:
        """The peer is back and has so many: what to send again, numbered anew."""
        self.ack(received)
        again = [frame for frame in self._frames if frame is not None]
        self._frames = list[bytes | None](again)
        self._written = None
        self._told = self.received
        self._heard_bytes = 0
        return again

    def _check(self, received: int) -> None:
        most = self.sent if self._written is None else self._written
        if not self._acked <= received <= most:
            raise ProtocolViolation(message="a count that cannot be")

    def _drop(self, count: int) -> None:
        if count > 0:
            for frame in self._frames[:count]:
                if frame is not None:
                    self._kept -= 1
                    self._size -= len(frame)
            del self._frames[:count]
            self._gone += count

    # -- in ----------------------------------------------------------------------------------

    def agree(self, messages: int, size: int) -> None:
        """The peer keeps so many messages, and bytes: acknowledge a quarter of it at once."""
        self._due_messages = max(1, messages // 4)
        self._due_bytes = max(1, size // 4)

    def take(self, size: int) -> bool:
        """Count a message that has come; whether to acknowledge at once."""
        self.received += 1
        self._heard_bytes += size
        return (
            self.received - self._told >= self._due_messages or self._heard_bytes >= self._due_bytes
        )

    @property
    def is_behind(self) -> bool:
        """Whether something has come that is not acknowledged."""
        return self.received > self._told

    def tell(self) -> int:
        """How many have come: about to be acknowledged."""
        self._told = self.received
        self._heard_bytes = 0
        return self.received


class _Debtor(Interface):
    """A connection."""

    def acknowledge(self) -> None:
        """Tell what has come."""


class AckTimer:
    """The connections that owe an acknowledgement. One timer for all of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[_Debtor] = []

    def add(self, debtor: _Debtor) -> None:
        if not self._waiting:
            self._loop.call_later(_ACK_DELAY, self._collect)
        self._waiting.append(debtor)

    def _collect(self) -> None:
        waiting, self._waiting = self._waiting, []
        for debtor in waiting:
            debtor.acknowledge()
