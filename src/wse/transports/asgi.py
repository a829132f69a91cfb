"""WebSocket within an ASGI application: uvicorn, granian and hypercorn carry it.

Written to the HTTP and WebSocket specification of ASGI 3.0, versions 2.3 and later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from ..codes import CloseCode, Reason
from ..limits import Limits
from .awaited import AwaitedTransport, End, Frame
from .base import NO_WEBSOCKET, Acceptor, Handshake, Refusal, merged

__all__ = ["AsgiApplication", "AsgiTransport"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


_FAILED = {
    CloseCode.PROTOCOL_ERROR: Reason.PROTOCOL_ERROR,
    CloseCode.INVALID_DATA: Reason.PROTOCOL_ERROR,
    CloseCode.MESSAGE_TOO_BIG: Reason.MESSAGE_TOO_LARGE,
}


class AsgiApplication:
    """An ASGI application whose WebSockets are a server's.

    It is no function, so that Starlette takes it for the application that it is.

    Args:
        acceptor: Who takes the connections.
        opening: Called when a connection comes.
        lifespan: Entered and left with the application, where it is all that the web server runs.
    """

    def __init__(
        self,
        acceptor: Acceptor,
        opening: Callable[[], None],
        lifespan: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        self._acceptor = acceptor
        self._opening = opening
        self._lifespan = lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or answer a plain HTTP request."""
        match scope["type"]:
            case "websocket":
                await self._connect(scope, receive, send)
            case "http":
                await _answer(send, "http", NO_WEBSOCKET)
            case "lifespan":
                await self._live(receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self._lifespan():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._opening()
        await receive()
        handshake = _handshake(scope)
        refusal = self._acceptor.vet(handshake)
        if refusal is None:
            subprotocol = self._acceptor.select(scope.get("subprotocols") or ())
            await send({"type": "websocket.accept", "subprotocol": subprotocol})
            transport = AsgiTransport(receive, send, self._acceptor.limits)
            self._acceptor.open(transport, handshake, subprotocol)
            await transport.serve()
        elif "websocket.http.response" in (scope.get("extensions") or {}):
            await _answer(send, "websocket.http", refusal)
        else:
            await send({"type": "websocket.close"})  # which the web server answers with 403


class AsgiTransport(AwaitedTransport):
    """One WebSocket of an ASGI server.

    Args:
        receive: The connection's, after its accept.
        send: The same.
        limits: As for every transport.
    """

    def __init__(self, receive: Receive, send: Send, limits: Limits) -> None:
        super().__init__(limits)
        self._asgi_receive = receive
        self._asgi_send = send

    async def _next(self) -> str | bytes | End:
        message = await self._asgi_receive()
        if message["type"] == "websocket.disconnect":
            code = message.get("code") or CloseCode.NO_STATUS
            reason = message.get("reason")
            if reason is not None and reason != _FAILED.get(code, reason):
                return End(code, _FAILED[code], failed=True)  # by uvicorn, in words of its own
            # uvicorn says so of a connection that was torn, and of no other without a reason.
            torn = code == CloseCode.NO_STATUS and reason is None
            return End(CloseCode.ABNORMAL if torn else code, reason or "")
        text: str | None = message.get("text")
        return text if text is not None else bytes(message.get("bytes") or b"")

    async def _send(self, frame: Frame) -> None:
        if frame.text is None:
            await self._asgi_send({"type": "websocket.send", "bytes": bytes(frame)})
        else:
            await self._asgi_send({"type": "websocket.send", "text": frame.text})

    async def _goodbye(self, end: End) -> None:
        await self._asgi_send({"type": "websocket.close", "code": end.code, "reason": end.reason})


def _handshake(scope: Scope) -> Handshake:
    client = scope.get("client")
    raw_path: bytes | None = scope.get("raw_path")
    return Handshake(
        path=scope["path"] if raw_path is None else raw_path.decode("latin-1"),
        query_string=(scope.get("query_string") or b"").decode("latin-1"),
        headers=merged(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
        ),
        remote_addr=client[0] if client else None,
        opened=asyncio.get_running_loop().time(),
        context=scope,
    )


async def _answer(send: Send, kind: str, refusal: Refusal) -> None:
    body = f"{refusal.text}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    if refusal.retry_after is not None:
        headers.append((b"retry-after", str(refusal.retry_after).encode()))
    if refusal.status == NO_WEBSOCKET.status:
        headers.append((b"upgrade", b"websocket"))
    await send({"type": f"{kind}.response.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": body})
