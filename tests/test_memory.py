from __future__ import annotations

import asyncio

import pytest
from carriers import Acceptor, Recorder

from wse import Attempt, ConnectionFailed, Decision, Limits, WseServer, testing
from wse.transports.memory import MemoryDialer, MemoryTransport, pair

LIMITS = Limits(max_message_bytes=1000)


class Ends:
    """Two joined ends with a recorder each."""

    def __init__(self, *, started: bool = True) -> None:
        self.one, self.two = pair(LIMITS)
        self.at_one = Recorder(self.one)
        self.at_two = Recorder(self.two)
        if started:
            self.one.start(self.at_one)
            self.two.start(self.at_two)


# -- messages ------------------------------------------------------------------------------------


@testing.virtual_time
async def test_messages_arrive_in_order_and_later() -> None:
    ends = Ends()
    ends.at_one.write(b"1", b"2")
    ends.at_one.write(b"3")
    ends.at_two.write(b"back")
    assert ends.at_two.events == []
    await testing.settle()
    assert ends.at_two.events == [("text", b"1"), ("text", b"2"), ("text", b"3")]
    assert ends.at_one.events == [("text", b"back")]


@testing.virtual_time
async def test_text_and_binary() -> None:
    ends = Ends()
    ends.at_one.write(b"text")
    ends.at_one.write(b"\xff", binary=True)
    await testing.settle()
    assert ends.at_two.events == [("text", b"text"), ("binary", b"\xff")]


@testing.virtual_time
async def test_ends_share_what_is_framed() -> None:
    one, two = pair(LIMITS)
    for binary in (False, True):
        assert one.framing(binary=binary) is two.framing(binary=binary)


@testing.virtual_time
async def test_what_came_before_start_waits_for_it() -> None:
    ends = Ends(started=False)
    ends.at_one.write(b"early")
    ends.one.close(1000, "and gone")
    await testing.settle()
    ends.two.start(ends.at_two)
    await testing.settle()
    assert ends.at_two.events == [("text", b"early"), ("lost", 1000, "and gone", False)]


@testing.virtual_time
async def test_pause_holds_and_loses_nothing() -> None:
    ends = Ends()
    ends.at_two.on_message = lambda _: ends.two.pause_reading()
    ends.at_one.write(b"1", b"2", b"3")
    await testing.settle()
    assert ends.at_two.messages == [b"1"]
    ends.two.resume_reading()
    await testing.settle()
    assert ends.at_two.messages == [b"1", b"2"]
    ends.at_two.on_message = None
    ends.two.resume_reading()
    await testing.settle()
    assert ends.at_two.messages == [b"1", b"2", b"3"]


# -- a peer that does not read -------------------------------------------------------------------


@testing.virtual_time
async def test_nothing_is_unwritten_while_the_peer_reads() -> None:
    ends = Ends()
    ends.at_one.write(b"12345")
    assert ends.one.unwritten == 0
    await testing.settle()
    assert ends.at_one.events == []


@pytest.mark.parametrize("how", ["stall", "pause"])
@testing.virtual_time
async def test_unwritten_until_the_peer_reads_again(how: str) -> None:
    ends = Ends()
    stop, go = {
        "stall": (ends.two.stall, ends.two.resume),
        "pause": (ends.two.pause_reading, ends.two.resume_reading),
    }[how]
    stop()
    ends.at_one.write(b"12345")
    ends.at_one.write(b"678")
    await testing.settle()
    assert ends.one.unwritten == 8
    assert ends.at_two.events == ends.at_one.events == []
    go()
    await testing.settle()
    assert ends.at_two.messages == [b"12345", b"678"]
    assert ends.one.unwritten == 0
    assert ends.at_one.events == [("writable",)]


@testing.virtual_time
async def test_writable_is_told_when_the_peer_stalls_after_the_write() -> None:
    """Who asks `unwritten` in between waits for it."""
    ends = Ends()
    ends.at_one.write(b"under way")
    ends.two.stall()
    assert ends.one.unwritten == len(b"under way")
    await testing.settle()
    ends.two.resume()
    await testing.settle()
    assert ends.at_one.events == [("writable",)]


