"""Peers by the thousand, on plain sockets: what each sends is bytes, what it hears is counted."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from carriers import CLOSE, PING, PONG, TEXT, F, request
from programs import Program, program

import wse

LOOPS = ("asyncio", "uvloop")
SOURCE = Path(wse.__file__).parent.parent

__all__ = ["Attacked", "Peer", "attacked", "crowd", "linux", "say", "upgrade"]

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")


def say(*messages: Any) -> bytes:
    """Messages as a client sends them."""
    return b"".join(F(TEXT, json.dumps(one).encode()).to("server") for one in messages)


def upgrade(identity: str | None = None, *, extensions: str | None = None) -> bytes:
    """The upgrade and, in the same breath, who this is."""
    asked = request(
        {"Sec-WebSocket-Protocol": "wse-default-json", "Sec-WebSocket-Extensions": extensions}
    )
    return asked if identity is None else asked + say(["~wse:hi", {"identity": identity}])


def _many_files() -> None:
    """Let this process, and those it starts, have as many sockets open as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Peer(asyncio.Protocol):
    """One socket that speaks first and then reads, or does not.

    Args:
        opening: What it sends when it is connected.
        heard: Told of each message.
        pongs: Whether it answers pings, as browsers do.
    """

    def __init__(
        self,
        opening: bytes = b"",
        *,
        heard: Callable[[bytes], None] = lambda _: None,
        pongs: bool = True,
    ) -> None:
        self.status = 0
        """Of the HTTP answer."""
        self.head = b""
        """The whole of it."""
        self.closed: tuple[int, str] | None = None
        """Code and reason of the close frame that came."""
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.welcomed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done with the first message."""
        self.count = 0
        """Messages that came, after the welcome."""
        self._opening = opening
        self._heard = heard
        self._pongs = pongs
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._opening:
            transport.write(self._opening)

    def connection_lost(self, _: Exception | None) -> None:
        self.gone.set_result(None)
        if not self.welcomed.done():
            self.welcomed.cancel()

    def data_received(self, data: bytes) -> None:
        data = self._data + data
        if not self.status:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                self._data = data
                return
            self.head = data[:end]
            self.status = int(data.split(b" ", 2)[1])
            data = data[end:]
        self._data = data[self._frames(data) :] if self.status == 101 else b""

    def _frames(self, data: bytes) -> int:
        start = 0
        while len(data) - start >= 2:
            size, body = data[start + 1], start + 2
            if size >= 126:
                body += 2 if size == 126 else 8
                size = int.from_bytes(data[start + 2 : body], "big")
            if len(data) < body + size:
                break
            self._frame(data[start] & 0x0F, data[body : body + size])
            start = body + size
        return start

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == TEXT and not self.welcomed.done():
            self.welcomed.set_result(None)
        elif opcode == TEXT:
            self.count += 1
            self._heard(payload)
        elif opcode == PING and self._pongs:
            self.transport.write(F(PONG, payload).to("server"))
        elif opcode == CLOSE:
            self.closed = (int.from_bytes(payload[:2], "big"), payload[2:].decode())
            self.transport.write(F(CLOSE, payload).to("server"))


@asynccontextmanager
async def crowd(port: int, *peers: Peer, welcomed: bool = False) -> AsyncIterator[None]:
    """Connect all of them, a hundred at a time; those that are left at the end hang up.

    Args:
        port: The server's.
        peers: Not connected yet.
        welcomed: Whether to wait until each of them is.
    """
    loop = asyncio.get_running_loop()
    turns = asyncio.Semaphore(100)

    async def connect(peer: Peer) -> None:
        async with turns:
            await loop.create_connection(lambda: peer, "127.0.0.1", port)
            if welcomed:
                await peer.welcomed

    try:
        await asyncio.gather(*(connect(peer) for peer in peers))
        yield
    finally:
        for peer in peers:
            if hasattr(peer, "transport") and not peer.gone.done():
                peer.transport.abort()
        await asyncio.gather(*(peer.gone for peer in peers if hasattr(peer, "transport")))


class Attacked:
    """A server in a process of its own, seen from outside."""

    def __init__(self, running: Program, port: int) -> None:
        self.program = running
        self.port = port
        self._proc = Path("/proc") / str(running.process.pid)

    def memory(self) -> int:
        """Bytes of RAM that it holds."""
        return self._status("VmRSS")

    def forget_peak(self) -> int:
        """Let `peak` begin anew; bytes of RAM that it holds now."""
        (self._proc / "clear_refs").write_text("5", encoding="utf-8")
        return self.memory()

    def peak(self) -> int:
        """The most that it held since."""
        return self._status("VmHWM")

    def sockets(self) -> int:
        """How many it has open."""
        links = (self._proc / "fd").iterdir()
        return sum("socket:" in str(link.readlink()) for link in links)

    def _status(self, name: str) -> int:
        for line in (self._proc / "status").read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(name)


@asynccontextmanager
async def attacked(
    *options: str, loop: str = "uvloop", limits: Mapping[str, float] = MappingProxyType({})
) -> AsyncIterator[Attacked]:
    """`wse serve` with the server in `victim.py`, at a free port.

    Args:
        options: Of the command line.
        loop: Whose event loop: "uvloop" or "asyncio".
        limits: Others than the default ones.
    """
    _many_files()
    here = Path(__file__).parent
    # Without the wiretap, which takes time and memory.
    env = {"PYTHONPATH": str(SOURCE), "LIMITS": json.dumps(dict(limits)), "LOOP": loop}
    arguments = ("serve", "victim", "--port", "0", "--log-level", "error", *options)
    async with program(*arguments, cwd=here, env=env) as running:
        line = await running.until("Listening on")
        yield Attacked(running, int(line.rpartition(":")[2]))
