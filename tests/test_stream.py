from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from carriers import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    F,
    FakeStream,
    Raw,
    Recorder,
    closing,
    mask,
)
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.protocol import Side

from wse import Limits, testing
from wse.transports.base import Transport
from wse.transports.stream import StreamTransport

LIMITS = Limits(max_message_bytes=1000, close_timeout=5.0, max_unwritten_bytes=1000)
SIDES = {"server": Side.SERVER, "client": Side.CLIENT}
OTHER = {"server": "client", "client": "server"}

both_sides = pytest.mark.parametrize("side", sorted(SIDES))


class Opened:
    """An open transport on a fake stream."""

    def __init__(
        self,
        side: str = "server",
        *,
        half_closes: bool = True,
        extensions: Sequence[Extension] = (),
        started: bool = True,
    ) -> None:
        self.side = side
        self.stream = FakeStream(half_closes=half_closes)
        self.transport = StreamTransport(self.stream, SIDES[side], LIMITS, list(extensions))
        self.receiver = Recorder(self.transport)
        if started:
            self.transport.start(self.receiver)

    def arrive(self, *frames: F) -> None:
        self.stream.arrive(*frames, side=self.side)

    async def heard(self) -> list[tuple[int, bytes]]:
        """The frames that were written."""
        reader = asyncio.StreamReader()
        reader.feed_data(self.stream.written)
        reader.feed_eof()
        peer = Raw(self.side, reader, _NO_WRITER)
        return await peer.frames()


_NO_WRITER: asyncio.StreamWriter = None  # type: ignore[assignment]


# -- out -----------------------------------------------------------------------------------------


@both_sides
@testing.virtual_time
async def test_frames_given_together_leave_in_one_write(side: str) -> None:
    opened = Opened(side)
    opened.receiver.write(b"one", b"two", b"three")
    assert len(opened.stream.writes) == 1
    assert await opened.heard() == [(0x81, b"one"), (0x81, b"two"), (0x81, b"three")]


@testing.virtual_time
async def test_server_connections_share_what_is_framed() -> None:
    first, second = Opened().transport, Opened().transport
    assert first.framing(binary=False) is second.framing(binary=False)
    assert first.framing(binary=True) is second.framing(binary=True)
    assert first.framing(binary=False) is not first.framing(binary=True)


@testing.virtual_time
async def test_client_masks_each_frame_anew() -> None:
    opened = Opened("client")
    frame = opened.transport.framing(binary=False)(b"x" * 20)
    for _ in range(10):
        opened.transport.write([frame])
    frames = set(opened.stream.writes)
    assert len(frames) > 1
    assert {mask(one[6:], one[2:6]) for one in frames} == {b"x" * 20}


@both_sides
@testing.virtual_time
async def test_unwritten_is_what_the_peer_has_not_read(side: str) -> None:
    opened = Opened(side)
    opened.receiver.write(b"taken")
    assert opened.transport.unwritten == 0
    opened.stream.stick()
    opened.receiver.write(b"waits")
    opened.receiver.write(b"too")
    size = len(b"".join(opened.stream.writes[1:]))
    assert opened.transport.unwritten == size > 8
    assert opened.receiver.events == []
    opened.stream.unstick()
    assert opened.transport.unwritten == 0
    assert opened.receiver.events == [("writable",)]


@testing.virtual_time
async def test_any_unwritten_byte_counts() -> None:
    high, low = Opened().stream.limits
    assert high is not None
    assert high <= 1
    assert low == 0


# -- in ------------------------------------------------------------------------------------------


@testing.virtual_time
async def test_server_does_not_read_from_a_peer_that_does_not_read() -> None:
    opened = Opened("server")
    opened.stream.stick()
    opened.receiver.write(b"waits")
    assert not opened.stream.is_reading()
    opened.stream.unstick()
    assert opened.stream.is_reading()


@testing.virtual_time
async def test_client_reads_on_while_it_cannot_write() -> None:
    opened = Opened("client")
    opened.stream.stick()
    opened.receiver.write(b"waits")
    assert opened.stream.is_reading()
    opened.arrive(F(TEXT, b"heard"))
    assert opened.receiver.messages == [b"heard"]


