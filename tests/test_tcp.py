from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import zlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trustme
from carriers import (
    BINARY,
    CLOSE,
    TEXT,
    Acceptor,
    F,
    FakeStream,
    Raw,
    Recorder,
    accept_key,
    closing,
    deflated,
    dial,
    listening,
    raw_client,
    raw_server,
    request,
)
from support import SECRET, boom, nothing_left_of, real_time
from websockets.client import ClientProtocol
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from wse import Attempt, ConnectionFailed, Decision, Limits, WseClient, WseServer, testing
from wse.transports import tcp
from wse.transports.base import Page, Refusal, Transport
from wse.transports.stream import StreamTransport
from wse.transports.tcp import TcpDialer

LIMITS = Limits(max_message_bytes=100_000)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def serving(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names or ("127.0.0.1",)).configure_cert(context)
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def echoed(transport: Transport, *messages: bytes, binary: bool = False) -> list[bytes]:
    """What an echo at the other end answers to these messages; then the connection is closed."""
    receiver = Recorder(transport)
    transport.start(receiver)
    receiver.write(*messages, binary=binary)
    await receiver.received(len(messages))
    transport.close(1000, "done")
    await transport.wait_closed()
    return receiver.messages


# -- TLS -----------------------------------------------------------------------------------------


@real_time
async def test_tls(authority: trustme.CA) -> None:
    acceptor = Acceptor(LIMITS, echo=True)
    async with listening(acceptor, ssl=serving(authority)) as listener:
        dialer = TcpDialer(ssl=trusting(authority))
        transport = await dial(f"wss://127.0.0.1:{listener.port}/", LIMITS, dialer)
        messages = [b"", b"small", bytes(100_000)]
        assert await echoed(transport, *messages) == messages
        receiver, handshake, _ = await acceptor.accepted.get()
        assert await receiver.ended() == (1000, "done", False)
        assert handshake.remote_addr == "127.0.0.1"


@pytest.mark.parametrize("trouble", ["unknown authority", "system's trust", "another name"])
@real_time
async def test_certificate_that_does_not_fit_is_permanent(
    authority: trustme.CA, trouble: str
) -> None:
    trust = {
        "unknown authority": trusting(trustme.CA()),
        "system's trust": None,
        "another name": trusting(authority),
    }[trouble]
    names = ["elsewhere.test"] if trouble == "another name" else ["127.0.0.1"]
    acceptor = Acceptor(LIMITS)
    async with listening(acceptor, ssl=serving(authority, *names)) as listener:
        with pytest.raises(ConnectionFailed, match="certificate") as caught:
            await dial(f"wss://127.0.0.1:{listener.port}/", LIMITS, TcpDialer(ssl=trust))
        assert not caught.value.temporary
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
    assert acceptor.accepted.empty()


@real_time
async def test_plain_client_at_a_tls_server(authority: trustme.CA) -> None:
    acceptor = Acceptor(LIMITS)
    async with listening(acceptor, ssl=serving(authority)) as listener:
        with pytest.raises(ConnectionFailed):
            await dial(f"ws://127.0.0.1:{listener.port}/", LIMITS)
    assert acceptor.accepted.empty()


@real_time
async def test_tls_client_at_a_plain_server(authority: trustme.CA) -> None:
    acceptor = Acceptor(Limits(upgrade_timeout=0.02))
    async with listening(acceptor) as listener:
        with pytest.raises(ConnectionFailed):
            await dial(
                f"wss://127.0.0.1:{listener.port}/", LIMITS, TcpDialer(ssl=trusting(authority))
            )
    assert acceptor.accepted.empty()


@real_time
async def test_tls_handshake_is_bounded_in_time(authority: trustme.CA) -> None:
    acceptor = Acceptor(Limits(upgrade_timeout=0.02))
    async with listening(acceptor, ssl=serving(authority)) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        assert await reader.read() == b""
        writer.close()


# -- Unix sockets --------------------------------------------------------------------------------


@real_time
async def test_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "wse.sock")
    acceptor = Acceptor(LIMITS, echo=True)
    async with listening(acceptor, unix=path):
        transport = await dial("ws://localhost/chat", LIMITS, TcpDialer(unix=path))
        assert await echoed(transport, b"hello") == [b"hello"]
        _, handshake, _ = await acceptor.accepted.get()
        assert handshake.remote_addr is None
        assert handshake.path == "/chat"
        assert handshake.headers["host"] == "localhost"


