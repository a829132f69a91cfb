"""What is kept of a session, and the counts of both directions."""

from __future__ import annotations

import asyncio

import pytest

from wse import Limits, testing
from wse.errors import ProtocolViolation
from wse.ring import AckTimer, Ring


def ring(*frames: bytes, kept: int = 8, size: int = 1000) -> Ring:
    one = Ring(Limits(max_kept_messages=kept, max_kept_bytes=size))
    for frame in frames:
        one.append(frame)
    return one


LETTERS = [letter.encode() for letter in "abcdefgh"]


def test_what_is_not_acknowledged_is_sent_again_in_its_order() -> None:
    kept = ring(*LETTERS)
    kept.ack(3)
    assert (len(kept), kept.size, kept.unacked) == (5, 5, 5)
    kept.suspend()
    kept.append(b"i")
    assert kept.rewind(5) == [b"f", b"g", b"h", b"i"]
    assert (kept.sent, kept.unacked) == (9, 4)
    kept.ack(9)
    assert (len(kept), kept.size, kept.unacked) == (0, 0, 0)


def test_places_that_are_empty_are_numbered_until_a_return() -> None:
    call = b"call"
    kept = ring(b"a", call)
    kept.append(b"cursor", keep=False)
    kept.append(b"b")
    kept.forget(call)
    assert (kept.sent, len(kept), kept.size) == (4, 2, 2)
    kept.ack(1)
    kept.suspend()
    assert kept.rewind(1) == [b"b"]
    assert kept.sent == 2


def test_forgetting_finds_the_very_message_and_no_other_like_it() -> None:
    first, second = bytes(bytearray(b"same")), bytes(bytearray(b"same"))
    kept = ring(first, second)
    kept.forget(first)
    kept.forget(first)
    assert len(kept) == 1
    assert kept.rewind(0) == [second]


@pytest.mark.parametrize("count", [1, 6, -1])
def test_an_acknowledgement_that_cannot_be(count: int) -> None:
    kept = ring(*LETTERS[:5])
    kept.ack(2)
    with pytest.raises(ProtocolViolation):
        kept.ack(count)
    with pytest.raises(ProtocolViolation):
        kept.reaches(count)
    kept.ack(2)
    kept.ack(5)


def test_nothing_that_was_sent_while_away_can_have_come() -> None:
    kept = ring(b"a", b"b")
    kept.suspend()
    kept.append(b"c")
    assert kept.reaches(2)
    with pytest.raises(ProtocolViolation):
        kept.reaches(3)


def test_the_oldest_falls_out_once_it_is_written() -> None:
    kept = ring(*LETTERS, kept=3)
    assert len(kept) == 8
    kept.trim()
    assert len(kept) == 3
    assert kept.unacked == 8
    assert not kept.reaches(4)
    assert kept.reaches(5)
    assert kept.rewind(5) == [b"f", b"g", b"h"]


def test_bytes_are_a_bound_as_well() -> None:
    kept = ring(b"x" * 40, b"y" * 40, b"z" * 40, size=100)
    kept.trim()
    assert (len(kept), kept.size) == (2, 80)
    assert not kept.is_full
    kept.append(b"!" * 20)
    assert kept.is_full


def test_cursors_drive_nothing_out_and_have_a_bound_of_their_own() -> None:
    kept = ring(b"a", kept=4)
    for _ in range(60):
        kept.append(b"cursor", keep=False)
        kept.trim()
    assert len(kept) == 1
    for _ in range(60):
        kept.append(b"cursor", keep=False)
        kept.trim()
    assert len(kept) == 0
    assert not kept.reaches(0)


def test_a_gap_is_what_was_sent_while_away_and_fell_out() -> None:
    kept = ring(b"a", b"b", kept=3)
    kept.suspend()
    for letter in LETTERS[:3]:
        kept.append(letter)
        kept.trim()
        assert not kept.has_gap
    kept.append(b"i")
    kept.trim()
    assert kept.has_gap
    kept = ring(b"a")
    kept.suspend()
    kept.rewind(1)
    assert not kept.has_gap


def test_an_acknowledgement_is_due_after_a_quarter_of_the_peers_ring() -> None:
    one = ring()
    one.agree(8, 400)
    assert not one.take(10)
    assert one.take(10)
    assert one.tell() == 2
    assert not one.is_behind
    assert one.take(100)
    one.tell()
    assert not one.take(99)


@testing.virtual_time
async def test_one_timer_for_all_that_owe() -> None:
    class Debtor:
        told = 0

        def acknowledge(self) -> None:
            self.told += 1

    debtors = [Debtor(), Debtor()]
    timer = AckTimer(asyncio.get_running_loop())
    timer.add(debtors[0])
    await testing.pass_time(0.15)
    timer.add(debtors[1])
    assert [debtor.told for debtor in debtors] == [0, 0]
    await testing.pass_time(0.06)
    assert [debtor.told for debtor in debtors] == [1, 1]
    await testing.pass_time(10.0)
    assert [debtor.told for debtor in debtors] == [1, 1]