@both_sides
@testing.virtual_time
async def test_pause_keeps_what_comes(side: str) -> None:
    opened = Opened(side)
    opened.transport.pause_reading()
    opened.transport.pause_reading()
    assert not opened.stream.is_reading()
    opened.arrive(F(TEXT, b"one"), F(BINARY, b"two"))
    assert opened.receiver.events == []
    opened.transport.resume_reading()
    opened.transport.resume_reading()
    assert opened.stream.is_reading()
    await testing.settle()
    assert opened.receiver.events == [("text", b"one"), ("binary", b"two")]


@testing.virtual_time
async def test_pause_within_a_message_holds_the_next() -> None:
    opened = Opened()
    opened.receiver.on_message = lambda _: opened.transport.pause_reading()
    opened.arrive(F(TEXT, b"one"), F(TEXT, b"two"), F(TEXT, b"three"))
    assert opened.receiver.messages == [b"one"]
    opened.transport.resume_reading()
    assert opened.receiver.messages == [b"one", b"two"]
    opened.receiver.on_message = None
    opened.transport.resume_reading()
    assert opened.receiver.messages == [b"one", b"two", b"three"]


@testing.virtual_time
async def test_server_reads_again_when_both_want_to() -> None:
    opened = Opened()
    opened.stream.stick()
    opened.receiver.write(b"waits")
    opened.transport.pause_reading()
    opened.stream.unstick()
    assert not opened.stream.is_reading()
    opened.stream.stick()
    opened.receiver.write(b"waits")
    opened.transport.resume_reading()
    assert not opened.stream.is_reading()
    opened.stream.unstick()
    assert opened.stream.is_reading()


@both_sides
@testing.virtual_time
async def test_what_came_before_start_comes_first(side: str) -> None:
    opened = Opened(side, started=False)
    opened.transport.preload(F(TEXT, b"with the upgrade").to(side))
    opened.arrive(F(TEXT, b"then"))
    opened.transport.start(opened.receiver)
    opened.arrive(F(TEXT, b"now"))
    assert opened.receiver.messages == [b"with the upgrade", b"then", b"now"]


@both_sides
@testing.virtual_time
async def test_what_came_before_a_loss_before_start_comes_first(side: str) -> None:
    opened = Opened(side, started=False)
    opened.arrive(F(TEXT, b"last words"), F(PING))
    opened.stream.lose()
    opened.transport.start(opened.receiver)
    assert opened.receiver.events == [("text", b"last words"), ("lost", 1006, "", False)]
    await opened.transport.wait_closed()


@both_sides
@testing.virtual_time
async def test_close_before_start_is_told(side: str) -> None:
    opened = Opened(side, started=False)
    opened.arrive(F(TEXT, b"last words"), closing(4321, "gone"))
    opened.stream.lose()
    opened.transport.start(opened.receiver)
    assert opened.receiver.events == [("text", b"last words"), ("lost", 4321, "gone", False)]
    await testing.pass_time(10.0)
    assert not opened.stream.is_aborted()


@testing.virtual_time
async def test_pause_before_start_holds() -> None:
    opened = Opened(started=False)
    opened.arrive(F(TEXT, b"early"))
    opened.transport.pause_reading()
    opened.transport.start(opened.receiver)
    assert opened.receiver.messages == []
    opened.transport.resume_reading()
    assert opened.receiver.messages == [b"early"]


@testing.virtual_time
async def test_limit_may_be_raised() -> None:
    opened = Opened()
    assert opened.transport.max_message_bytes == 1000
    opened.transport.max_message_bytes = 2000
    opened.arrive(F(TEXT, bytes(2000)), F(TEXT, bytes(2001)))
    assert opened.receiver.messages == [bytes(2000)]
    assert opened.receiver.end == (1009, "wse.message-too-large", True)


# -- pongs ---------------------------------------------------------------------------------------


@both_sides
@testing.virtual_time
async def test_pings_are_answered(side: str) -> None:
    opened = Opened(side)
    opened.arrive(F(PING, b"1"), F(PING, b"2"))
    assert await opened.heard() == [(0x80 | PONG, b"1"), (0x80 | PONG, b"2")]


@both_sides
@testing.virtual_time
async def test_pongs_that_nobody_reads_are_bounded(side: str) -> None:
    opened = Opened(side)
    opened.stream.stick()
    for _ in range(100):
        opened.arrive(F(PING, b"x" * 125))
    if side == "server":  # which does not even read them
        assert opened.transport.unwritten == 127
        assert not opened.stream.is_reading()
    else:
        assert 1000 < opened.transport.unwritten < 1000 + 2 * 131
    opened.stream.unstick()
    await testing.settle()
    opened.arrive(F(PING, b"again"))
    assert (await opened.heard())[-1] == (0x80 | PONG, b"again")


