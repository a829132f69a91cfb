"""The command line: `wse serve`, `wse connect`, `wse demo`."""

from __future__ import annotations

from .commands import main

__all__ = ["main"]
