"""What a peer may send wrongly, over TCP: a clear end, nobody else disturbed, nothing left over."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from support import SECRET, Boom, real_time
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.typing import Subprotocol

from wse import (
    Attempt,
    Decision,
    ErrorCode,
    InvalidPayload,
    Limits,
    WseClient,
    WseConnection,
    WseServer,
)
from wse.transports.tcp import Listener

NAME = "wse-default-json"
PATIENCE = 10.0
KIB = 1024
PROTOCOL_ERROR = (1000, "wse.protocol-error")
REFUSED = (1000, "wse.not-authorized")
TOO_LARGE = (1009, "wse.message-too-large")
HI = '["~wse:hi",{"identity":"eve","meta":{}},null]'
BRACKETS = 200_000

Identify = Callable[[Attempt], Awaitable[Decision] | Decision]


# -- the scene ---------------------------------------------------------------------------------


class Scene:
    """A server, a bystander who must notice nothing, and what the server tells meanwhile."""

    def __init__(self, identify: Identify | None, limits: Limits) -> None:
        self.asked: list[Any] = []
        """The identities that `identify` was called with."""
        self.events: list[tuple[Any, ...]] = []
        self.started = asyncio.Event()
        """A handler, or `identify`, has begun to wait."""
        self.cancelled = asyncio.Event()
        """One that waited was cancelled."""
        self.listener: Listener
        self._decide = identify
        self._changed = asyncio.Event()
        self.server: WseServer = WseServer(self._identify, conn_per_user=2, limits=limits)
        self._listen()

    def _identify(self, attempt: Attempt) -> Awaitable[Decision] | Decision:
        self.asked.append(attempt.identity)
        if self._decide is None or attempt.identity == "bob":
            return attempt.accept(attempt.identity)
        return self._decide(attempt)

    def _listen(self) -> None:
        server, tell = self.server, self.tell
        server.when.joined(lambda client, _: tell("joined", client.cid))
        server.when.left(lambda client, *end: tell("left", client.cid, *end))
        server.when.connected(lambda conn: tell("connected", conn.cid))
        server.when.disconnected(lambda conn, *end: tell("disconnected", conn.cid, *end))
        server.when.ignored(lambda _, *what: tell("ignored", *what))
        server.when.error(lambda error, _: tell("error", error.code))

        @server.register("add")
        def add(_: WseConnection, args: Any) -> Any:
            return args["a"] + args["b"]

        @server.channel.on("hello")
        def hello(_: WseConnection, payload: Any) -> None:
            tell("hello", payload)

        @server.register("echo")
        def echo(_: WseConnection, payload: Any) -> Any:
            return payload

        @server.channel.on("quit")
        def leave(conn: WseConnection, reason: str) -> None:
            conn.drop(reason)

        @server.channel.on("wait")
        async def wait(_: WseConnection, payload: Any) -> None:
            tell("waits", payload)
            await self.wait()

        @server.register("wait")
        async def wait_too(_: WseConnection, payload: Any) -> None:
            tell("waits", payload)
            await self.wait()

    async def wait(self) -> None:
        """Wait for ever, and note when that is cancelled."""
        self.started.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def tell(self, *event: Any) -> None:
        self.events.append(event)
        self._changed.set()

    async def told(self, *expected: tuple[Any, ...]) -> None:
        """Wait for these events, and no others, since the last time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while len(self.events) < len(expected):
                    self._changed.clear()
                    await self._changed.wait()
        assert self.events == list(expected)
        del self.events[:]

    @property
    def port(self) -> int:
        return self.listener.port

    @contextlib.asynccontextmanager
    async def stranger(self, limit: int | None = None) -> AsyncIterator[ClientConnection]:
        """A raw WebSocket client that has said nothing yet."""
        async with connect(
            f"ws://127.0.0.1:{self.port}",
            subprotocols=[Subprotocol(NAME)],
            compression=None,
            ping_interval=None,
            max_size=limit,
        ) as raw:
            yield raw

    @contextlib.asynccontextmanager
    async def guest(self) -> AsyncIterator[ClientConnection]:
        """A raw WebSocket client that is welcomed as eve."""
        async with self.stranger() as raw:
            await raw.send(HI)
            assert json.loads(await raw.recv())[0] == "~wse:welcome"
            await self.told(("joined", "eve"), ("connected", "eve"))
            yield raw

    async def closed(self, code: int, reason: str, *before: tuple[Any, ...]) -> None:
        """The guest has left with this end, after these events."""
        await self.told(
            *before, ("disconnected", "eve", code, reason), ("left", "eve", code, reason)
        )


@contextlib.asynccontextmanager
async def scene(
    identify: Identify | None = None, limits: Limits | None = None
) -> AsyncIterator[Scene]:
    """Check, whatever happens within, that the bystander notices nothing and nothing is left."""
    loop = asyncio.get_running_loop()
    crashes: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: crashes.append(context))
    stage = Scene(identify, limits or Limits())
    async with stage.server.listen(port=0) as listener:
        stage.listener = listener
        async with WseClient(f"ws://127.0.0.1:{listener.port}") as bob:
            noticed: list[Any] = []
            await bob.connect("bob")
            bob.when.closed(lambda *end: noticed.append(end))
            bob.when.ignored(lambda *what: noticed.append(what))
            bob.when.error(noticed.append)
            await stage.told(("joined", "bob"), ("connected", "bob"))
            del stage.asked[:]
            tasks, sockets = asyncio.all_tasks(), set(listener.open)

            yield stage

            assert await bob.call("add", {"a": 5, "b": 3}) == 8
            async with asyncio.timeout(PATIENCE):
                for socket in listener.open - sockets:
                    await socket.wait_closed()
                if leftover := asyncio.all_tasks() - tasks:
                    await asyncio.wait(leftover)
            assert await bob.call("add", {"a": 2, "b": 2}) == 4
            assert not noticed
            assert not stage.events
            assert list(stage.server.clients) == ["bob"]
            assert len(stage.server.clients.conns) == 1
            assert not stage.server.acceptor.strangers
            assert not listener.upgrading
            assert listener.open == sockets
    assert not crashes