# -- our close -----------------------------------------------------------------------------------


@both_sides
@testing.virtual_time
async def test_close_follows_what_was_written(side: str) -> None:
    opened = Opened(side)
    opened.receiver.write(b"last")
    opened.transport.close(4321, "enough")
    opened.transport.close(1000, "again")
    opened.receiver.write(b"late")
    assert await opened.heard() == [(0x81, b"last"), (0x88, b"\x10\xe1enough")]


@both_sides
@testing.virtual_time
async def test_close_that_is_never_answered_is_aborted_in_time(side: str) -> None:
    opened = Opened(side)
    opened.transport.close(1000, "")
    await testing.pass_time(4.9)
    assert not opened.stream.is_closing()
    await testing.pass_time(0.2)
    assert opened.stream.is_aborted()
    await opened.transport.wait_closed()
    assert opened.receiver.events == []


@both_sides
@testing.virtual_time
async def test_after_close_nothing_is_told(side: str) -> None:
    opened = Opened(side)
    opened.transport.close(1000, "")
    opened.arrive(F(TEXT, b"x"), F(PING), F(CONT, b"y"))
    opened.stream.stick()
    opened.stream.unstick()
    opened.arrive(closing(1000))
    opened.stream.end()
    await opened.transport.wait_closed()
    assert opened.receiver.events == []
    assert len(opened.stream.writes) == 1


@testing.virtual_time
async def test_server_ends_the_stream_when_its_close_is_answered() -> None:
    opened = Opened("server")
    opened.transport.close(1000, "")
    opened.arrive(closing(1000))
    assert opened.stream.is_closing()
    await opened.transport.wait_closed()
    assert not opened.stream.is_aborted()


@testing.virtual_time
async def test_client_leaves_the_end_of_the_stream_to_the_server() -> None:
    """RFC 6455 section 7.1.1, but not for ever."""
    opened = Opened("client")
    opened.transport.close(1000, "")
    opened.arrive(closing(1000))
    await testing.pass_time(4.9)
    assert not opened.stream.is_closing()
    await testing.pass_time(0.2)
    assert opened.stream.is_aborted()


@both_sides
@testing.virtual_time
async def test_garbage_after_our_close_waits_for_the_end(side: str) -> None:
    opened = Opened(side)
    opened.transport.close(1000, "done")
    opened.arrive(F(TEXT, b"x", size_bytes=8))
    opened.arrive(closing(1000))
    assert not opened.stream.is_closing()
    opened.stream.end()
    await opened.transport.wait_closed()
    assert not opened.stream.is_aborted()
    assert opened.receiver.events == []


@testing.virtual_time
async def test_answer_to_our_close_is_heard_behind_a_large_message() -> None:
    opened = Opened()
    opened.transport.close(1000, "done")
    opened.arrive(F(TEXT, bytes(5000)), closing(1000))
    assert opened.stream.is_closing()
    assert opened.receiver.events == []


@testing.virtual_time
async def test_close_reads_on_to_hear_the_answer() -> None:
    opened = Opened()
    opened.stream.stick()
    opened.receiver.write(b"waits")
    opened.transport.pause_reading()
    opened.arrive(F(TEXT, b"held"))
    assert not opened.stream.is_reading()
    opened.transport.close(1000, "")
    assert opened.stream.is_reading()
    opened.arrive(closing(1000))
    assert opened.stream.is_closing()
    assert opened.receiver.events == []


@both_sides
@testing.virtual_time
async def test_close_within_a_message_is_the_last_that_is_told(side: str) -> None:
    opened = Opened(side)
    opened.receiver.on_message = lambda _: opened.transport.close(1000, "")
    opened.arrive(F(TEXT, b"one"), F(TEXT, b"two"), closing(1000))
    assert opened.receiver.events == [("text", b"one")]


@both_sides
@testing.virtual_time
async def test_abort_says_nothing(side: str) -> None:
    opened = Opened(side)
    opened.transport.abort()
    opened.receiver.write(b"late")
    opened.arrive(F(TEXT, b"late"), F(PING), closing(1000))
    await opened.transport.wait_closed()
    assert opened.stream.is_aborted()
    assert opened.stream.writes == []
    assert opened.receiver.events == []


# -- the peer's close ----------------------------------------------------------------------------


