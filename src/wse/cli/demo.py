"""`wse demo`: a server, its users and an impostor on real sockets, told as it happens."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console

from ..server import WseServer
from .cast import COLOURS, KEYS, TOKENS, Cable, Device, House
from .serving import enter_listening
from .story import ANYTHING, Story, noticed, sent

__all__ = ["play"]

ALICE = {"name": "alice", "token": TOKENS["alice"]}
BOB_PROVES_HIMSELF = (
    sent("stranger", "server", "hi", "bob"),
    sent("server", "bob/desk", "challenge", ANYTHING),
    sent("bob/desk", "server", "answer", ANYTHING),
    noticed("server", "stranger", "holds the key of bob"),
)
BOB_COMES_IN = (
    *BOB_PROVES_HIMSELF,
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
            StoryFailed: something did not happen as it should.
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
            "Bob's cable is cut. His client comes back, proves itself again, and misses nothing.",
        )
        self._cable.cut()
        await self._story.see(
            noticed("bob/desk", "server", "suspended: 1006"),
            noticed("bob/desk", "server", "RE_CONNECTING"),
            noticed("server", "bob/desk", "suspended: 1006"),
        )
        self._server.send("bob", "note", "while you were away")
        await self._story.see(
            *BOB_PROVES_HIMSELF,
            noticed("server", "bob/desk", "resumed"),
            noticed("bob/desk", "server", "resumed"),
            sent("server", "bob/desk", "note", "while you were away"),
        )


async def play(console: Console, *, port: int = 4200, once: bool = False) -> None:
    """Tell the story, then stay up for visitors until cancelled.

    Args:
        console: Where to.
        port: The server's; another one when it is taken.
        once: End after the story.

    Raises:
        StoryFailed: something did not happen as it should.
        OSError: the server cannot listen.
    """
    story = Story(console, COLOURS)
    house = House(story)
    async with AsyncExitStack() as stack:
        listener = await enter_listening(stack, house.server, port=port)
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
