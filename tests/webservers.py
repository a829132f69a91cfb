"""Web servers that carry us, in this process: each makes an acceptor reachable at `/ws`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import Any

import hypercorn.asyncio
import uvicorn
from aiohttp import web
from granian.constants import Interfaces
from granian.server.embed import Server as Granian

from wse.transports import aiohttp
from wse.transports.asgi import AsgiApplication
from wse.transports.base import Acceptor

__all__ = ["ASGI_SERVERS", "WEB_SERVERS", "bound", "serving"]


def bound() -> socket.socket:
    """A socket that listens on a free port."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", 0))
    return one


def asgi_application(acceptor: Acceptor) -> AsgiApplication:
    return AsgiApplication(acceptor, opening=lambda: None, lifespan=nullcontext)


@asynccontextmanager
async def serving(application: Any, **options: Any) -> AsyncIterator[int]:
    """uvicorn with an ASGI application, and its port."""
    server = uvicorn.Server(
        uvicorn.Config(application, log_level="error", log_config=None, **options)
    )
    with bound() as sock:
        running = asyncio.create_task(server.serve(sockets=[sock]))
        await _listens(sock.getsockname()[1])
        try:
            yield sock.getsockname()[1]
        finally:
            server.should_exit = True
            await running


@asynccontextmanager
async def _hypercorn(application: Any, **options: Any) -> AsyncIterator[int]:
    with bound() as sock:
        port: int = sock.getsockname()[1]
    config = hypercorn.Config.from_mapping(
        bind=[f"127.0.0.1:{port}"], graceful_timeout=0.1, errorlog=None, **options
    )
    end = asyncio.Event()
    running = asyncio.create_task(
        hypercorn.asyncio.serve(application, config, shutdown_trigger=end.wait)
    )
    await _listens(port)
    yield port
    end.set()
    await running


@asynccontextmanager
async def _granian(application: Any) -> AsyncIterator[int]:
    with bound() as sock:
        port: int = sock.getsockname()[1]
    server = Granian(application, port=port, interface=Interfaces.ASGI, log_enabled=False)
    running = asyncio.create_task(server.serve())
    await _listens(port)
    yield port
    server.stop()  # type: ignore[no-untyped-call]
    await running


async def _listens(port: int) -> None:
    """Wait until somebody does."""
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return


@asynccontextmanager
async def _aiohttp(acceptor: Acceptor) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/ws", aiohttp.handler(acceptor, opening=lambda: None))
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    with bound() as sock:
        await web.SockSite(runner, sock).start()
        yield sock.getsockname()[1]
        await runner.cleanup()


ASGI_SERVERS: dict[str, Callable[..., AbstractAsyncContextManager[int]]] = {
    "uvicorn": partial(serving, ws="websockets-sansio"),
    "uvicorn with wsproto": partial(serving, ws="wsproto"),
    "hypercorn": _hypercorn,
    "granian": _granian,
}
"""Each takes an ASGI application."""


def _carrying(name: str) -> Callable[[Acceptor], AbstractAsyncContextManager[int]]:
    return lambda acceptor: ASGI_SERVERS[name](asgi_application(acceptor))


WEB_SERVERS = {**{name: _carrying(name) for name in ASGI_SERVERS}, "aiohttp": _aiohttp}
