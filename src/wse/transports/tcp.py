"""WebSocket over TCP, TLS and Unix sockets, for the standalone server and the Python client.

`websockets`' sans-I/O protocols decide the opening handshake (RFC 6455 section 4); from then on
`stream` carries the connection.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl as tls
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, cast

from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus, SecurityError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from websockets.http11 import Request, Response
from websockets.protocol import Side, State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from ..errors import ConnectionFailed
from ..limits import Limits
from . import opening
from .base import (
    NO_WEBSOCKET,
    Acceptor,
    Fields,
    Handshake,
    Page,
    Pages,
    Refusal,
    Transport,
    checked,
    merged,
    refused,
)
from .lane import let_go, library_logger
from .stream import StreamTransport, read_buffer

__all__ = ["Listener", "StreamTransport", "TcpDialer", "listen"]

logger = logging.getLogger("wse.server")

_QUEUE = 1024
"""Connections that wait at the system to be accepted, where it allows as many."""
_ACCEPTS = 8
"""How many of them asyncio accepts in one turn of the loop."""
_NO_WEBSOCKET = (426, 505)
"""How a GET request is answered that asks for no WebSocket, or in HTTP/1.0."""
_DEFLATE_AT_SERVER = ServerPerMessageDeflateFactory(
    server_max_window_bits=12, client_max_window_bits=12, compress_settings={"memLevel": 5}
)
"""As `websockets` itself has it: a fifth of the memory, for a sixth more bytes of long messages."""
_DEFLATE_AT_CLIENT = ClientPerMessageDeflateFactory(compress_settings={"memLevel": 5})
_HEAD_END = b"\r\n\r\n"
_REFUSALS = {
    400: "This is no valid WebSocket handshake.",
    405: "A WebSocket handshake is a GET request.",
    426: NO_WEBSOCKET.text,
    431: "The request is too large.",
    500: "The server failed.",
    505: "A WebSocket handshake is an HTTP/1.1 request.",
}


# -- server ------------------------------------------------------------------------------------


class _Http(ServerProtocol):
    """What decides about one request."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(
            extensions=[_DEFLATE_AT_SERVER] if listener.compression else None,
            logger=library_logger,
        )
        self._acceptor = listener.acceptor

    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        return cast(Subprotocol | None, self._acceptor.select(subprotocols))


