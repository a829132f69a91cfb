"""Frames into an open WebSocket, either side, held against a second reading of the same bytes."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from carriers import CLOSE, PONG, TEXT, FakeStream, Recorder
from hypothesis import strategies as st
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.protocol import Side

from wse import Limits, testing
from wse.transports.stream import StreamTransport

from . import octets, readings
from .octets import Cut, Item
from .scene import Scene
from .terms import SILENT, TORN, End

__all__ = ["Frames"]

LIMITS = Limits(
    max_message_bytes=1000, max_fragments=8, max_unwritten_bytes=2000, max_turn_bytes=2000
)
SIDES = {"server": Side.SERVER, "client": Side.CLIENT}
LONG = b"x" * 300


class FramesStory(NamedTuple):
    side: str
    deflate: bool
    items: list[Item]
    cuts: list[Cut]
    tls: bool
    """Whether the socket cannot be closed in one direction alone."""
    finish: str


class Frames(Scene[FramesStory]):
    """Bytes into the lane of an open WebSocket, in any chops.

    An input is one frame, sound or not, up to the one that ends the connection; in how many
    reads it came does not count.
    """

    name: ClassVar[str] = "frames"
    stories = st.one_of(
        *(
            st.builds(
                FramesStory,
                st.sampled_from(sorted(SIDES)),
                st.just(deflate),
                octets.frames(deflate=deflate),
                octets.cuts("nothing", "turn", "pause", "resume", "stick", "unstick", "write"),
                st.booleans(),
                st.sampled_from(["lose", "end", "silence", "close", "abort"]),
            )
            for deflate in (False, True)
        )
    )

    async def act(self, story: FramesStory) -> None:
        self.totals.connections += 1
        stream = FakeStream(half_closes=not story.tls)
        extensions: list[Extension] = []
        if story.deflate:
            extensions = [PerMessageDeflate(False, False, 15, 15)]
        transport = StreamTransport(stream, SIDES[story.side], LIMITS, extensions)
        receiver = Recorder(transport)
        transport.start(receiver)
        data = octets.to_bytes(story.items, story.side)
        deeds: set[str] = set()
        for piece, then in octets.pieces(b"", data, story.cuts):
            stream.feed(piece)
            deeds.add(then)
            await self.do(then, stream, transport, receiver)
        transport.resume_reading()
        stream.unstick()
        await testing.settle()
        heard = readings.hears(
            data,
            server=story.side == "server",
            limit=LIMITS.max_message_bytes,
            fragments=LIMITS.max_fragments,
            deflate=story.deflate,
        )
        self.totals.inputs += heard.frames
        assert self.end_of(receiver) in heard.ends
        assert self.told(receiver) == heard.messages
        if receiver.end is not None and story.side == "server" and heard.answered is not None:
            by_peer = not receiver.end[2]
            assert stream.is_closing() is (by_peer or heard.answered)
        self.check_written(story, stream, receiver, heard, deeds)
        await self.finish(story.finish, stream, transport, receiver)

    def end_of(self, receiver: Recorder) -> End | None:
        if receiver.end is None:
            return None
        code, reason, _ = receiver.end
        return code, reason

    def told(self, receiver: Recorder) -> list[tuple[bytes, bool]]:
        return [
            (event[1], event[0] == "text")
            for event in receiver.events
            if event[0] in ("text", "binary")
        ]

    async def do(
        self,
        deed: str,
        stream: FakeStream,
        transport: StreamTransport,
        receiver: Recorder,
    ) -> None:
        match deed:
            case "turn":
                await testing.settle()
            case "pause":
                transport.pause_reading()
            case "resume":
                transport.resume_reading()
            case "stick":
                stream.stick()
            case "unstick":
                stream.unstick()
            case "write":
                receiver.write(LONG, LONG)

    def check_written(
        self,
        story: FramesStory,
        stream: FakeStream,
        receiver: Recorder,
        heard: readings.Heard,
        deeds: set[str],
    ) -> None:
        """What we said: whole frames, our pongs, and at most one close, with which all ends."""
        written = list(readings.frames(stream.written))
        for frame in written:
            assert frame.payload is not None
            assert frame.fin
            assert frame.is_minimal
            assert frame.masked is (story.side == "client")
            assert frame.opcode in (TEXT, PONG, CLOSE)
        pongs = [frame.payload for frame in written if frame.opcode == PONG]
        if "stick" in deeds:
            assert len(pongs) <= len(heard.pings)
        else:
            assert pongs == heard.pings
        closes = [frame for frame in written if frame.opcode == CLOSE]
        assert closes == written[len(written) - len(closes) :]
        assert len(closes) == (receiver.end is not None)
        for close in closes:
            assert receiver.end is not None
            assert close.payload is not None
            code = int.from_bytes(close.payload[:2], "big") or 1005
            assert code == receiver.end[0]

    async def finish(
        self, how: str, stream: FakeStream, transport: StreamTransport, receiver: Recorder
    ) -> None:
        """How it ends, when it has not ended yet."""
        before = self.end_of(receiver)
        match how:
            case "lose":
                stream.lose()
            case "end":
                if not stream.is_closing():
                    stream.end()
            case "close":
                transport.close(1000, "bye")
            case "abort":
                transport.abort()
        await transport.wait_closed()
        after = {
            "lose": TORN,
            "end": TORN,
            "silence": SILENT,
        }
        assert self.end_of(receiver) == (before or after.get(how))
        self.ended(receiver.end[:2] if receiver.end else f"us, with {how}")

    def check_nothing_is_left(self) -> None: ...