@real_time
async def test_tls_on_a_unix_socket_checks_the_name_in_the_url(
    tmp_path: Path, authority: trustme.CA
) -> None:
    path = str(tmp_path / "wse.sock")
    acceptor = Acceptor(LIMITS, echo=True)
    dialer = TcpDialer(unix=path, ssl=trusting(authority))
    async with listening(acceptor, unix=path, ssl=serving(authority, "wse.test")):
        transport = await dial("wss://wse.test/", LIMITS, dialer)
        assert await echoed(transport, b"hello") == [b"hello"]
        with pytest.raises(ConnectionFailed, match="certificate"):
            await dial("wss://other.test/", LIMITS, dialer)


@real_time
async def test_unix_socket_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        await dial("ws://localhost/", LIMITS, TcpDialer(unix=str(tmp_path / "none.sock")))
    assert caught.value.temporary


# -- permessage-deflate (RFC 7692) ---------------------------------------------------------------

OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}


@pytest.mark.parametrize(
    ("server", "client"), [(True, True), (True, False), (False, True), (False, False)]
)
@real_time
async def test_compression_needs_both(server: bool, client: bool) -> None:
    acceptor = Acceptor(LIMITS, echo=True)
    async with listening(acceptor, compression=server) as listener:
        url = f"ws://127.0.0.1:{listener.port}/"
        transport = await dial(url, LIMITS, TcpDialer(compression=client))
        assert isinstance(transport, StreamTransport)
        assert bool(transport._extensions) is (server and client)
        messages = [b"the same words " * 100] * 3 + [b"", b"x"]
        assert await echoed(transport, *messages) == messages
        offered = "sec-websocket-extensions" in (await acceptor.accepted.get()).handshake.headers
        assert offered is client


@real_time
async def test_compressed_on_the_wire() -> None:
    acceptor = Acceptor(LIMITS, echo=True)
    async with (
        listening(acceptor, compression=True) as listener,
        raw_client(listener.port, upgraded=False) as peer,
    ):
        peer.writer.write(request(OFFER))
        status, told = await peer.head()
        assert status == 101
        agreed = told["sec-websocket-extensions"].split("; ")
        windows = {"server_max_window_bits=12", "client_max_window_bits=12"}
        assert (agreed[0], set(agreed[1:])) == ("permessage-deflate", windows)
        words = b"the same words " * 100
        peer.send(F(TEXT, deflated(words), rsv=4))
        head, data = await peer.frame()
        assert head == 0x80 | 0x40 | TEXT
        assert zlib.decompressobj(wbits=-15).decompress(data) == words
        peer.send(F(TEXT, b"not compressed"))
        assert (await peer.frame())[0] == 0x80 | 0x40 | TEXT
    assert (await acceptor.receiver()).messages == [words, b"not compressed"]


@real_time
async def test_a_bomb_is_not_inflated() -> None:
    acceptor = Acceptor(LIMITS)
    async with (
        listening(acceptor, compression=True) as listener,
        raw_client(listener.port, upgraded=False) as peer,
    ):
        peer.writer.write(request(OFFER))
        await peer.head()
        bomb = deflated(bytes(20_000_000))
        assert len(bomb) < LIMITS.max_message_bytes
        peer.send(F(BINARY, bomb, rsv=4))
        assert await peer.frames() == [(0x80 | CLOSE, b"\x03\xf1wse.message-too-large")]
        receiver = await acceptor.receiver()
        assert receiver.events == [("lost", 1009, "wse.message-too-large", True)]


@real_time
async def test_bomb_of_a_server() -> None:
    async with raw_server() as (url, peers):
        dialling = asyncio.ensure_future(dial(url, LIMITS, TcpDialer(compression=True)))
        peer = await peers.get()
        await peer.answer_upgrade(Sec_WebSocket_Extensions="permessage-deflate")
        transport = await dialling
        receiver = Recorder(transport)
        transport.start(receiver)
        peer.send(F(BINARY, deflated(bytes(20_000_000)), rsv=4))
        assert await receiver.ended() == (1009, "wse.message-too-large", True)
        assert receiver.messages == []


