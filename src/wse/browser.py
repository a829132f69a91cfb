"""The browser client, and where it lies."""

from __future__ import annotations

from pathlib import Path

__all__ = ["static_path"]


def static_path() -> Path:
    """The folder with `wse.js` and `wse.d.ts`, for the static files of a web application."""
    return Path(__file__).parent / "static"
