"""Starlette on uvicorn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from .common import NEWS, WELCOME, collect, serve_asgi

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode
users: dict[str, WebSocket] = {}
procedures: dict[str, Callable[[Any], Any]] = {"echo": lambda payload: payload, "collect": collect}


async def handle(ws: WebSocket) -> None:
    """One device."""
    await ws.accept()
    _, hi, _ = decode(await ws.receive_text())
    users[hi["identity"]] = ws
    await ws.send_text(encode(WELCOME).decode())
    try:
        while True:
            type, payload, stamp = decode(await ws.receive_text())
            if stamp is None:
                await events[type](payload)
            else:
                answer = ["~wse:response", procedures[type](payload), stamp]
                await ws.send_text(encode(answer).decode())
    except WebSocketDisconnect:
        pass
    finally:
        del users[hi["identity"]]


async def cast(payload: dict[str, Any]) -> None:
    """Tell everybody."""
    for _ in range(payload["count"]):
        text = encode(["news", NEWS, None]).decode()
        for ws in tuple(users.values()):
            await ws.send_text(text)


events = {"cast": cast}

if __name__ == "__main__":
    serve_asgi(Starlette(routes=[WebSocketRoute("/", handle)]))