# -- a client that is refused --------------------------------------------------------------------


async def refused(
    answer: Callable[[Raw], Coroutine[Any, Any, None]], limits: Limits = LIMITS
) -> ConnectionFailed:
    """How dialling a raw server fails that has read the request and answers so."""
    async with raw_server() as (url, peers):
        dialling = asyncio.ensure_future(dial(url, limits))
        peer = await peers.get()
        await peer.reader.readuntil(b"\r\n\r\n")
        await answer(peer)
        with pytest.raises(ConnectionFailed) as caught:
            await dialling
        return caught.value


def answering(data: bytes, *, close: bool = False) -> Callable[[Raw], Coroutine[Any, Any, None]]:
    async def answer(peer: Raw) -> None:
        peer.writer.write(data)
        if close:
            peer.writer.write_eof()

    return answer


def http(status: str, *headers: str, body: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", body]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize(
    ("answer", "status", "temporary", "retry_after"),
    [
        (http("429 Too Many Requests", "Retry-After: 17"), 429, True, 17.0),
        (http("503 Service Unavailable", "Retry-After: 3", body="busy"), 503, True, 3.0),
        (http("503 Service Unavailable"), 503, True, 0.0),
        (http("503 Service Unavailable", "Retry-After: 86400"), 503, True, 3600.0),
        (http("503 Service Unavailable", f"Retry-After: {'9' * 5000}"), 503, True, 3600.0),
        (http("503 Service Unavailable", "Retry-After: 2", "Retry-After: 9"), 503, True, 2.0),
        (
            http("503 Service Unavailable", "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT"),
            503,
            True,
            0.0,
        ),
        (http("500 Internal Server Error"), 500, True, 0.0),
        (http("502 Bad Gateway"), 502, True, 0.0),
        (http("400 Bad Request"), 400, False, 0.0),
        (http("401 Unauthorized"), 401, False, 0.0),
        (http("403 Forbidden", body="no"), 403, False, 0.0),
        (http("404 Not Found"), 404, False, 0.0),
        (http("200 OK", body="<html>"), 200, False, 0.0),
        (http("301 Moved Permanently", "Location: ws://elsewhere.test/"), 301, False, 0.0),
    ],
)
@real_time
async def test_http_status(answer: bytes, status: int, temporary: bool, retry_after: float) -> None:
    error = await refused(answering(answer))
    assert error.details == {"status": status}
    assert error.temporary is temporary
    assert error.retry_after == retry_after
    assert str(status) in str(error)


@real_time
async def test_http_status_with_a_body_until_the_end() -> None:
    answer = b"HTTP/1.1 403 Forbidden\r\n\r\nsome words"
    error = await refused(answering(answer, close=True))
    assert error.details == {"status": 403}
    assert not error.temporary


async def _no_answer(peer: Raw) -> None:
    peer.writer.write_eof()


async def _half_an_answer(peer: Raw) -> None:
    peer.writer.write(b"HTTP/1.1 101 Switching Prot")
    peer.writer.write_eof()


async def _reset(peer: Raw) -> None:
    peer.reset()


@pytest.mark.parametrize("answer", [_no_answer, _half_an_answer, _reset])
@real_time
async def test_a_server_that_goes_away_is_temporary(
    answer: Callable[[Raw], Coroutine[Any, Any, None]],
) -> None:
    error = await refused(answer)
    assert error.temporary


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\r\n\r\n",
        http("101 Switching Protocols"),
        http("101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"),
        http(
            "101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept_key('another')}",
        ),
        b"x" * 20_000,
    ],
)
@real_time
async def test_what_is_no_websocket_server_is_permanent(answer: bytes) -> None:
    error = await refused(answering(answer))
    assert not error.temporary


@pytest.mark.parametrize(
    "header",
    [
        {"Sec_WebSocket_Protocol": "another"},
        {"Sec_WebSocket_Extensions": "permessage-deflate"},
    ],
)
@real_time
async def test_a_server_that_takes_what_was_not_offered_is_permanent(
    header: dict[str, str],
) -> None:
    async with raw_server() as (url, peers):
        dialling = asyncio.ensure_future(dial(url, LIMITS))
        await (await peers.get()).answer_upgrade(**header)
        with pytest.raises(ConnectionFailed) as caught:
            await dialling
        assert not caught.value.temporary