class _Upgrade(asyncio.BufferedProtocol):
    """A socket until its HTTP upgrade is decided."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._memory = read_buffer(listener.acceptor.limits.max_upgrade_bytes)
        self._data = bytearray()
        self._refused = False
        self._bodiless = False
        self._stream: asyncio.Transport
        # Accepted; the TLS handshake is still to come.
        self._opened = asyncio.get_running_loop().time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._stream = cast(asyncio.Transport, transport)
        listener, limits = self._listener, self._listener.acceptor.limits
        full = len(listener.upgrading) >= limits.max_upgrading
        if full:
            logger.info("closed a connection: %d have no request yet", len(listener.upgrading))
        if full or listener.stopped:  # which was accepted before, and is announced only now
            self._refused = True
            self._stream.abort()
        deadline = self._opened + limits.upgrade_timeout
        self._timer = asyncio.get_running_loop().call_at(deadline, self._stream.abort)
        listener.upgrading.add(self._stream)

    def connection_lost(self, _: Exception | None) -> None:
        self._timer.cancel()
        self._listener.upgrading.discard(self._stream)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._memory

    def buffer_updated(self, nbytes: int) -> None:
        if self._refused:
            return
        searched = max(0, len(self._data) - len(_HEAD_END))
        self._data += self._memory[:nbytes]
        end = self._data.find(_HEAD_END, searched)
        size = end if end >= 0 else len(self._data)
        if size > self._listener.acceptor.limits.max_upgrade_bytes:
            self._answer(431)
        elif end >= 0:
            end += len(_HEAD_END)
            self._decide(bytes(self._data[:end]), bytes(self._data[end:]))

    def _decide(self, head: bytes, rest: bytes) -> None:
        """The head of a request is complete."""
        request = opening.read_request(head, compression=self._listener.compression)
        if request is not None:
            subprotocol = self._listener.acceptor.select(request.subprotocols)
            handshake = self._handshake(request.target, request.fields)
            answer = opening.accepted(request.key, subprotocol)
            self._upgrade(handshake, answer, subprotocol, [], rest)
            return
        http = _Http(self._listener)
        try:
            self._judge(http, head, rest)
        finally:
            let_go(http)

    def _judge(self, http: ServerProtocol, head: bytes, rest: bytes) -> None:
        self._bodiless = head.startswith(b"HEAD ")  # which is answered as GET is
        http.receive_data(b"GET" + head[4:] if self._bodiless else head)
        events = http.events_received()
        if not events:
            error = http.handshake_exc  # in websockets 16 the reason is behind another
            reasons = error, error and error.__cause__
            self._answer(431 if any(isinstance(one, SecurityError) for one in reasons) else 400)
            return
        request = cast(Request, events[0])
        response = http.accept(request)
        hosts = len(request.headers.get_all("Host"))
        if hosts > 1 or (hosts == 0 and response.status_code != 505):  # RFC 9112 section 3.2
            self._answer(400)
            return
        page = self._listener.pages.get(request.path.partition("?")[0])
        if page is not None and response.status_code in _NO_WEBSOCKET:
            self._show(page)
            return
        if response.status_code != 101:
            self._answer(response.status_code, response.headers)
            return
        if self._bodiless:
            self._answer(405, Headers(Allow="GET"))
            return
        http.send_response(response)
        self._upgrade(
            self._handshake(request.path, merged(request.headers.raw_items())),
            b"".join(http.data_to_send()),
            http.subprotocol,
            http.extensions,
            rest,
        )

    def _handshake(self, target: str, fields: Fields) -> Handshake:
        peer = self._stream.get_extra_info("peername")
        path, _, query_string = target.partition("?")
        return Handshake(
            path=path,
            query_string=query_string,
            headers=fields,
            remote_addr=peer[0] if isinstance(peer, tuple) else None,
            opened=self._opened,
        )

    def _upgrade(
        self,
        handshake: Handshake,
        answer: bytes,
        subprotocol: str | None,
        extensions: list[Extension],
        rest: bytes,
    ) -> None:
        """Nothing is wrong with the request: open the connection, unless it is not wanted."""
        listener = self._listener
        refusal = listener.acceptor.vet(handshake)
        if refusal is not None:
            self._refuse(refusal)
            return
        self._stream.write(answer)
        self._timer.cancel()
        listener.upgrading.discard(self._stream)
        limits = listener.acceptor.limits
        transport = StreamTransport(self._stream, Side.SERVER, limits, extensions)
        listener.open.add(transport)
        transport.when_closed(listener.open.discard)
        transport.preload(rest)
        listener.acceptor.open(transport, handshake, subprotocol)

    def _answer(self, status: int, headers: Headers | None = None) -> None:
        """Refuse over HTTP, with our own words; the peer ends then, or the timer does."""
        told = {"Sec-WebSocket-Version": "13"}
        for name in ("Allow", "Upgrade"):
            if headers is not None and name in headers:
                told[name] = headers[name]
        self._say_goodbye(status, f"{_REFUSALS.get(status, _REFUSALS[400])}\n", told)

    def _refuse(self, refusal: Refusal) -> None:
        wait = refusal.retry_after
        told = {} if wait is None else {"Retry-After": str(wait)}
        self._say_goodbye(refusal.status, f"{refusal.text}\n", told)

    def _show(self, make: Callable[[], Page]) -> None:
        try:
            page = make()
            status, body, content_type = page.status, page.body, page.content_type
        except Exception:
            logger.exception("a page failed")
            self._answer(500)
            return
        told = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        self._say_goodbye(status, body, told, content_type)

    def _say_goodbye(
        self,
        status: int,
        body: str | bytes,
        headers: Mapping[str, str],
        content_type: str = Page.content_type,
    ) -> None:
        content = body.encode() if isinstance(body, str) else body
        told = Headers(
            {
                "Date": formatdate(usegmt=True),
                "Content-Type": content_type,
                "Content-Length": str(len(content)),
                "Connection": "close",
                **headers,
            }
        )
        shown = b"" if self._bodiless else content
        answer = Response(status, HTTPStatus(status).phrase, told, shown)
        self._stream.write(answer.serialize())
        self._data.clear()
        self._refused = True
        if self._stream.can_write_eof():
            self._stream.write_eof()
        else:
            self._stream.close()


class Listener:
    """A listening socket and the connections that came through it."""

    def __init__(
        self,
        acceptor: Acceptor,
        *,
        compression: bool = False,
        pages: Pages = MappingProxyType({}),
    ) -> None:
        self.acceptor = acceptor
        self.pages = pages
        self.compression = compression
        self.stopped = False
        self.upgrading: set[asyncio.Transport] = set()
        self.open: set[Transport] = set()
        self._server: asyncio.Server

    @property
    def port(self) -> int:
        """The TCP port that was bound."""
        return int(self._server.sockets[0].getsockname()[1])

    def stop(self) -> None:
        """Take no more connections, nor those that are not upgraded yet."""
        self.stopped = True
        self._server.close()
        for stream in tuple(self.upgrading):
            stream.abort()

    async def wait_closed(self) -> None:
        """Wait until every connection has ended; after `stop`."""
        for transport in tuple(self.open):
            await transport.wait_closed()
        await self._server.wait_closed()


async def listen(
    acceptor: Acceptor,
    host: str,
    port: int,
    *,
    unix: str | None = None,
    ssl: tls.SSLContext | None = None,
    compression: bool = False,
    pages: Pages = MappingProxyType({}),
) -> Listener:
    """Listen on TCP, or on a Unix socket.

    Raises:
        OSError: the address cannot be bound.
    """
    listener = Listener(acceptor, compression=compression, pages=pages)
    loop = asyncio.get_running_loop()

    def upgrade() -> _Upgrade:
        return _Upgrade(listener)

    secure: dict[str, Any] = {}
    if ssl is not None:
        secure = {"ssl": ssl, "ssl_handshake_timeout": acceptor.limits.upgrade_timeout}
    if unix is not None:
        server = await loop.create_unix_server(upgrade, unix, backlog=_ACCEPTS, **secure)
    else:
        server = await loop.create_server(upgrade, host, port, backlog=_ACCEPTS, **secure)
    for one in server.sockets:
        _lengthen_queue(one)
    listener._server = server
    return listener


def _lengthen_queue(listening: socket.socket) -> None:
    """Let more wait than asyncio is to accept in one turn.

    It tries as often in each, also when the process may have no more files, and logs each time.
    """
    with socket.fromfd(listening.fileno(), listening.family, listening.type) as again:
        again.listen(_QUEUE)


# -- client ------------------------------------------------------------------------------------


class _Opening(asyncio.BufferedProtocol):
    """A client's socket until the server has answered the upgrade."""

    def __init__(self, http: ClientProtocol, request: bytes, limits: Limits) -> None:
        self._http = http
        self._request = request
        self._limits = limits
        self._memory = read_buffer(limits.max_upgrade_bytes)
        self._head: bytearray | None = bytearray()
        self._stream: asyncio.Transport
        self.opened: asyncio.Future[tuple[StreamTransport, str | None]]
        self.opened = asyncio.get_running_loop().create_future()
        self.opened.add_done_callback(lambda _: let_go(http))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._stream = cast(asyncio.Transport, transport)
        self._stream.write(self._request)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._memory

    def buffer_updated(self, nbytes: int) -> None:
        """Give the library the head alone; what follows a 101 is the lane's."""
        if self.opened.done():
            return
        data = self._memory[:nbytes].tobytes()
        if self._head is None:
            self._http.receive_data(data)
        else:
            self._head += data
            end = self._head.find(_HEAD_END)
            if end < 0:
                if len(self._head) > self._limits.max_upgrade_bytes:
                    self._fail(ConnectionFailed(message="no HTTP response", temporary=False))
                return
            end += len(_HEAD_END)
            head, data = bytes(self._head[:end]), bytes(self._head[end:])
            self._head = None
            self._http.receive_data(head)
            if self._http.state is State.OPEN:
                transport = StreamTransport(
                    self._stream, Side.CLIENT, self._limits, self._http.extensions
                )
                transport.preload(data)
                self.opened.set_result((transport, self._http.subprotocol))
                return
            self._http.receive_data(data)
        self._check()

    def eof_received(self) -> None:
        if self._head is None and not self.opened.done():
            self._http.receive_eof()
            self._check()

    def connection_lost(self, _: Exception | None) -> None:
        self._fail(ConnectionFailed(message="the connection was closed before the upgrade"))

    def _check(self) -> None:
        error = self._http.handshake_exc
        if isinstance(error, InvalidStatus):
            self._fail(_status_error(error.response))
        elif error is not None:
            self._fail(ConnectionFailed(message="no WebSocket handshake", temporary=False))

    def _fail(self, error: ConnectionFailed) -> None:
        if not self.opened.done():
            self.opened.set_exception(error)


