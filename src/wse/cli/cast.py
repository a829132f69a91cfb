"""Who plays in `wse demo`: an application, the devices of its users, and a cable to cut."""

from __future__ import annotations

import asyncio
import hmac
from contextlib import suppress
from typing import Any, Self

import msgspec

from ..auth import Attempt, Decision, hmac_challenge, hmac_solver
from ..backoff import Backoff
from ..client import WseClient
from ..codes import Status
from ..connection import WseConnection
from ..errors import NotAuthorized, WseError
from ..identity import WseIdentity
from ..server import WseServer
from .story import PATIENCE, Story, noticed, sent

__all__ = ["COLOURS", "KEYS", "TOKENS", "Cable", "Device", "House"]

TOKENS = {"alice": "rain-42"}
KEYS = {"bob": "tulip-7"}
COLOURS = {
    "server": "bold",
    "stranger": "dim",
    "alice": "cyan",
    "bob": "magenta",
    "mallory": "red",
}

# -- the server --------------------------------------------------------------------------------


class Numbers(msgspec.Struct):
    """What `add` is given."""

    a: int | float
    b: int | float


class Whose(msgspec.Struct):
    """What `battery` is given."""

    who: str


def _device_of(conn: WseConnection | None) -> str:
    """How the story calls a device: alice/phone."""
    if conn is None or not conn.cid:
        return "stranger"
    match conn.meta:
        case {"device": str(device)} if device.isalnum() and len(device) <= 10:
            return f"{conn.cid}/{device}"
    return conn.cid


def _is_visitor(name: str) -> bool:
    taken = {*TOKENS, *KEYS, *COLOURS}
    return name.isalnum() and len(name) <= 12 and name.lower() not in taken


class House:
    """The application: who may come in, and what it offers.

    Args:
        story: Is told what the server sees.
    """

    def __init__(self, story: Story) -> None:
        self.doors = asyncio.Event()
        """Visitors from outside wait for them to open."""
        self.server: WseServer = WseServer(self.identify, conn_per_user=2, timeout=PATIENCE)
        self._saw = story.saw
        when = self.server.when
        when.joined(self.joined)
        when.left(self.left)
        when.connected(self.connected)
        when.suspended(self.suspended)
        when.resumed(self.resumed)
        when.disconnected(self.disconnected)
        when.error(self.failed)
        self.server.channel.on("say", self.say)
        self.server.register("add", self.add)
        self.server.register("battery", self.battery)
        self.server.register("who", self.who)
        self.server.register("whoami", self.whoami)

    async def identify(self, attempt: Attempt) -> Decision:
        self._saw(sent("stranger", "server", "hi", attempt.identity))
        match attempt.identity:
            case {"name": str(name), "token": str(token)} if name in TOKENS:
                if not hmac.compare_digest(token.encode(), TOKENS[name].encode()):
                    return attempt.refuse()
            case str(name) if name in KEYS:
                proved = await hmac_challenge(attempt, KEYS[name])
                verb = "holds" if proved else "does not hold"
                self._saw(noticed("server", "stranger", f"{verb} the key of {name}"))
                if not proved:
                    return attempt.refuse()
            case str(name) if _is_visitor(name):
                await self.doors.wait()
            case _:
                return attempt.refuse()
        return attempt.accept(name, f"Hello, {name}!")

    def joined(self, client: WseIdentity, _: Any) -> None:
        self._saw(noticed("server", client.cid, "joined"))
        if self.doors.is_set():
            self.server.broadcast("joined", {"who": client.cid}, but=client.cid)

    def left(self, client: WseIdentity, code: int, reason: str) -> None:
        self._saw(noticed("server", client.cid, _ended("left", code, reason)))
        if self.doors.is_set():
            self.server.broadcast("left", {"who": client.cid})

    def connected(self, conn: WseConnection) -> None:
        self._saw(noticed("server", _device_of(conn), "connected"))

    def suspended(self, conn: WseConnection, code: int, reason: str) -> None:
        self._saw(noticed("server", _device_of(conn), _ended("suspended", code, reason)))

    def resumed(self, conn: WseConnection) -> None:
        self._saw(noticed("server", _device_of(conn), "resumed"))

    def disconnected(self, conn: WseConnection, code: int, reason: str) -> None:
        self._saw(noticed("server", _device_of(conn), _ended("disconnected", code, reason)))

    def failed(self, error: WseError, conn: WseConnection | None) -> None:
        self._saw(noticed("server", _device_of(conn), f"error {error.code}", error.details))

    def say(self, conn: WseConnection, text: str) -> None:
        self._saw(sent(_device_of(conn), "server", "say", text))
        self.server.broadcast("said", {"who": conn.cid, "text": text})

    def add(self, conn: WseConnection, numbers: Numbers) -> float:
        self._called(conn, "add", msgspec.to_builtins(numbers))
        return numbers.a + numbers.b

    async def battery(self, conn: WseConnection, whose: Whose) -> Any:
        self._called(conn, "battery", msgspec.to_builtins(whose))
        level = await self.server.call(whose.who, "battery")
        self._saw(sent(whose.who, "server", "result", level))
        return level

    def who(self, conn: WseConnection, payload: Any) -> list[str]:
        self._called(conn, "who", payload)
        return sorted(self.server.clients)

    def whoami(self, conn: WseConnection, payload: Any) -> dict[str, Any]:
        self._called(conn, "whoami", payload)
        devices = len(self.server.clients[conn.cid].conns)
        return {"you": conn.cid, "devices": devices, "address": conn.remote_addr}

    def _called(self, conn: WseConnection, name: str, payload: Any) -> None:
        self._saw(sent(_device_of(conn), "server", f"call {name}", payload))


