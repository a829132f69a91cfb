"""Which devices of a user a message is for: `to=`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .connection import WseConnection

__all__ = ["To", "device", "newest", "others"]


@dataclass(frozen=True, slots=True)
class Others:
    """All devices but one."""

    conn_id: str


@dataclass(frozen=True, slots=True)
class Newest:
    """The device that came last."""


@dataclass(frozen=True, slots=True)
class Device:
    """One device."""

    name: str


To = Others | Newest | Device
"""Some of a user's devices."""

_NEWEST = Newest()


def others(conn: WseConnection[Any]) -> To:
    """All devices of the user but this one."""
    return Others(conn.conn_id)


def newest() -> To:
    """The device that came last."""
    return _NEWEST


def device(name: str) -> To:
    """The device of this name: `conn.device`.

    Raises:
        TypeError: no `str`.
    """
    if not isinstance(name, str):
        raise TypeError(f"a device is named by a str, not {type(name).__name__}")
    return Device(name)
