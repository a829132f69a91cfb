from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Callable, Sequence

import pytest
from carriers import BINARY, CLOSE, CONT, PING, PONG, TEXT, F, closing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import nothing_left_of
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.protocol import Protocol, Side

from wse.codes import CloseCode
from wse.transports.lane import Lane

SIDES = {"server": Side.SERVER, "client": Side.CLIENT}


class Port:
    """Notes what a lane tells."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.on_message: Callable[[], None] = lambda: None

    def deliver(self, data: bytes, text: bool) -> None:
        self.told.append(("text" if text else "binary", bytes(data)))
        self.on_message()

    def answer(self, data: bytes) -> None:
        self.told.append(("ping", bytes(data)))

    def closed_by_peer(self, code: int, reason: str, echo: bytes) -> None:
        self.told.append(("close", code, reason))
        self.echo = echo

    def failed(self, code: CloseCode, reason: str) -> None:
        self.told.append(("failed", int(code)))


def open_lane(
    side: str = "server",
    *,
    max_size: int = 1000,
    max_fragments: int = 8,
    max_turn: int = 10_000,
    extensions: Sequence[Extension] = (),
) -> tuple[Lane, Port]:
    port = Port()
    lane = Lane(
        port,
        SIDES[side],
        max_size=max_size,
        max_fragments=max_fragments,
        max_turn=max_turn,
        extensions=list(extensions),
    )
    lane.paused = False
    return lane, port


def wire(*frames: F, side: str = "server") -> bytes:
    return b"".join(frame.to(side) for frame in frames)


# -- any chopping, any pause -------------------------------------------------------------------

texts = st.text(max_size=200).map(str.encode)
binaries = st.binary(max_size=200)
sides = st.sampled_from(sorted(SIDES))


@st.composite
def messages(draw: st.DrawFn) -> tuple[list[F], tuple[str, bytes]]:
    """A message in one frame or in several, perhaps with pings between, and what it means."""
    kind = draw(st.sampled_from(["text", "binary"]))
    data = draw(texts if kind == "text" else binaries)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=5)))
    parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    frames: list[F] = []
    for n, part in enumerate(parts):
        opcode = CONT if n else TEXT if kind == "text" else BINARY
        frames.append(F(opcode, part, fin=n == len(parts) - 1))
        if draw(st.booleans()):
            frames.append(F(PING, part[:125]))
    return frames, (kind, data)


def chopped(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted(cut % (len(data) + 1) for cut in cuts)
    return [data[a:b] for a, b in zip([0, *edges], [*edges, len(data)], strict=True)]


unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
story = st.lists(messages(), max_size=6)
cuts = st.lists(st.integers(0, 10_000), max_size=30)
turns = st.sampled_from([1, 1_000, 1_000_000])


@unhurried
@given(side=sides, story=story, cuts=cuts, bytewise=st.booleans(), turn=turns)
def test_any_chopping_delivers_the_same(
    side: str,
    story: list[tuple[list[F], tuple[str, bytes]]],
    cuts: list[int],
    bytewise: bool,
    turn: int,
) -> None:
    lane, port = open_lane(side, max_turn=turn)
    frames = [frame for parts, _ in story for frame in parts]
    data = wire(*frames, closing(1000), side=side)
    for piece in chopped(data, list(range(len(data))) if bytewise else cuts):
        lane.feed(piece)
    while lane.behind:
        lane.feed()
    assert [told for told in port.told if told[0] in ("text", "binary")] == [m for _, m in story]
    pings = [("ping", frame.payload) for frame in frames if frame.opcode == PING]
    assert [told for told in port.told if told[0] == "ping"] == pings
    assert port.told[-1] == ("close", 1000, "")
    assert len(port.told) == len(story) + len(pings) + 1


@unhurried
@given(
    side=sides,
    story=story,
    cuts=cuts,
    pauses=st.sets(st.integers(0, 30)),
    resumes=st.sets(st.integers(0, 40)),
    turn=turns,
)
def test_pausing_anywhere_loses_nothing(  # noqa: PLR0917 - drawn by name
    side: str,
    story: list[tuple[list[F], tuple[str, bytes]]],
    cuts: list[int],
    pauses: set[int],
    resumes: set[int],
    turn: int,
) -> None:
    """Pause within some deliveries and before some pieces, resume after some."""
    lane, port = open_lane(side, max_turn=turn)

    def pause_perhaps() -> None:
        lane.paused = lane.paused or len(port.told) in pauses

    def deliver_only_when_reading() -> None:
        assert not lane.paused
        pause_perhaps()

    port.on_message = deliver_only_when_reading
    data = wire(*(frame for parts, _ in story for frame in parts), side=side)
    for n, piece in enumerate(chopped(data, cuts)):
        pause_perhaps()
        lane.feed(piece)
        if n in resumes:
            lane.paused = False
            lane.feed()
    while lane.paused or lane.behind:
        lane.paused = False
        lane.feed()
    assert [told for told in port.told if told[0] != "ping"] == [message for _, message in story]


# -- one frame at a time -----------------------------------------------------------------------


def test_starts_paused() -> None:
    port = Port()
    lane = Lane(port, Side.SERVER, max_size=10, max_fragments=1, max_turn=10_000, extensions=[])
    lane.feed(wire(F(TEXT, b"early")))
    assert port.told == []
    lane.paused = False
    lane.feed()
    assert port.told == [("text", b"early")]


def test_pause_and_resume_within_one_delivery_goes_on() -> None:
    lane, port = open_lane()

    def blink() -> None:
        lane.paused = True
        lane.paused = False
        lane.feed()

    port.on_message = blink
    lane.feed(wire(F(TEXT, b"1"), F(TEXT, b"2"), F(TEXT, b"3")))
    assert port.told == [("text", b"1"), ("text", b"2"), ("text", b"3")]


def test_stop_within_a_delivery_is_the_end() -> None:
    lane, port = open_lane()
    port.on_message = lane.stop
    lane.feed(wire(F(TEXT, b"1"), F(TEXT, b"2"), F(TEXT, b"3")))
    lane.feed(wire(F(TEXT, b"4")))
    assert port.told == [("text", b"1")]


@pytest.mark.parametrize("side", sorted(SIDES))
def test_close_is_echoed_as_it_came(side: str) -> None:
    lane, port = open_lane(side)
    lane.feed(wire(closing(3210, "why"), F(TEXT, b"late"), side=side))
    assert port.told == [("close", 3210, "why")]
    other = {"client": "server", "server": "client"}[side]
    peer_lane, peer = open_lane(other)
    peer_lane.feed(port.echo)
    assert peer.told == [("close", 3210, "why")]


def test_after_our_close_only_the_peers_counts() -> None:
    lane, port = open_lane()
    lane.feed(wire(F(TEXT, b"half", fin=False)))
    lane.closing = True
    lane.feed(wire(F(TEXT, b"x"), F(PING), F(CONT, b"y"), F(7), F(TEXT, b"\xff"), closing(1000)))
    lane.feed(wire(closing(1001)))
    assert port.told == [("close", 1000, "")]


# -- bounds ------------------------------------------------------------------------------------


def test_limit_may_change_between_messages() -> None:
    lane, port = open_lane(max_size=3)
    lane.feed(wire(F(TEXT, b"123")))
    lane.max_size = 4
    lane.feed(wire(F(TEXT, b"1234"), F(TEXT, b"12", fin=False), F(CONT, b"34")))
    lane.max_size = 3
    lane.feed(wire(F(TEXT, b"1234")))
    assert port.told == [
        ("text", b"123"),
        ("text", b"1234"),
        ("text", b"1234"),
        ("failed", 1009),
    ]


def test_limit_may_grow_amid_fragments() -> None:
    lane, port = open_lane(max_size=3)
    lane.feed(wire(F(TEXT, b"123", fin=False)))
    lane.max_size = 6
    lane.feed(wire(F(CONT, b"456")))
    assert port.told == [("text", b"123456")]


def test_the_head_alone_tells_that_a_message_is_too_big() -> None:
    lane, port = open_lane(max_size=1000)
    lane.feed(F(BINARY, b"", claims=1001).to("server")[:4])
    assert port.told == [("failed", 1009)]


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_control_frames_are_not_bound_by_the_limit(opcode: int) -> None:
    lane, port = open_lane(max_size=3)
    lane.feed(wire(F(TEXT, b"123", fin=False), F(opcode, b"\x03\xe8" + b"x" * 123), F(CONT)))
    told: dict[int, list[tuple[object, ...]]] = {
        PING: [("ping", b"\x03\xe8" + b"x" * 123), ("text", b"123")],
        PONG: [("text", b"123")],
        CLOSE: [("close", 1000, "x" * 123)],
    }
    assert port.told == told[opcode]


def test_nothing_is_read_after_frames_that_are_none() -> None:
    lane, port = open_lane()
    lane.feed(wire(F(CONT), F(TEXT, b"late")))
    lane.feed(wire(F(TEXT, b"later"), closing(1000)))
    assert port.told == [("failed", 1002)]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (F(TEXT, bytes(5000)), 1009),
        (F(TEXT, bytes(1001)), 1009),
        (F(TEXT, b"\xff"), 1007),
        (F(TEXT, b"\xff", fin=False), 1007),
    ],
)
def test_after_a_failure_only_the_peers_close_counts(bad: F, code: int) -> None:
    lane, port = open_lane()
    story = wire(bad, F(TEXT, b"late"), F(PING), F(BINARY, bytes(3000)), F(CONT), closing(1000))
    for n in range(0, len(story), 100):
        lane.feed(story[n : n + 100])
    assert port.told == [("failed", code), ("close", 1000, "")]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("first", [(), (F(TEXT, "ü€".encode(), fin=False), F(PING))])
@pytest.mark.parametrize("size", [100, 200, 70_000])
def test_text_that_is_not_utf8_is_not_waited_for(
    side: str, first: tuple[F, ...], size: int
) -> None:
    """It fails with the read that has the first wrong byte, though its frame goes on."""
    lane, port = open_lane(side, max_size=100_000)
    lane.feed(wire(*first, side=side))
    heard = list(port.told)
    bad = "€".encode() * 20 + b"\xed\xa0" + b"x" * (size - 62)
    frame = wire(F(CONT if first else TEXT, bad), side=side)
    start = len(frame) - len(bad)
    for n in range(start + 60):
        lane.feed(frame[n : n + 1])
    assert port.told == heard
    for n in range(start + 60, start + 64):  # a mask is four bytes long
        lane.feed(frame[n : n + 1])
    assert port.told == [*heard, ("failed", 1007)]
    lane.feed(frame[start + 64 :])
    lane.feed(wire(F(TEXT, b"late"), closing(1000), side=side))
    assert port.told == [*heard, ("failed", 1007), ("close", 1000, "")]


@pytest.mark.parametrize(
    "frame",
    [
        F(BINARY, b"\xff" * 200),
        F(TEXT, b"\xff" * 200, rsv=4),
        F(TEXT, b"\xff" * 200, wrong_mask=True),
        F(CONT, b"\xff" * 200),
    ],
)
def test_nothing_but_text_is_looked_at_ahead(frame: F) -> None:
    lane, port = open_lane()
    lane.feed(wire(F(TEXT, b"whole", fin=False), F(CONT)))
    lane.feed(wire(frame)[:-1])
    assert port.told == [("text", b"whole")]


def test_fragments_are_counted_for_each_message() -> None:
    lane, port = open_lane(max_fragments=3)
    three = wire(F(TEXT, b"a", fin=False), F(CONT, b"b", fin=False), F(CONT, b"c"))
    lane.feed(three * 3)
    assert port.told == [("text", b"abc")] * 3
    lane.feed(wire(F(TEXT, fin=False), F(CONT, fin=False), F(CONT, fin=False), F(CONT, fin=False)))
    assert port.told[3:] == [("failed", 1009)]


@pytest.mark.parametrize(
    "frames",
    [
        (F(TEXT, b"a", fin=False), F(CONT, b"b")),
        (F(TEXT, b"a", fin=False), F(7)),
        (F(TEXT, b"a", fin=False), F(TEXT, b"b")),
        (F(TEXT, b"a", fin=False), F(TEXT, bytes(2000))),
        (F(TEXT, b"a", fin=False), closing(1000)),
        (F(TEXT, b"a", fin=False), closing(1)),
        (F(TEXT, b"\xff", fin=False),),
        (F(PING, rsv=7),),
    ],
)
def test_what_the_reference_held_is_free_without_the_collector(frames: tuple[F, ...]) -> None:
    with nothing_left_of(Protocol):
        lane, port = open_lane()
        lane.feed(wire(*frames))
        assert port.told


def test_half_a_message_is_free_when_its_connection_stops() -> None:
    with nothing_left_of(Protocol):
        lane, _ = open_lane()
        lane.feed(wire(F(TEXT, b"a", fin=False)))
        lane.stop()


# -- turns -------------------------------------------------------------------------------------


def taken_in_a_turn(frames: Sequence[F], extensions: Sequence[Extension] = ()) -> list[int]:
    """How many messages each turn of 10,000 bytes takes in of so many frames."""
    lane, port = open_lane(extensions=extensions, max_size=5000, max_turn=10_000)
    turns: list[int] = []
    lane.feed(wire(*frames))
    while not turns or lane.behind:
        if turns:
            lane.feed()
        turns.append(len(port.told) - sum(turns))
    assert sum(turns) == len(frames)
    return turns


def test_a_turn_takes_in_so_many_bytes() -> None:
    # A frame counts 64 bytes more than it has, with its head of 8, or of 6.
    assert taken_in_a_turn([F(TEXT, b"x" * 2928)] * 8) == [4, 4]
    assert taken_in_a_turn([F(PING, b"x" * 30)] * 150) == [100, 50]


def test_what_the_reference_decides_counts_more() -> None:
    sender = deflate()
    frames = [compressed(sender, b"x") for _ in range(100)]
    most = -(-10_000 // (512 + 64 + len(frames[-1].to("server"))))
    assert max(taken_in_a_turn(frames, [deflate()])) == most


def test_what_was_compressed_counts_inflated() -> None:
    sender = deflate()
    frames = [compressed(sender, b"x" * 4000) for _ in range(9)]
    assert sum(len(frame.payload) for frame in frames) < 500
    assert taken_in_a_turn(frames, [deflate()]) == [3, 3, 3]


# -- permessage-deflate (RFC 7692) -------------------------------------------------------------


def deflate() -> PerMessageDeflate:
    return PerMessageDeflate(
        remote_no_context_takeover=False,
        local_no_context_takeover=False,
        remote_max_window_bits=15,
        local_max_window_bits=15,
    )


def compressed(extension: PerMessageDeflate, data: bytes, opcode: int = TEXT) -> F:
    from websockets.frames import Frame, Opcode

    frame = extension.encode(Frame(Opcode(opcode), data))
    return F(opcode, bytes(frame.data), rsv=4)


def test_compressed_messages_share_their_context() -> None:
    sender = deflate()
    first, second = (compressed(sender, b"the same words " * 9) for _ in range(2))
    assert len(second.payload) < len(first.payload)
    lane, port = open_lane(extensions=[deflate()])
    lane.feed(wire(first, F(PING, b"!"), F(TEXT, b"plain"), second))
    words = ("text", b"the same words " * 9)
    assert port.told == [words, ("ping", b"!"), ("text", b"plain"), words]


def test_compressed_message_in_fragments() -> None:
    whole = compressed(deflate(), b"in pieces " * 20, BINARY)
    lane, port = open_lane(extensions=[deflate()])
    lane.feed(
        wire(
            F(BINARY, whole.payload[:7], fin=False, rsv=4),
            F(PING),
            F(CONT, whole.payload[7:]),
        )
    )
    assert port.told == [("ping", b""), ("binary", b"in pieces " * 20)]


def test_what_continues_compressed_text_is_no_text_before_it_is_whole() -> None:
    text = "h\u00e9\u20ac\U0001f600".encode()
    payload = compressed(deflate(), text).payload
    lane, port = open_lane(extensions=[deflate()])
    frames = wire(F(TEXT, payload[:2], fin=False, rsv=4), F(CONT, payload[2:]))
    for n in range(len(frames)):
        lane.feed(frames[n : n + 1])
    assert port.told == [("text", text)]


@pytest.mark.parametrize("size", [1001, 10_000_000])
def test_compressed_message_above_the_limit(size: int) -> None:
    frame = compressed(deflate(), bytes(size))
    lane, port = open_lane(max_size=1000 if size == 1001 else 20_000, extensions=[deflate()])
    lane.feed(wire(frame))
    assert port.told == [("failed", 1009)]


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_bomb_is_inflated_no_further_than_the_limit(pieces: int) -> None:
    payload = compressed(deflate(), bytes(20_000_000)).payload
    first = F(TEXT, payload[: len(payload) // pieces], fin=pieces == 1, rsv=4)
    lane, port = open_lane(max_size=30_000, extensions=[deflate()])
    data = wire(first, F(CONT, payload[len(first.payload) :]))
    tracemalloc.start()
    try:
        lane.feed(data)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert port.told == [("failed", 1009)]
    assert most < 10 * lane.max_size


def test_compressed_fragments_above_the_limit() -> None:
    payload = compressed(deflate(), bytes(3000)).payload
    lane, port = open_lane(extensions=[deflate()])
    half = len(payload) // 2
    lane.feed(wire(F(TEXT, payload[:half], fin=False, rsv=4), F(CONT, payload[half:])))
    assert port.told == [("failed", 1009)]


def test_frame_above_the_limit_even_compressed() -> None:
    lane, port = open_lane(extensions=[deflate()])
    lane.feed(wire(F(TEXT, bytes(2000), rsv=4)))
    assert port.told == [("failed", 1009)]


@pytest.mark.parametrize("opcode", [CONT, CLOSE, PING, PONG, 3, 11])
def test_only_messages_may_be_compressed_above_the_limit(opcode: int) -> None:
    lane, port = open_lane(extensions=[deflate()])
    lane.feed(wire(F(opcode, bytes(2000), rsv=4)))
    assert port.told == [("failed", 1002)]


def test_noise_at_the_limit_grows_when_it_is_compressed() -> None:
    noise = hashlib.shake_256().digest(1000)
    frame = compressed(deflate(), noise, BINARY)
    assert len(frame.payload) > 1000
    lane, port = open_lane(max_size=1000, extensions=[deflate()])
    lane.feed(wire(frame))
    assert port.told == [("binary", noise)]


def test_uncompressed_messages_get_no_allowance() -> None:
    for frames in (
        [F(TEXT, bytes(1001))],
        [F(TEXT, bytes(1001), fin=False)],
        [F(TEXT, bytes(1000), fin=False), F(CONT, b"x")],
    ):
        lane, port = open_lane(max_size=1000, extensions=[deflate()])
        lane.feed(wire(*frames))
        assert port.told == [("failed", 1009)]


def test_compressed_text_that_is_not_utf8() -> None:
    lane, port = open_lane(extensions=[deflate()])
    lane.feed(wire(compressed(deflate(), b"\xff")))
    assert port.told == [("failed", 1007)]


def test_what_is_not_deflate() -> None:
    lane, port = open_lane(extensions=[deflate()])
    lane.feed(wire(F(TEXT, b"\xff\xff\xff", rsv=4)))
    assert port.told == [("failed", 1002)]


@pytest.mark.parametrize("rsv", [2, 1, 6])
def test_other_reserved_bits_with_deflate(rsv: int) -> None:
    lane, port = open_lane(extensions=[deflate()])
    lane.feed(wire(F(TEXT, b"x", rsv=rsv)))
    assert port.told == [("failed", 1002)]