@real_time
async def test_connection_refused_is_temporary() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ConnectionFailed) as caught:
            await dial(f"ws://127.0.0.1:{port}/", LIMITS)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert caught.value.temporary


@real_time
async def test_no_such_host_is_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, f"Name or service not known {SECRET}")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", nobody)
    with pytest.raises(ConnectionFailed, match="Name or service") as caught:
        await dial("ws://nobody.invalid/", LIMITS)
    assert caught.value.temporary


@real_time
async def test_a_host_name_that_cannot_be_is_permanent() -> None:
    with pytest.raises(ConnectionFailed) as caught:
        await dial(f"ws://{'x' * 64}.invalid/", LIMITS)
    assert not caught.value.temporary


# -- the request ---------------------------------------------------------------------------------


@real_time
async def test_headers_are_sent_and_replace() -> None:
    acceptor = Acceptor(LIMITS)
    async with listening(acceptor) as listener:
        transport, _ = await TcpDialer()(
            f"ws://user:pass@127.0.0.1:{listener.port}/",
            subprotocols=["x"],
            headers={"X-One": "1", "Host": "wse.test", "authorization": "Bearer t"},
            limits=LIMITS,
        )
        headers = (await acceptor.accepted.get()).handshake.headers
        assert headers["x-one"] == "1"
        assert headers["host"] == "wse.test"
        assert headers["authorization"] == "Bearer t"
        transport.abort()


@pytest.mark.parametrize("value", ["two\r\nlines: x", "\u20ac", "nul\0"])
@real_time
async def test_headers_that_cannot_be_sent_raise_and_are_not_shown(value: str) -> None:
    acceptor = Acceptor(LIMITS)
    async with listening(acceptor) as listener:
        with pytest.raises(ValueError, match="X-Token") as caught:
            await TcpDialer()(
                f"ws://127.0.0.1:{listener.port}/",
                subprotocols=["x"],
                headers={"X-Token": value},
                limits=LIMITS,
            )
        assert value not in str(caught.value)
        assert acceptor.accepted.empty()


@real_time
async def test_url_of_an_ipv6_address(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    async def nobody(*args: Any, **_: Any) -> None:
        asked.append(args)
        raise OSError(SECRET)

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", nobody)
    with pytest.raises(ConnectionFailed):
        await dial("ws://[::1]:4200/", LIMITS)
    assert asked[0][1:] == ("::1", 4200)


# -- the listener --------------------------------------------------------------------------------


@real_time
async def test_stop_takes_no_more_and_leaves_who_is_there() -> None:
    acceptor = Acceptor(Limits(upgrade_timeout=60.0), echo=True)
    async with listening(acceptor) as listener, raw_client(listener.port) as peer:
        await acceptor.receiver()
        port = listener.port
        async with raw_client(port, upgraded=False) as half:
            half.writer.write(b"GET / HT")
            await _until_upgrading(listener)
            listener.stop()
            assert await half.reader.read() == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        peer.send(F(TEXT, b"still here"))
        assert await peer.frame() == (0x80 | TEXT, b"still here")


async def _until_upgrading(listener: tcp.Listener) -> None:
    """A peer that came later is served later: once it has its answer, so has the first."""
    async with raw_client(listener.port, upgraded=False) as other:
        other.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await other.head()
    assert listener.upgrading


@testing.virtual_time
async def test_who_comes_after_the_listener_has_stopped_is_not_taken() -> None:
    acceptor = Acceptor(LIMITS)
    listener = tcp.Listener(acceptor)
    listener.stopped = True
    late = come(listener)
    late.feed(request())
    await testing.settle()
    assert late.is_aborted()
    assert late.written == b""
    assert listener.upgrading == set()
    assert acceptor.accepted.empty()


@testing.virtual_time
async def test_sockets_without_a_request_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "wse.server")
    acceptor = Acceptor(Limits(max_upgrading=2))
    listener = tcp.Listener(acceptor)
    first, second, surplus = (come(listener) for _ in range(3))
    assert surplus.is_aborted()
    assert "2 have no request yet" in caplog.text
    surplus.feed(request())
    first.feed(request())
    await testing.settle()
    assert surplus.written == b""
    third = come(listener)
    for stream in (second, third):
        stream.feed(request())
        assert stream.written.startswith(b"HTTP/1.1 101")
    for stream in (first, second, third):
        stream.lose()
    assert acceptor.accepted.qsize() == 3