async def end_of(raw: ClientConnection) -> tuple[int | None, str | None]:
    """Code and reason of the close that comes next."""
    with pytest.raises(ConnectionClosed):
        pytest.fail(f"a frame instead of a close: {await raw.recv()!r}")
    return raw.close_code, raw.close_reason


async def still_works(raw: ClientConnection) -> None:
    """The connection stayed, and nothing was said on it meanwhile."""
    await raw.send('["add",{"a":1,"b":2},"still"]')
    assert json.loads(await raw.recv()) == ["~wse:response", 3, "still"]


async def taken(raw: ClientConnection) -> None:
    """The server has read everything so far."""
    await (await raw.ping())


# -- bytes that no decent library would send ---------------------------------------------------


def frame(
    opcode: int, data: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True
) -> bytes:
    """A frame as a client sends it, or should not."""
    head = (0x80 if fin else 0) | rsv << 4 | opcode
    mask = 0x80 if masked else 0
    if len(data) < 126:
        size = bytes((mask | len(data),))
    elif len(data) < 65536:
        size = struct.pack("!BH", mask | 126, len(data))
    else:
        size = struct.pack("!BQ", mask | 127, len(data))
    key = b"\x11\x22\x33\x44" if masked else b""
    if masked:
        data = bytes(byte ^ key[index % 4] for index, byte in enumerate(data))
    return bytes((head,)) + size + key + data


def text(message: str) -> bytes:
    return frame(Opcode.TEXT, message.encode())


GOODBYE = frame(Opcode.CLOSE, struct.pack("!H", 1000))


