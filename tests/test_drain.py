"""How a server ends: who goes when, and what becomes of calls under way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from wse import (
    CallDisconnected,
    ConnectionFailed,
    Limits,
    NoSuchClient,
    WseConnection,
    WseServer,
    testing,
)
from wse.transports.memory import MemoryDialer

CLOSING = (1012, "wse.server-closing")


def make_server(**options: Any) -> WseServer:
    server: WseServer = WseServer(
        lambda attempt: attempt.accept(attempt.identity), conn_per_user=100, **options
    )

    @server.register("work")
    async def work(_: WseConnection, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    return server


def now() -> float:
    return asyncio.get_running_loop().time()


async def ends(network: testing.Network) -> list[float]:
    """When each device was sent away."""
    when: list[float] = []
    for device in network.devices:
        device.client.when.closed(lambda *_: when.append(now()))
    return when


@testing.virtual_time
async def test_devices_go_one_after_the_other() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        for number in range(10):
            await network.connect(f"user {number}")
        when, began = await ends(network), now()
        await server.close(drain=5)
        assert [end - began for end in when] == pytest.approx(
            [0.5 * number for number in range(10)], abs=0.05
        )
        assert {device.closed for device in network.devices} == {CLOSING}
        assert now() - began < 5


@testing.virtual_time
async def test_a_drain_is_over_when_everybody_is_gone() -> None:
    server = make_server()
    await server.close(drain=60)
    assert now() == 0
    async with testing.Network(server) as network:
        only = await network.connect("alice")
        await server.close(drain=60)
        assert only.closed == CLOSING
        assert now() < 0.1
        others = [await network.connect(cid) for cid in ("alice", "bob", "carol")]
        closing = asyncio.create_task(server.close(drain=60))
        await testing.settle()
        for device in others:
            await device.close()
        await closing
        assert now() < 1


@testing.virtual_time
async def test_a_drain_waits_for_nobody_who_is_away() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        devices = [await network.connect(cid, reconnect=True) for cid in ("alice", "bob", "carol")]
        for device in devices:
            device.unplug()
        began = now()
        await server.close(drain=60)
        assert now() - began < 0.1
        assert len(server.clients) == 0


@testing.virtual_time
async def test_nobody_is_let_in_and_strangers_go_at_once() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        for cid in ("alice", "bob"):
            await network.connect(cid)
        stranger, _ = await MemoryDialer(server.acceptor)(
            "ws://test/", subprotocols=["wse-default-json"], headers={}, limits=server.limits
        )
        closing = asyncio.create_task(server.close(drain=5))
        await testing.settle()
        assert not server.acceptor.strangers
        assert [device.closed for device in network.devices] == [CLOSING, None]
        with pytest.raises(ConnectionFailed) as caught:
            await network.connect("carol")
        assert caught.value.details == {"status": 503}
        await closing
        stranger.abort()


# -- calls under way -------------------------------------------------------------------------------


@testing.virtual_time
async def test_a_call_of_a_device_is_answered_before_it_goes() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        alice = await network.connect("alice")
        calling = asyncio.create_task(alice.call("work", 2))
        await testing.settle()
        await server.close(drain=5)
        assert await calling == "done"
        assert alice.closed == CLOSING
        assert 2 <= now() < 2.1


@testing.virtual_time
async def test_a_call_to_a_device_is_answered_before_it_goes() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        alice = await network.connect("alice")

        @alice.client.register("work")
        async def work(seconds: float) -> str:
            await asyncio.sleep(seconds)
            return "done there"

        calling = asyncio.create_task(server.call("alice", "work", 2))
        await testing.settle()
        closing = asyncio.create_task(server.close(drain=5))
        await testing.settle()
        assert not closing.done()
        assert await calling == "done there"
        await closing
        assert alice.closed == CLOSING
        assert 2 <= now() < 2.1


@testing.virtual_time
async def test_a_handler_under_way_may_still_send_and_call() -> None:
    server = make_server()
    heard: list[Any] = []

    @server.channel.on("ask me")
    async def ask(conn: WseConnection, _: Any) -> None:
        await asyncio.sleep(1)
        conn.send("asking")
        heard.append(await conn.call("question"))

    async with testing.Network(server) as network:
        alice = await network.connect("alice")
        alice.client.register("question", lambda _: "answer")
        alice.send("ask me")
        await testing.settle()
        await server.close(drain=5)
        assert heard == ["answer"]
        assert list(alice.received) == [("asking", None)]


@testing.virtual_time
async def test_what_waits_for_its_handler_is_handled() -> None:
    server = make_server(limits=Limits(max_handlers=1))
    async with testing.Network(server) as network:
        alice = await network.connect("alice")
        calls = [asyncio.create_task(alice.call("work", 1)) for _ in range(3)]
        await testing.settle()
        await server.close(drain=5)
        assert await asyncio.gather(*calls) == ["done"] * 3


@testing.virtual_time
async def test_nothing_new_is_heard_of_who_is_leaving() -> None:
    server = make_server()
    heard: list[Any] = []
    server.channel.on("say", lambda _, words: heard.append(words))
    async with testing.Network(server) as network:
        alice = await network.connect("alice")
        calling = asyncio.create_task(alice.call("work", 2))
        await testing.settle()
        closing = asyncio.create_task(server.close(drain=5))
        await testing.settle()
        alice.send("say", "too late")
        late = asyncio.create_task(alice.call("work", 0))
        alice._end.write([b"no json"])
        assert await calling == "done"
        with pytest.raises(CallDisconnected):
            await late
        await closing
        assert heard == []
        assert alice.closed == CLOSING


@testing.virtual_time
async def test_what_does_not_end_in_time_is_ended() -> None:
    server = make_server()
    cancelled: list[str] = []

    @server.register("for ever")
    async def for_ever(_: WseConnection, __: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append("for ever")

    async with testing.Network(server) as network:
        alice = await network.connect("alice")
        alice.client.register("never", lambda _: asyncio.Event().wait())
        calling = asyncio.create_task(alice.call("for ever"))
        asking = asyncio.create_task(server.call("alice", "never"))
        await testing.settle()
        await server.close(drain=5)
        for one in (calling, asking):
            with pytest.raises(CallDisconnected):
                await one
        assert cancelled == ["for ever"]
        assert alice.closed == CLOSING
        assert 5 <= now() < 5.1
    assert asyncio.all_tasks() == {asyncio.current_task()}


@testing.virtual_time
async def test_who_has_gone_cannot_be_asked_who_is_leaving_can() -> None:
    server = make_server(limits=Limits(session_window=None))
    async with testing.Network(server) as network:
        alice, bob = await network.connect("alice"), await network.connect("bob")
        bob.client.register("where", lambda _: "still here")
        calling = asyncio.create_task(bob.call("work", 4))
        await testing.settle()
        closing = asyncio.create_task(server.close(drain=5))
        await testing.pass_time(3)
        assert alice.closed == CLOSING
        with pytest.raises(NoSuchClient):
            await server.call("alice", "where")
        assert await server.call("bob", "where") == "still here"
        await calling
        await closing


@pytest.mark.parametrize("awaits", [True, False])
@testing.virtual_time
async def test_a_handler_that_awaits_the_drain_keeps_its_own_device_until_its_end(
    awaits: bool,
) -> None:
    server = make_server()
    tasks: list[asyncio.Task[None]] = []

    @server.register("shut down")
    async def shut_down(_: WseConnection, __: Any) -> str:
        closing = server.close(drain=5)
        if awaits:
            await closing
        else:
            tasks.append(asyncio.create_task(closing))
        return "closing"

    async with testing.Network(server) as network:
        alice, bob = await network.connect("alice"), await network.connect("bob")
        when = await ends(network)
        if awaits:
            with pytest.raises(CallDisconnected):
                await alice.call("shut down")
        else:
            assert await alice.call("shut down") == "closing"
            await asyncio.gather(*tasks)
        await testing.settle()
        assert [alice.closed, bob.closed] == [CLOSING] * 2
        assert when == pytest.approx([2.5, 5] if awaits else [0, 2.5], abs=0.05)


# -- in a hurry ------------------------------------------------------------------------------------


@testing.virtual_time
async def test_another_close_ends_a_drain() -> None:
    server = make_server(limits=Limits(session_window=None))
    async with testing.Network(server) as network:
        for number in range(10):
            await network.connect(f"user {number}")
        draining = asyncio.create_task(server.close(drain=60))
        await testing.pass_time(1)
        assert len(server.clients) == 9
        await server.close()
        await draining
        assert not server.clients
        assert now() < 1.1


@testing.virtual_time
async def test_a_drain_that_is_cancelled_leaves_the_others() -> None:
    server = make_server(limits=Limits(session_window=None))
    async with testing.Network(server) as network:
        for number in range(10):
            await network.connect(f"user {number}")
        draining = asyncio.create_task(server.close(drain=10))
        await testing.pass_time(4.5)
        draining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await draining
        await testing.pass_time(60)
        assert len(server.clients) == 5
        await network.connect("welcome again")