@real_time
async def test_a_burst_waits_at_the_system_and_is_taken_in_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    troubles: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: troubles.append(told))

    def no_more(_: socket.socket) -> None:
        raise OSError(errno.EMFILE, SECRET)

    async with listening(Acceptor(LIMITS)) as listener:
        monkeypatch.setattr(socket.socket, "accept", no_more)
        address = ("127.0.0.1", listener.port)
        burst = [socket.create_connection(address, timeout=5) for _ in range(100)]
        await testing.settle()
        assert 0 < len(troubles) <= 8
        for one in burst:
            one.close()


@real_time
async def test_open_connections_are_known_until_they_end() -> None:
    acceptor = Acceptor(LIMITS)
    async with listening(acceptor) as listener:
        async with raw_client(listener.port) as peer, raw_client(listener.port):
            first, second = [await acceptor.receiver() for _ in "ab"]
            assert listener.open == {first.transport, second.transport}
            peer.send(closing(1000))
            await peer.frames()
            await first.transport.wait_closed()
            assert listener.open == {second.transport}
        await second.transport.wait_closed()
        assert listener.open == set()
        assert listener.upgrading == set()


@real_time
async def test_wait_closed_waits_for_every_connection() -> None:
    acceptor = Acceptor(LIMITS)
    async with listening(acceptor) as listener, raw_client(listener.port) as peer:
        receiver = await acceptor.receiver()
        listener.stop()
        waiting = asyncio.ensure_future(listener.wait_closed())
        await testing.settle()
        assert not waiting.done()
        peer.send(closing(1000))
        await waiting
        assert receiver.end == (1000, "", False)


@real_time
async def test_an_address_that_is_taken() -> None:
    acceptor = Acceptor(LIMITS)
    async with listening(acceptor) as listener:
        with pytest.raises(OSError, match="address already in use"):
            await tcp.listen(
                acceptor, "127.0.0.1", listener.port, unix=None, ssl=None, compression=False
            )


def come(listener: tcp.Listener, *, half_closes: bool = True) -> FakeStream:
    """A socket that the listener has accepted."""
    stream = FakeStream(half_closes=half_closes)
    upgrade = tcp._Upgrade(listener)
    stream.set_protocol(upgrade)
    upgrade.connection_made(stream)
    return stream


@testing.virtual_time
async def test_a_refused_peer_that_stays_is_aborted_in_time() -> None:
    listener = tcp.Listener(Acceptor(Limits(upgrade_timeout=5.0)))
    stream = come(listener)
    stream.feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    stream.feed(request())
    assert stream.written.startswith(b"HTTP/1.1 426")
    await testing.pass_time(4.9)
    assert len(listener.upgrading) == 1
    await testing.pass_time(0.2)
    assert stream.is_aborted()
    assert listener.upgrading == set()


@testing.virtual_time
async def test_refused_over_tls_closes() -> None:
    stream = come(tcp.Listener(Acceptor(LIMITS)), half_closes=False)
    stream.feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert stream.is_closing()
    await testing.pass_time(6.0)
    assert not stream.is_aborted()


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (request(), b"101"),
        (request({"Sec-WebSocket-Extensions": "permessage-deflate"}), b"101"),
        (request({"Sec-WebSocket-Key": None}), b"400"),
        (request({"Upgrade": None}), b"426"),
        (request(line="POST / HTTP/1.1"), b"405"),
        (b"no request\r\n\r\n", b"400"),
        (request({"X": "x" * 9_000}), b"4"),
    ],
)
@testing.virtual_time
async def test_a_handshake_leaves_nothing_to_the_collector(asked: bytes, status: bytes) -> None:
    with nothing_left_of(ServerProtocol):
        stream = come(tcp.Listener(Acceptor(LIMITS), compression=True))
        stream.feed(asked)
        assert stream.written.startswith(b"HTTP/1.1 " + status)
        stream.abort()
        await testing.settle()