@pytest.mark.parametrize("how", ["stall", "pause"])
@testing.virtual_time
async def test_writable_is_told_of_what_came_to_a_peer_that_stopped_at_the_last_message(
    how: str,
) -> None:
    ends = Ends()
    stop, go = {
        "stall": (ends.two.stall, ends.two.resume),
        "pause": (ends.two.pause_reading, ends.two.resume_reading),
    }[how]
    ends.at_two.on_message = lambda _: stop()
    ends.at_one.write(b"last")
    await testing.settle()
    ends.at_one.events.clear()
    ends.at_one.write(b"more")
    await testing.settle()
    assert ends.one.unwritten == 4
    ends.at_two.on_message = None
    go()
    await testing.settle()
    assert ends.one.unwritten == 0
    assert ends.at_one.events == [("writable",)]


@testing.virtual_time
async def test_a_stall_in_the_turn_of_a_send_holds_up_nothing_for_ever() -> None:
    server: WseServer = WseServer(everybody)
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        server.send("alice", "first")
        await asyncio.sleep(0)
        device.stall()
        server.send("alice", "second")
        await testing.settle()
        device.resume()
        assert await device.next("first") is None
        assert await device.next("second") is None


def everybody(attempt: Attempt) -> Decision:
    return attempt.accept(attempt.identity)


# -- ends ----------------------------------------------------------------------------------------


@testing.virtual_time
async def test_close_follows_what_was_written() -> None:
    ends = Ends()
    ends.at_one.write(b"last")
    ends.one.close(4321, "enough")
    ends.at_one.write(b"late")
    ends.at_two.write(b"crossing")
    await testing.settle()
    assert ends.at_two.events == [("text", b"last"), ("lost", 4321, "enough", False)]
    assert ends.at_one.events == []
    await ends.one.wait_closed()
    await ends.two.wait_closed()


@testing.virtual_time
async def test_what_waits_at_the_peer_is_flushed_first() -> None:
    ends = Ends()
    ends.at_two.on_message = lambda data: ends.at_two.post(b"echo of " + data)
    ends.at_one.write(b"x")
    ends.one.close(1000, "")
    await testing.settle()
    assert [event[0] for event in ends.at_two.events] == ["text", "lost"]
    assert ends.at_two.end == (1000, "", False)


@testing.virtual_time
async def test_close_twice_is_close() -> None:
    ends = Ends()
    ends.one.close(1000, "first")
    ends.one.close(1001, "second")
    ends.one.abort()
    await testing.settle()
    assert ends.at_two.end == (1000, "first", False)


@testing.virtual_time
async def test_both_close_and_nobody_is_told() -> None:
    ends = Ends()
    ends.one.close(1000, "")
    ends.two.close(1000, "")
    await testing.settle()
    assert ends.at_one.events == ends.at_two.events == []


@testing.virtual_time
async def test_abort_takes_what_was_under_way() -> None:
    ends = Ends()
    ends.at_one.write(b"lost")
    ends.one.abort()
    await testing.settle()
    assert ends.at_two.events == [("lost", 1006, "", False)]
    assert ends.at_one.events == []


@testing.virtual_time
async def test_tear_is_1006_at_both_ends_once() -> None:
    ends = Ends()
    ends.at_one.write(b"lost")
    ends.at_two.write(b"lost")
    ends.one.tear()
    ends.one.tear()
    await testing.settle()
    assert ends.at_one.events == ends.at_two.events == [("lost", 1006, "", False)]
    await ends.one.wait_closed()
    await ends.two.wait_closed()


@testing.virtual_time
async def test_tear_after_a_close_tells_nobody_again() -> None:
    ends = Ends()
    ends.one.close(1000, "bye")
    ends.one.tear()
    await testing.settle()
    assert ends.at_one.events == []
    ends.two.tear()
    await testing.settle()
    assert ends.at_two.events == [("lost", 1000, "bye", False)]


@testing.virtual_time
async def test_tear_before_start_is_told_at_the_peer() -> None:
    ends = Ends(started=False)
    ends.one.tear()
    ends.two.start(ends.at_two)
    await testing.settle()
    assert ends.at_two.events == [("lost", 1006, "", False)]