@both_sides
@testing.virtual_time
async def test_what_waits_leaves_before_the_echo(side: str) -> None:
    opened = Opened(side)
    opened.receiver.post(b"waits")
    opened.arrive(closing(4321, "bye"), F(TEXT, b"late"))
    assert opened.receiver.events == [("lost", 4321, "bye", False)]
    assert await opened.heard() == [(0x81, b"waits"), (0x88, b"\x10\xe1bye")]


@testing.virtual_time
async def test_server_ends_the_stream_after_the_echo() -> None:
    opened = Opened("server")
    opened.arrive(closing(1000))
    assert opened.stream.is_closing()
    await opened.transport.wait_closed()
    assert not opened.stream.is_aborted()


@testing.virtual_time
async def test_server_aborts_when_the_echo_is_not_read() -> None:
    opened = Opened("server")
    opened.stream.stick()
    opened.arrive(closing(1000))
    await testing.pass_time(4.9)
    assert not opened.stream.is_aborted()
    await testing.pass_time(0.2)
    assert opened.stream.is_aborted()
    await opened.transport.wait_closed()


@testing.virtual_time
async def test_client_waits_for_the_end_of_the_stream_after_the_echo() -> None:
    opened = Opened("client")
    opened.arrive(closing(1000))
    assert not opened.stream.is_closing()
    await testing.pass_time(5.1)
    assert opened.stream.is_aborted()


@both_sides
@testing.virtual_time
async def test_flush_may_close_instead_of_the_peer(side: str) -> None:
    """A receiver finds, as it flushes, that the peer does not keep up."""
    for end in (closing(1000), F(CONT)):
        opened = Opened(side)
        closer = Closer(opened.transport)
        opened.transport.start(closer)
        opened.arrive(end)
        assert closer.events == []
        assert await opened.heard() == [(0x88, b"\x03\xf5slow")]


class Closer(Recorder):
    def flush(self) -> None:
        self.transport.close(1013, "slow")


# -- failures ------------------------------------------------------------------------------------


@both_sides
@testing.virtual_time
async def test_what_waits_leaves_before_a_failure(side: str) -> None:
    opened = Opened(side)
    opened.receiver.post(b"waits")
    opened.arrive(F(CONT), F(TEXT, b"late"))
    assert opened.receiver.events == [("lost", 1002, "wse.protocol-error", True)]
    assert await opened.heard() == [(0x81, b"waits"), (0x88, b"\x03\xeawse.protocol-error")]


@testing.virtual_time
async def test_server_that_failed_says_no_more_and_reads_on() -> None:
    opened = Opened("server")
    opened.stream.stick()
    opened.transport.pause_reading()
    opened.arrive(F(CONT))
    opened.transport.resume_reading()
    await testing.settle()
    assert opened.stream.eof
    assert opened.stream.is_reading()
    opened.stream.unstick()
    opened.arrive(F(TEXT, b"late"), closing(1000))
    assert not opened.stream.is_closing()
    opened.stream.end()
    await opened.transport.wait_closed()
    assert not opened.stream.is_aborted()
    assert opened.receiver.events == [("lost", 1002, "wse.protocol-error", True)]


@pytest.mark.parametrize("half_closes", [True, False])
@testing.virtual_time
async def test_server_that_was_sent_too_much_waits_for_the_answer(half_closes: bool) -> None:
    opened = Opened("server", half_closes=half_closes)
    whole = F(BINARY, bytes(5000)).to("server")
    opened.stream.feed(whole[:3000])
    assert opened.receiver.events == [("lost", 1009, "wse.message-too-large", True)]
    assert opened.stream.eof is half_closes
    opened.stream.feed(whole[3000:])
    opened.arrive(F(TEXT, b"late"), F(BINARY, bytes(3000)))
    assert not opened.stream.is_closing()
    opened.arrive(closing(1009))
    assert opened.stream.is_closing()
    await opened.transport.wait_closed()
    assert not opened.stream.is_aborted()


@testing.virtual_time
async def test_server_that_cannot_half_close_ends_at_once_when_frames_are_no_frames() -> None:
    opened = Opened("server", half_closes=False)
    opened.arrive(F(CONT))
    assert opened.stream.is_closing()
    assert await opened.heard() == [(0x88, b"\x03\xeawse.protocol-error")]


@both_sides
@testing.virtual_time
async def test_peer_that_stays_after_a_failure_is_aborted_in_time(side: str) -> None:
    opened = Opened(side)
    opened.arrive(F(CONT))
    await testing.pass_time(4.9)
    assert not opened.stream.is_closing()
    await testing.pass_time(0.2)
    assert opened.stream.is_aborted()