@pytest.mark.parametrize("status", ["101 Switching Protocols", "503 Service Unavailable", "?"])
@testing.virtual_time
async def test_dialling_leaves_nothing_to_the_collector(status: str) -> None:
    with nothing_left_of(ClientProtocol):
        http = ClientProtocol(parse_uri("ws://test/"))
        stream = FakeStream()
        opening = tcp._Opening(http, b"the request", LIMITS)
        stream.set_protocol(opening)
        opening.connection_made(stream)
        accept = accept_key(http.key)
        del http
        lines = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}"]
        stream.feed("\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode())
        stream.end()
        await testing.settle()
        assert opening.opened.done()
        assert (opening.opened.exception() is None) is (status[0] == "1")
        stream.lose()
        del opening, stream


# -- giving up -----------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", range(16))
@real_time
async def test_cancelled_at_any_time_leaves_nothing(turns: int) -> None:
    troubles: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: troubles.append(context))
    acceptor = Acceptor(LIMITS)
    async with listening(acceptor) as listener:
        dialling = asyncio.ensure_future(dial(f"ws://127.0.0.1:{listener.port}/", LIMITS))
        for _ in range(turns):
            await asyncio.sleep(0)
        dialling.cancel()
        await asyncio.wait([dialling])
        if dialling.cancelled():
            listener.stop()
            await listener.wait_closed()
        else:
            assert isinstance(dialling.result(), StreamTransport)
            dialling.result().abort()
    assert troubles == []


@testing.virtual_time
async def test_an_answer_that_comes_as_we_give_up_is_left_alone() -> None:
    http = ClientProtocol(parse_uri("ws://test/"))
    stream = FakeStream()
    opening = tcp._Opening(http, b"the request", LIMITS)
    stream.set_protocol(opening)
    opening.connection_made(stream)
    assert stream.written == b"the request"
    opening.opened.cancel()
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_key(http.key)}",
    ]
    stream.feed("\r\n".join([*lines, "", ""]).encode())
    opening.connection_lost(None)
    assert opening.opened.cancelled()


# -- a whole story, on each loop -----------------------------------------------------------------


def _uvloop() -> asyncio.AbstractEventLoop:
    return pytest.importorskip("uvloop").new_event_loop()  # type: ignore[no-any-return]


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, _uvloop])
@pytest.mark.parametrize("carrier", ["tcp", "tls", "unix", "deflate"])
def test_story(
    loop: Callable[[], asyncio.AbstractEventLoop],
    carrier: str,
    tmp_path: Path,
    authority: trustme.CA,
) -> None:
    path = str(tmp_path / "wse.sock") if carrier == "unix" else None
    context = serving(authority) if carrier == "tls" else None
    trust = trusting(authority) if carrier == "tls" else None
    compression = carrier == "deflate"

    def identify(attempt: Attempt) -> Decision:
        return attempt.accept("alice", {"path": attempt.path, "from": attempt.remote_addr})

    async def story() -> None:
        server: WseServer = WseServer(identify)
        server.register("double", lambda _, n: n * 2)
        async with (
            asyncio.timeout(30),
            server.listen(port=0, unix=path, ssl=context, compression=compression) as listener,
        ):
            port = 0 if path else listener.port
            url = f"{'wss' if context else 'ws'}://127.0.0.1:{port or 1}/here"
            client = WseClient(url, ssl=trust, unix=path, compression=compression)
            async with client:
                welcome = await client.connect()
                address = None if path else "127.0.0.1"
                assert welcome == {"path": "/here", "from": address}
                assert await client.call("double", 21) == 42
                assert await client.call("double", "x" * 300_000) == "x" * 600_000
                assert len(listener.open) == 1

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(story())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, _uvloop])
@pytest.mark.parametrize("secure", [False, True])
def test_a_reader_that_stops_and_goes_on(
    loop: Callable[[], asyncio.AbstractEventLoop], secure: bool, authority: trustme.CA
) -> None:
    """Backpressure with real buffers: unwritten, then writable, then all of it in order."""

    async def story() -> None:
        limits = Limits(max_message_bytes=1 << 24)
        acceptor = Acceptor(limits)
        context = serving(authority) if secure else None
        async with asyncio.timeout(30), listening(acceptor, ssl=context) as listener:
            dialer = TcpDialer(ssl=trusting(authority) if secure else None)
            url = f"{'wss' if secure else 'ws'}://127.0.0.1:{listener.port}/"
            ours = await dial(url, limits, dialer)
            theirs = await acceptor.receiver()
            receiver = Recorder(ours)
            ours.pause_reading()
            ours.start(receiver)
            big = bytes(1 << 20)
            sent = 0
            while not theirs.transport.unwritten:
                theirs.write(big)
                sent += 1
                await asyncio.sleep(0)
            assert receiver.messages == []
            ours.resume_reading()
            await theirs.until(lambda: ("writable",) in theirs.events)
            assert theirs.transport.unwritten == 0
            theirs.write(b"after")
            await receiver.until(lambda: receiver.messages[-1:] == [b"after"])
            assert receiver.messages == [big] * sent + [b"after"]
            ours.close(1000, "")
            await ours.wait_closed()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(story())


