"""Messages over the memory carrier, one by one, into either side."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from hypothesis import strategies as st

from wse import Limits, Status, WseJSON, testing
from wse.stages import Stage
from wse.transports.base import Handshake, Transport
from wse.transports.memory import MemoryTransport, pair

from . import home, house, readings, talk
from .scene import Scene, until
from .talk import Do, Say, Step, Wait, message
from .terms import BURST, LIMITS, PROTOCOL_ERROR, TOO_LARGE, TOO_MANY, TORN, End

__all__ = ["ANSWER", "HI", "WELCOME", "MemoryClient", "MemoryServer"]

HI = {
    manner: message("~wse:hi", b'{"identity":"%s"}' % manner.encode())
    for manner in ("in", "slow", "ask", "ask often", "never")
}
LONG_HI = message("~wse:hi", b'{"identity":"in","meta":"%s"}' % (b"m" * 700))
ANSWER = message("~wse:challenge", b"42")
WELCOME = message("~wse:welcome", b'"welcome"')


class Peer:
    """The hostile end of a connection: what it hears."""

    def __init__(self, transport: MemoryTransport) -> None:
        self.transport = transport
        self.heard: list[Any] = []
        self.end: End | None = None
        transport.start(self)

    def say(self, message: Say) -> None:
        framing = self.transport.framing(binary=not message.text)
        self.transport.write([framing(message.data)])

    @property
    def is_read(self) -> bool:
        """Whether the other end reads what is said."""
        return not self.transport._peer._paused

    def receive(self, data: bytes, text: bool) -> None:
        assert self.end is None
        assert text
        self.heard.append(json.loads(data))

    def flush(self) -> None: ...

    def writable(self) -> None: ...

    def lost(self, code: int, reason: str, *, failed: bool = False) -> None:
        assert self.end is None
        assert not failed
        self.end = (int(code), str(reason))


# -- a server ------------------------------------------------------------------------------------


class ServerStory(NamedTuple):
    steps: list[Step]
    finish: str


class MemoryServer(Scene[ServerStory]):
    """Messages into a server's connection.

    An input is one message, while the connection is open. Its first is a stranger's; the openings
    bring a connection to each stage of the handshake.
    """

    name: ClassVar[str] = "server"
    stories = st.builds(
        ServerStory,
        talk.script(
            [
                (10, [HI["in"]]),
                (2, [HI["ask"], ANSWER]),
                (1, []),
                (1, [talk.greetings]),
                (1, [LONG_HI]),
                (1, [HI["slow"]]),
                (1, [HI["never"]]),
                (1, [HI["ask"]]),
                (1, [HI["ask"], talk.challenges]),
                (1, [HI["ask often"], talk.challenges, ANSWER]),
            ],
            deeds=["stall", "resume", "broadcast", "call", "call"],
            ends=["drop", "leave", "tear"],
        ),
        st.sampled_from(["wait", "leave", "tear", "drop"]),
    )

    async def open(self) -> None:
        self.house = house.House()
        self.network = testing.Network(self.house.server)
        self.bystander = await self.network.connect(meta=house.BYSTANDER, protocols=[WseJSON()])

    async def close(self) -> None:
        await self.network.__aexit__()

    async def act(self, story: ServerStory) -> None:
        case = self.house.begin()
        ours, theirs = pair(LIMITS)
        peer = Peer(ours)
        acceptor = self.house.server.acceptor
        opened = self.loop.time()
        acceptor.open(theirs, Handshake(path="/", opened=opened), "wse-default-json")
        (case.conn,) = acceptor.strangers
        self.totals.connections += 1
        asking: list[asyncio.Task[None]] = []
        calm = True
        for step in story.steps:
            if peer.end is not None or case.deeds & {"leave", "tear"}:
                break
            match step:
                case Say():
                    await self.say(step, case, peer, calm=calm)
                    calm = not step.hurried
                case Wait(seconds):
                    await testing.pass_time(seconds)
                    calm = True
                case Do(deed):
                    self.do(deed, case, peer, asking)
                    calm = False
        ours.resume()
        await testing.settle()
        if story.finish == "wait":
            await testing.pass_time(600.0)
            if case.conn.is_open:
                assert case.owed <= house.check_heard(peer.heard, case)
        self.do(story.finish, case, peer, asking)
        self.do("leave", case, peer, asking)
        await testing.settle()
        conn = case.conn
        await until(lambda: conn.stage is Stage.CLOSED)  # a full inbox is not read
        case.waited = self.loop.time() - opened
        await asyncio.gather(*asking)
        self.check_end(case, peer)
        case.conn = None

    async def say(self, step: Say, case: house.Case, peer: Peer, *, calm: bool) -> None:
        """Send a message, and see what becomes of it when it comes alone and is heard at once."""
        assert case.conn is not None
        self.totals.inputs += 1
        before = case.conn.stage if calm and peer.is_read else None
        case.said.append(step.data)
        peer.say(step)
        if step.hurried:
            return
        await testing.settle()
        self.check_message(step.data, before, case, peer)
        if before is Stage.READY and case.conn.is_open:
            case.owed.update(readings.stamp_of(step.data))

    def do(self, deed: str, case: house.Case, peer: Peer, asking: list[asyncio.Task[None]]) -> None:
        assert case.conn is not None
        case.deeds.add(deed)
        match deed:
            case "stall":
                peer.transport.stall()
            case "resume":
                peer.transport.resume()
            case "broadcast":
                self.house.server.broadcast("news", 1)
                case.news += 1
            case "call" if case.conn.is_open:
                asking.append(self.loop.create_task(self.house.ask(case.conn)))
            case "drop":
                case.conn.drop()
            case "leave":
                peer.transport.close(1001, "")
            case "tear":
                peer.transport.tear()

    def check_message(
        self, data: bytes, before: Stage | None, case: house.Case, peer: Peer
    ) -> None:
        """What became of a message at this stage, or while others were under way (None)."""
        assert case.conn is not None
        limit = LIMITS.max_stranger_message_bytes
        if before is Stage.READY:
            limit = LIMITS.max_message_bytes
            breaks = readings.breaks_protocol(data)
        elif before is Stage.STRANGER:
            proper = house.is_hi(data)
            breaks = None if proper is None else not proper
            assert len(data) > limit or proper is None or case.attempts == proper
        else:
            return
        ends = (peer.end, case.end)
        if len(data) > limit or breaks:
            assert case.conn.stage is Stage.CLOSED
            due = TOO_LARGE if len(data) > limit else PROTOCOL_ERROR
            too_many = [TOO_MANY] if len(case.said) > BURST else []
            assert case.parting or set(ends) <= {None, due, *too_many}
        else:
            assert TOO_LARGE not in ends
            assert breaks is None or PROTOCOL_ERROR not in ends

    def check_end(self, case: house.Case, peer: Peer) -> None:
        assert case.connected == (case.end is not None)
        assert not case.attempts or house.is_hi(case.said[0]) is not False
        house.check_heard(peer.heard, case)
        for end in (peer.end, case.end):
            if end is not None:
                case.check_end(end, own={(1001, "")})
        assert peer.end is None or case.end in (None, peer.end) or peer.end == TORN
        self.ended(peer.end or case.end or "the peer, unknown yet")
        assert self.bystander.closed is None
        assert list(self.bystander.received) == [("news", 1)] * case.news
        self.bystander.received.clear()

    def check_nothing_is_left(self) -> None:
        self.house.check_nothing_is_left()


# -- a client ------------------------------------------------------------------------------------


class ClientStory(NamedTuple):
    reconnect: bool
    steps: list[Step]
    finish: str


class MemoryClient(Scene[ClientStory]):
    """Messages into a client, which may come back to a server that goes on as before.

    An input is one message, while the connection is open.
    """

    name: ClassVar[str] = "client"
    stories = st.builds(
        ClientStory,
        st.booleans(),
        talk.script(
            [
                (8, [WELCOME]),
                (1, []),
                (1, [talk.welcomes]),
                (1, [talk.challenges, WELCOME]),
                (1, [talk.calm_messages, WELCOME]),
                (1, [message("~wse:challenge", b"[]"), talk.messages, WELCOME]),
            ],
            deeds=["stall", "resume", "call", "call", "send", "welcome"],
            ends=[*home.PARTINGS, "tear", "close"],
        ),
        st.sampled_from(["wait", "close"]),
    )

    async def open(self) -> None:
        self.peers: list[Peer] = []
        self.home = home.Home(self.dial)

    async def dial(
        self, url: str, *, subprotocols: Sequence[str], headers: Mapping[str, str], limits: Limits
    ) -> tuple[Transport, str | None]:
        ours, theirs = pair(limits)
        self.peers.append(Peer(theirs))
        return ours, "wse-default-json"

    async def act(self, story: ClientStory) -> None:
        connecting = self.home.begin(reconnect=story.reconnect)
        await testing.settle()
        asking: list[asyncio.Task[None]] = []
        calm = True
        for step in story.steps:
            if self.home.case.end is not None and not story.reconnect:
                break
            match step:
                case Say() if self.home.case.end is None:
                    await self.say(step, self.home.case, calm=calm)
                    calm = not step.hurried
                case Wait(seconds):
                    await testing.pass_time(seconds)
                    calm = True
                case Do(deed):
                    await self.do(deed, self.home.case, asking)
                    calm = False
        for peer in self.peers:
            peer.transport.resume()
        await testing.settle()
        if story.finish == "wait" and self.home.case.end is None:
            case, peer = self.home.case, self.peers[-1]
            await testing.pass_time(600.0)
            assert case.end or case.owed <= home.check_heard(peer.heard, case)
        await self.home.end(connecting)
        await testing.settle()
        await asyncio.gather(*asking)
        self.check_ends()

    async def say(self, step: Say, case: home.Case, *, calm: bool) -> None:
        """Send a message, and see what becomes of it when it comes alone and is heard at once."""
        peer = self.peers[-1]
        self.totals.inputs += 1
        ready = self.home.client.status is Status.READY
        alone = calm and peer.is_read
        case.said.append(step.data)
        peer.say(step)
        if step.hurried:
            return
        await testing.settle()
        breaks = readings.breaks_protocol(step.data)
        if not alone:
            return
        if len(step.data) > LIMITS.max_message_bytes or breaks:
            due = TOO_LARGE if len(step.data) > LIMITS.max_message_bytes else PROTOCOL_ERROR
            assert case.end == due or "close" in case.deeds
        else:
            assert case.end != TOO_LARGE
            assert case.end != PROTOCOL_ERROR or breaks is None or not ready
            if ready and case.end is None:
                case.owed.update(readings.stamp_of(step.data))

    async def do(self, deed: str, case: home.Case, asking: list[asyncio.Task[None]]) -> None:
        transport = self.peers[-1].transport
        case.deeds.add(deed)
        match deed:
            case "stall":
                transport.stall()
            case "resume":
                transport.resume()
            case "call":
                asking.append(self.loop.create_task(self.home.ask()))
            case "send" if self.home.client.status is Status.READY:
                self.home.client.send("flood", "x" * 1000)
            case "welcome":
                case.said.append(WELCOME)
                transport.write([WELCOME])
            case "tear":
                transport.tear()
            case "close":
                await self.home.client.close()
            case _ if deed in home.PARTINGS:
                transport.close(*home.PARTINGS[deed])

    def check_ends(self) -> None:
        assert len(self.home.cases) == len(self.peers)
        for case, peer in zip(self.home.cases, self.peers, strict=True):
            self.totals.connections += 1
            assert case.end is not None
            partings = case.deeds & {*home.PARTINGS}
            case.check_end(case.end, own={home.PARTINGS[deed] for deed in partings})
            assert peer.end in (None, case.end, TORN) or case.may_close_late
            home.check_heard(peer.heard, case)
            self.ended(case.end)

    def check_nothing_is_left(self) -> None:
        self.home.check_nothing_is_left()
        self.peers.clear()