def _ended(how: str, code: int, reason: str) -> str:
    return f"{how}: {code} {reason}".rstrip()


# -- the devices -------------------------------------------------------------------------------


class Device:
    """A client that tells what it sees.

    Args:
        story: Is told.
        name: How the story calls it.
        port: The server's, or that of a cable to it.
        key: Its secret, to answer challenges with.
    """

    def __init__(self, story: Story, name: str, port: int, key: str = "") -> None:
        self.name = name
        self._story = story
        self._solve = hmac_solver(key)
        self.client = client = WseClient(
            f"ws://127.0.0.1:{port}",
            timeout=PATIENCE,
            reconnect=True,
            backoff=Backoff(first=0.3, factor=1),
        )
        client.challenge(self._challenged)
        client.channel.on("note", lambda payload: self._hears("note", payload))
        client.channel.on("said", lambda payload: self._hears("said", payload))
        client.register("battery", self._battery)
        client.when.ready(lambda welcome: self._hears("welcome", welcome))
        client.when.suspended(lambda code, reason: self._notices(_ended("suspended", code, reason)))
        client.when.resumed(lambda _: self._notices("resumed"))
        client.when.closed(lambda code, reason: self._notices(_ended("closed", code, reason)))
        client.when.updated(self._updated)

    async def connect(self, identity: Any) -> None:
        """Connect; being refused is told, and no error here."""
        try:
            await self.client.connect(identity, {"device": self.name.partition("/")[2]})
        except NotAuthorized as error:
            self._notices(f"connect raised {type(error).__name__}")

    async def call(self, name: str, payload: Any = None) -> None:
        """Call the server, and tell how it ends."""
        try:
            self._hears("result", await self.client.call(name, payload))
        except WseError as error:
            self._hears(f"error {error.code}", error.details)

    def _challenged(self, quest: Any) -> str:
        self._hears("challenge", quest)
        answer = self._solve(quest)
        self._story.saw(sent(self.name, "server", "answer", answer))
        return answer

    def _battery(self, payload: Any) -> dict[str, int]:
        self._hears("call battery", payload)
        return {"percent": 80}

    def _updated(self, status: Status) -> None:
        if status is Status.RE_CONNECTING:
            self._notices(status)

    def _hears(self, what: str, value: Any) -> None:
        self._story.saw(sent("server", self.name, what, value))

    def _notices(self, what: str) -> None:
        self._story.saw(noticed(self.name, "server", what))


class Cable:
    """The way of one device to the server: a TCP proxy that can be cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ends: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._proxy = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.port: int = self._proxy.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._proxy.close()
        self.cut()

    def cut(self) -> None:
        """Break what goes through it, without a word."""
        for end in self._ends:
            end.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_connection("127.0.0.1", self._port)
        self._ends |= {writer, there}
        try:
            await asyncio.gather(_carry(reader, there), _carry(back, writer))
        finally:
            self._ends -= {writer, there}


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
