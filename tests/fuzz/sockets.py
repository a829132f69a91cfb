"""Bytes into either side of a TCP connection, from the first one on: HTTP, frames, messages."""

from __future__ import annotations

import json
from typing import ClassVar, NamedTuple

from carriers import FakeStream, accept_key
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from wse import WseJSON, testing
from wse.transports import tcp

from . import heads, home, house, octets, readings, talk
from .chance import weighted
from .memory import ANSWER, HI, WELCOME
from .octets import Cut, Item
from .scene import Scene, until
from .terms import LIMITS

__all__ = ["SocketClient", "SocketServer"]


class SocketStory(NamedTuple):
    head: bytes
    items: list[Item]
    cuts: list[Cut]
    tls: bool
    """Whether the socket cannot be closed in one direction alone."""
    finish: str


def _stories(
    heads: SearchStrategy[bytes],
    *begins: tuple[int, list[bytes | SearchStrategy[bytes]]],
    finishes: list[str],
) -> SearchStrategy[SocketStory]:
    """What comes after these heads begins with these messages, and is in order for a while."""
    frames = weighted(
        *(
            (
                weight,
                octets.frames(
                    *(st.just(one) if isinstance(one, bytes) else one for one in begin),
                    calm=talk.calm_messages,
                    wild=talk.messages,
                    deflate=deflate,
                ),
            )
            for weight, begin in begins
            for deflate in (False, True)
        )
    )
    cuts = octets.cuts("nothing", "turn", "turn", "wait", "stall", "resume")
    return st.builds(SocketStory, heads, frames, cuts, st.booleans(), st.sampled_from(finishes))


async def _feed(head: bytes, body: bytes, cuts: list[Cut], stream: FakeStream) -> set[str]:
    """Let bytes arrive; what happened between the reads."""
    for piece, then in octets.pieces(head, body, cuts):
        stream.feed(piece)
        match then:
            case "turn":
                await testing.settle()
            case "wait":
                await testing.pass_time(4.0)
            case "stall":
                stream.stick()
            case "resume":
                stream.unstick()
    await testing.settle()
    stream.unstick()
    await until(lambda: not stream._arriving or stream.is_closing())  # its inbox may be full
    return {cut.then for cut in cuts}


def _lose(how: str, stream: FakeStream) -> None:
    if how == "lose":
        stream.lose()
    elif how == "end" and not stream.is_closing():
        stream.end()


def _hears(data: bytes, *, server: bool, deflate: bool) -> readings.Heard:
    return readings.hears(
        data,
        server=server,
        limit=LIMITS.max_message_bytes,
        fragments=LIMITS.max_fragments,
        deflate=deflate,
    )


class SocketServer(Scene[SocketStory]):
    """Bytes into a server's TCP connection.

    An input is the head of a request, or one frame up to the one that must end the connection.
    """

    name: ClassVar[str] = "upgrade"
    stories = _stories(
        heads.REQUESTS,
        (8, [HI["in"]]),
        (1, [HI["ask"], ANSWER]),
        (1, [talk.greetings]),
        (1, []),
        finishes=["lose", "end", "silence", "drop"],
    )

    async def open(self) -> None:
        self.house = house.House()
        self.network = testing.Network(self.house.server)
        self.bystander = await self.network.connect(meta=house.BYSTANDER, protocols=[WseJSON()])
        self.listener = tcp.Listener(self.house.server.acceptor, compression=True)

    async def close(self) -> None:
        await self.network.__aexit__()

    async def act(self, story: SocketStory) -> None:
        case = self.house.begin()
        stream = FakeStream(half_closes=not story.tls)
        upgrade = tcp._Upgrade(self.listener)
        stream.set_protocol(upgrade)
        upgrade.connection_made(stream)
        self.totals.connections += 1
        opened = self.loop.time()
        body = octets.to_bytes(story.items, "server")
        heard = _hears(body, server=True, deflate=story.head == heads.DEFLATE_REQUEST)
        case.said = [data for data, _ in heard.messages]
        case.largest = heard.largest
        case.deeds |= await _feed(story.head, body, story.cuts, stream) | {story.finish}
        _lose(story.finish, stream)
        if story.finish == "drop":
            self.house.server.drop_client("eve")
        await until(stream.is_closing)
        case.waited = self.loop.time() - opened
        self.check_end(story, case, heard, stream.written)
        assert self.bystander.closed is None
        case.conn = None

    def check_end(
        self, story: SocketStory, case: house.Case, heard: readings.Heard, written: bytes
    ) -> None:
        head, _, rest = written.partition(b"\r\n\r\n")
        is_sound = story.head in (heads.SOUND_REQUEST, heads.DEFLATE_REQUEST)
        self.totals.inputs += 1
        if not head.startswith(b"HTTP/1.1 101 "):
            assert not case.attempts
            assert not is_sound or "wait" in case.deeds
            self.check_refusal(head, rest)
            return
        if not is_sound:
            self.ended("as it liked, after an odd request")
            return
        self.totals.inputs += heard.inputs
        deflate = story.head == heads.DEFLATE_REQUEST
        said = readings.hears(rest, server=False, limit=1 << 20, fragments=1, deflate=deflate)
        house.check_heard([json.loads(data) for data, _ in said.messages], case)
        (close,) = said.ends
        for end in (close, case.end):
            if end is not None:
                case.check_end(end, own=heard.ends)
        assert None in (close, case.end) or close == case.end or case.may_drop_late
        assert not case.attempts or (case.said and house.is_hi(case.said[0]) is not False)
        self.ended(close or case.end or "the peer, unknown yet")

    def check_refusal(self, head: bytes, body: bytes) -> None:
        """One HTTP answer, or none."""
        if not head:
            self.ended("no answer")
            return
        line, *headers = head.decode("latin-1").split("\r\n")
        status = line.split(" ")[1]
        assert status in ("400", "403", "405", "426", "431", "503", "505")
        assert f"Content-Length: {len(body)}" in headers
        self.ended(f"HTTP {status}")

    def check_nothing_is_left(self) -> None:
        self.house.check_nothing_is_left()
        assert self.listener.upgrading == set()
        assert self.listener.open == set()


