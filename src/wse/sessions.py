"""The sessions of a server: which wait for their devices, and which were ended meanwhile."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .codes import CloseCode
from .limits import Limits

if TYPE_CHECKING:
    from .connection import WseConnection

__all__ = ["Sessions", "Tombstone"]

_COST = 4096
"""Bytes that a device which is away counts besides what is kept for it."""
_TOMBSTONE_COST = 512


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Why a session was ended while its device was away."""

    cid: str
    code: int
    reason: str


@dataclass(slots=True)
class _Absence:
    until: float
    code: int
    timer: asyncio.TimerHandle
    size: int


class Sessions:
    """Which session belongs to which connection, and how long it waits for it.

    Args:
        limits: The windows, and what may be kept for devices that are away.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._conns: dict[str, WseConnection[Any]] = {}
        self._away: dict[WseConnection[Any], _Absence] = {}
        self._tombstones: OrderedDict[str, tuple[float, Tombstone]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        """How many devices are away."""
        return len(self._away)

    @property
    def size(self) -> int:
        """What all devices that are away cost, in bytes as `Limits.max_suspended_bytes` has it."""
        return self._size + _TOMBSTONE_COST * len(self._tombstones)

    def add(self, conn: WseConnection[Any]) -> None:
        """A session has begun."""
        self._conns[conn.session] = conn

    def find(self, session: str, cid: str) -> WseConnection[Any] | Tombstone | None:
        """The session of this name, if it is this user's; or why it was ended."""
        conn = self._conns.get(session)
        if conn is not None:
            return conn if conn.cid == cid else None
        until, tombstone = self._tombstones.get(session, (0.0, None))
        if tombstone is None or asyncio.get_running_loop().time() >= until:
            return None
        return tombstone if tombstone.cid == cid else None

    def suspend(self, conn: WseConnection[Any], code: int, size: int) -> None:
        """Its connection is lost: let the session wait."""
        loop = asyncio.get_running_loop()
        window, end = self._limits.session_window or 0.0, CloseCode.ABNORMAL
        if code == CloseCode.GOING_AWAY:
            window, end = min(window, self._limits.reload_window), CloseCode.GOING_AWAY
        until = loop.time() + window
        cost = size + _COST
        self._away[conn] = _Absence(until, end, loop.call_at(until, conn.expire, end), cost)
        self._size += cost
        self._make_room()

    def grow(self, conn: WseConnection[Any], size: int) -> None:
        """So much more is kept for a device that is away."""
        absence = self._away.get(conn)
        if absence is not None:
            absence.size += size
            self._size += size
            self._make_room()

    def resume(self, conn: WseConnection[Any]) -> float | None:
        """Its device is back.

        Returns:
            When its window would have ended; None when it was not away.
        """
        absence = self._away.pop(conn, None)
        if absence is None:
            return None
        absence.timer.cancel()
        self._size -= absence.size
        return absence.until

    def end(self, conn: WseConnection[Any], tombstone: Tombstone | None) -> None:
        """A session is over. What its device is to be told, if it is away, waits for it."""
        self._conns.pop(conn.session, None)
        until = self.resume(conn)
        if until is not None and tombstone is not None:
            self._bury(asyncio.get_running_loop().time())
            self._tombstones[conn.session] = (until, tombstone)
            self._make_room()

    def _bury(self, now: float) -> None:
        """Forget tombstones whose time is over; those that were set first are first."""
        while self._tombstones:
            session, (until, _) = next(iter(self._tombstones.items()))
            if now < until:
                break
            del self._tombstones[session]

    def _make_room(self) -> None:
        """Let those go that have been away the longest: soon, since a handler may be sending."""
        if self.size > self._limits.max_suspended_bytes:
            asyncio.get_running_loop().call_soon(self._expire_longest)

    def _expire_longest(self) -> None:
        while self.size > self._limits.max_suspended_bytes:
            if self._tombstones:  # before anybody who may come back
                self._tombstones.popitem(last=False)
            else:
                conn, absence = next(iter(self._away.items()))
                conn.expire(absence.code)
