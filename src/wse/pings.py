"""Whether the web server that carries us looks for devices that have vanished."""

from __future__ import annotations

import asyncio
import logging
from functools import cache
from typing import Any

__all__ = ["warn_of_pings"]

logger = logging.getLogger("wse.server")


def pings_nobody() -> bool:
    """Whether the web server that runs the present task is known to send no pings (RFC 6455 5.5.2).

    ASGI tells an application nothing of it, and a framework between hides the rest; but the task is
    the web server's own, and begins in a function of its.
    """
    task = asyncio.current_task()
    frame = getattr(task and task.get_coro(), "cr_frame", None)
    if frame is None:
        return False
    if frame.f_globals.get("__name__", "").partition(".")[0] == "granian":
        return True
    begun: dict[str, Any] = frame.f_locals
    config = begun.get("config", getattr(begun.get("self"), "config", None))
    uvicorn = getattr(config, "ws_ping_interval", 0)
    hypercorn = getattr(config, "websocket_ping_interval", 0)
    return uvicorn is None or hypercorn is None


@cache
def warn_of_pings() -> None:
    """Say it, once, where devices that have vanished may not be noticed."""
    if pings_nobody():
        logger.warning(
            "the web server pings nobody: devices that vanish are noticed when something is sent "
            "to them, or not for long"
        )
