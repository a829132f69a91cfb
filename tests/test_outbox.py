from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from wse import Limits, MessageTooLarge, Protocol, WseJSON, testing
from wse.outbox import Flusher, Outbox, Parcel, Wire
from wse.transports.base import Receiver, Transport

LIMIT = 1024 * 1024


class Pipe(Transport):
    """A transport whose peer reads as many bytes as the test says."""

    def __init__(self, *, reads: bool = True, takes: int = 0) -> None:
        self.writes: list[list[bytes]] = []
        self.reads = reads
        self.takes = takes
        self._unwritten = 0

    def start(self, receiver: Receiver) -> None:
        raise NotImplementedError

    def hand_over(self, receiver: Receiver) -> None:
        raise NotImplementedError

    @property
    def heard(self) -> float:
        raise NotImplementedError

    def framing(self, *, binary: bool) -> Callable[[bytes], bytes]:
        raise NotImplementedError

    def write(self, frames: list[bytes]) -> None:
        self.writes.append(frames)
        if not self.reads:
            self._unwritten += sum(len(frame) for frame in frames) - self.takes

    @property
    def unwritten(self) -> int:
        return self._unwritten

    def drain(self, size: int | None = None) -> None:
        self._unwritten -= self._unwritten if size is None else size

    def close(self, code: int, reason: str) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError

    def pause_reading(self) -> None:
        raise NotImplementedError

    def resume_reading(self) -> None:
        raise NotImplementedError

    def when_closed(self, tell: Callable[[Transport], object]) -> None:
        raise NotImplementedError

    async def wait_closed(self) -> None:
        raise NotImplementedError


def outbox(*frames: bytes, limits: Limits | None = None) -> Outbox:
    box = Outbox(limits or Limits())
    for frame in frames:
        box.append(frame)
    return box


# -- one write -------------------------------------------------------------------------------------


def test_all_that_waits_leaves_in_one_write_in_order() -> None:
    box, pipe = outbox(b"a", b"b", b"c"), Pipe()
    assert box.flush(pipe)
    assert pipe.writes == [[b"a", b"b", b"c"]]


def test_nothing_is_written_twice_or_in_vain() -> None:
    box, pipe = outbox(b"a"), Pipe()
    box.flush(pipe)
    assert box.flush(pipe)
    assert pipe.writes == [[b"a"]]


def test_only_the_first_frame_asks_for_a_flush() -> None:
    box = outbox()
    assert [box.append(b"a"), box.append(b"b")] == [True, False]
    box.flush(Pipe())
    assert box.append(b"c")


def test_frames_wait_here_while_the_transport_still_holds_some() -> None:
    box, pipe = outbox(b"a"), Pipe(reads=False)
    assert box.flush(pipe)
    box.append(b"b")
    box.append(b"c")
    assert box.flush(pipe)
    assert pipe.writes == [[b"a"]]
    pipe.drain()
    assert box.flush(pipe)
    assert pipe.writes == [[b"a"], [b"b", b"c"]]


def test_a_forced_flush_writes_though_the_transport_holds_some() -> None:
    box, pipe = outbox(b"a"), Pipe(reads=False)
    box.flush(pipe)
    box.append(b"b")
    box.flush(pipe, forced=True)
    assert pipe.writes == [[b"a"], [b"b"]]


def test_what_is_cleared_is_never_written() -> None:
    box, pipe = outbox(b"a" * LIMIT, b"b"), Pipe()
    box.clear()
    assert not box.crowded
    assert box.flush(pipe)
    assert pipe.writes == []


# -- the bound -------------------------------------------------------------------------------------


def test_a_single_message_into_an_empty_queue_always_goes() -> None:
    box, pipe = outbox(b"x" * (5 * LIMIT)), Pipe(reads=False)
    assert box.flush(pipe)
    assert box.flush(pipe)
    box.append(b"y")
    assert not box.flush(pipe)


def test_a_peer_that_reads_is_never_slow() -> None:
    pipe = Pipe()
    assert outbox(*[b"x" * 100] * 5000).flush(pipe)
    assert outbox(*[b"x" * LIMIT] * 3).flush(pipe)


@pytest.mark.parametrize(("count", "keeps_up"), [(1024, True), (1025, False)])
def test_the_bound_of_messages_that_the_transport_holds(count: int, *, keeps_up: bool) -> None:
    assert outbox(*[b"x"] * count).flush(Pipe(reads=False)) is keeps_up


