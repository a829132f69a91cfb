"""The asyncio server of `websockets`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from websockets.asyncio.server import ServerConnection, broadcast, serve

from .common import NEWS, WELCOME, announce, collect, forever, run

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode
users: dict[str, ServerConnection] = {}
procedures: dict[str, Callable[[Any], Any]] = {"echo": lambda payload: payload, "collect": collect}


async def handle(ws: ServerConnection) -> None:
    """One device."""
    _, hi, _ = decode(await ws.recv())
    users[hi["identity"]] = ws
    await ws.send(encode(WELCOME), text=True)
    try:
        async for data in ws:
            type, payload, stamp = decode(data)
            if stamp is None:
                events[type](payload)
            else:
                answer = ["~wse:response", procedures[type](payload), stamp]
                await ws.send(encode(answer), text=True)
    finally:
        del users[hi["identity"]]


def cast(payload: dict[str, Any]) -> None:
    """Tell everybody."""
    for _ in range(payload["count"]):
        broadcast(users.values(), encode(["news", NEWS, None]).decode())


events = {"cast": cast}


async def main() -> None:
    """Serve at a free port."""
    async with serve(handle, "127.0.0.1", 0, backlog=2048) as server:
        announce(next(iter(server.sockets)).getsockname()[1])
        await forever()


if __name__ == "__main__":
    run(main())
