"""python-socketio, ASGI on uvicorn."""

from __future__ import annotations

from typing import Any

import socketio

from .common import NEWS, collect, serve_asgi

server = socketio.AsyncServer(async_mode="asgi", transports=["websocket"])
users: dict[str, str] = {}


async def connect(sid: str, _: Any, auth: dict[str, Any]) -> None:
    """A device says who it is."""
    users[sid] = auth["identity"]


async def disconnect(sid: str, *_: Any) -> None:
    """It has gone."""
    del users[sid]


async def echo(_: str, payload: Any) -> Any:
    """Answer with what came."""
    return payload


async def cast(_: str, payload: dict[str, Any]) -> None:
    """Tell everybody."""
    for _number in range(payload["count"]):
        await server.emit("news", NEWS)


async def collect_garbage(_: str, __: Any) -> None:
    """Collect garbage."""
    collect()


if __name__ == "__main__":
    for name, handler in {
        "connect": connect,
        "disconnect": disconnect,
        "echo": echo,
        "cast": cast,
        "collect": collect_garbage,
    }.items():
        server.on(name, handler)
    serve_asgi(socketio.ASGIApp(server))