class Wire:
    """A WebSocket client of bytes, upgraded by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, *frames: bytes) -> None:
        """All of them in one write."""
        self._writer.write(b"".join(frames))

    async def message(self) -> Any:
        """The next message from the server."""
        opcode, data = await self._receive()
        assert opcode == Opcode.TEXT
        return json.loads(data)

    async def end(self) -> tuple[int, str]:
        """Code and reason of the close frame that comes next."""
        opcode, data = await self._receive()
        assert opcode == Opcode.CLOSE, data
        return int.from_bytes(data[:2], "big"), data[2:].decode()

    async def eof(self) -> None:
        """The server ends the connection, without another word."""
        assert await self._reader.read() == b""

    def tear(self) -> None:
        self._writer.transport.abort()

    async def _receive(self) -> tuple[int, bytes]:
        head, size = await self._reader.readexactly(2)
        if size == 126:
            (size,) = struct.unpack("!H", await self._reader.readexactly(2))
        return head & 0x0F, await self._reader.readexactly(size)


@contextlib.asynccontextmanager
async def wire(stage: Scene, *, welcomed: bool = False) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
    writer.write(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Protocol: wse-default-json\r\n\r\n"
    )
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Sec-WebSocket-Protocol: wse-default-json\r\n" in head
        peer = Wire(reader, writer)
        if welcomed:
            peer.send(text(HI))
            assert await peer.message() == ["~wse:welcome", None, None]
            await stage.told(("joined", "eve"), ("connected", "eve"))
        yield peer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


# -- what cannot be read -----------------------------------------------------------------------

UNREADABLE = {
    "empty": "",
    "no JSON": "{not json",
    "cut off": '["hello",{"m":1',
    "cut off in a text": '["hello","m',
    "cut off in an escape": '["hello","\\ud8',
    "two values": '["hello",1,null]["hello",2,null]',
    "NaN": '["hello",NaN,null]',
    "single quotes": "['hello',1,null]",
}
UNTYPED = {
    "an object": '{"type":"hello","payload":1}',
    "a text": '"hello"',
    "a number": "5",
    "null": "null",
    "true": "true",
    "no type": "[]",
    "a type of null": "[null,1,null]",
    "a type that is a number": "[5,1,null]",
    "a type that is a boolean": "[true,1,null]",
    "a type that is an object": '[{"type":"hello"},1,null]',
    "a type that is an array": '[["hello"],1,null]',
}
BAD = [
    *(pytest.param(bad, ErrorCode.MESSAGE_PROCESSING_ERROR, id=n) for n, bad in UNREADABLE.items()),
    *(pytest.param(bad, ErrorCode.PROTOCOL_VIOLATION, id=n) for n, bad in UNTYPED.items()),
]
KINDS = pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])


@KINDS
@pytest.mark.parametrize(("bad", "code"), BAD)
@real_time
async def test_a_stranger_says_what_cannot_be_read(bad: str, code: str, binary: bool) -> None:
    async with scene() as stage, stage.stranger() as raw:
        await raw.send(bad.encode() if binary else bad)
        assert await end_of(raw) == PROTOCOL_ERROR
        await stage.told(("error", code))
        assert not stage.asked


@KINDS
@pytest.mark.parametrize(("bad", "code"), BAD)
@real_time
async def test_a_guest_says_what_cannot_be_read(bad: str, code: str, binary: bool) -> None:
    async with scene() as stage, stage.guest() as raw:
        await raw.send(bad.encode() if binary else bad)
        assert await end_of(raw) == PROTOCOL_ERROR
        await stage.closed(*PROTOCOL_ERROR, ("error", code))


DEEP = {
    "the message": "[" * BRACKETS,
    "the payload": '["hello",' + "[" * BRACKETS + "]" * BRACKETS + ",null]",
    "a payload of objects": '["hello",' + '{"a":' * BRACKETS + "1" + "}" * BRACKETS + ",null]",
    "the type": "[" + "[" * BRACKETS + "]" * BRACKETS + ",1,null]",
    "the stamp": '["add",1,' + "[" * BRACKETS + "]" * BRACKETS + "]",
    "a further member": '["hello",1,null,' + "[" * BRACKETS + "]" * BRACKETS + "]",
    "around a lone surrogate": '["hello",' + "[" * BRACKETS + '"\\ud800"' + "]" * BRACKETS + "]",
}


@pytest.mark.parametrize("bad", DEEP.values(), ids=DEEP)
@real_time
async def test_a_guest_nests_200000_brackets(bad: str) -> None:
    limits = Limits(max_message_bytes=2 * KIB * KIB)
    async with scene(limits=limits) as stage, stage.guest() as raw:
        await raw.send(bad)
        assert await end_of(raw) == PROTOCOL_ERROR
        kind, code = stage.events.pop(0)
        assert kind == "error"
        assert code in (ErrorCode.MESSAGE_PROCESSING_ERROR, ErrorCode.PROTOCOL_VIOLATION)
        await stage.closed(*PROTOCOL_ERROR)


@real_time
async def test_a_stranger_nests_200000_brackets() -> None:
    async with scene() as stage, stage.stranger() as raw:
        await raw.send("[" * BRACKETS)
        assert await end_of(raw) == TOO_LARGE
        await stage.told(("error", ErrorCode.CONNECTION_ERROR))
        assert not stage.asked


@pytest.mark.parametrize("before", ["", '["~wse:hi",', '["~wse:hi",{"identity":'])
@real_time
async def test_a_stranger_nests_as_many_brackets_as_it_may(before: str) -> None:
    async with scene() as stage, stage.stranger() as raw:
        await raw.send(before + "[" * (16 * KIB - len(before)))
        assert await end_of(raw) == PROTOCOL_ERROR
        await stage.told(("error", ErrorCode.MESSAGE_PROCESSING_ERROR))
        assert not stage.asked


# -- text that is no text ----------------------------------------------------------------------

NO_UTF8 = {
    "a byte that never occurs": b"\xff",
    "overlong": b"\xc0\xaf",
    "cut off": b"\xe2\x82",
    "a surrogate": b"\xed\xa0\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
}


@pytest.mark.parametrize("welcomed", [False, True], ids=["stranger", "guest"])
@pytest.mark.parametrize("bad", NO_UTF8.values(), ids=NO_UTF8)
@real_time
async def test_text_that_is_not_utf8(bad: bytes, welcomed: bool) -> None:
    async with scene() as stage:
        async with stage.guest() if welcomed else stage.stranger() as raw:
            await raw.send(b'["hello","' + bad + b'",null]', text=True)
            assert (await end_of(raw))[0] == 1007
        kind, code = stage.events.pop(0)
        assert (kind, code) == ("error", ErrorCode.CONNECTION_ERROR)
        if welcomed:
            await stage.closed(1007, "wse.protocol-error")
        assert stage.asked == ["eve"] * welcomed


@real_time
async def test_text_that_is_not_utf8_in_a_fragment_is_not_waited_for() -> None:
    async with scene() as stage, wire(stage, welcomed=True) as peer:
        peer.send(frame(Opcode.TEXT, b'["hello","\xe2', fin=False), frame(0, b"\x28", fin=False))
        assert (await peer.end())[0] == 1007
        await stage.closed(1007, "wse.protocol-error", ("error", ErrorCode.CONNECTION_ERROR))


@real_time
async def test_a_character_may_span_fragments() -> None:
    async with scene() as stage, wire(stage, welcomed=True) as peer:
        first, second = '["hello","€",null]'.encode().split(b"\x82")
        peer.send(frame(Opcode.TEXT, first, fin=False), frame(0, b"\x82" + second))
        await stage.told(("hello", "€"))
        peer.send(GOODBYE)
        assert await peer.end() == (1000, "")
        await stage.closed(1000, "")


@pytest.mark.parametrize("bad", NO_UTF8.values(), ids=NO_UTF8)
@real_time
async def test_a_binary_payload_that_is_not_utf8_is_a_payload_error(bad: bytes) -> None:
    async with scene() as stage:
        async with stage.guest() as raw:
            await raw.send(b'["hello","' + bad + b'",null]')
            await stage.told(("error", ErrorCode.INVALID_PAYLOAD))
            await raw.send(b'["nobody","' + bad + b'",null]')
            await stage.told(("error", ErrorCode.INVALID_PAYLOAD))
            await raw.send(b'["echo","' + bad + b'","a1"]')
            error = {"code": "wse.invalid-payload", "details": {"path": "$"}}
            assert json.loads(await raw.recv()) == ["~wse:response-err", error, "a1"]
            await still_works(raw)
        await stage.closed(1000, "")


@pytest.mark.parametrize("bad", [b'["\xff",1,null]', b'["echo",1,"\xff"]', b"\xff"])
@real_time
async def test_a_binary_message_that_is_not_utf8_cannot_be_read(bad: bytes) -> None:
    async with scene() as stage, stage.guest() as raw:
        await raw.send(bad)
        assert await end_of(raw) == PROTOCOL_ERROR
        await stage.closed(*PROTOCOL_ERROR, ("error", ErrorCode.MESSAGE_PROCESSING_ERROR))


@pytest.mark.parametrize("bad", [b'["~wse:hi",{"identity":"\xff"}]', b'["\xff",1]'])
@real_time
async def test_a_strangers_binary_message_that_is_not_utf8(bad: bytes) -> None:
    async with scene() as stage, stage.stranger() as raw:
        await raw.send(bad)
        assert await end_of(raw) == PROTOCOL_ERROR
        kind, _ = stage.events.pop(0)
        assert kind == "error"
        assert not stage.asked


@KINDS
@real_time
async def test_a_lone_surrogate_is_carried_on(binary: bool) -> None:
    async def say(raw: ClientConnection, message: str) -> None:
        await raw.send(message.encode() if binary else message)

    async with scene() as stage:
        async with stage.guest() as raw:
            await say(raw, r'["hello",{"\udc00":["a\ud800b","\ud83d\ude00","\ude00\ud83d"]},null]')
            await stage.told(("hello", {"\ufffd": ["a\ufffdb", "😀", "\ufffd\ufffd"]}))
            await say(raw, r'["\ud800 type","\uD800",null]')
            await stage.told(("ignored", "\ufffd type", "\ufffd"))
            await say(raw, r'["add",{"a":5,"b":3},"\udfff stamp"]')
            assert json.loads(await raw.recv()) == ["~wse:response", 8, "\ufffd stamp"]
            await say(raw, r'["echo","\ud800","~wse:call:echo:\ud800"]')
            assert json.loads(await raw.recv()) == [
                "~wse:call:echo:\ufffd",
                "\ufffd",
                {"success": True},
            ]
            await still_works(raw)
        await stage.closed(1000, "")


@real_time
async def test_a_lone_surrogate_in_a_hi_is_carried_on() -> None:
    async with scene(lambda attempt: attempt.accept("eve", attempt.meta)) as stage:
        async with stage.stranger() as raw:
            await raw.send(r'["~wse:hi",{"identity":"\ud800","meta":{"name":"\udc00"}},null]')
            assert json.loads(await raw.recv()) == ["~wse:welcome", {"name": "\ufffd"}, None]
            assert stage.asked == ["\ufffd"]
            await stage.told(("joined", "eve"), ("connected", "eve"))
        await stage.closed(1000, "")


# -- numbers -----------------------------------------------------------------------------------

TOO_MUCH = {
    "a float": "1e999",
    "a negative float": "-1e999",
    "5000 digits": "9" * 5000,
    "beside a lone surrogate": r'["\ud800",1e999]',
}


@pytest.mark.parametrize("number", TOO_MUCH.values(), ids=TOO_MUCH)
@real_time
async def test_a_number_too_large_is_a_payload_error(number: str) -> None:
    path = "$[1]" if number.startswith("[") else "$"
    async with scene() as stage:
        async with stage.guest() as raw:
            for type in ("hello", "wait", "nobody handles it", "~wse:challenge"):
                await raw.send(f'["{type}",{number},null]')
                await stage.told(("error", ErrorCode.INVALID_PAYLOAD))
            for name in ("echo", "wait"):
                error = {"code": "wse.invalid-payload", "details": {"path": path}}
                await raw.send(f'["{name}",{number},"a1"]')
                assert json.loads(await raw.recv()) == ["~wse:response-err", error, "a1"]
                stamp = f"~wse:call:{name}:a1"
                await raw.send(f'["{name}",{number},"{stamp}"]')
                type, payload, outcome = json.loads(await raw.recv())
                assert (type, payload, outcome["code"]) == (stamp, None, "wse.invalid-payload")
            await still_works(raw)
        await stage.closed(1000, "")


@real_time
async def test_a_number_too_large_deep_in_a_payload() -> None:
    async with scene() as stage:
        async with stage.guest() as raw:
            await raw.send('["echo",[0,{"a":[1e999]}],"a1"]')
            type, error, stamp = json.loads(await raw.recv())
            assert (type, error["code"], stamp) == (
                "~wse:response-err",
                "wse.invalid-payload",
                "a1",
            )
            await still_works(raw)
        await stage.closed(1000, "")


@real_time
async def test_a_result_with_a_number_too_large_ends_its_call() -> None:
    async with scene() as stage:
        async with stage.guest() as raw:
            call = asyncio.ensure_future(stage.server.call("eve", "ping"))
            stamp = json.loads(await raw.recv())[2]
            await raw.send(f'["~wse:response",1e999,"{stamp}"]')
            with pytest.raises(InvalidPayload):
                await call
            await still_works(raw)
        await stage.closed(1000, "")


@pytest.mark.parametrize("member", ["identity", "meta"])
@pytest.mark.parametrize("number", TOO_MUCH.values(), ids=TOO_MUCH)
@real_time
async def test_a_number_too_large_in_a_hi(number: str, member: str) -> None:
    async with scene() as stage, stage.stranger() as raw:
        await raw.send(f'["~wse:hi",{{"{member}":{number}}}]')
        assert await end_of(raw) == PROTOCOL_ERROR
        await stage.told(("error", ErrorCode.PROTOCOL_VIOLATION))
        assert not stage.asked


@real_time
async def test_an_answer_with_a_number_too_large_is_refused() -> None:
    async def identify(attempt: Attempt) -> Decision:
        await attempt.challenge("?")
        return attempt.accept("eve")

    async with scene(identify) as stage, stage.stranger() as raw:
        await raw.send(HI)
        assert json.loads(await raw.recv()) == ["~wse:challenge", "?", None]
        await raw.send('["~wse:challenge",1e999,null]')
        assert await end_of(raw) == REFUSED
        await stage.told(("error", ErrorCode.INVALID_PAYLOAD))


# -- the wrong thing at the wrong time ---------------------------------------------------------

NO_HI = {
    "a message": '["hello",1,null]',
    "a call": '["add",{"a":5,"b":3},"a1"]',
    "a call in the old form": '["add",{"a":5,"b":3},"~wse:call:add:a1"]',
    "an answer to no challenge": '["~wse:challenge",1,null]',
    "a welcome": '["~wse:welcome",1,null]',
    "a reply": '["~wse:response",1,"1"]',
    "an error": '["~wse:response-err",{"code":"x"},"1"]',
    "a reply in the old form": '["~wse:call:add:1",8,{"success":true}]',
    "an unknown type": '["~wse:unknown",1,null]',
    "a hi in capitals": '["~WSE:HI",{"identity":"eve"},null]',
    "no payload": '["~wse:hi"]',
    "a payload of null": '["~wse:hi",null,null]',
    "a payload that is a text": '["~wse:hi","eve",null]',
    "a payload that is a number": '["~wse:hi",0,null]',
    "a payload that is an array": '["~wse:hi",["eve",{}],null]',
    "a payload that is a boolean": '["~wse:hi",true,null]',
}


@pytest.mark.parametrize("bad", NO_HI.values(), ids=NO_HI)
@real_time
async def test_a_first_message_that_is_no_hi(bad: str) -> None:
    async with scene() as stage, stage.stranger() as raw:
        await raw.send(bad)
        assert await end_of(raw) == PROTOCOL_ERROR
        await stage.told(("error", ErrorCode.PROTOCOL_VIOLATION))
        assert not stage.asked


@real_time
async def test_a_second_hi_is_ignored() -> None:
    async with scene() as stage:
        async with stage.guest() as raw:
            await raw.send('["~wse:hi",{"identity":"mallory","meta":{}},null]')
            await stage.told(("ignored", "~wse:hi", {"identity": "mallory", "meta": {}}))
            await still_works(raw)
            assert stage.asked == ["eve"]
            assert set(stage.server.clients) == {"bob", "eve"}
        await stage.closed(1000, "")


@real_time
async def test_a_second_hi_in_the_same_write_is_ignored() -> None:
    async with scene() as stage, wire(stage) as peer:
        peer.send(text(HI), text('["~wse:hi",{"identity":"mallory"}]'), GOODBYE)
        assert await peer.message() == ["~wse:welcome", None, None]
        assert await peer.end() == (1000, "")
        await stage.closed(
            1000,
            "",
            ("joined", "eve"),
            ("connected", "eve"),
            ("ignored", "~wse:hi", {"identity": "mallory"}),
        )
        assert stage.asked == ["eve"]


async def accept_later(attempt: Attempt) -> Decision:
    await asyncio.get_running_loop().run_in_executor(None, int)
    return attempt.accept("eve")


async def refuse_later(attempt: Attempt) -> Decision:
    await asyncio.get_running_loop().run_in_executor(None, int)
    return attempt.refuse()


async def challenge(attempt: Attempt) -> Decision:
    await attempt.challenge("?")
    return attempt.accept("eve")


@pytest.mark.parametrize("identify", [accept_later, challenge], ids=["decides", "waits"])
@real_time
async def test_many_a_hi_in_one_write_while_identify_works_is_one_question(
    identify: Identify,
) -> None:
    others = [text(f'["~wse:hi",{{"identity":{number}}}]') for number in range(3)]
    async with scene(identify) as stage, wire(stage) as peer:
        peer.send(text(HI), *others)
        if identify is challenge:
            assert await peer.message() == ["~wse:challenge", "?", None]
            peer.send(*others, text('["~wse:challenge",1]'), *others)
        assert await peer.message() == ["~wse:welcome", None, None]
        peer.send(GOODBYE)
        await stage.closed(1000, "", ("joined", "eve"), ("connected", "eve"))
        assert stage.asked == ["eve"]


@real_time
async def test_two_answers_in_one_write_answer_one_question() -> None:
    answers: list[Any] = []

    async def identify(attempt: Attempt) -> Decision:
        answers.append(await attempt.challenge("one"))
        answers.append(await attempt.challenge("two"))
        return attempt.accept("eve")

    async with scene(identify) as stage, wire(stage) as peer:
        peer.send(text(HI))
        assert await peer.message() == ["~wse:challenge", "one", None]
        peer.send(text('["~wse:challenge","first"]'), text('["~wse:challenge","too soon"]'))
        assert await peer.message() == ["~wse:challenge", "two", None]
        assert answers == ["first"]
        peer.send(text('["~wse:challenge","second"]'))
        assert await peer.message() == ["~wse:welcome", None, None]
        peer.send(GOODBYE)
        await stage.closed(1000, "", ("joined", "eve"), ("connected", "eve"))
        assert answers == ["first", "second"]


@real_time
async def test_an_answer_that_nobody_asked_for_is_ignored() -> None:
    async with scene() as stage:
        async with stage.guest() as raw:
            await raw.send('["~wse:challenge",3,null]')
            await stage.told(("ignored", "~wse:challenge", 3))
            await raw.send('["~wse:challenge"]')
            await stage.told(("ignored", "~wse:challenge", None))
            await still_works(raw)
        await stage.closed(1000, "")


MEANWHILE = [
    '["hello",1,null]',
    '["add",{"a":5,"b":3},"a1"]',
    '["~wse:hi",{"identity":"mallory"},null]',
    '["~wse:hi"]',
    '["~wse:response",1,"1"]',
    '["add",{"a":5,"b":3},7]',
    "{not json",
    "[" * 16 * KIB,
]


@real_time
async def test_what_comes_while_identify_decides_is_ignored() -> None:
    decide = asyncio.Event()

    async def identify(attempt: Attempt) -> Decision:
        await decide.wait()
        return attempt.accept("eve")

    async with scene(identify) as stage:
        async with stage.stranger() as raw:
            for message in (HI, *MEANWHILE, '["~wse:challenge",3,null]'):
                await raw.send(message)
            await taken(raw)
            await stage.told()
            decide.set()
            assert json.loads(await raw.recv()) == ["~wse:welcome", None, None]
            await stage.told(("joined", "eve"), ("connected", "eve"))
            await still_works(raw)
            assert stage.asked == ["eve"]
        await stage.closed(1000, "")


@real_time
async def test_an_answer_before_its_question_is_ignored() -> None:
    asking, answers = asyncio.Event(), []

    async def identify(attempt: Attempt) -> Decision:
        await asking.wait()
        answers.append(await attempt.challenge("?"))
        return attempt.accept("eve")

    async with scene(identify) as stage:
        async with stage.stranger() as raw:
            await raw.send(HI)
            await raw.send('["~wse:challenge","too early",null]')
            await taken(raw)
            asking.set()
            assert json.loads(await raw.recv()) == ["~wse:challenge", "?", None]
            for message in MEANWHILE:
                await raw.send(message)
            await raw.send('["~wse:challenge","in time",null]')
            await raw.send('["~wse:challenge","once more",null]')
            assert json.loads(await raw.recv()) == ["~wse:welcome", None, None]
            assert answers == ["in time"]
            assert stage.asked == ["eve"]
            await stage.told(("joined", "eve"), ("connected", "eve"))
            await still_works(raw)
        await stage.closed(1000, "")


# -- after the end -----------------------------------------------------------------------------

AFTERWARDS = [
    text(HI),
    text('["hello",1,null]'),
    text('["add",{"a":5,"b":3},"a1"]'),
    text('["~wse:challenge",3,null]'),
    text("{not json"),
]


async def fail_later(_: Attempt) -> Decision:
    await asyncio.get_running_loop().run_in_executor(None, int)
    raise Boom(SECRET)


@pytest.mark.parametrize(
    "identify", [Attempt.refuse, refuse_later, fail_later], ids=["at once", "later", "by a failure"]
)
@real_time
async def test_what_comes_after_a_refusal_is_not_heard(identify: Identify) -> None:
    async with scene(identify) as stage, wire(stage) as peer:
        peer.send(text(HI), *AFTERWARDS)
        assert await peer.end() == REFUSED
        peer.send(*AFTERWARDS, GOODBYE)
        await peer.eof()
        assert stage.asked == ["eve"]


@real_time
async def test_what_comes_after_a_protocol_error_is_not_heard() -> None:
    async with scene() as stage, wire(stage) as peer:
        peer.send(text('["hello",1,null]'), *AFTERWARDS)
        assert await peer.end() == PROTOCOL_ERROR
        peer.send(*AFTERWARDS, GOODBYE)
        await peer.eof()
        await stage.told(("error", ErrorCode.PROTOCOL_VIOLATION))
        assert not stage.asked


@real_time
async def test_what_comes_after_a_broken_frame_is_not_heard() -> None:
    async with scene() as stage, wire(stage) as peer:
        peer.send(frame(Opcode.TEXT, b"x", rsv=1), *AFTERWARDS)
        assert (await peer.end())[0] == 1002
        peer.send(*AFTERWARDS, GOODBYE)
        await peer.eof()
        await stage.told(("error", ErrorCode.CONNECTION_ERROR))
        assert not stage.asked


@real_time
async def test_what_comes_after_a_drop_is_not_heard() -> None:
    async with scene() as stage, wire(stage, welcomed=True) as peer:
        peer.send(text('["quit","banned",null]'), *AFTERWARDS)
        assert await peer.end() == (1000, "banned")
        peer.send(*AFTERWARDS, GOODBYE)
        await peer.eof()
        await stage.closed(1000, "banned")
        assert stage.asked == ["eve"]


def drop_user(stage: Scene) -> None:
    stage.server.drop_client("eve", "banned")


def drop_device(stage: Scene) -> None:
    [conn] = stage.server.clients["eve"].conns.values()
    conn.drop("banned")


@pytest.mark.parametrize("drop", [drop_user, drop_device])
@real_time
async def test_what_is_under_way_as_the_server_drops_is_not_heard(
    drop: Callable[[Scene], None],
) -> None:
    async with scene() as stage, wire(stage, welcomed=True) as peer:
        peer.send(*AFTERWARDS)
        drop(stage)
        assert await peer.end() == (1000, "banned")
        peer.send(*AFTERWARDS, GOODBYE)
        await peer.eof()
        await stage.closed(1000, "banned")
        assert stage.asked == ["eve"]


@real_time
async def test_what_an_evicted_device_says_still_is_not_heard() -> None:
    async with scene() as stage, wire(stage, welcomed=True) as oldest:
        others = [WseClient(f"ws://127.0.0.1:{stage.port}") for _ in range(2)]
        await others[0].connect("eve")
        await stage.told(("connected", "eve"))
        await others[1].connect("eve")
        oldest.send(*AFTERWARDS)
        assert await oldest.end() == (1000, "wse.clients-concurrency")
        oldest.send(*AFTERWARDS, GOODBYE)
        await oldest.eof()
        await stage.told(
            ("disconnected", "eve", 1000, "wse.clients-concurrency"), ("connected", "eve")
        )
        assert stage.asked == ["eve"] * 3
        for other in others:
            await other.close()
        await stage.told(
            ("disconnected", "eve", 1000, "wse.by-client"),
            ("disconnected", "eve", 1000, "wse.by-client"),
            ("left", "eve", 1000, "wse.by-client"),
        )


@real_time
async def test_a_hi_that_comes_too_late_is_not_heard() -> None:
    limits = Limits(authentication_timeout=0.05)
    async with scene(limits=limits) as stage, wire(stage) as peer:
        assert await peer.end() == (1013, "wse.authentication-timeout")
        peer.send(*AFTERWARDS, GOODBYE)
        await peer.eof()
        assert not stage.asked


@pytest.mark.parametrize("welcomed", [False, True], ids=["stranger", "guest"])
@real_time
async def test_what_comes_after_the_peers_own_close_is_not_heard(welcomed: bool) -> None:
    async with scene() as stage, wire(stage, welcomed=welcomed) as peer:
        peer.send(GOODBYE, *AFTERWARDS)
        assert await peer.end() == (1000, "")
        if welcomed:
            await stage.closed(1000, "")
        assert stage.asked == ["eve"] * welcomed


@real_time
async def test_a_peer_that_does_not_answer_a_close_is_cut_off() -> None:
    limits = Limits(close_timeout=0.05)
    async with scene(Attempt.refuse, limits) as stage, wire(stage) as peer:
        peer.send(text(HI))
        assert await peer.end() == REFUSED
        with contextlib.suppress(ConnectionResetError):
            await peer.eof()


# -- too large ---------------------------------------------------------------------------------


def hello_of(size: int) -> str:
    message = '["hello","",null]'
    return f'["hello","{"x" * (size - len(message))}",null]'


def hi_of(size: int) -> str:
    message = '["~wse:hi",{"identity":"eve","meta":""}]'
    return f'["~wse:hi",{{"identity":"eve","meta":"{"x" * (size - len(message))}"}}]'


@KINDS
@real_time
async def test_a_hi_above_the_strangers_limit(binary: bool) -> None:
    async with scene() as stage, stage.stranger() as raw:
        message = hi_of(16 * KIB + 1)
        await raw.send(message.encode() if binary else message)
        assert await end_of(raw) == TOO_LARGE
        await stage.told(("error", ErrorCode.CONNECTION_ERROR))
        assert not stage.asked


@KINDS
@real_time
async def test_a_message_above_the_limit(binary: bool) -> None:
    async with scene() as stage, stage.guest() as raw:
        message = hello_of(KIB * KIB + 1)
        await raw.send(message.encode() if binary else message)
        assert await end_of(raw) == TOO_LARGE
        await stage.closed(*TOO_LARGE, ("error", ErrorCode.CONNECTION_ERROR))


@real_time
async def test_messages_at_the_limit_pass() -> None:
    async with scene() as stage:
        async with stage.stranger() as raw:
            await raw.send(hi_of(16 * KIB))
            assert json.loads(await raw.recv()) == ["~wse:welcome", None, None]
            await stage.told(("joined", "eve"), ("connected", "eve"))
            message = hello_of(KIB * KIB)
            await raw.send(message)
            await stage.told(("hello", json.loads(message)[1]))
            await still_works(raw)
        await stage.closed(1000, "")


@real_time
async def test_a_frame_that_promises_more_than_there_could_ever_be() -> None:
    async with scene() as stage, wire(stage, welcomed=True) as peer:
        peer.send(b"\x81" + struct.pack("!BQ", 0x80 | 127, 1 << 62) + b"\0\0\0\0")
        assert await peer.end() == TOO_LARGE
        await stage.closed(*TOO_LARGE, ("error", ErrorCode.CONNECTION_ERROR))


def pieces(message: str, count: int) -> list[bytes]:
    """A message in this many frames."""
    data = message.encode()
    size = len(data) // (count - 1)
    parts = [data[size * index : size * (index + 1)] for index in range(count - 1)]
    parts.append(data[size * (count - 1) :])
    return [
        frame(0 if index else Opcode.TEXT, part, fin=index == count - 1)
        for index, part in enumerate(parts)
    ]


@pytest.mark.parametrize("fragments", [128, 1000], ids=["as it is", "more fragments allowed"])
@real_time
async def test_a_strangers_message_above_the_limit_in_a_thousand_fragments(fragments: int) -> None:
    limits = Limits(max_fragments=fragments)
    async with scene(limits=limits) as stage, wire(stage) as peer:
        peer.send(*pieces(hi_of(16 * KIB + 1), 1000))
        assert await peer.end() == TOO_LARGE
        peer.send(text(HI))
        await stage.told(("error", ErrorCode.CONNECTION_ERROR))
        assert not stage.asked


@pytest.mark.parametrize("fragments", [128, 1000], ids=["as it is", "more fragments allowed"])
@real_time
async def test_a_message_above_the_limit_in_a_thousand_fragments(fragments: int) -> None:
    limits = Limits(max_fragments=fragments, max_message_bytes=100 * KIB)
    async with scene(limits=limits) as stage, wire(stage, welcomed=True) as peer:
        peer.send(*pieces(hello_of(100 * KIB + 1), 1000))
        assert await peer.end() == TOO_LARGE
        await stage.closed(*TOO_LARGE, ("error", ErrorCode.CONNECTION_ERROR))


@real_time
async def test_as_many_fragments_as_allowed_pass_and_one_more_does_not() -> None:
    async with scene() as stage, wire(stage, welcomed=True) as peer:
        message = hello_of(4000)
        peer.send(*pieces(message, 128))
        await stage.told(("hello", json.loads(message)[1]))
        peer.send(*pieces(message, 129))
        assert await peer.end() == TOO_LARGE
        await stage.closed(*TOO_LARGE, ("error", ErrorCode.CONNECTION_ERROR))


@real_time
async def test_empty_fragments_without_an_end() -> None:
    async with scene() as stage, wire(stage, welcomed=True) as peer:
        peer.send(frame(Opcode.TEXT, b"", fin=False), *[frame(0, b"", fin=False)] * 1000)
        assert await peer.end() == TOO_LARGE
        await stage.closed(*TOO_LARGE, ("error", ErrorCode.CONNECTION_ERROR))


# -- frames against RFC 6455 -------------------------------------------------------------------


def closing(code: int) -> bytes:
    return frame(Opcode.CLOSE, struct.pack("!H", code))


BROKEN = {
    "reserved bit 1": frame(Opcode.TEXT, b'["hello",1,null]', rsv=4),
    "reserved bit 2": frame(Opcode.TEXT, b'["hello",1,null]', rsv=2),
    "reserved bit 3": frame(Opcode.BINARY, b'["hello",1,null]', rsv=1),
    "reserved bits in a ping": frame(Opcode.PING, b"", rsv=7),
    "a reserved opcode": frame(3, b'["hello",1,null]'),
    "a reserved control opcode": frame(11, b""),
    "not masked": frame(Opcode.TEXT, b'["hello",1,null]', masked=False),
    "a ping that is not masked": frame(Opcode.PING, b"", masked=False),
    "a ping in fragments": frame(Opcode.PING, b"", fin=False),
    "a ping too long": frame(Opcode.PING, b"x" * 126),
    "the end of nothing": frame(Opcode.CONT, b"x"),
    "a message within a message": frame(Opcode.TEXT, b"[", fin=False) + text("[]"),
    "a length in more bytes than it needs": b"\x81\xfe\x00\x01\0\0\0\0[",
    "a close of one byte": frame(Opcode.CLOSE, b"\x03"),
    "a close too long": frame(Opcode.CLOSE, b"\x03\xe8" + b"x" * 124),
    **{f"close code {code}": closing(code) for code in (0, 1, 999, 1004, 1005, 1006, 1015)},
    **{f"close code {code}": closing(code) for code in (1016, 2999, 5000, 65535)},
}


@pytest.mark.parametrize("welcomed", [False, True], ids=["stranger", "guest"])
@pytest.mark.parametrize("bad", BROKEN.values(), ids=BROKEN)
@real_time
async def test_a_frame_against_the_rules(bad: bytes, welcomed: bool) -> None:
    async with scene() as stage, wire(stage, welcomed=welcomed) as peer:
        peer.send(bad, text(HI))
        code, reason = await peer.end()
        assert code == 1002
        before = ("error", ErrorCode.CONNECTION_ERROR)
        await (stage.closed(code, reason, before) if welcomed else stage.told(before))
        assert stage.asked == ["eve"] * welcomed


@real_time
async def test_a_close_reason_that_is_not_utf8() -> None:
    async with scene() as stage, wire(stage, welcomed=True) as peer:
        peer.send(frame(Opcode.CLOSE, b"\x03\xe8\xff"))
        code, reason = await peer.end()
        assert code in (1002, 1007)
        await stage.closed(code, reason, ("error", ErrorCode.CONNECTION_ERROR))


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1011, 1014, 3000, 4999])
@real_time
async def test_a_legal_close_code_is_answered(code: int) -> None:
    async with scene() as stage, wire(stage, welcomed=True) as peer:
        peer.send(closing(code))
        assert await peer.end() == (code, "")
        await peer.eof()
        await stage.closed(code, "")


# -- peers that vanish -------------------------------------------------------------------------

WAYS = pytest.mark.parametrize("politely", [False, True], ids=["torn", "closed"])


async def vanish(raw: ClientConnection, *, politely: bool) -> None:
    if politely:
        await raw.close(1001)
    else:
        raw.transport.abort()
        await raw.wait_closed()


@WAYS
@real_time
async def test_a_peer_vanishes_during_identify(politely: bool) -> None:
    async def identify(attempt: Attempt) -> Decision:
        await stage.wait()
        return attempt.accept("eve")

    async with scene(identify) as stage, stage.stranger() as raw:
        await raw.send(HI)
        await stage.started.wait()
        await vanish(raw, politely=politely)
        await stage.cancelled.wait()
        await stage.told()


@WAYS
@real_time
async def test_a_peer_vanishes_during_the_challenge(politely: bool) -> None:
    ended = asyncio.Event()

    async def identify(attempt: Attempt) -> Decision:
        try:
            await attempt.challenge("?")
        except asyncio.CancelledError:
            ended.set()
            raise
        return attempt.accept("eve")

    async with scene(identify) as stage, stage.stranger() as raw:
        await raw.send(HI)
        assert json.loads(await raw.recv()) == ["~wse:challenge", "?", None]
        await vanish(raw, politely=politely)
        await ended.wait()
        await stage.told()


@real_time
async def test_an_identify_that_accepts_a_peer_that_has_vanished() -> None:
    async def identify(attempt: Attempt) -> Decision:
        with contextlib.suppress(asyncio.CancelledError):
            await stage.wait()
        return attempt.accept("eve")

    async with scene(identify) as stage, stage.stranger() as raw:
        await raw.send(HI)
        await stage.started.wait()
        await vanish(raw, politely=False)
        await stage.cancelled.wait()
        await stage.told()


@pytest.mark.parametrize("message", ['["wait",1,null]', '["wait",1,"a1"]'], ids=["message", "call"])
@WAYS
@real_time
async def test_a_peer_vanishes_during_a_handler(politely: bool, message: str) -> None:
    async with scene() as stage, stage.guest() as raw:
        await raw.send(message)
        await stage.started.wait()
        await vanish(raw, politely=politely)
        await stage.cancelled.wait()
        await stage.closed(1001 if politely else 1006, "", ("waits", 1))


@real_time
async def test_a_peer_vanishes_while_messages_wait_for_their_handlers() -> None:
    async with scene(limits=Limits(max_handlers=1)) as stage, stage.guest() as raw:
        for number in range(3):
            await raw.send(f'["wait",{number},null]')
        await taken(raw)
        await vanish(raw, politely=False)
        await stage.cancelled.wait()
        await stage.closed(1006, "", ("waits", 0))


@pytest.mark.parametrize("welcomed", [False, True], ids=["stranger", "guest"])
@pytest.mark.parametrize(
    "half",
    [b"\x81", text(HI)[:20], frame(Opcode.TEXT, b"[", fin=False)],
    ids=["half a head", "half a frame", "half a message"],
)
@real_time
async def test_a_peer_vanishes_in_mid_sentence(half: bytes, welcomed: bool) -> None:
    async with scene() as stage, wire(stage, welcomed=welcomed) as peer:
        peer.send(half)
        peer.tear()
        if welcomed:
            await stage.closed(1006, "")
        assert stage.asked == ["eve"] * welcomed


@real_time
async def test_a_peer_vanishes_during_the_upgrade() -> None:
    async with scene() as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: local")
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        assert not stage.listener.upgrading
        assert not stage.asked


# -- stamps ------------------------------------------------------------------------------------

BAD_STAMPS = {
    "a number": "7",
    "zero": "0",
    "false": "false",
    "an object": '{"success":true}',
    "an array": '["a1"]',
    "513 characters": json.dumps("x" * 513),
    "513 characters in the old form": json.dumps("~wse:call:add:".ljust(513, "x")),
    "a megabyte": json.dumps("x" * 1_000_000),
    "a megabyte in the old form": json.dumps("~wse:call:add:" + "x" * 1_000_000),
    "a number too large": "1e999",
}


@pytest.mark.parametrize("name", ["add", "hello", "nobody handles it"])
@pytest.mark.parametrize("stamp", BAD_STAMPS.values(), ids=BAD_STAMPS)
@real_time
async def test_a_stamp_that_is_no_short_text(stamp: str, name: str) -> None:
    async with scene() as stage, stage.guest() as raw:
        await raw.send(f'["{name}",{{"a":5,"b":3}},{stamp}]')
        assert await end_of(raw) == PROTOCOL_ERROR
        await stage.closed(*PROTOCOL_ERROR, ("error", ErrorCode.PROTOCOL_VIOLATION))


def test_the_frames_sent_here_are_those_of_the_library() -> None:
    for size in (0, 125, 126, 65535, 65536):
        ours = frame(Opcode.TEXT, b"x" * size, masked=False)
        assert ours == Frame(Opcode.TEXT, b"x" * size).serialize(mask=False)
