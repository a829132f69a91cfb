"""Sending devices away without haste, so that they do not come back all at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from .connection import WseConnection

__all__ = ["see_off"]

_PAUSE = 0.02
"""Seconds between two batches of goodbyes."""


async def see_off(conns: Sequence[WseConnection[Any]], seconds: float) -> None:
    """Send devices away, evenly over so many seconds, and wait that long at most for them to go.

    Each goes when its calls have ended, as `WseConnection` does when it retires.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await _retire(conns, seconds)
            await asyncio.gather(*(conn.wait_closed() for conn in conns))


async def _retire(conns: Sequence[WseConnection[Any]], seconds: float) -> None:
    clock = asyncio.get_running_loop().time
    began = clock()
    retired = 0
    while any(conn.is_open and not conn.is_suspended for conn in conns[retired:]):
        due = int(len(conns) * (clock() - began) / seconds) + 1
        left = seconds - (clock() - began)
        for conn in conns[retired:due]:
            # Not before the others have gone, and then not all at once.
            conn._retire(max(0.0, left) + random.uniform(0.0, seconds))  # noqa: S311 - no secret
        retired = due
        if retired < len(conns):
            await asyncio.sleep(_PAUSE)