@testing.virtual_time
async def test_message_at_the_limit_and_above() -> None:
    ends = Ends()
    ends.at_two.on_message = lambda _: ends.at_two.post(b"echo")
    ends.at_one.write(bytes(1000), bytes(1001), b"late")
    await testing.settle()
    assert ends.at_two.messages == [bytes(1000)]
    assert ends.at_two.end == (1009, "wse.message-too-large", True)
    assert ends.at_one.events == [
        ("text", b"echo"),
        ("lost", 1009, "wse.message-too-large", False),
    ]


@testing.virtual_time
async def test_limit_is_each_ends_own_and_may_be_raised() -> None:
    ends = Ends()
    ends.two.max_message_bytes = 2000
    ends.at_one.write(bytes(2000))
    ends.at_two.write(bytes(2000))
    await testing.settle()
    assert ends.at_two.messages == [bytes(2000)]
    assert ends.at_one.end == (1009, "wse.message-too-large", True)


@pytest.mark.parametrize("end", ["close", "limit"])
@testing.virtual_time
async def test_flush_may_close_instead(end: str) -> None:
    ends = Ends(started=False)
    closer = Closer(ends.two)
    ends.one.start(ends.at_one)
    ends.two.start(closer)
    if end == "close":
        ends.one.close(1000, "")
    else:
        ends.at_one.write(bytes(1001))
    await testing.settle()
    assert closer.events == []
    assert ends.at_one.end == (None if end == "close" else (1013, "slow", False))


class Closer(Recorder):
    def flush(self) -> None:
        self.transport.close(1013, "slow")


@testing.virtual_time
async def test_close_within_a_message_is_the_last_that_is_told() -> None:
    ends = Ends()
    ends.at_two.on_message = lambda _: ends.two.close(1000, "enough")
    ends.at_one.write(b"1", b"2")
    await testing.settle()
    assert ends.at_two.messages == [b"1"]
    assert ends.at_two.end is None
    assert ends.at_one.end == (1000, "enough", False)


@testing.virtual_time
async def test_one_of_many_who_wait_may_give_up() -> None:
    ends = Ends()
    impatient, patient = (asyncio.ensure_future(ends.one.wait_closed()) for _ in "ab")
    await testing.settle()
    impatient.cancel()
    await testing.settle()
    assert not patient.done()
    ends.two.close(1000, "")
    await patient
    assert impatient.cancelled()


# -- the dialer ----------------------------------------------------------------------------------


@testing.virtual_time
async def test_dial_tells_the_acceptor_what_was_asked() -> None:
    acceptor = Acceptor(LIMITS, speaks=["known"])
    dialer = MemoryDialer(acceptor, remote_addr="192.0.2.1")
    await testing.pass_time(7.0)
    transport, selected = await dialer(
        "ws://test/a/b?c=d",
        subprotocols=["unknown", "known"],
        headers={"Cookie": "e=f", "X-One": "1"},
        limits=LIMITS,
    )
    _, handshake, subprotocol = acceptor.accepted.get_nowait()
    assert dialer.last is transport
    assert (handshake.path, handshake.query) == ("/a/b", {"c": "d"})
    assert handshake.cookies == {"e": "f"}
    assert handshake.headers["x-one"] == "1"
    assert handshake.remote_addr == "192.0.2.1"
    assert handshake.opened == pytest.approx(7.0)
    assert subprotocol == selected == "known"


@testing.virtual_time
async def test_dial_without_a_path_or_a_common_subprotocol() -> None:
    acceptor = Acceptor(LIMITS, speaks=["known"])
    await MemoryDialer(acceptor)("ws://test", subprotocols=["other"], headers={}, limits=LIMITS)
    _, handshake, subprotocol = acceptor.accepted.get_nowait()
    assert (handshake.path, handshake.query, handshake.remote_addr) == ("/", {}, None)
    assert subprotocol is None


@testing.virtual_time
async def test_dial_who_cannot_be_reached() -> None:
    acceptor = Acceptor(LIMITS)
    dialer = MemoryDialer(acceptor)
    dialer.reachable = False
    with pytest.raises(ConnectionFailed) as caught:
        await dialer("ws://test/", subprotocols=["x"], headers={}, limits=LIMITS)
    assert caught.value.temporary
    assert acceptor.accepted.empty()
    dialer.reachable = True
    transport, _ = await dialer("ws://test/", subprotocols=["x"], headers={}, limits=LIMITS)
    assert isinstance(transport, MemoryTransport)
