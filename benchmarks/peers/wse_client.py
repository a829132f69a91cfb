"""The client of wse."""

from __future__ import annotations

from typing import Any

from wse import WseClient

from .caller import PAYLOAD, measure


async def call(url: str, pump: Any) -> None:
    """Call `echo` of a server."""
    async with WseClient(url) as client:
        await client.connect("caller")
        await pump(lambda: client.call("echo", PAYLOAD))


if __name__ == "__main__":
    measure(call)
