"""What is known of a user's devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["DeviceInfo"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceInfo:
    """One device of a user, as `server.devices` tells of it."""

    device: str
    """Its name: what `to=device(...)` takes."""
    conn_id: str
    meta: Any
    """What it said about itself."""
    connected_for: float
    """Seconds since it connected first, those away included."""
    silent_for: float
    """Seconds since the last sign of life came from it."""
    remote_addr: str | None
    """Its IP address; None on a Unix socket."""
    suspended: bool
    """Whether its connection is lost, and its session waits for it."""
