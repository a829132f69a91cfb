"""How long the caller of a procedure still waits."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

__all__ = ["DEADLINE", "time_left"]

DEADLINE: ContextVar[float | None] = ContextVar("wse deadline", default=None)
"""When the caller of what runs gives up, as the loop's time; None when it did not say."""


def time_left() -> float | None:
    """Within a procedure: seconds for which its caller still waits, 0 when it does no longer.

    None outside of one, and for a caller that does not say: one of the classic protocol.
    """
    deadline = DEADLINE.get()
    if deadline is None:
        return None
    return max(0.0, deadline - asyncio.get_running_loop().time())