class SocketClient(Scene[SocketStory]):
    """Bytes into a client's TCP connection.

    An input is the head of an answer, or one frame up to the one that must end the connection.
    """

    name: ClassVar[str] = "answer"
    stories = _stories(
        heads.ANSWERS,
        (8, [WELCOME]),
        (1, [talk.challenges, WELCOME]),
        (1, [talk.welcomes]),
        (1, []),
        finishes=["lose", "end", "silence", "close", "come back"],
    )

    async def open(self) -> None:
        self.home = home.Home(tcp.TcpDialer(compression=True))

    async def act(self, story: SocketStory) -> None:
        self.loop.half_closes = not story.tls
        connecting = self.home.begin(reconnect=story.finish == "come back")
        await testing.settle()
        (stream,) = self.loop.dialled
        request = stream.written
        key = request.partition(b"Sec-WebSocket-Key: ")[2][:24].decode()
        head = story.head.replace(b"{accept}", accept_key(key).encode())
        body = octets.to_bytes(story.items, "client")
        heard = _hears(body, server=False, deflate=story.head == heads.DEFLATE_ANSWER)
        deeds = await _feed(head, body, story.cuts, stream)
        if self.home.cases:
            case = self.home.cases[0]
            case.said = [data for data, _ in heard.messages]
            case.deeds |= deeds | {story.finish}
        _lose(story.finish, stream)
        if story.finish in ("silence", "come back"):
            await testing.pass_time(60.0)
        await self.home.end(connecting)
        await testing.settle()
        assert all(stream.is_closing() for stream in self.loop.dialled)
        self.loop.dialled.clear()
        self.check_end(story, heard, stream.written.removeprefix(request))

    def check_end(self, story: SocketStory, heard: readings.Heard, written: bytes) -> None:
        self.totals.connections += 1
        self.totals.inputs += 1
        is_sound = story.head in (heads.SOUND_ANSWER, heads.DEFLATE_ANSWER)
        if not self.home.cases:
            assert not is_sound or "wait" in {cut.then for cut in story.cuts}
            assert written == b""
            self.ended("not opened")
            return
        case = self.home.cases[0]
        assert case.end is not None
        if not is_sound:
            self.ended("as it liked, after an odd answer")
            return
        self.totals.inputs += heard.inputs
        deflate = story.head == heads.DEFLATE_ANSWER
        said = readings.hears(written, server=True, limit=1 << 20, fragments=1, deflate=deflate)
        home.check_heard([json.loads(data) for data, _ in said.messages], case)
        (close,) = said.ends
        for end in (close, case.end):
            if end is not None:
                case.check_end(end, own=heard.ends)
        assert close in (None, case.end) or case.may_close_late
        self.ended(case.end)

    def check_nothing_is_left(self) -> None:
        self.home.check_nothing_is_left()
