"""RFC 6455, case by case, by raw peers on real sockets: our server and our client."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest
from carriers import (
    BINARY,
    CLOSE,
    CONT,
    KEY,
    PING,
    PONG,
    TEXT,
    Acceptor,
    F,
    Heard,
    Raw,
    Recorder,
    accept_key,
    closing,
    dial,
    listening,
    raw_client,
    raw_server,
    request,
)
from support import real_time

from wse import Limits

LIMIT = 70_000
LIMITS = Limits(max_message_bytes=LIMIT, max_stranger_message_bytes=LIMIT, max_fragments=16)

PROTOCOL_ERROR = (1002, "wse.protocol-error", True)
INVALID_DATA = (1007, "wse.protocol-error", True)
TOO_BIG = (1009, "wse.message-too-large", True)
NORMAL = (1000, "", False)

LAST = F(TEXT, b"still here")


class Case(NamedTuple):
    """What a raw peer sends to an echo, what it hears, and how the echo sees the end.

    With `NORMAL`, the connection must have survived: one more message and a close follow.
    """

    name: str
    sent: tuple[F, ...]
    heard: tuple[Heard, ...] = ()
    end: tuple[int, str, bool] = NORMAL


def text(data: bytes) -> Heard:
    return 0x80 | TEXT, data


def binary(data: bytes) -> Heard:
    return 0x80 | BINARY, data


def pong(data: bytes) -> Heard:
    return 0x80 | PONG, data


def fragments(opcode: int, *parts: bytes) -> tuple[F, ...]:
    """One message in several frames."""
    last = len(parts) - 1
    return tuple(F(CONT if n else opcode, part, fin=n == last) for n, part in enumerate(parts))


def fails(name: str, *sent: F, end: tuple[int, str, bool] = PROTOCOL_ERROR) -> Case:
    """A case that ends the connection, after the message that came before was echoed."""
    return Case(name, (F(TEXT, b"before"), *sent), (text(b"before"),), end)


SIZES = (0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537, LIMIT)
PAYLOADS = {size: (b"0123456789abcdef" * (size // 16 + 1))[:size] for size in SIZES}
OUTSIDE_ASCII = "Grüße, κόσμε, \ud7ff\ue000\ufffd, \U0001f600\U0010ffff".encode()
NOT_UTF8 = {
    "a lone continuation byte": b"\x80",
    "a byte that never occurs": b"\xff",
    "an overlong slash": b"\xc0\xaf",
    "a surrogate": b"\xed\xa0\x80",
    "above U+10FFFF": b"\xf4\x90\x80\x80",
    "cut off": b"\xce\xba\xe1\xbd",
}
LEGAL_CODES = (1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999)
ILLEGAL_CODES = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
MIB = 1 << 20

CASES = [
    # 5.2 and 5.6: data frames and their lengths
    *(Case(f"text of {n} bytes", (F(TEXT, p),), (text(p),)) for n, p in PAYLOADS.items()),
    *(Case(f"binary of {n} bytes", (F(BINARY, p),), (binary(p),)) for n, p in PAYLOADS.items()),
    Case(
        "many frames at once",
        tuple(F(TEXT, b"%d" % n) for n in range(500)),
        tuple(text(b"%d" % n) for n in range(500)),
    ),
    fails("a byte above the limit", F(TEXT, bytes(LIMIT + 1)), end=TOO_BIG),
    fails("a head that claims 4 EiB", F(BINARY, b"", claims=1 << 62), end=TOO_BIG),
    fails("much more than the limit", F(BINARY, bytes(4 * MIB)), end=TOO_BIG),
    fails("125 bytes, length in two", F(TEXT, bytes(125), size_bytes=2)),
    fails("nothing, length in eight", F(TEXT, b"", size_bytes=8)),
    fails("65535 bytes, length in eight", F(BINARY, PAYLOADS[65_535], size_bytes=8)),
    *(fails(f"reserved bits {bits:03b}", F(TEXT, b"x", rsv=bits)) for bits in range(1, 8)),
    *(
        fails(f"reserved bit on opcode {opcode:x}", F(opcode, rsv=4))
        for opcode in (BINARY, CLOSE, PING, PONG)
    ),
    fails("reserved bit on a fragment", F(TEXT, b"x", fin=False), F(CONT, b"y", rsv=2)),
    fails("reserved bit above the limit", F(TEXT, bytes(LIMIT + 1), rsv=1)),
    *(fails(f"opcode {opcode:x}", F(opcode, b"x")) for opcode in (3, 4, 5, 6, 7)),
    *(fails(f"opcode {opcode:x}", F(opcode)) for opcode in (0xB, 0xC, 0xD, 0xE, 0xF)),
    fails("opcode 3 above the limit", F(3, bytes(LIMIT + 1))),
    # 5.1: masking
    *(
        fails(f"opcode {opcode:x} masked wrongly", F(opcode, b"", wrong_mask=True))
        for opcode in (TEXT, BINARY, CLOSE, PING, PONG)
    ),
    fails("a fragment masked wrongly", F(TEXT, b"x", fin=False), F(CONT, b"y", wrong_mask=True)),
    fails("masked wrongly above the limit", F(TEXT, bytes(LIMIT + 1), wrong_mask=True)),
    # 5.4: fragments
    Case("two fragments", fragments(TEXT, b"ab", b"cd"), (text(b"abcd"),)),
    Case("binary fragments", fragments(BINARY, b"\xff", b"\x00"), (binary(b"\xff\x00"),)),
    Case("empty fragments", fragments(TEXT, b"", b"a", b"", b""), (text(b"a"),)),
    Case("nothing in fragments", fragments(TEXT, b"", b""), (text(b""),)),
    Case("as many as may be", fragments(TEXT, *[b"x"] * 16), (text(b"x" * 16),)),
    fails("one too many", *fragments(TEXT, *[b"x"] * 17), end=TOO_BIG),
    Case(
        "messages in fragments, one after the other",
        (*fragments(TEXT, b"a", b"b"), F(TEXT, b"c"), *fragments(BINARY, b"d", b"e")),
        (text(b"ab"), text(b"c"), binary(b"de")),
    ),
    Case(
        "the limit in fragments, a ping between",
        (F(BINARY, bytes(LIMIT), fin=False), F(PING, bytes(125)), F(CONT)),
        (pong(bytes(125)), binary(bytes(LIMIT))),
    ),
    fails("above the limit in fragments", *fragments(TEXT, bytes(LIMIT), b"x"), end=TOO_BIG),
    fails("a continuation of nothing", F(CONT, b"x")),
    fails("an unfinished continuation of nothing", F(CONT, b"x", fin=False)),
    Case(
        "a continuation too many",
        (*fragments(TEXT, b"a", b"b"), F(CONT, b"c")),
        (text(b"ab"),),
        PROTOCOL_ERROR,
    ),
    fails("text amid fragments", F(TEXT, b"a", fin=False), F(TEXT, b"b")),
    fails("binary amid fragments", F(TEXT, b"a", fin=False), F(BINARY, b"b")),
    fails("fragments amid fragments", F(TEXT, b"a", fin=False), F(TEXT, b"b", fin=False)),
    # 5.5.2 and 5.5.3: ping and pong
    Case("an empty ping", (F(PING),), (pong(b""),)),
    Case("a ping of 125 bytes", (F(PING, b"\xfe" * 125),), (pong(b"\xfe" * 125),)),
    Case(
        "ten pings",
        tuple(F(PING, b"%d" % n) for n in range(10)),
        tuple(pong(b"%d" % n) for n in range(10)),
    ),
    Case("pongs that nobody asked for", (F(PONG), F(PONG, bytes(125)))),
    Case(
        "pings and pongs amid fragments",
        (
            F(TEXT, b"a", fin=False),
            F(PING, b"1"),
            F(CONT, b"b", fin=False),
            F(PONG, b"2"),
            F(PING, b"3"),
            F(CONT, b"c"),
        ),
        (pong(b"1"), pong(b"3"), text(b"abc")),
    ),
    *(
        fails(f"opcode {opcode:x} of 126 bytes", F(opcode, bytes(126)))
        for opcode in (CLOSE, PING, PONG)
    ),
    *(fails(f"opcode {opcode:x} cut up", F(opcode, fin=False)) for opcode in (CLOSE, PING, PONG)),
    fails("a ping above the limit", F(PING, bytes(LIMIT + 1))),
    fails("a ping, length in two bytes", F(PING, b"x", size_bytes=2)),
    # 8.1: UTF-8
    Case("text outside ASCII", (F(TEXT, OUTSIDE_ASCII),), (text(OUTSIDE_ASCII),)),
    Case(
        "characters cut by fragments",
        fragments(TEXT, *(OUTSIDE_ASCII[n : n + 3] for n in range(0, len(OUTSIDE_ASCII), 3))),
        (text(OUTSIDE_ASCII),),
    ),
    *(fails(f"text with {why}", F(TEXT, bad), end=INVALID_DATA) for why, bad in NOT_UTF8.items()),
    *(
        fails(f"fragments with {why}", *fragments(TEXT, b"ok", bad, b""), end=INVALID_DATA)
        for why, bad in NOT_UTF8.items()
    ),
    fails(
        "bad text in the first of fragments that never end",
        F(TEXT, b"\xff", fin=False),
        end=INVALID_DATA,
    ),
    fails(
        "bad text across fragments that never end",
        F(TEXT, b"\xf4", fin=False),
        F(CONT, b"\x90", fin=False),
        end=INVALID_DATA,
    ),
    *(
        Case(f"binary with {why}", (F(BINARY, bad),), (binary(bad),))
        for why, bad in NOT_UTF8.items()
    ),
    # 5.5.1 and 7: closing
    Case("a close without a code", (F(CLOSE),), ((0x80 | CLOSE, b""),), (1005, "", False)),
    *(
        Case(
            f"a close with {code}",
            (closing(code, "bye"),),
            ((0x80 | CLOSE, code.to_bytes(2, "big") + b"bye"),),
            (code, "bye", False),
        )
        for code in LEGAL_CODES
    ),
    Case(
        "a close with the longest reason",
        (closing(1000, "é" * 61 + "."),),
        ((0x80 | CLOSE, b"\x03\xe8" + ("é" * 61 + ".").encode()),),
        (1000, "é" * 61 + ".", False),
    ),
    Case(
        "a close amid fragments",
        (F(TEXT, b"never", fin=False), closing(1001)),
        ((0x80 | CLOSE, b"\x03\xe9"),),
        (1001, "", False),
    ),
    Case(
        "frames after a close",
        (closing(1000, "bye"), F(TEXT, b"late" * 200), F(PING), F(7), closing(1001)),
        ((0x80 | CLOSE, b"\x03\xe8bye"),),
        (1000, "bye", False),
    ),
    Case(
        "a close after messages",
        (F(TEXT, b"1"), F(PING, b"2"), closing(1000, "bye")),
        (pong(b"2"), text(b"1"), (0x80 | CLOSE, b"\x03\xe8bye")),
        (1000, "bye", False),
    ),
    *(fails(f"a close with {code}", closing(code)) for code in ILLEGAL_CODES),
    fails("a close of one byte", F(CLOSE, b"\x03")),
    fails("a close whose reason is no text", closing(1000, b"\xce\xba\xff"), end=INVALID_DATA),
    fails("frames after a failure", F(CONT), F(TEXT, b"late"), F(PING), closing(1000)),
]


async def tell(peer: Raw, case: Case, *, bytewise: bool) -> None:
    survives = case.end == NORMAL
    frames = (*case.sent, LAST, closing(1000)) if survives else case.sent
    if not bytewise:
        peer.send(*frames)
        return
    for frame in frames:
        for byte in frame.to(peer.side):
            peer.writer.write(bytes([byte]))
            await asyncio.sleep(0)


def expected(case: Case) -> list[Heard]:
    code, reason, failed = case.end
    if case.end == NORMAL:
        return [*case.heard, text(LAST.payload), (0x80 | CLOSE, b"\x03\xe8")]
    if failed:
        return [*case.heard, (0x80 | CLOSE, code.to_bytes(2, "big") + reason.encode())]
    return list(case.heard)


def in_order(frames: list[Heard], opcode: int) -> list[Heard]:
    return [frame for frame in frames if frame[0] & 0x0F == opcode]


def check(case: Case, heard: list[Heard], echo: Recorder) -> None:
    """Pongs may overtake messages; each kind keeps its order, the close frame is the last."""
    wanted = expected(case)
    for opcode in (TEXT, BINARY, PONG, CLOSE):
        assert in_order(heard, opcode) == in_order(wanted, opcode)
    assert len(heard) == len(wanted)
    assert heard[-1] == wanted[-1]
    assert echo.messages == [data for head, data in heard if head & 0x0F in (TEXT, BINARY)]
    assert echo.end == case.end


def is_small(case: Case) -> bool:
    return sum(len(frame.payload) for frame in case.sent) < 500 and len(case.sent) < 100


RUNS = [
    pytest.param(case, bytewise, id=f"{case.name}{', bytewise' if bytewise else ''}")
    for case in CASES
    for bytewise in (False, True)
    if not bytewise or is_small(case)
]


@pytest.mark.parametrize(("case", "bytewise"), RUNS)
@real_time
async def test_server(case: Case, bytewise: bool) -> None:
    acceptor = Acceptor(LIMITS, echo=True)
    async with listening(acceptor) as listener, raw_client(listener.port) as peer:
        echo = await acceptor.receiver()
        await tell(peer, case, bytewise=bytewise)
        heard = await peer.frames()
        await echo.ended()
    check(case, heard, echo)


@pytest.mark.parametrize(("case", "bytewise"), RUNS)
@real_time
async def test_client(case: Case, bytewise: bool) -> None:
    async with raw_server() as (url, peers):
        dialling = asyncio.ensure_future(dial(url, LIMITS))
        peer = await peers.get()
        await peer.answer_upgrade()
        transport = await dialling
        echo = Recorder(transport, echo=True)
        transport.start(echo)
        await tell(peer, case, bytewise=bytewise)
        heard = await peer.until_close()
        await echo.ended()
        await peer.close()
        await transport.wait_closed()
    check(case, heard, echo)


# -- ends without a close frame (7.1.5) ----------------------------------------------------------


@real_time
async def test_half_close_ends_with_1006_after_the_echo() -> None:
    acceptor = Acceptor(LIMITS, echo=True)
    async with listening(acceptor) as listener, raw_client(listener.port) as peer:
        echo = await acceptor.receiver()
        peer.send(F(TEXT, b"last words"))
        peer.writer.write_eof()
        assert await peer.frames() == [text(b"last words")]
        assert await echo.ended() == (1006, "", False)


@real_time
async def test_end_within_a_frame_is_1006_and_no_message() -> None:
    acceptor = Acceptor(LIMITS, echo=True)
    async with listening(acceptor) as listener, raw_client(listener.port) as peer:
        echo = await acceptor.receiver()
        peer.send(F(TEXT, b"cut", claims=100))
        peer.writer.write_eof()
        assert await peer.frames() == []
        assert await echo.ended() == (1006, "", False)
        assert echo.messages == []


@real_time
async def test_reset_is_1006() -> None:
    acceptor = Acceptor(LIMITS)
    async with listening(acceptor) as listener, raw_client(listener.port) as peer:
        receiver = await acceptor.receiver()
        peer.reset()
        assert await receiver.ended() == (1006, "", False)
        await receiver.transport.wait_closed()


@real_time
async def test_the_peer_of_our_close_may_answer_after_more_messages() -> None:
    acceptor = Acceptor(LIMITS, echo=True)
    async with listening(acceptor) as listener, raw_client(listener.port) as peer:
        receiver = await acceptor.receiver()
        receiver.transport.close(4321, "enough")
        assert await peer.frame() == (0x80 | CLOSE, (4321).to_bytes(2, "big") + b"enough")
        peer.send(F(TEXT, b"on its way"), F(PING), F(TEXT, b"half", fin=False), closing(4321))
        assert await peer.frames() == []
        await receiver.transport.wait_closed()
        assert receiver.events == []


@real_time
async def test_a_server_that_failed_reads_on_so_that_its_words_arrive() -> None:
    acceptor = Acceptor(LIMITS, echo=True)
    async with listening(acceptor) as listener, raw_client(listener.port) as peer:
        receiver = await acceptor.receiver()
        peer.send(F(TEXT, b"first"), F(BINARY, bytes(16 * MIB)))
        await peer.writer.drain()
        assert await peer.frames() == [
            text(b"first"),
            (0x80 | CLOSE, b"\x03\xf1wse.message-too-large"),
        ]
        assert await receiver.ended() == TOO_BIG
        await peer.close()
        await receiver.transport.wait_closed()


# -- the opening handshake (4) --------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="plain"),
        pytest.param({"Connection": "keep-alive, Upgrade"}, id="as Firefox says it"),
        pytest.param({"Connection": "upgrade", "Upgrade": "WebSocket"}, id="in other cases"),
        pytest.param({"Sec-WebSocket-Extensions": "permessage-deflate"}, id="extension declined"),
        pytest.param({"Sec-WebSocket-Protocol": "unknown"}, id="unknown subprotocol"),
    ],
)
@real_time
async def test_upgrade(headers: dict[str, str]) -> None:
    acceptor = Acceptor(LIMITS, speaks=["known"])
    async with listening(acceptor) as listener, raw_client(listener.port, upgraded=False) as peer:
        peer.writer.write(request(headers))
        status, told = await peer.head()
        assert status == 101
        assert told["upgrade"].lower() == "websocket"
        assert told["connection"].lower() == "upgrade"
        assert told["sec-websocket-accept"] == accept_key(KEY) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert "sec-websocket-protocol" not in told
        assert "sec-websocket-extensions" not in told
        assert (await acceptor.accepted.get()).subprotocol is None


@real_time
async def test_upgrade_selects_a_subprotocol() -> None:
    acceptor = Acceptor(LIMITS, speaks=["best", "good"])
    async with listening(acceptor) as listener, raw_client(listener.port, upgraded=False) as peer:
        peer.writer.write(request({"Sec-WebSocket-Protocol": "unknown, good, best"}))
        _, told = await peer.head()
        assert told["sec-websocket-protocol"] == "best"
        assert (await acceptor.accepted.get()).subprotocol == "best"


@real_time
async def test_upgrade_tells_what_was_asked() -> None:
    acceptor = Acceptor(LIMITS)
    async with listening(acceptor) as listener, raw_client(listener.port, upgraded=False) as peer:
        asked = request({"Cookie": "a=1; b=2", "X-One": "1"}, line="GET /a/b?c=d&c=e&f= HTTP/1.1")
        peer.writer.write(asked[:-2] + b"Cookie: c=3\r\nx-one: 2\r\n\r\n")
        await peer.head()
        handshake = (await acceptor.accepted.get()).handshake
        assert handshake.path == "/a/b"
        assert handshake.query == {"c": "e", "f": ""}
        assert handshake.cookies == {"a": "1", "b": "2", "c": "3"}
        assert handshake.headers["X-ONE"] == "1, 2"
        assert handshake.remote_addr == "127.0.0.1"


@real_time
async def test_frames_in_the_segment_of_the_upgrade() -> None:
    acceptor = Acceptor(LIMITS, echo=True)
    async with listening(acceptor) as listener, raw_client(listener.port, upgraded=False) as peer:
        frames = F(TEXT, b"early").to("server") + F(PING, b"!").to("server")
        peer.writer.write(request() + frames + closing(1000).to("server"))
        assert (await peer.head())[0] == 101
        assert sorted(await peer.frames()) == sorted(
            [pong(b"!"), text(b"early"), (0x80 | CLOSE, b"\x03\xe8")]
        )


@real_time
async def test_upgrade_bytewise() -> None:
    acceptor = Acceptor(LIMITS, echo=True)
    async with listening(acceptor) as listener, raw_client(listener.port, upgraded=False) as peer:
        for byte in request() + F(TEXT, b"slow").to("server"):
            peer.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await peer.head())[0] == 101
        assert await peer.frame() == text(b"slow")


@pytest.mark.parametrize(
    ("asked", "status", "told"),
    [
        pytest.param(request(line="POST / HTTP/1.1"), 405, {"allow": "GET"}, id="another method"),
        pytest.param(
            request({"Sec-WebSocket-Version": "8"}),
            400,
            {"sec-websocket-version": "13"},
            id="another version",
        ),
        pytest.param(
            request({"Sec-WebSocket-Version": None}),
            400,
            {"sec-websocket-version": "13"},
            id="no version",
        ),
        pytest.param(request({"Sec-WebSocket-Key": None}), 400, {}, id="no key"),
        pytest.param(request({"Sec-WebSocket-Key": "c2hvcnQ="}), 400, {}, id="a short key"),
        pytest.param(request({"Sec-WebSocket-Key": "no base64!"}), 400, {}, id="a bad key"),
        pytest.param(
            request()[:-2] + f"Sec-WebSocket-Key: {KEY}\r\n\r\n".encode(), 400, {}, id="two keys"
        ),
        pytest.param(request(line="GET / HTTP/1.0"), 505, {}, id="HTTP/1.0"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            426,
            {"upgrade": "websocket"},
            id="no upgrade",
        ),
        pytest.param(
            request({"Connection": "keep-alive"}), 426, {"upgrade": "websocket"}, id="no Connection"
        ),
        pytest.param(request({"Upgrade": "h2c"}), 426, {"upgrade": "websocket"}, id="h2c"),
        pytest.param(request({"Content-Length": "5"}) + b"hello", 400, {}, id="a body"),
        pytest.param(request({"Bad Name": "x"}), 400, {}, id="a bad header"),
        pytest.param(b"\x16\x03\x01 hello\r\n\r\n", 400, {}, id="garbage"),
        pytest.param(b"\r\n\r\n", 400, {}, id="nothing"),
        pytest.param(request({"X-Long": "x" * 20_000}), 431, {}, id="a long head"),
        pytest.param(b"GET /" + b"x" * 20_000, 431, {}, id="a long head without an end"),
        pytest.param(b"GET /" + b"x" * 2_000_000, 431, {}, id="a very long head"),
    ],
)
@real_time
async def test_refused_over_http(asked: bytes, status: int, told: dict[str, str]) -> None:
    acceptor = Acceptor(LIMITS)
    async with listening(acceptor) as listener, raw_client(listener.port, upgraded=False) as peer:
        peer.writer.write(asked)
        code, headers = await peer.head()
        assert code == status
        assert headers.items() >= told.items()
        assert headers["connection"] == "close"
        body = await peer.reader.read()
        assert len(body) == int(headers["content-length"])
        assert acceptor.accepted.empty()


@real_time
async def test_a_refused_peer_gets_one_answer() -> None:
    acceptor = Acceptor(LIMITS)
    async with listening(acceptor) as listener, raw_client(listener.port, upgraded=False) as peer:
        peer.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers = await peer.head()
        peer.writer.write(request())
        assert status == 426
        assert len(await peer.reader.read()) == int(headers["content-length"])
        assert acceptor.accepted.empty()


@pytest.mark.parametrize("part", [b"", b"GET / HT", request()[:-2]])
@real_time
async def test_slow_upgrade_is_ended(part: bytes) -> None:
    acceptor = Acceptor(Limits(upgrade_timeout=0.02))
    async with listening(acceptor) as listener, raw_client(listener.port, upgraded=False) as peer:
        peer.writer.write(part)
        assert await peer.reader.read() == b""
        assert not listener.upgrading
        assert acceptor.accepted.empty()


@real_time
async def test_upgraded_in_time_is_left_alone() -> None:
    acceptor = Acceptor(Limits(upgrade_timeout=0.02), echo=True)
    async with listening(acceptor) as listener, raw_client(listener.port) as peer:
        await acceptor.receiver()
        async with raw_client(listener.port, upgraded=False) as slow:
            assert await slow.reader.read() == b""
        peer.send(F(TEXT, b"here"))
        assert await peer.frame() == text(b"here")


# -- the opening handshake, our client --------------------------------------------------------


@real_time
async def test_client_asks_for_a_websocket() -> None:
    async with raw_server() as (url, peers):
        dialling = asyncio.ensure_future(dial(url + "a?b=c", LIMITS, Authorization="Bearer t"))
        peer = await peers.get()
        asked = await peer.answer_upgrade()
        transport = await dialling
        assert asked["upgrade"].lower() == "websocket"
        assert asked["connection"].lower() == "upgrade"
        assert asked["sec-websocket-version"] == "13"
        assert asked["sec-websocket-protocol"] == "wse-test"
        assert asked["authorization"] == "Bearer t"
        assert "sec-websocket-extensions" not in asked
        transport.abort()
        await transport.wait_closed()


@real_time
async def test_frames_in_the_segment_of_the_answer() -> None:
    async with raw_server() as (url, peers):
        dialling = asyncio.ensure_future(dial(url, LIMITS))
        peer = await peers.get()
        await peer.answer_upgrade()
        peer.send(F(TEXT, b"early"), closing(1000, "at once"))
        transport = await dialling
        receiver = Recorder(transport)
        transport.start(receiver)
        assert await receiver.ended() == (1000, "at once", False)
        assert receiver.messages == [b"early"]
