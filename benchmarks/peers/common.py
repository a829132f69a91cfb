"""What the programs in Python share."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

__all__ = ["NEWS", "WELCOME", "announce", "bound", "collect", "forever", "run", "serve_asgi"]

NEWS = {"number": 1, "text": "x" * 24}
"""What a broadcast tells: a message of 56 bytes."""
WELCOME = ["~wse:welcome", None, None]


def announce(port: int) -> None:
    """Say where this program listens, and end with whoever started it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    end_with_stdin()


def end_with_stdin() -> None:
    """End when stdin does: whoever holds its other end has gone, or wants it."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run it on uvloop."""
    uvloop.run(main)


async def forever() -> None:
    """Wait."""
    await asyncio.Event().wait()


def collect(_: Any = None) -> None:
    """Collect garbage, so that memory is what is held."""
    gc.collect()


def bound() -> socket.socket:
    """A listening socket at a free port."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=2048)
    sock.setblocking(False)
    return sock


def serve_asgi(application: Callable[..., Any]) -> None:
    """Serve an ASGI application with uvicorn."""
    import uvicorn

    sock = bound()
    announce(sock.getsockname()[1])
    config = uvicorn.Config(application, loop="uvloop", log_level="error")
    uvicorn.Server(config).run(sockets=[sock])
