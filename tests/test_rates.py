from __future__ import annotations

from typing import Any

import pytest

from wse import Limits, Reason, WseConnection, WseServer, testing
from wse.rates import Bucket, UserRates

RATE_LIMIT = (1013, "wse.rate-limit")


# -- a bucket ------------------------------------------------------------------------------------


def took(bucket: Bucket, now: float, tries: int = 100) -> int:
    return sum(bucket.take(now) for _ in range(tries))


def test_a_bucket_holds_a_burst_and_fills_at_its_rate() -> None:
    bucket = Bucket(2.0, 5.0, now=100.0)
    assert took(bucket, 100.0) == 10
    assert took(bucket, 100.4) == 0
    assert took(bucket, 100.5) == 1
    assert took(bucket, 102.5) == 4


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    bucket = Bucket(2.0, 5.0, now=0.0)
    assert took(bucket, 1e9) == 10


def test_a_bucket_of_a_slow_rate_holds_one() -> None:
    bucket = Bucket(0.01, 10.0, now=0.0)
    assert took(bucket, 0.0) == 1
    assert took(bucket, 99.0) == 0
    assert took(bucket, 100.0) == 1


# -- of users ------------------------------------------------------------------------------------


def test_devices_of_a_user_share_a_bucket() -> None:
    rates = UserRates(Limits(user_messages_per_second=1, rate_burst_seconds=10))
    bucket = rates.join("alice", 0.0)
    assert bucket is not None
    assert rates.join("alice", 1.0) is bucket
    assert rates.join("bob", 1.0) is not bucket


def test_coming_back_fills_no_bucket() -> None:
    rates = UserRates(Limits(user_messages_per_second=1, rate_burst_seconds=10))
    bucket = rates.join("alice", 0.0)
    rates.leave("alice", 1.0)
    assert rates.join("alice", 10.9) is bucket
    assert len(rates) == 1


def test_a_bucket_that_is_full_again_is_forgotten() -> None:
    rates = UserRates(Limits(user_messages_per_second=0.05, rate_burst_seconds=10))
    bucket = rates.join("alice", 0.0)
    rates.leave("alice", 1.0)
    rates.join("bob", 20.9)
    assert len(rates) == 2
    rates.join("bob", 21.0)
    assert len(rates) == 1
    assert rates.join("alice", 21.0) is not bucket


def test_without_a_rate_nothing_is_kept() -> None:
    rates = UserRates(Limits())
    assert rates.join("alice", 0.0) is None
    rates.leave("alice", 1.0)
    assert len(rates) == 0


# -- at a server ---------------------------------------------------------------------------------


def make_server(**limits: Any) -> tuple[WseServer, list[Any]]:
    server: WseServer = WseServer(
        lambda attempt: attempt.accept(attempt.identity), conn_per_user=2, limits=Limits(**limits)
    )
    heard: list[Any] = []

    @server.channel.on("say")
    def say(_: WseConnection, words: Any) -> None:
        heard.append(words)

    return server, heard


@testing.virtual_time
async def test_one_message_too_many_closes_its_connection_and_no_other() -> None:
    server, heard = make_server(messages_per_second=2, rate_burst_seconds=5)
    async with testing.Network(server) as network:
        fast, slow = await network.connect("alice"), await network.connect("alice")
        for number in range(12):
            fast.send("say", number)
        assert await fast.wait_closed() == RATE_LIMIT
        assert heard == list(range(10))
        slow.send("say", "still here")
        await testing.settle()
        assert heard[-1] == "still here"
        assert slow.closed is None


@testing.virtual_time
async def test_who_keeps_to_the_rate_stays() -> None:
    server, heard = make_server(messages_per_second=2, rate_burst_seconds=5)
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        for number in range(100):
            device.send("say", number)
            await testing.pass_time(0.5)
        assert heard == list(range(100))


@testing.virtual_time
async def test_the_devices_of_a_user_are_counted_together_and_coming_back_does_not_help() -> None:
    server, heard = make_server(user_messages_per_second=1, rate_burst_seconds=10)
    async with testing.Network(server) as network:
        first, second = await network.connect("alice"), await network.connect("alice")
        other = await network.connect("bob")
        for number in range(6):
            first.send("say", number)
            other.send("say", number)
        for number in range(5):
            second.send("say", number)
        assert await second.wait_closed() == RATE_LIMIT
        assert len(heard) == 6 + 6 + 4
        first.send("say", "as well")
        assert await first.wait_closed() == RATE_LIMIT
        await first.connect("alice")
        first.send("say", "again")
        assert await first.wait_closed() == RATE_LIMIT
        assert not {"as well", "again"} & set(heard)
        assert other.closed is None


@pytest.mark.parametrize("kind", ["unhandled", "call", "welcome", "stray answer"])
@testing.virtual_time
async def test_whatever_is_said_counts(kind: str) -> None:
    server, _ = make_server(messages_per_second=1, rate_burst_seconds=3)
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        frame = {
            "unhandled": b'["nobody",1]',
            "call": b'["nothing",1,"s"]',
            "welcome": b'["~wse:welcome",1]',
            "stray answer": b'["~wse:response",1,"s"]',
        }[kind]
        device._end.write([frame] * 3)
        await testing.settle()
        assert device.closed is None
        device._end.write([frame])
        assert await device.wait_closed() == RATE_LIMIT


@testing.virtual_time
async def test_answers_that_are_waited_for_are_free() -> None:
    server, heard = make_server(messages_per_second=1, rate_burst_seconds=3)
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        device.client.register("double", lambda number: 2 * number)
        for number in range(10):
            assert await server.call("alice", "double", number) == 2 * number
        device.send("say", "one")
        await testing.settle()
        assert heard == ["one"]


@testing.virtual_time
async def test_a_client_comes_back_after_it() -> None:
    server, heard = make_server(messages_per_second=1, rate_burst_seconds=3, session_window=None)
    async with testing.Network(server) as network:
        device = await network.connect("alice", reconnect=True)
        for number in range(4):
            device.send("say", number)
        await device.wait_closed()
        await testing.pass_time(31)
        device.send("say", "back")
        await testing.settle()
        assert heard == [0, 1, 2, "back"]
    assert len(server._hub.rates) == 0


def test_its_reason_travels_with_a_code_to_come_back_after() -> None:
    assert (Reason.RATE_LIMIT.close_code, Reason.RATE_LIMIT.value) == RATE_LIMIT