# -- ends without a word -------------------------------------------------------------------------


@both_sides
@testing.virtual_time
async def test_loss_is_1006_once(side: str) -> None:
    opened = Opened(side)
    gone: list[Transport] = []
    opened.transport.when_closed(gone.append)
    opened.arrive(F(TEXT, b"half", fin=False))
    opened.stream.lose()
    opened.transport.close(1000, "")
    opened.receiver.write(b"late")
    await opened.transport.wait_closed()
    assert opened.receiver.events == [("lost", 1006, "", False)]
    assert gone == [opened.transport]
    assert opened.stream.writes == []


@both_sides
@testing.virtual_time
async def test_end_of_the_stream_with_a_stuck_backlog_is_aborted_in_time(side: str) -> None:
    opened = Opened(side)
    opened.stream.stick()
    opened.receiver.write(b"waits")
    opened.stream.end()
    await testing.pass_time(4.9)
    assert opened.receiver.events == []
    await testing.pass_time(0.2)
    assert opened.stream.is_aborted()
    assert opened.receiver.events == [("lost", 1006, "", False)]


@both_sides
@testing.virtual_time
async def test_everybody_may_wait_for_the_end(side: str) -> None:
    opened = Opened(side)
    impatient, patient = (asyncio.ensure_future(opened.transport.wait_closed()) for _ in "ab")
    await testing.settle()
    impatient.cancel()
    await testing.settle()
    assert impatient.cancelled()
    assert not patient.done()
    opened.stream.lose()
    await patient
    await opened.transport.wait_closed()


@testing.virtual_time
async def test_no_timer_is_left() -> None:
    opened = Opened()
    opened.transport.close(1000, "")
    opened.arrive(closing(1000))
    await opened.transport.wait_closed()
    await testing.pass_time(10.0)
    assert not opened.stream.is_aborted()


# -- compression ---------------------------------------------------------------------------------


def deflate() -> list[PerMessageDeflate]:
    return [
        PerMessageDeflate(
            remote_no_context_takeover=False,
            local_no_context_takeover=False,
            remote_max_window_bits=15,
            local_max_window_bits=15,
        )
    ]


@both_sides
@testing.virtual_time
async def test_compression_both_ways(side: str) -> None:
    ours, theirs = Opened(side, extensions=deflate()), Opened(OTHER[side], extensions=deflate())
    for binary in (False, True, False):
        ours.receiver.write(b"the same words " * 20, b"", binary=binary)
    assert len(ours.stream.written) < 200
    theirs.stream.feed(ours.stream.written)
    words = b"the same words " * 20
    assert theirs.receiver.events == [
        ("text", words),
        ("text", b""),
        ("binary", words),
        ("binary", b""),
        ("text", words),
        ("text", b""),
    ]


@testing.virtual_time
async def test_messages_are_compressed_as_they_leave_and_shared_until_then() -> None:
    """So a broadcast holds the loop no longer than a plain one in each turn."""
    first, second = (Opened(extensions=deflate()) for _ in range(2))
    framing = first.transport.framing(binary=False)
    assert framing is second.transport.framing(binary=False)
    frame = framing(b"the same words " * 20)
    assert len(frame) > 300
    for one in (first, second):
        one.transport.write([frame])
        assert len(one.stream.written) < 50


@both_sides
@testing.virtual_time
async def test_close_and_pong_are_not_compressed(side: str) -> None:
    opened = Opened(side, extensions=deflate())
    opened.arrive(F(PING, b"x" * 100))
    opened.transport.close(1000, "y" * 100)
    assert await opened.heard() == [
        (0x80 | PONG, b"x" * 100),
        (0x80 | CLOSE, b"\x03\xe8" + b"y" * 100),
    ]


def lost(opened: Opened) -> tuple[int, str, bool] | None:
    return next((event[1:] for event in opened.receiver.events if event[0] == "lost"), None)


# -- heartbeat -----------------------------------------------------------------------------------


@both_sides
@testing.virtual_time
async def test_a_silent_peer_is_asked_and_given_up(side: str) -> None:
    opened = Opened(side)
    await testing.pass_time(24.9)
    assert opened.stream.writes == []
    await testing.pass_time(0.2)
    assert await opened.heard() == [(0x80 | PING, b"")]
    await testing.pass_time(9.8)
    assert lost(opened) is None
    await testing.pass_time(0.2)
    assert lost(opened) == (1006, "wse.heartbeat-lost", False)
    await opened.transport.wait_closed()


