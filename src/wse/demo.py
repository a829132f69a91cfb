"""`wse demo`: a server, its users and an impostor on real sockets, told as it happens.

What is printed is what an end saw: a message where it arrived, an event where it was raised. The
story waits for each moment that it announces, and fails for one that does not come, and for one
that nobody announced.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec
from rich.console import Console
from rich.text import Text

from .auth import Attempt, Decision, hmac_challenge, hmac_solver
from .backoff import Backoff
from .client import WseClient
from .codes import Status
from .connection import WseConnection
from .errors import NotAuthorized, WseError
from .identity import WseIdentity
from .server import WseServer
from .transports.tcp import Listener

__all__ = ["DemoFailed", "play", "printable", "shown"]

PATIENCE = 5.0
"""Seconds that the story waits for a moment before it calls it missing."""
CHAPTER_PAUSE, STEP_PAUSE = 0.4, 0.1
"""Seconds, for readers at a terminal."""

TOKENS = {"alice": "rain-42"}
KEYS = {"bob": "tulip-7"}
COLOURS = {
    "server": "bold",
    "stranger": "dim",
    "alice": "cyan",
    "bob": "magenta",
    "mallory": "red",
    "cable": "yellow",
}


class DemoFailed(Exception):
    """Something did not happen as it should."""


class _Anything:
    """Equal to every value: a nonce cannot be foretold."""

    def __eq__(self, _: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


ANYTHING = _Anything()
NOTHING = object()


def printable(text: str) -> str:
    """Text of a peer's, without what would steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown(value: Any) -> str:
    """A payload as JSON that a terminal can show."""
    return printable(msgspec.json.encode(value).decode())


# -- telling -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that was seen: sent by one to another, or noticed by one about another."""

    who: str
    sign: str
    whom: str
    what: str
    value: Any

    def __str__(self) -> str:
        return f"{self.who} {self.sign} {self.whom} {self.text}"

    @property
    def text(self) -> str:
        if self.value is NOTHING or self.value is ANYTHING:
            return printable(self.what)
        return f"{printable(self.what)} {shown(self.value)}"


def sent(who: str, whom: str, what: str, value: Any = NOTHING) -> Moment:
    return Moment(who, "→", whom, what, value)


def noticed(who: str, about: str, what: str, value: Any = NOTHING) -> Moment:
    return Moment(who, "•", about, what, value)


class Story:
    """Prints moments as they are seen, and compares them with those that are awaited."""

    def __init__(self, console: Console) -> None:
        self.seen = 0
        self.chapters = 0
        self._console = console
        self._live = True
        self._strict = True
        self._unexplained: list[Moment] = []
        self._changed = asyncio.Event()

    async def chapter(self, title: str, sentence: str) -> None:
        """Begin the next chapter."""
        self.chapters += 1
        self.heading(f"{self.chapters}  {title}", sentence)
        await self._pause(CHAPTER_PAUSE)

    def heading(self, title: str, sentence: str) -> None:
        self._console.print()
        self._console.rule(Text(title, "bold"), align="left", style="dim")
        self._console.print(Text(f"  {sentence}\n"))

    def saw(self, moment: Moment) -> None:
        """It has just happened."""
        if not self._live:
            return
        self.seen += 1
        self._console.print(_line(moment), no_wrap=True, overflow="ellipsis")
        if self._strict:
            self._unexplained.append(moment)
            self._changed.set()

    async def see(self, *expected: Moment) -> None:
        """Wait until all of these have happened, in whatever order.

        Raises:
            DemoFailed: one did not happen in time.
        """
        missing = list(expected)
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while self._explain(missing):
                    self._changed.clear()
                    await self._changed.wait()
        if missing:
            raise DemoFailed(_complaint(missing, self._unexplained))
        await self._pause(STEP_PAUSE)

    def end(self) -> None:
        """From now on anything may happen.

        Raises:
            DemoFailed: something happened that was never awaited.
        """
        if self._unexplained:
            raise DemoFailed(_complaint([], self._unexplained))
        self._strict = False

    def silence(self) -> None:
        """Print nothing any more."""
        self._live = False

    def _explain(self, missing: list[Moment]) -> bool:
        for moment in tuple(self._unexplained):
            if moment in missing:
                missing.remove(moment)
                self._unexplained.remove(moment)
        return bool(missing)

    async def _pause(self, seconds: float) -> None:
        if self._console.is_terminal:
            await asyncio.sleep(seconds)


def _complaint(missing: Sequence[Moment], unexplained: Sequence[Moment]) -> str:
    return "; ".join(
        [f"this did not happen: {moment}" for moment in missing]
        + [f"nobody expected this: {moment}" for moment in unexplained]
    )


def _line(moment: Moment) -> Text:
    return Text.assemble(
        "  ", _name(moment.who), f" {moment.sign} ", _name(moment.whom), f"  {moment.text}"
    )


def _name(name: str) -> tuple[str, str]:
    return f"{name:12}", COLOURS.get(name.partition("/")[0], "green")


