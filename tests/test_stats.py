from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support import SECRET, real_time

from wse import Attempt, Decision, Limits, Stats, WseConnection, WseServer, testing
from wse.stats import Counts, LoopLag
from wse.transports.memory import MemoryDialer

NOTHING = Stats(
    users=0,
    devices=0,
    upgrading=0,
    strangers=0,
    handlers=0,
    waiting_messages=0,
    queued_bytes=0,
    suspended=0,
    suspended_bytes=0,
    kept_messages=0,
    kept_bytes=0,
    resumed=0,
    loop_lag_seconds=0.0,
    connections=0,
    refused={},
    closed={},
    messages=0,
    calls=0,
    handler_errors=0,
)


def make_server(**options: Any) -> WseServer:
    server: WseServer = WseServer(identify, conn_per_user=2, **options)

    @server.channel.on("fail")
    def fail(_: WseConnection, payload: Any) -> None:
        raise RuntimeError(f"{payload} {SECRET}")

    @server.channel.on("wait")
    async def wait(_: WseConnection, __: Any) -> None:
        await asyncio.Event().wait()

    server.register("add", lambda _, numbers: sum(numbers))
    return server


def identify(attempt: Attempt) -> Decision:
    if attempt.identity == "bug":
        raise RuntimeError(SECRET)
    return attempt.accept(attempt.identity)


@testing.virtual_time
async def test_a_server_that_did_nothing_has_nothing() -> None:
    assert make_server().stats() == NOTHING


@testing.virtual_time
async def test_who_is_there() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        for cid in ("alice", "alice", "bob"):
            await network.connect(cid)
        await MemoryDialer(server.acceptor)(
            "ws://test/", subprotocols=["wse-default-json"], headers={}, limits=server.limits
        )
        stats = server.stats()
        assert (stats.users, stats.devices, stats.strangers) == (2, 3, 1)
        assert stats.connections == 4
    assert server.stats().devices == 0


@testing.virtual_time
async def test_what_was_said_and_what_went_wrong() -> None:
    server = make_server()
    server.when.ignored(lambda *_: 1 / 0)
    async with testing.Network(server) as network:
        alice = await network.connect("alice")
        alice.send("fail", "first")
        alice.send("nobody")
        assert await alice.call("add", [1, 2]) == 3
        with pytest.raises(Exception, match="not-authorized"):
            await network.connect("bug")
        stats = server.stats()
        assert (stats.messages, stats.calls, stats.handler_errors) == (2, 1, 3)


@testing.virtual_time
async def test_what_waits() -> None:
    server = make_server(limits=Limits(max_handlers=2))
    async with testing.Network(server) as network:
        alice = await network.connect("alice")
        for _ in range(5):
            alice.send("wait")
        await testing.settle()
        alice.stall()
        server.send("alice", "news", "x" * 1000)
        server.send("alice", "more")
        stats = server.stats()
        assert (stats.handlers, stats.waiting_messages) == (2, 3)
        assert stats.queued_bytes == len('["news","",null]') + 1000 + len('["more",null,null]')
        await testing.settle()
        assert server.stats().queued_bytes == stats.queued_bytes
        alice.resume()
        await testing.settle()
        assert server.stats().queued_bytes == 0


@testing.virtual_time
async def test_who_is_away_what_is_kept_and_who_came_back() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        alice = await network.connect("alice", reconnect=True)
        alice.unplug()
        await testing.settle()
        server.send("alice", "news", "x" * 1000)
        stats, size = server.stats(), len('["news","",null]') + 1000
        assert (stats.suspended, stats.suspended_bytes) == (1, 4096 + size)
        assert (stats.kept_messages, stats.kept_bytes) == (1, size)
        assert (stats.devices, stats.resumed, stats.closed) == (1, 0, {})
        alice.plug_in()
        assert await alice.next("news", timeout=60) == "x" * 1000
        await testing.pass_time(1)
        stats = server.stats()
        assert (stats.suspended, stats.suspended_bytes, stats.resumed) == (0, 0, 1)
        assert (stats.kept_messages, stats.kept_bytes) == (0, 0)


@testing.virtual_time
async def test_who_was_refused_and_why() -> None:
    server = make_server(limits=Limits(max_strangers=1, max_connections_per_address=1))
    async with testing.Network(server) as network:
        await network.connect("alice", remote_addr="192.0.2.1")
        for way in (
            {"headers": {"Origin": "https://evil.example"}},
            {"remote_addr": "192.0.2.1"},
            {"remote_addr": "192.0.2.1"},
        ):
            with pytest.raises(Exception, match="HTTP status"):
                await network.connect("bob", **way)
        await MemoryDialer(server.acceptor)(
            "ws://test/", subprotocols=["wse-default-json"], headers={}, limits=server.limits
        )
        with pytest.raises(Exception, match="HTTP status 503"):
            await network.connect("bob")
        with server.acceptor.shut(), pytest.raises(Exception, match="HTTP status 503"):
            await network.connect("bob")
        assert server.stats().refused == {
            "origin": 1,
            "address": 2,
            "strangers": 1,
            "closing": 1,
        }


