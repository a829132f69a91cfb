"""The asyncio client of `websockets`, with what it takes to have calls in flight."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect

from .caller import PAYLOAD, measure

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode


async def call(url: str, pump: Any) -> None:
    """Call `echo` of a server."""
    async with connect(url, subprotocols=["wse-default-json"]) as ws:  # type: ignore[list-item]
        await ws.send(encode(["~wse:hi", {"identity": "caller"}, None]), text=True)
        await ws.recv()
        waiting: dict[str, asyncio.Future[Any]] = {}
        reading = asyncio.create_task(_read(ws, waiting))
        loop, numbers = asyncio.get_running_loop(), count()

        async def echo() -> Any:
            stamp = str(next(numbers))
            answer = waiting[stamp] = loop.create_future()
            await ws.send(encode(["echo", PAYLOAD, stamp]), text=True)
            return await answer

        await pump(echo)
        reading.cancel()


async def _read(ws: ClientConnection, waiting: dict[str, asyncio.Future[Any]]) -> None:
    async for data in ws:
        _, payload, stamp = decode(data)
        waiting.pop(stamp).set_result(payload)


if __name__ == "__main__":
    measure(call)