# -- the server --------------------------------------------------------------------------------


class Numbers(msgspec.Struct):
    """What `add` is given."""

    a: int | float
    b: int | float


class Whose(msgspec.Struct):
    """What `battery` is given."""

    who: str


def _device(name: str, meta: Any) -> str:
    """How the story calls a device: alice/phone."""
    match meta:
        case {"device": str(device)} if device.isalnum() and len(device) <= 10:
            return f"{name}/{device}"
    return name


def _device_of(conn: WseConnection | None) -> str:
    return "stranger" if conn is None or not conn.cid else _device(conn.cid, conn.meta)


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


# -- the story ---------------------------------------------------------------------------------

ALICE = {"name": "alice", "token": TOKENS["alice"]}
BOB_COMES_IN = (
    sent("stranger", "server", "hi", "bob"),
    sent("server", "bob/desk", "challenge", ANYTHING),
    sent("bob/desk", "server", "answer", ANYTHING),
    noticed("server", "stranger", "holds the key of bob"),
    noticed("server", "bob", "joined"),
    noticed("server", "bob/desk", "connected"),
    sent("server", "bob/desk", "welcome", "Hello, bob!"),
)


class Tale:
    """The seven chapters, and their cast.

    Args:
        story: What is seen.
        server: A server of the house.
        port: Its port.
        cable: Bob's way to it.
    """

    def __init__(self, story: Story, server: WseServer, port: int, cable: Cable) -> None:
        self._story = story
        self._server = server
        self._cable = cable
        self._phone, self._laptop, self._tablet = (
            Device(story, f"alice/{name}", port) for name in ("phone", "laptop", "tablet")
        )
        self._desk = Device(story, "bob/desk", cable.port, KEYS["bob"])
        self._impostor = Device(story, "mallory/pc", port, "rose-7")

    async def tell(self) -> None:
        """Let it happen.

        Raises:
            DemoFailed: something did not happen as it should.
        """
        await self._users_and_devices()
        await self._impostor_refused()
        await self._challenges()
        await self._messages()
        await self._procedures()
        await self._device_too_many()
        await self._torn_connection()
        self._story.end()

    async def close(self) -> None:
        """Everybody leaves."""
        for device in (self._phone, self._laptop, self._tablet, self._desk, self._impostor):
            await device.client.close()

    async def _users_and_devices(self) -> None:
        await self._story.chapter(
            "Users and devices",
            "Alice signs in with her token, on two devices. She joins once.",
        )
        await self._phone.connect(ALICE)
        await self._story.see(
            sent("stranger", "server", "hi", ALICE),
            noticed("server", "alice", "joined"),
            noticed("server", "alice/phone", "connected"),
            sent("server", "alice/phone", "welcome", "Hello, alice!"),
        )
        await self._laptop.connect(ALICE)
        await self._story.see(
            sent("stranger", "server", "hi", ALICE),
            noticed("server", "alice/laptop", "connected"),
            sent("server", "alice/laptop", "welcome", "Hello, alice!"),
        )

    async def _impostor_refused(self) -> None:
        await self._story.chapter(
            "An impostor",
            "Mallory claims to be Alice, with a made-up token.",
        )
        made_up = {"name": "alice", "token": "sun-1"}
        await self._impostor.connect(made_up)
        await self._story.see(
            sent("stranger", "server", "hi", made_up),
            noticed("mallory/pc", "server", "closed: 1000 wse.not-authorized"),
            noticed("mallory/pc", "server", "connect raised NotAuthorized"),
        )

    async def _challenges(self) -> None:
        await self._story.chapter(
            "A challenge",
            "Bob proves that he holds a key without showing it. Mallory tries another.",
        )
        await self._desk.connect("bob")
        await self._story.see(*BOB_COMES_IN)
        await self._impostor.connect("bob")
        await self._story.see(
            sent("stranger", "server", "hi", "bob"),
            sent("server", "mallory/pc", "challenge", ANYTHING),
            sent("mallory/pc", "server", "answer", ANYTHING),
            noticed("server", "stranger", "does not hold the key of bob"),
            noticed("mallory/pc", "server", "closed: 1000 wse.not-authorized"),
            noticed("mallory/pc", "server", "connect raised NotAuthorized"),
        )

    async def _messages(self) -> None:
        await self._story.chapter(
            "Messages",
            "To one device, to one user, and from a device to everybody.",
        )
        phone, _ = self._server.clients["alice"].conns.values()
        phone.send("note", "for this phone")
        await self._story.see(sent("server", "alice/phone", "note", "for this phone"))
        self._server.send("alice", "note", "for alice")
        await self._story.see(
            sent("server", "alice/phone", "note", "for alice"),
            sent("server", "alice/laptop", "note", "for alice"),
        )
        self._laptop.client.send("say", "Hello, everybody!")
        said = {"who": "alice", "text": "Hello, everybody!"}
        await self._story.see(
            sent("alice/laptop", "server", "say", "Hello, everybody!"),
            sent("server", "alice/phone", "said", said),
            sent("server", "alice/laptop", "said", said),
            sent("server", "bob/desk", "said", said),
        )

    async def _procedures(self) -> None:
        await self._story.chapter(
            "Procedures",
            'Alice adds 5 and 3, then "five" and 3; then the server asks a device of Bob.',
        )
        await self._laptop.call("add", {"a": 5, "b": 3})
        await self._story.see(
            sent("alice/laptop", "server", "call add", {"a": 5, "b": 3}),
            sent("server", "alice/laptop", "result", 8),
        )
        await self._laptop.call("add", {"a": "five", "b": 3})
        await self._story.see(
            sent("server", "alice/laptop", "error wse.invalid-payload", {"path": "$.a"}),
        )
        await self._laptop.call("battery", {"who": "bob"})
        await self._story.see(
            sent("alice/laptop", "server", "call battery", {"who": "bob"}),
            sent("server", "bob/desk", "call battery", None),
            sent("bob", "server", "result", {"percent": 80}),
            sent("server", "alice/laptop", "result", {"percent": 80}),
        )

    async def _device_too_many(self) -> None:
        await self._story.chapter(
            "One device too many",
            "Two each is the limit here: Alice's tablet comes, her oldest device goes.",
        )
        await self._tablet.connect(ALICE)
        await self._story.see(
            sent("stranger", "server", "hi", ALICE),
            noticed("server", "alice/phone", "disconnected: 1000 wse.clients-concurrency"),
            noticed("alice/phone", "server", "closed: 1000 wse.clients-concurrency"),
            noticed("server", "alice/tablet", "connected"),
            sent("server", "alice/tablet", "welcome", "Hello, alice!"),
        )

    async def _torn_connection(self) -> None:
        await self._story.chapter(
            "A torn connection",
            "Bob's cable is cut. His client comes back by itself, and proves itself again.",
        )
        self._cable.cut()
        await self._story.see(
            noticed("bob/desk", "server", "closed: 1006"),
            noticed("bob/desk", "server", "RE_CONNECTING"),
            noticed("server", "bob/desk", "disconnected: 1006"),
            noticed("server", "bob", "left: 1006"),
            *BOB_COMES_IN,
        )
        self._server.send("bob", "note", "good to have you back")
        await self._story.see(sent("server", "bob/desk", "note", "good to have you back"))