def test_ends_are_told_apart_by_what_nobody_makes_up() -> None:
    counts = Counts()
    for code, reason in (
        (1013, "wse.slow-consumer"),
        (1013, "wse.slow-consumer"),
        (1006, ""),
        (1001, ""),
        (4999, ""),
        (1000, "banned"),
        (3000, "anything a peer may think of"),
    ):
        counts.close(code, reason)
    assert counts.closed == {"wse.slow-consumer": 2, "1006": 1, "1001": 1, "other": 3}


@pytest.mark.parametrize(
    ("code", "reason", "told"),
    [
        (1013, "wse.slow-consumer", "other"),
        (1000, "wse.not-authorized", "other"),
        (1000, "wse.by-client", "wse.by-client"),
        (4000, "jump", "jump"),
        (1001, "", "1001"),
    ],
)
@testing.virtual_time
async def test_a_peer_cannot_forge_the_librarys_reasons(code: int, reason: str, told: str) -> None:
    server = make_server(limits=Limits(session_window=None))
    async with testing.Network(server) as network:
        alice = await network.connect("alice")
        assert alice.client._link is not None
        alice.client._link._transport.close(code, reason)
        await testing.settle()
    assert server.stats().closed == {told: 1}


def test_the_page_for_prometheus_is_read_by_its_own_parser() -> None:
    stats = Stats(
        users=1,
        devices=2,
        upgrading=12,
        strangers=3,
        handlers=4,
        waiting_messages=5,
        queued_bytes=6,
        suspended=1,
        suspended_bytes=4200,
        kept_messages=3,
        kept_bytes=104,
        resumed=2,
        loop_lag_seconds=0.0625,
        connections=7,
        refused={"origin": 8, "strangers": 9},
        closed={"wse.by-client": 10, "1006": 11},
        messages=12,
        calls=13,
        handler_errors=14,
    )
    families = list(text_string_to_metric_families(stats.prometheus()))
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }
    assert samples == {
        ("wse_users",): 1,
        ("wse_devices",): 2,
        ("wse_upgrading",): 12,
        ("wse_strangers",): 3,
        ("wse_handlers",): 4,
        ("wse_waiting_messages",): 5,
        ("wse_queued_bytes",): 6,
        ("wse_suspended",): 1,
        ("wse_suspended_bytes",): 4200,
        ("wse_kept_messages",): 3,
        ("wse_kept_bytes",): 104,
        ("wse_loop_lag_seconds",): 0.0625,
        ("wse_connections_total",): 7,
        ("wse_refused_total", "origin"): 8,
        ("wse_refused_total", "strangers"): 9,
        ("wse_closed_total", "wse.by-client"): 10,
        ("wse_closed_total", "1006"): 11,
        ("wse_resumed_total",): 2,
        ("wse_messages_total",): 12,
        ("wse_calls_total",): 13,
        ("wse_handler_errors_total",): 14,
    }
    assert {family.type for family in families} == {"gauge", "counter"}
    assert all(family.documentation for family in families)


# -- lag -----------------------------------------------------------------------------------------


@testing.virtual_time
async def test_a_loop_that_is_held_is_late() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, testing.VirtualClockLoop)
    lag = LoopLag()
    lag.start()
    await testing.pass_time(1)
    assert lag.seconds == pytest.approx(0)
    loop.call_later(0.1, lambda: setattr(loop, "now", loop.now + 3.0))
    await testing.pass_time(4)
    worst = lag.seconds
    assert 2.75 <= worst <= 3.0
    await testing.pass_time(9)
    assert lag.seconds == worst
    await testing.pass_time(12)
    assert lag.seconds == pytest.approx(0)
    lag.stop()


@testing.virtual_time
async def test_the_last_who_stops_stops_the_timer() -> None:
    lag = LoopLag()
    lag.start()
    lag.start()
    lag.stop()
    timer = lag._timer
    assert timer is not None
    lag.stop()
    assert timer.cancelled()
    assert lag.seconds == 0.0


@real_time
async def test_a_server_watches_its_loop_while_it_listens() -> None:
    server = make_server()
    async with server.listen(port=0):
        timer = server._loop_lag._timer
        assert timer is not None
    assert timer.cancelled()
