"""WebSocket within an aiohttp application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp import WebSocketError, WSMsgType, web

from ..codes import CloseCode, Reason
from ..limits import Limits
from .awaited import AwaitedTransport, End, Frame
from .base import NO_WEBSOCKET, Acceptor, Handshake, Refusal, merged

__all__ = ["AiohttpTransport", "handler"]


_MOMENT = 0.1
"""Seconds that a close frame may take to be sent."""


def handler(
    acceptor: Acceptor, opening: Callable[[], None]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A handler for `app.router.add_get`, whose WebSockets are a server's.

    Args:
        acceptor: Who takes the connections.
        opening: Called when a connection comes.
    """

    async def serve(request: web.Request) -> web.StreamResponse:
        opening()
        handshake = _handshake(request)
        offered = handshake.headers.get("sec-websocket-protocol", "").split(",")
        subprotocol = acceptor.select([name.strip() for name in offered])
        limits = acceptor.limits
        socket = web.WebSocketResponse(
            protocols=() if subprotocol is None else (subprotocol,),
            max_msg_size=2 * limits.max_message_bytes,  # what is a little above it is refused by us
            heartbeat=limits.heartbeat_interval,
            timeout=limits.close_timeout,
            compress=False,
        )
        if not socket.can_prepare(request).ok:
            return _answer(NO_WEBSOCKET)
        refusal = acceptor.vet(handshake)
        if refusal is not None:
            return _answer(refusal)
        await socket.prepare(request)
        transport = AiohttpTransport(socket, request, limits)
        acceptor.open(transport, handshake, subprotocol)
        await transport.serve()
        return socket

    return serve


class AiohttpTransport(AwaitedTransport):
    """One WebSocket of aiohttp.

    Args:
        socket: Prepared.
        request: Its request.
        limits: As for every transport.
    """

    def __init__(self, socket: web.WebSocketResponse, request: web.Request, limits: Limits) -> None:
        super().__init__(limits)
        self._socket = socket
        self._request = request

    async def _next(self) -> str | bytes | End:
        message = await self._socket.receive()
        match message.type:
            case WSMsgType.TEXT | WSMsgType.BINARY:
                data: str | bytes = message.data
                return data
            case WSMsgType.CLOSE:
                return End(message.data or CloseCode.NO_STATUS, message.extra or "")
            case WSMsgType.ERROR if isinstance(message.data, WebSocketError):
                too_big = message.data.code == CloseCode.MESSAGE_TOO_BIG
                reason = Reason.MESSAGE_TOO_LARGE if too_big else Reason.PROTOCOL_ERROR
                return End(message.data.code, reason, failed=True)
            case _:
                return End(CloseCode.ABNORMAL, Reason.NO_REASON)

    async def _send(self, frame: Frame) -> None:
        if frame.text is None:
            await self._socket.send_bytes(frame)
        else:
            await self._socket.send_str(frame.text)

    async def _goodbye(self, end: End) -> None:
        # Once aiohttp shuts down it reads nothing any more, the peer's reply neither.
        deaf = getattr(self._request.protocol, "_close", False)
        with suppress(TimeoutError):
            async with asyncio.timeout(_MOMENT if deaf else None):
                await self._socket.close(code=end.code, message=end.reason.encode())

    def _cut(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


def _handshake(request: web.Request) -> Handshake:
    return Handshake(
        path=request.rel_url.raw_path,
        query_string=request.rel_url.raw_query_string,
        headers=merged(request.headers.items()),
        remote_addr=request.remote or None,
        opened=asyncio.get_running_loop().time(),
        context=request,
    )


def _answer(refusal: Refusal) -> web.Response:
    response = web.Response(status=refusal.status, text=f"{refusal.text}\n")
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(refusal.retry_after)
    if refusal.status == NO_WEBSOCKET.status:
        response.headers["Upgrade"] = "websocket"
    return response
