"""What the tests of the carriers share: frames made by hand, raw peers, and a receiver."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from ssl import Purpose, SSLContext, create_default_context
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import trustme

from wse import Limits
from wse.transports import tcp
from wse.transports.base import Handshake, Pages, Refusal, Transport

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MASK = b"\x01\x80\xff\x3c"


def request(
    headers: Mapping[str, str | None] | None = None,
    *,
    line: str = "GET / HTTP/1.1",
) -> bytes:
    """A request for a WebSocket; a header that is None is left out."""
    merged = {**UPGRADE, **(headers or {})}
    lines = [line, *(f"{name}: {value}" for name, value in merged.items() if value is not None)]
    return "\r\n".join([*lines, "", ""]).encode()


def accept_key(key: str) -> str:
    return base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()  # noqa: S324


def mask(data: bytes, key: bytes = _MASK) -> bytes:
    repeated = key * (len(data) // 4 + 1)
    size = len(data)
    both = int.from_bytes(data, "big") ^ int.from_bytes(repeated[:size], "big")
    return both.to_bytes(size, "big")


class F(NamedTuple):
    """A frame (RFC 6455 section 5.2), well-formed unless it says otherwise."""

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0
    """The three reserved bits."""
    wrong_mask: bool = False
    """Masked by a server, unmasked by a client."""
    size_bytes: int = 0
    """How many bytes to write the length in, 1, 2 or 8; as few as can be when 0."""
    claims: int | None = None
    """Another length than the payload's."""

    def __repr__(self) -> str:
        shown = f"{self.payload[:8].hex()}:{len(self.payload)}"
        return f"{self.opcode:x}{'' if self.fin else '+'}r{self.rsv}[{shown}]"

    def to(self, side: str) -> bytes:
        """Its bytes, as this side must get them."""
        size = len(self.payload) if self.claims is None else self.claims
        form = self.size_bytes or (1 if size < 126 else 2 if size < 65536 else 8)
        masked = (side == "server") is not self.wrong_mask
        head = bytes([self.fin << 7 | self.rsv << 4 | self.opcode])
        mark = masked << 7
        if form == 1:
            head += bytes([mark | size])
        elif form == 2:
            head += struct.pack("!BH", mark | 126, size)
        else:
            head += struct.pack("!BQ", mark | 127, size)
        return head + (_MASK + mask(self.payload) if masked else self.payload)


def closing(code: int, reason: str | bytes = b"") -> F:
    text = reason.encode() if isinstance(reason, str) else reason
    return F(CLOSE, code.to_bytes(2, "big") + text)