@pytest.mark.parametrize(("size", "keeps_up"), [(LIMIT, True), (LIMIT + 1, False)])
def test_the_bound_of_bytes_that_the_transport_holds(size: int, *, keeps_up: bool) -> None:
    assert outbox(b"x", b"y" * (size - 1)).flush(Pipe(reads=False)) is keeps_up


@pytest.mark.parametrize(("count", "keeps_up"), [(1023, True), (1024, False)])
def test_the_bound_of_messages_that_wait_here(count: int, *, keeps_up: bool) -> None:
    box, pipe = outbox(b"x"), Pipe(reads=False)
    box.flush(pipe)
    for _ in range(count):
        box.append(b"y")
    assert box.flush(pipe) is keeps_up


@pytest.mark.parametrize(("size", "keeps_up"), [(LIMIT - 10, True), (LIMIT - 9, False)])
def test_the_bound_of_bytes_here_and_there(size: int, *, keeps_up: bool) -> None:
    box, pipe = outbox(b"x" * 10), Pipe(reads=False)
    box.flush(pipe)
    box.append(b"y" * size)
    assert box.flush(pipe) is keeps_up


def test_only_the_unwritten_tail_counts() -> None:
    box, pipe = outbox(*[b"x" * 10] * 2000), Pipe(reads=False, takes=9_765)
    assert box.flush(pipe)  # 1,024 messages are left, the first of them in part
    box.append(b"y")
    assert not box.flush(pipe)


def test_what_the_peer_has_read_since_counts_no_more() -> None:
    box, pipe = outbox(*[b"x" * 10] * 1000), Pipe(reads=False)
    box.flush(pipe)
    pipe.drain(9_000)
    for _ in range(924):
        box.append(b"y")
    assert box.flush(pipe)
    box.append(b"y")
    assert not box.flush(pipe)
    pipe.drain(9)
    assert not box.flush(pipe)
    pipe.drain(1)
    assert box.flush(pipe)
    assert len(pipe.writes) == 1


def test_more_in_the_transport_than_it_was_given_is_no_more_messages() -> None:
    box, pipe = outbox(b"x", b"y"), Pipe(reads=False)
    pipe.drain(-100)  # a pong, say
    box.flush(pipe, forced=True)
    assert pipe.writes == [[b"x", b"y"]]
    for _ in range(1022):
        box.append(b"z")
    assert box.flush(pipe)


def test_other_bounds() -> None:
    limits = Limits(max_unwritten_messages=2, max_unwritten_bytes=10)
    assert outbox(b"12345", b"67890", limits=limits).flush(Pipe(reads=False))
    assert not outbox(b"1", b"2", b"3", limits=limits).flush(Pipe(reads=False))
    assert not outbox(b"12345", b"678901", limits=limits).flush(Pipe(reads=False))


def test_crowded_is_what_waits_above_a_bound() -> None:
    limits = Limits(max_unwritten_messages=2, max_unwritten_bytes=10)
    assert not outbox(b"12345", b"67890", limits=limits).crowded
    assert outbox(b"1", b"2", b"3", limits=limits).crowded
    assert outbox(b"12345678901", limits=limits).crowded