async def play(console: Console, *, port: int = 4200, once: bool = False) -> None:
    """Tell the story, then stay up for visitors until cancelled.

    Args:
        console: Where to.
        port: The server's; another one when it is taken.
        once: End after the story.

    Raises:
        DemoFailed: something did not happen as it should.
        OSError: the server cannot listen.
    """
    story = Story(console)
    house = House(story)
    async with AsyncExitStack() as stack:
        listener = await _listen(stack, house.server, port)
        url = f"ws://127.0.0.1:{listener.port}"
        if port not in (0, listener.port):
            console.print(f"Port {port} is taken, so the server takes a free one.")
        console.print(f"The server listens on {url}.")
        console.print("→ is what was sent, printed where it arrives; • is what somebody notices.")
        cable = await stack.enter_async_context(Cable(listener.port))
        tale = Tale(story, house.server, listener.port, cable)
        stack.push_async_callback(tale.close)
        stack.callback(story.silence)
        clock = asyncio.get_running_loop().time
        began = clock()
        await tale.tell()
        moments = f"{story.chapters} chapters, {story.seen} moments seen"
        console.print(f"\n  {moments} in {clock() - began:.1f} s.")
        if not once:
            house.doors.set()
            _invite(console, story, url)
            await asyncio.Event().wait()


async def _listen(stack: AsyncExitStack, server: WseServer, port: int) -> Listener:
    try:
        return await stack.enter_async_context(server.listen(port=port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return await stack.enter_async_context(server.listen(port=0))


def _invite(console: Console, story: Story, url: str) -> None:
    story.heading("Your turn", "The server stays up until Ctrl-C. From another terminal:")
    connect = f"{_program()} connect {url} --identity"
    for line in (f"{connect} you", f"{connect} bob --key {KEYS['bob']}"):
        console.print(f"    {line}", soft_wrap=True)
    console.print("\n  and type, for instance:\n")
    for line in (
        "call whoami",
        'call add {"a": 5, "b": 3}',
        'call battery {"who": "alice"}',
        'send say "Hello, everybody!"',
        "help",
    ):
        console.print(f"    {line}")
    console.print("\n  What you do appears here too.\n")


def _program() -> str:
    """The command that starts this very program, short where it can be."""
    script = Path(sys.executable).with_name("wse")
    if not script.exists():
        return f"{shlex.quote(sys.executable)} -m wse"
    on_path = shutil.which("wse")
    if on_path is not None and script.samefile(on_path):
        return "wse"
    here = Path.cwd()
    return shlex.quote(str(script.relative_to(here) if script.is_relative_to(here) else script))