def deflated(data: bytes) -> bytes:
    """The payload of a compressed message (RFC 7692 section 7.2.1)."""
    packer = zlib.compressobj(wbits=-15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


Heard = tuple[int, bytes]
"""A frame's first byte and its payload, unmasked."""


class Raw:
    """A peer that speaks WebSocket by hand.

    Args:
        side: Which side the other end, the one under test, is on.
    """

    def __init__(
        self, side: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.side = side
        self.reader = reader
        self.writer = writer

    def send(self, *frames: F) -> None:
        self.writer.write(b"".join(frame.to(self.side) for frame in frames))

    async def frame(self) -> Heard:
        """The next frame."""
        head, size = await self.reader.readexactly(2)
        masked, size = size & 0x80, size & 0x7F
        assert bool(masked) is (self.side == "client")
        if size == 126:
            size = int.from_bytes(await self.reader.readexactly(2), "big")
            assert size >= 126
        elif size == 127:
            size = int.from_bytes(await self.reader.readexactly(8), "big")
            assert size >= 65536
        key = await self.reader.readexactly(4) if masked else bytes(4)
        return head, mask(await self.reader.readexactly(size), key)

    async def frames(self) -> list[Heard]:
        """Every frame, until the other end closes."""
        heard: list[Heard] = []
        with suppress(asyncio.IncompleteReadError):
            while True:
                heard.append(await self.frame())
        return heard

    async def until_close(self) -> list[Heard]:
        """Every frame up to the close frame, or until the other end closes."""
        heard: list[Heard] = []
        with suppress(asyncio.IncompleteReadError):
            while not heard or heard[-1][0] != 0x80 | CLOSE:
                heard.append(await self.frame())
        return heard

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers (in lower case) of an HTTP response."""
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = text.split("\r\n")[:-2]
        pairs = (line.partition(": ") for line in lines)
        return int(status.split(" ")[1]), {name.lower(): value for name, _, value in pairs}

    async def answer_upgrade(self, **headers: str) -> dict[str, str]:
        """As a server: read the request, answer with 101; the request's headers."""
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        pairs = (line.partition(": ") for line in text.split("\r\n")[1:])
        asked = {name.lower(): value for name, _, value in pairs}
        told = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": accept_key(asked["sec-websocket-key"]),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        lines = ["HTTP/1.1 101 Switching Protocols", *(f"{n}: {v}" for n, v in told.items())]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        return asked

    def reset(self) -> None:
        """Tear the connection: the other end gets an RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


class Recorder:
    """A receiver that notes what it is told and, if it likes, echoes.

    What it echoes leaves at the end of the turn, or with `flush`, as an endpoint's would.
    """

    def __init__(self, transport: Transport, *, echo: bool = False) -> None:
        self.transport = transport
        self.events: list[tuple[Any, ...]] = []
        """`("text" or "binary", data)`, `("writable",)`, `("lost", code, reason, failed)`."""
        self.on_message: Callable[[bytes], None] | None = None
        self._echo = echo
        self._waiting: list[bytes] = []
        self._framing = {binary: transport.framing(binary=binary) for binary in (False, True)}
        self._changed = asyncio.Event()

    def receive(self, data: bytes, text: bool) -> None:
        self._note("text" if text else "binary", data)
        if self.on_message is not None:
            self.on_message(data)
        if self._echo:
            self.post(data, binary=not text)

    def flush(self) -> None:
        frames, self._waiting = self._waiting, []
        if frames:
            self.transport.write(frames)

    def writable(self) -> None:
        self._note("writable")

    def lost(self, code: int, reason: str, *, failed: bool = False) -> None:
        self._note("lost", int(code), str(reason), failed)

    def post(self, data: bytes, *, binary: bool = False) -> None:
        """Send at the end of this turn."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        self._waiting.append(self._framing[binary](data))

    def write(self, *messages: bytes, binary: bool = False) -> None:
        """Send now."""
        self.transport.write([self._framing[binary](data) for data in messages])

    @property
    def messages(self) -> list[bytes]:
        return [event[1] for event in self.events if event[0] in ("text", "binary")]

    @property
    def end(self) -> tuple[Any, ...] | None:
        """Code, reason and whether the carrier failed it; None before the end."""
        ends = [event[1:] for event in self.events if event[0] == "lost"]
        assert len(ends) <= 1, "told of the end twice"
        return ends[0] if ends else None

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something that depends on what was told is true."""
        while not condition():
            assert self.end is None, f"ended with {self.end}"
            self._changed.clear()
            await self._changed.wait()

    async def received(self, count: int) -> None:
        """Wait for so many messages."""
        await self.until(lambda: len(self.messages) >= count)

    async def ended(self) -> tuple[Any, ...]:
        await self.until(lambda: self.end)
        end = self.end
        assert end is not None
        return end

    def _note(self, *event: object) -> None:
        assert self.end is None, f"{event[0]} after the end"
        self.events.append(event)
        self._changed.set()


class Acceptance(NamedTuple):
    """What an acceptor was given."""

    receiver: Recorder
    handshake: Handshake
    subprotocol: str | None


class Acceptor:
    """Takes every connection, with a recorder each."""

    def __init__(self, limits: Limits, *, echo: bool = False, speaks: Sequence[str] = ()) -> None:
        self.limits = limits
        self.accepted: asyncio.Queue[Acceptance] = asyncio.Queue()
        self.transports: list[Transport] = []
        self.refusal: Refusal | None = None
        self._echo = echo
        self._speaks = speaks

    def vet(self, handshake: Handshake) -> Refusal | None:
        return self.refusal

    def select(self, offered: Sequence[str]) -> str | None:
        return next((name for name in self._speaks if name in offered), None)

    def open(self, transport: Transport, handshake: Handshake, subprotocol: str | None) -> None:
        self.transports.append(transport)
        receiver = Recorder(transport, echo=self._echo)
        self.accepted.put_nowait(Acceptance(receiver, handshake, subprotocol))
        transport.start(receiver)

    async def receiver(self) -> Recorder:
        """That of the next connection."""
        return (await self.accepted.get()).receiver


@asynccontextmanager
async def listening(
    acceptor: Acceptor,
    *,
    unix: str | None = None,
    ssl: SSLContext | None = None,
    compression: bool = False,
    pages: Pages = MappingProxyType({}),
) -> AsyncIterator[tcp.Listener]:
    """A listener on a free port; everything is torn down at the end."""
    listener = await tcp.listen(
        acceptor, "127.0.0.1", 0, unix=unix, ssl=ssl, compression=compression, pages=pages
    )
    try:
        yield listener
    finally:
        listener.stop()
        for transport in acceptor.transports:
            transport.abort()
        await listener.wait_closed()


@asynccontextmanager
async def raw_client(port: int, *, upgraded: bool = True) -> AsyncIterator[Raw]:
    """A peer of our server; with the upgrade behind it, unless told otherwise."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    peer = Raw("server", reader, writer)
    try:
        if upgraded:
            writer.write(request())
            status, _ = await peer.head()
            assert status == 101
        yield peer
    finally:
        await peer.close()


@asynccontextmanager
async def raw_server() -> AsyncIterator[tuple[str, asyncio.Queue[Raw]]]:
    """A peer of our client: its URL, and the connections that come."""
    peers: list[Raw] = []
    came: asyncio.Queue[Raw] = asyncio.Queue()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(Raw("client", reader, writer))
        came.put_nowait(peers[-1])

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/", came
    finally:
        server.close()
        for peer in peers:
            await peer.close()
        await server.wait_closed()


async def dial(
    url: str, limits: Limits, dialer: tcp.TcpDialer | None = None, **headers: str
) -> Transport:
    """Our client's way to a server."""
    transport, _ = await (dialer or tcp.TcpDialer())(
        url, subprotocols=["wse-test"], headers=headers, limits=limits
    )
    return transport


@cache
def tls_contexts() -> tuple[SSLContext, SSLContext]:
    """For a server, and for a client that trusts it."""
    authority = trustme.CA()
    serving = create_default_context(Purpose.CLIENT_AUTH)
    trusting = create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    authority.configure_trust(trusting)
    return serving, trusting


def on_loop(kind: str, story: Coroutine[Any, Any, None]) -> None:
    """Run a story on asyncio's own loop or on uvloop's, bounded in time."""
    factory = asyncio.new_event_loop
    if kind == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(asyncio.wait_for(story, 30))


class FakeStream(asyncio.Transport):
    """A socket's asyncio transport, without a socket.

    Args:
        half_closes: Whether it can say that nothing more follows, and read on; TLS cannot.
    """

    def __init__(self, *, half_closes: bool = True) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        """What each call of `write` was given."""
        self.eof = False
        self._closing = False
        self._aborted = False
        self._reading = True
        self._half_closes = half_closes
        self._stuck = False
        self._backlog = 0
        self._loop = asyncio.get_running_loop()
        self._protocol: asyncio.BufferedProtocol
        self._lost = False
        self._arriving = b""

    @property
    def written(self) -> bytes:
        return b"".join(self.writes)

    def stick(self) -> None:
        """The peer stops reading."""
        self._stuck = True

    def unstick(self) -> None:
        self._stuck = False
        waited, self._backlog = self._backlog, 0
        if waited:
            self._protocol.resume_writing()
        if self._closing:
            self._lose()

    def arrive(self, *frames: F, side: str) -> None:
        self.feed(b"".join(frame.to(side) for frame in frames))

    def feed(self, data: bytes) -> None:
        """Let bytes come, in as many reads as it takes; while nobody reads they wait."""
        self._arriving += data
        self._read()

    def end(self) -> None:
        """The peer says no more."""
        if not self._protocol.eof_received():
            self.close()

    def lose(self) -> None:
        """The connection breaks."""
        self._lose()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.BufferedProtocol)
        self._protocol = protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = (high, low)

    def get_write_buffer_size(self) -> int:
        return self._backlog

    def write(self, data: Any) -> None:
        assert not self.eof, "a write after the end"
        assert not self._lost, "a write after the connection was lost"
        self.writes.append(bytes(data))
        if self._stuck:
            paused = self._backlog > 0
            self._backlog += len(data)
            if not paused:
                self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        return self._half_closes

    def write_eof(self) -> None:
        assert self._half_closes
        self.eof = True

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        assert self._reading, "paused twice"
        self._reading = False

    def resume_reading(self) -> None:
        assert not self._reading, "resumed twice"
        self._reading = True
        self._loop.call_soon(self._read)

    def is_closing(self) -> bool:
        return self._closing

    def is_aborted(self) -> bool:
        return self._aborted

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._backlog:
                self._loop.call_soon(self._lose)

    def abort(self) -> None:
        self._closing = self._aborted = True
        self._loop.call_soon(self._lose)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def _read(self) -> None:
        while self._arriving and self._reading and not self._closing:
            memory = self._protocol.get_buffer(-1)
            assert isinstance(memory, memoryview)
            part, self._arriving = self._arriving[: len(memory)], self._arriving[len(memory) :]
            memory[: len(part)] = part
            self._protocol.buffer_updated(len(part))

    def _lose(self) -> None:
        if not self._lost:
            self._lost = self._closing = True
            self._backlog = 0
            self._protocol.connection_lost(None)
            del self._protocol