@pytest.mark.parametrize("frame", [b"3", b"12345678"])
def test_crowded_is_also_what_the_transport_holds(frame: bytes) -> None:
    limits = Limits(max_unwritten_messages=2 + len(frame) // 2, max_unwritten_bytes=9)
    box, pipe = outbox(b"1", b"2", limits=limits), Pipe(reads=False)
    box.flush(pipe)
    crowded = [box.crowded]
    box.append(frame)
    crowded.append(box.crowded)
    pipe.drain()
    box.flush(pipe)
    crowded.append(box.crowded)
    assert crowded == [False, True, False]


# -- flusher ---------------------------------------------------------------------------------------


class Sender:
    def __init__(self, flush: Callable[[], object]) -> None:
        self._flush = flush

    def flush(self) -> None:
        self._flush()


@testing.virtual_time
async def test_all_flush_at_the_end_of_the_turn_in_order() -> None:
    flusher = Flusher(asyncio.get_running_loop())
    done: list[int] = []
    flusher.add(Sender(lambda: done.append(1)))
    flusher.add(Sender(lambda: done.append(2)))
    assert done == []
    await asyncio.sleep(0)
    assert done == [1, 2]
    flusher.add(Sender(lambda: done.append(3)))
    await asyncio.sleep(0)
    assert done == [1, 2, 3]


@testing.virtual_time
async def test_one_callback_serves_all(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    asked: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(loop, "call_soon", asked.append)
        flusher = Flusher(loop)
        for _ in range(10):
            flusher.add(Sender(lambda: None))
    assert len(asked) == 1


@testing.virtual_time
async def test_what_is_added_during_a_flush_has_the_next_turn() -> None:
    flusher = Flusher(asyncio.get_running_loop())
    done: list[int] = []

    def again() -> None:
        done.append(1)
        flusher.add(Sender(lambda: done.append(2)))

    flusher.add(Sender(again))
    await asyncio.sleep(0)
    assert done == [1]
    await asyncio.sleep(0)
    assert done == [1, 2]


@testing.virtual_time
async def test_thousands_flush_over_several_turns() -> None:
    flusher = Flusher(asyncio.get_running_loop())
    done: list[int] = []
    for number in range(600):
        flusher.add(Sender(partial(done.append, number)))
    counts = []
    for turn in range(4):
        await asyncio.sleep(0)
        counts.append(len(done))
        if turn == 0:
            flusher.add(Sender(lambda: done.append(600)))
    assert counts == [256, 512, 601, 601]
    assert done == list(range(601))


# -- parcel ----------------------------------------------------------------------------------------


class Counting(WseJSON):
    """Counts how often it packs."""

    def __init__(self) -> None:
        super().__init__()
        self.packed = 0

    def pack(self, type: str, payload: Any, stamp: Any) -> bytes:
        self.packed += 1
        return super().pack(type, payload, stamp)


class Framing:
    """Counts how often it frames."""

    def __init__(self, mark: bytes) -> None:
        self.mark = mark
        self.framed = 0

    def __call__(self, data: bytes) -> bytes:
        self.framed += 1
        return self.mark + data


def test_a_parcel_is_packed_once_per_protocol_and_framed_once_per_wire() -> None:
    protocols = Counting(), Counting()
    framings = Framing(b"1"), Framing(b"2")
    wires: list[Wire] = [(protocol, framing) for protocol in protocols for framing in framings]
    parcel = Parcel("a", [1], LIMIT)
    frames = {parcel.frame(wire) for wire in wires * 100}
    assert frames == {b'1["a",[1],null]', b'2["a",[1],null]'}
    assert [protocol.packed for protocol in protocols] == [1, 1]
    assert [framing.framed for framing in framings] == [2, 2]


def test_a_parcel_for_nobody_is_never_packed() -> None:
    Parcel("a", object(), LIMIT)


def test_a_parcel_that_was_packed_early_is_not_packed_again() -> None:
    protocol = Counting()
    parcel = Parcel("a", {"n": 1}, LIMIT)
    data = parcel.data(protocol)
    assert parcel.frame((protocol, bytes)) == data
    assert protocol.packed == 1


@pytest.mark.parametrize("payload", [None, 0, "", False])
def test_falsy_payloads_are_packed(payload: Any) -> None:
    protocol = WseJSON()
    assert Parcel("a", payload, LIMIT).data(protocol) == protocol.encode("a", payload)


def test_a_parcel_above_the_limit() -> None:
    protocol: Protocol = WseJSON()
    size = len(protocol.encode("a", "x" * 100))
    assert len(Parcel("a", "x" * 100, size).data(protocol)) == size
    with pytest.raises(MessageTooLarge) as caught:
        Parcel("a", "x" * 100, size - 1).frame((protocol, bytes))
    assert caught.value.details == {"size": size, "limit": size - 1}


def test_a_parcel_that_cannot_be_packed() -> None:
    with pytest.raises(TypeError):
        Parcel("a", object(), LIMIT).data(WseJSON())


def test_a_parcel_has_a_type_of_the_applications() -> None:
    with pytest.raises(ValueError, match="reserved"):
        Parcel("~wse:welcome", 1, LIMIT)
    with pytest.raises(TypeError, match="int"):
        Parcel(5, 1, LIMIT)  # type: ignore[arg-type]