@both_sides
@testing.virtual_time
async def test_a_peer_that_answers_stays(side: str) -> None:
    opened = Opened(side)
    for _ in range(10):
        await testing.pass_time(26)
        opened.arrive(F(PONG, b""))
    assert lost(opened) is None
    assert await opened.heard() == [(0x80 | PING, b"")] * len(opened.stream.writes)
    assert opened.stream.writes


@testing.virtual_time
async def test_a_dead_peer_is_noticed_behind_a_full_send_buffer() -> None:
    opened = Opened()
    opened.stream.stick()
    opened.transport.write([b"x" * 100])
    await testing.pass_time(36)
    assert lost(opened) == (1006, "wse.heartbeat-lost", False)
    assert len(opened.stream.writes) == 1


@testing.virtual_time
async def test_silence_does_not_count_while_reading_is_paused() -> None:
    opened = Opened()
    opened.transport.pause_reading()
    await testing.pass_time(3600)
    assert lost(opened) is None
    opened.transport.resume_reading()
    await testing.pass_time(61)
    assert lost(opened) == (1006, "wse.heartbeat-lost", False)


@testing.virtual_time
async def test_a_closed_connection_has_no_heartbeat() -> None:
    opened = Opened()
    opened.transport.close(1000, "")
    await testing.pass_time(3600)
    assert lost(opened) is None
    assert await opened.heard() == [(0x80 | CLOSE, b"\x03\xe8")]


# -- turns ---------------------------------------------------------------------------------------


@testing.virtual_time
async def test_a_flood_is_taken_in_over_many_turns_and_nothing_is_lost() -> None:
    opened = Opened()
    frames = [F(TEXT, b"%d" % n) for n in range(10_000)]
    opened.arrive(*frames)
    first = len(opened.receiver.messages)
    assert 0 < first <= LIMITS.max_turn_bytes // (64 + 7) + 1
    assert not opened.stream.is_reading()
    await asyncio.sleep(0)
    assert first < len(opened.receiver.messages) <= 2 * first + 1
    await testing.settle()
    assert opened.receiver.messages == [b"%d" % n for n in range(10_000)]
    assert opened.stream.is_reading()


@testing.virtual_time
async def test_a_flood_may_be_paused_between_turns() -> None:
    opened = Opened()
    opened.arrive(*(F(TEXT, b"%d" % n) for n in range(5_000)))
    opened.transport.pause_reading()
    before = len(opened.receiver.messages)
    await testing.pass_time(1)
    assert len(opened.receiver.messages) == before
    assert not opened.stream.is_reading()
    opened.transport.resume_reading()
    await testing.settle()
    assert opened.receiver.messages == [b"%d" % n for n in range(5_000)]
    assert opened.stream.is_reading()


@testing.virtual_time
async def test_a_flood_of_a_peer_that_is_gone_ends() -> None:
    opened = Opened()
    opened.arrive(*(F(PING, b"") for _ in range(5_000)))
    opened.transport.abort()
    await testing.settle()
    assert len(opened.stream.writes) < 5_000


@both_sides
@testing.virtual_time
async def test_the_pongs_of_one_read_leave_together_and_in_order(side: str) -> None:
    opened = Opened(side)
    opened.arrive(F(PING, b"1"), F(PING, b"2"), F(PING, b"3"), closing(1000))
    assert len(opened.stream.writes) == 1
    frames = [(head & 0x0F, payload) for head, payload in await opened.heard()]
    assert frames == [(PONG, b"1"), (PONG, b"2"), (PONG, b"3"), (CLOSE, b"\x03\xe8")]


@testing.virtual_time
async def test_what_came_before_the_end_is_handed_on_before_it() -> None:
    opened = Opened()
    opened.arrive(*(F(TEXT, b"%d" % n) for n in range(400)))
    opened.stream.abort()
    await testing.settle()
    assert opened.receiver.messages == [b"%d" % n for n in range(400)]
    assert opened.receiver.events[-1] == ("lost", 1006, "", False)
    await opened.transport.wait_closed()


@testing.virtual_time
async def test_a_send_buffer_that_empties_is_a_sign_of_life() -> None:
    opened = Opened()
    for _ in range(10):
        opened.stream.stick()
        opened.transport.write([b"x" * 100])
        await testing.pass_time(20)
        opened.stream.unstick()
    assert lost(opened) is None