def _request(http: ClientProtocol, headers: Mapping[str, str]) -> bytes:
    request = http.connect()
    for name, value in checked(headers).raw_items():
        if name in request.headers:
            del request.headers[name]
        request.headers[name] = value
    http.send_request(request)
    return b"".join(http.data_to_send())


def _status_error(response: Response) -> ConnectionFailed:
    wait = next(iter(response.headers.get_all("Retry-After")), "")
    return refused(response.status_code, float(wait) if wait.isdecimal() else 0.0)


class TcpDialer:
    """Reaches servers over TCP, TLS (`wss://`) or a Unix socket; see `Dialer`.

    Args:
        ssl: The context for `wss://`; the system's when None.
        unix: The path of a Unix socket to connect to, whatever the URL's host.
        compression: Offer permessage-deflate (RFC 7692).
    """

    def __init__(
        self,
        *,
        ssl: tls.SSLContext | None = None,
        unix: str | None = None,
        compression: bool = False,
    ) -> None:
        self._ssl = ssl
        self._unix = unix
        self._compression = compression

    async def __call__(
        self, url: str, *, subprotocols: Sequence[str], headers: Mapping[str, str], limits: Limits
    ) -> tuple[Transport, str | None]:
        uri = parse_uri(url)
        http = ClientProtocol(
            uri,
            subprotocols=[Subprotocol(name) for name in subprotocols],
            extensions=[_DEFLATE_AT_CLIENT] if self._compression else None,
            logger=library_logger,
        )
        request = _request(http, headers)
        secure: dict[str, Any] = {}
        if uri.secure:
            secure["ssl"] = self._ssl or tls.create_default_context()
        if self._unix is not None and uri.secure:
            secure["server_hostname"] = uri.host
        loop = asyncio.get_running_loop()

        def opening() -> _Opening:
            return _Opening(http, request, limits)

        try:
            if self._unix is not None:
                stream, protocol = await loop.create_unix_connection(opening, self._unix, **secure)
            else:
                stream, protocol = await loop.create_connection(
                    opening, uri.host, uri.port, **secure
                )
        except tls.SSLCertVerificationError as error:
            raise ConnectionFailed(
                message="the certificate is not valid", temporary=False
            ) from error
        except UnicodeError as error:
            raise ConnectionFailed(message="no host has such a name", temporary=False) from error
        except OSError as error:
            raise ConnectionFailed(message=f"cannot connect: {error.strerror or error}") from error
        try:
            return await protocol.opened
        except BaseException:
            stream.abort()
            raise
