"""The server as a handler of aiohttp; that it carries as others do is in the contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from carriers import TEXT, F, closing
from crowd import Peer, crowd, upgrade
from support import real_time

from wse import Attempt, ConnectionFailed, Decision, Limits, WseClient, WseServer


@asynccontextmanager
async def serving(server: WseServer) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/", server.aiohttp_handler())
    app.on_shutdown.append(lambda _: server.close(drain=0.1))
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert runner.addresses
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def make_server(**options: Any) -> WseServer:
    return WseServer(lambda attempt: attempt.accept(attempt.identity), **options)


@real_time
async def test_identify_and_handlers_see_the_request() -> None:
    seen: list[Attempt] = []

    def identify(attempt: Attempt) -> Decision:
        seen.append(attempt)
        return attempt.accept("alice")

    server = WseServer(identify)
    async with serving(server) as port:
        url = f"ws://127.0.0.1:{port}/?x=%20y"
        async with WseClient(url, headers={"Cookie": "a=1"}) as client:
            await client.connect()
            (attempt,) = seen
            assert isinstance(attempt.context, web.Request)
            assert (attempt.path, attempt.query, attempt.cookies) == ("/", {"x": " y"}, {"a": "1"})
            assert attempt.remote_addr == "127.0.0.1"
            (conn,) = server.clients["alice"].conns.values()
            assert conn.context is attempt.context


@real_time
async def test_refusals_and_plain_requests() -> None:
    server = make_server(limits=Limits(max_strangers=1))
    async with serving(server) as port, aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/") as answer:
            assert (answer.status, answer.headers["Upgrade"]) == (426, "websocket")
            assert "WebSocket client" in await answer.text()
        url = f"ws://127.0.0.1:{port}/"
        with pytest.raises(ConnectionFailed) as caught:
            await WseClient(url, headers={"Origin": "https://evil.example"}).connect("bob")
        assert caught.value.details == {"status": 403}
        with server.acceptor.shut(), pytest.raises(ConnectionFailed) as caught:
            await WseClient(url).connect("bob")
        assert (caught.value.details, caught.value.retry_after) == ({"status": 503}, 1)
    assert server.stats().refused == {"origin": 1, "closing": 1}


@pytest.mark.parametrize(
    ("bad", "closed", "told"),
    [
        (F(TEXT, b"\xff"), 1007, {"wse.protocol-error": 1}),
        (F(0x3, b""), 1002, {"wse.protocol-error": 1}),
        (F(TEXT, bytes(300_000)), 1009, {"wse.message-too-large": 1}),
        (closing(4321, "bye"), 1000, {"other": 1}),
    ],
)
@real_time
async def test_ends_that_aiohttp_decides(bad: F, closed: int, told: dict[str, int]) -> None:
    server = make_server(limits=Limits(max_message_bytes=100_000))
    async with serving(server) as port:
        peer = Peer(upgrade("alice"))
        async with crowd(port, peer, welcomed=True):
            peer.transport.write(bad.to("server"))
            await peer.gone
        assert peer.closed is not None
        assert peer.closed[0] == closed
        assert server.stats().closed == told


@real_time
async def test_a_dead_peer_is_noticed_by_aiohttps_heartbeat() -> None:
    server = make_server(limits=Limits(heartbeat_interval=0.2))
    gone = asyncio.Event()
    server.when.left(lambda *_: gone.set())
    async with serving(server) as port:
        peer = Peer(upgrade("alice"), pongs=False)
        async with crowd(port, peer, welcomed=True):
            await gone.wait()
        assert server.stats().closed == {"1006": 1}


@real_time
async def test_a_peer_that_does_not_read_is_cut_off() -> None:
    server = make_server(limits=Limits(close_timeout=0.2))
    async with serving(server) as port:
        peer = Peer(upgrade("alice"))
        async with crowd(port, peer, welcomed=True):
            peer.transport.pause_reading()
            (conn,) = server.clients["alice"].conns.values()
            while conn.is_open:
                server.send("alice", "news", "x" * 100_000)
                await asyncio.sleep(0)
            await conn.wait_closed()
        assert server.stats().closed == {"wse.slow-consumer": 1}