# -- refused before the upgrade --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "status", "retry_after"),
    [
        (Refusal(status=403, text="This origin may not connect."), 403, None),
        (Refusal(status=503, text="Too many at once.", retry_after=10), 503, "10"),
    ],
)
@real_time
async def test_a_refusal_is_an_http_answer(
    refusal: Refusal, status: int, retry_after: str | None
) -> None:
    acceptor = Acceptor(LIMITS)
    acceptor.refusal = refusal
    async with listening(acceptor) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(request())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        assert first.split()[:2] == ["HTTP/1.1", str(status)]
        assert headers.get("Retry-After") == retry_after
        assert body.decode().strip() == refusal.text
        assert acceptor.transports == []
        with pytest.raises(ConnectionFailed) as caught:
            await dial(f"ws://127.0.0.1:{listener.port}/", LIMITS, TcpDialer())
        assert caught.value.details == {"status": status}
        assert caught.value.temporary is (status == 503)


# -- plain HTTP ------------------------------------------------------------------------------------


PLAIN = {"Upgrade": None, "Connection": None}


async def answer_to(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (in lower case) and body of the answer; then the connection has ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    first, *lines = head.decode().split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    return int(first.split()[1]), {name.lower(): value for name, value in pairs}, body


@pytest.mark.parametrize(
    "line", ["GET /page HTTP/1.1", "GET /page?from=monitor HTTP/1.1", "GET /page HTTP/1.0"]
)
@real_time
async def test_a_plain_request_gets_its_page(line: str) -> None:
    acceptor = Acceptor(LIMITS)
    made: list[int] = []

    def page() -> Page:
        made.append(len(made))
        return Page(body=f"für Nr. {len(made)}", status=203, content_type="text/x; charset=utf-8")

    async with listening(acceptor, pages={"/page": page}) as listener:
        for number in (1, 2):
            plain = f"{line}\r\nHost: x\r\n\r\n".encode()
            status, headers, body = await answer_to(listener.port, plain)
            assert (status, body.decode()) == (203, f"für Nr. {number}")
            assert headers["content-length"] == str(len(body))
            assert headers["content-type"] == "text/x; charset=utf-8"
            assert headers["cache-control"] == "no-store"
            assert headers["x-content-type-options"] == "nosniff"
    assert acceptor.transports == []


@real_time
async def test_other_requests_get_no_page() -> None:
    acceptor = Acceptor(LIMITS)
    pages = {"/page": lambda: Page(body=b"\x00\xff")}
    async with listening(acceptor, pages=pages) as listener:
        port = listener.port
        assert (await answer_to(port, b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n"))[2] == b"\x00\xff"
        assert (await answer_to(port, b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 426
        assert (await answer_to(port, b"POST /page HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 405
        assert (await answer_to(port, b"GET /page HTTP/2.0\r\nHost: x\r\n\r\n"))[0] == 400
        async with raw_client(port, upgraded=False) as peer:
            peer.writer.write(request(line="GET /page HTTP/1.1"))
            assert (await peer.head())[0] == 101
        assert (await acceptor.accepted.get()).handshake.path == "/page"


@pytest.mark.parametrize(
    "page",
    [
        boom,
        lambda: Page(body="", status=299),
        lambda: Page(body="", status=101),
        lambda: Page(body="", content_type="text/plain\r\nSet-Cookie: a=b"),
        lambda: None,
    ],
)
@real_time
async def test_a_page_that_fails_is_the_servers_fault(
    page: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(Acceptor(LIMITS), pages={"/page": page}) as listener:
        plain = b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n"
        status, headers, body = await answer_to(listener.port, plain)
    assert (status, body) == (500, b"The server failed.\n")
    assert "set-cookie" not in headers
    assert [record.getMessage() for record in caplog.records] == ["a page failed"]


@pytest.mark.parametrize("path", ["/page", "/other"])
@real_time
async def test_head_is_answered_as_get_is_without_a_body(path: str) -> None:
    acceptor = Acceptor(LIMITS)
    async with listening(acceptor, pages={"/page": lambda: Page(body="here")}) as listener:
        told = request(PLAIN, line=f"GET {path} HTTP/1.1")
        asked = told.replace(b"GET", b"HEAD")
        status, headers, body = await answer_to(listener.port, told)
        assert body
        same, told_again, nothing = await answer_to(listener.port, asked)
        assert (same, nothing) == (status, b"")
        assert told_again == {**headers, "date": told_again["date"]}
        upgrade = request(line=f"HEAD {path} HTTP/1.1")
        status, headers, body = await answer_to(listener.port, upgrade)
        assert (status, headers["allow"], body) == (405, "GET", b"")
    assert acceptor.accepted.empty()


@pytest.mark.parametrize(
    "headers",
    [{"X": "x" * 9_000}, {f"X-{n}": "x" for n in range(150)}, {"X": "x" * 20_000}],
    ids=["a long line", "many headers", "much of both"],
)
@real_time
async def test_headers_that_are_too_large_are_said_to_be(headers: dict[str, str]) -> None:
    acceptor = Acceptor(LIMITS)
    async with listening(acceptor) as listener:
        assert (await answer_to(listener.port, request(headers)))[0] == 431
    assert acceptor.accepted.empty()


@pytest.mark.parametrize("line", ["GET / HTTP/1.1", "GET /page HTTP/1.1"])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("hosts", [None, "x\r\nHost: x", "x\r\nhost: y"])
@real_time
async def test_a_request_names_one_host(hosts: str | None, plain: bool, line: str) -> None:
    acceptor = Acceptor(LIMITS)
    asked = request({**(PLAIN if plain else {}), "Host": hosts}, line=line)
    async with listening(acceptor, pages={"/page": lambda: Page(body="here")}) as listener:
        status, _, _ = await answer_to(listener.port, asked)
        assert status == 400
    assert acceptor.accepted.empty()


@real_time
async def test_http_1_0_needs_no_host() -> None:
    pages = {"/page": lambda: Page(body="here")}
    async with listening(Acceptor(LIMITS), pages=pages) as listener:
        assert (await answer_to(listener.port, b"GET /page HTTP/1.0\r\n\r\n"))[2] == b"here"
        assert (await answer_to(listener.port, b"GET / HTTP/1.0\r\n\r\n"))[0] == 505


# -- time ------------------------------------------------------------------------------------------


@testing.virtual_time
async def test_the_time_of_a_tls_handshake_counts() -> None:
    acceptor = Acceptor(Limits(upgrade_timeout=5.0))
    slow, slower = FakeStream(half_closes=False), FakeStream(half_closes=False)
    upgrades = [tcp._Upgrade(tcp.Listener(acceptor)) for _ in range(2)]
    await testing.pass_time(4)
    for stream, upgrade in zip((slow, slower), upgrades, strict=True):
        stream.set_protocol(upgrade)
        upgrade.connection_made(stream)
    slow.feed(request())
    assert (await acceptor.accepted.get()).handshake.opened == 0.0
    await testing.pass_time(1)
    assert slower.is_aborted()
    assert not slow.is_aborted()
    slow.abort()


@real_time
async def test_ordinary_upgrades_take_the_express_lane_and_odd_ones_the_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tcp.Listener] = []

    class Reference(tcp._Http):
        def __init__(self, listener: tcp.Listener) -> None:
            asked.append(listener)
            super().__init__(listener)

    monkeypatch.setattr(tcp, "_Http", Reference)
    async with listening(Acceptor(LIMITS)) as listener:
        for odd in ({}, {"Connection": "Upgrade, close"}):
            async with raw_client(listener.port, upgraded=False) as peer:
                peer.writer.write(request(odd))
                assert (await peer.head())[0] == 101
            assert len(asked) == len(odd)
