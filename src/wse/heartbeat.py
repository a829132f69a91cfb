"""Whether a silent peer still lives: when to ask, and when to give it up."""

from __future__ import annotations

from enum import Enum, auto

from .limits import Limits

__all__ = ["Heartbeat", "Pulse"]


class Pulse(Enum):
    """What a look at a connection says."""

    ALIVE = auto()
    ASK = auto()
    """It has been silent for long: send a ping (RFC 6455 section 5.5.2)."""
    LOST = auto()
    """It did not answer either."""


class Heartbeat:
    """One connection's signs of life. Times are a loop's, in seconds: they only go forward.

    What comes is a sign of life, and so is what the peer reads of a full send buffer, since no
    ping gets past that. While nothing is read because of ourselves, silence does not count; but the
    peer is asked all the same, since a write is what tells of one that has vanished.
    """

    __slots__ = ("_asked", "_interval", "_timeout", "_unwritten", "heard")

    def __init__(self, limits: Limits, now: float) -> None:
        self._interval = limits.heartbeat_interval
        self._timeout = limits.heartbeat_timeout
        self._asked = 0.0
        self._unwritten = 0
        self.heard = now
        """When the last sign of life came."""

    def check(self, now: float, *, deaf: bool, unwritten: int) -> tuple[Pulse, float]:
        """Look at the connection.

        Args:
            now: The time.
            deaf: Whether we do not read at the moment, for reasons of our own.
            unwritten: Bytes that wait for the peer to read.

        Returns:
            What it says, and when to look again.
        """
        progress = unwritten < self._unwritten
        self._unwritten = unwritten
        if deaf:
            self.heard = now
            return Pulse.ASK, now + self._interval
        if progress:
            self.heard = now
        if now < self.heard + self._interval:
            return Pulse.ALIVE, self.heard + self._interval
        if self._asked <= self.heard:
            self._asked = now
            return Pulse.ASK, now + self._timeout
        return Pulse.LOST, now
