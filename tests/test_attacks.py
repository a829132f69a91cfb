"""Hostile peers on real sockets, against a server in a process of its own.

An honest device is served meanwhile, and the server's memory is read from outside. How long an
attack holds the loop is measured in `test_load`, where time may pass.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from typing import Any, NamedTuple

import pytest
from carriers import CONT, PING, TEXT, F, closing, deflated
from crowd import LOOPS, Attacked, Peer, attacked, crowd, linux, say, upgrade
from support import bounded, real_time

from wse import Limits, WseClient, WseServer

pytestmark = linux

KIB, MIB = 1024, 1024 * 1024
both_loops = pytest.mark.parametrize("loop", LOOPS)


async def honest(victim: Attacked) -> WseClient:
    client = WseClient(f"ws://127.0.0.1:{victim.port}/")
    await client.connect("honest")
    return client


async def settled(client: WseClient, **figures: Any) -> dict[str, Any]:
    """The server's figures, once these are so."""
    while True:
        stats: dict[str, Any] = await client.call("stats")
        if all(stats[name] == figure for name, figure in figures.items()):
            return stats


# -- strangers -------------------------------------------------------------------------------------


async def drip(peer: Peer) -> None:
    """Send an upgrade byte by byte, until nobody wants more."""
    for byte in upgrade():
        if peer.gone.done():
            return
        peer.transport.write(bytes([byte]))
        await asyncio.sleep(0.2)


async def ping(peer: Peer) -> None:
    """Ping until nobody wants more."""
    while not peer.gone.done():
        peer.transport.write(F(PING, b"?").to("server") * 10)
        await asyncio.sleep(0.1)


@both_loops
@bounded(60)
async def test_thousands_of_strangers_are_sent_away_and_cost_little(loop: str) -> None:
    # Time enough for all of them to come, also where others keep the machine busy.
    limits = {"upgrade_timeout": 4, "authentication_timeout": 10, "close_timeout": 1}
    async with attacked(loop=loop, limits=limits) as victim:
        client = await honest(victim)
        before, sockets = victim.memory(), victim.sockets()
        silent = [Peer() for _ in range(3000)]
        dripping = [Peer() for _ in range(300)]
        upgraded = [Peer(upgrade()) for _ in range(1500)]
        pinging = [Peer(upgrade(), pongs=False) for _ in range(200)]
        everybody = [*silent, *dripping, *pinging, *upgraded]
        async with crowd(victim.port, *everybody):
            busy = [asyncio.create_task(drip(peer)) for peer in dripping]
            busy += [asyncio.create_task(ping(peer)) for peer in pinging]
            await settled(client, strangers=1000, refused={"strangers": 700})
            assert (victim.memory() - before) / len(everybody) < 64 * KIB
            assert await client.call("echo", "still there?") == "still there?"
            await asyncio.gather(*(peer.gone for peer in everybody), *busy)
        for peer in (*silent, *dripping):
            assert peer.status == 0
        refused = [peer for peer in (*pinging, *upgraded) if peer.status == 503]
        assert len(refused) == 700
        assert all(b"\r\nRetry-After: 10\r\n" in peer.head for peer in refused)
        let_in = [peer for peer in upgraded if peer.status == 101]
        assert {peer.closed for peer in let_in} == {(1013, "wse.authentication-timeout")}
        stats = await settled(client, strangers=0)
        assert stats["closed"] == {"wse.authentication-timeout": 1000}
        assert victim.sockets() == sockets
        await client.close()


@both_loops
@real_time
async def test_a_stranger_who_talks_costs_no_more_than_one_who_does_not(loop: str) -> None:
    """Each as much as it may: an almost whole message, then pieces of another."""
    almost = F(TEXT, b"x" * (16 * KIB)).to("server")[:-1]
    half = F(TEXT, b"x" * (8 * KIB), fin=False).to("server")
    undecided = say(["~wse:hi", {"identity": "undecided", "meta": "x" * (12 * KIB)}])
    crowds = [upgrade() + almost, upgrade() + half + almost[: 8 * KIB], upgrade() + undecided]
    async with attacked(loop=loop) as victim:
        client = await honest(victim)
        for opening in crowds:
            before = victim.memory()
            async with crowd(victim.port, *(Peer(opening) for _ in range(300))):
                await settled(client, strangers=300)
                assert (victim.memory() - before) / 300 < 64 * KIB
            await settled(client, strangers=0)
        await client.close()


# -- floods ----------------------------------------------------------------------------------------

OPENING = upgrade("flooder")


class Flood(NamedTuple):
    data: bytes
    """Sent again and again."""
    total: int
    """Bytes of it, in the long form."""
    message: int = 0
    """Bytes of a message, where it is large: held a few times over while it is taken apart."""
    compressed: bool = False

    @property
    def opening(self) -> bytes:
        extensions = "permessage-deflate" if self.compressed else None
        return upgrade("flooder", extensions=extensions)

    @property
    def options(self) -> tuple[str, ...]:
        """Of the server."""
        return ("--drain", "0", *(["--compression"] if self.compressed else []))

    @property
    def growth(self) -> int:
        """What it may cost in memory."""
        return 2 * MIB + 6 * self.message


LARGEST = b'["say","' + b"x" * (MIB - 10) + b'"]'
BOMB = deflated(LARGEST)
FLOODS = {
    "pings of one who never reads": Flood(F(PING).to("server"), 100 * MIB),
    "large pings of one who never reads": Flood(F(PING, b"x" * 125).to("server"), 100 * MIB),
    "tiny messages": Flood(say(["say"]), 12 * MIB),
    "messages that nobody handles": Flood(say(["nobody"]), 12 * MIB),
    "calls whose answers nobody reads": Flood(say(["echo", 1, "s"]), 12 * MIB),
    "messages for handlers that never end": Flood(say(["wait"]), 12 * MIB),
    "messages in fragments": Flood(
        F(TEXT, b'["say"', fin=False).to("server") + F(CONT, b"]").to("server"), 12 * MIB
    ),
    "the largest messages": Flood(F(TEXT, LARGEST).to("server"), 100 * MIB, MIB),
    "the largest messages, in two fragments": Flood(
        F(TEXT, fin=False).to("server") + F(CONT, LARGEST).to("server"), 100 * MIB, MIB
    ),
    "tiny compressed messages": Flood(
        F(TEXT, deflated(b'["say"]'), rsv=4).to("server"), 4 * MIB, compressed=True
    ),
    "bombs of the largest size": Flood(
        F(TEXT, BOMB, rsv=4).to("server"), MIB, MIB, compressed=True
    ),
    "bombs in fragments": Flood(
        F(TEXT, BOMB[:100], fin=False, rsv=4).to("server") + F(CONT, BOMB[100:]).to("server"),
        MIB,
        MIB,
        compressed=True,
    ),
}


async def flood(peer: Peer, data: bytes, total: int) -> int:
    """Send as much as the server takes; how much that was."""
    sock = peer.transport.get_extra_info("socket").dup()
    loop = asyncio.get_running_loop()
    part = data * max(1, min(total, MIB) // len(data))
    sent = 0
    with suppress(TimeoutError, OSError):
        while sent < total:
            async with asyncio.timeout(1):
                await loop.sock_sendall(sock, part)
            sent += len(part)
    sock.close()
    return sent


@pytest.mark.parametrize("name", FLOODS)
@both_loops
@real_time
async def test_a_flood_costs_a_bounded_amount_and_nobody_else_notices(name: str, loop: str) -> None:
    attack = FLOODS[name]
    total = min(attack.total, MIB // 16 if attack.compressed else 4 * MIB + 32 * attack.message)
    limits = {"heartbeat_interval": 1}
    async with attacked(*attack.options, loop=loop, limits=limits) as victim:
        client = await honest(victim)
        peer = Peer(attack.opening)
        async with crowd(victim.port, peer, welcomed=True):
            peer.transport.pause_reading()
            before = victim.forget_peak()
            flooding = asyncio.create_task(flood(peer, attack.data, total))
            while not flooding.done():
                assert await client.call("echo", "still there?") == "still there?"
            assert flooding.result() > total // 4
            assert victim.peak() - before < attack.growth
        await settled(client, devices=1)
        await client.close()


MESSAGE = F(TEXT, b'["say","' + b"x" * (100 * MIB) + b'"]').to("server")
ENDS = {
    "a message of 100 MiB": (MESSAGE, (1009, "wse.message-too-large")),
    "empty fragments without end": (
        F(TEXT, b'["say"', fin=False).to("server") + F(CONT, fin=False).to("server") * (2 * MIB),
        (1009, "wse.message-too-large"),
    ),
    "ten thousand close frames": (closing(1000, "bye").to("server") * 10_000, (1000, "bye")),
    "megabytes after a close frame": (
        closing(1000, "bye").to("server") + F(TEXT, b"x" * 1000).to("server") * 10_000,
        (1000, "bye"),
    ),
}


@pytest.mark.parametrize("name", ENDS)
@both_loops
@real_time
async def test_what_ends_a_connection_costs_a_bounded_amount(name: str, loop: str) -> None:
    data, end = ENDS[name]
    async with attacked(loop=loop) as victim:
        client = await honest(victim)
        before = victim.forget_peak()
        peer = Peer(OPENING)
        async with crowd(victim.port, peer, welcomed=True):
            peer.transport.write(data)
            while not peer.gone.done():
                assert await client.call("echo", "still there?") == "still there?"
        assert peer.closed == end
        assert victim.peak() - before < 2 * MIB
        await settled(client, devices=1)
        await client.close()


# -- slow readers ----------------------------------------------------------------------------------


@real_time
async def test_those_who_do_not_read_are_sent_away_and_the_others_miss_nothing() -> None:
    limits = {"close_timeout": 1}
    async with attacked(limits=limits) as victim:
        client = await honest(victim)
        heard: Counter[bytes] = Counter()
        readers = [
            Peer(upgrade(f"reader {n}"), heard=lambda data: heard.update([data[:16]]))
            for n in range(40)
        ]
        stalled = [Peer(upgrade(f"stalled {n}")) for n in range(4)]
        async with crowd(victim.port, *readers, *stalled, welcomed=True):
            for peer in stalled:
                peer.transport.pause_reading()
            before = victim.forget_peak()
            for number in range(150):
                client.send("broadcast", [number, "x" * 100_000])
                assert await client.call("echo", number) == number
            stats = await settled(client, devices=41)
            assert stats["closed"] == {"wse.slow-consumer": 4}
            for peer in readers:
                while peer.count < 150:
                    assert await client.call("echo", "and the others?") == "and the others?"
            assert set(heard.values()) == {40}
            assert len(heard) == 150
            # A megabyte of each that stalled, and of the others what is on its way to them.
            assert victim.peak() - before < (4 + 8) * MIB
        await client.close()


# -- dead peers ------------------------------------------------------------------------------------


@real_time
async def test_the_dead_are_noticed_also_behind_a_full_send_buffer() -> None:
    limits = {"heartbeat_interval": 0.5, "heartbeat_timeout": 0.5}
    async with attacked(limits=limits) as victim:
        client = await honest(victim)
        dead = [Peer(upgrade(f"dead {n}"), pongs=False) for n in range(20)]
        alive = [Peer(upgrade(f"alive {n}")) for n in range(20)]
        async with crowd(victim.port, *dead, *alive, welcomed=True):
            for peer in dead[:10]:
                peer.transport.pause_reading()
            while (await client.call("stats"))["queued_bytes"] == 0:
                client.send("broadcast", "x" * 100_000)
            stats = await settled(client, devices=21)
            assert stats["closed"] == {"wse.heartbeat-lost": 20}
            assert all(peer.closed is None and not peer.gone.done() for peer in alive)
        await client.close()


@real_time
async def test_a_greedy_peer_that_vanishes_is_noticed_though_nothing_of_it_is_read() -> None:
    limits = {"heartbeat_interval": 0.5}
    async with attacked(limits=limits) as victim:
        client = await honest(victim)
        peer = Peer(upgrade("greedy"))
        async with crowd(victim.port, peer, welcomed=True):
            peer.transport.write(say(*[["wait"]] * 5000))
            await settled(client, waiting_messages=1024)
        await settled(client, devices=1)
        await client.close()


@real_time
async def test_stepping_the_wall_clock_disconnects_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    server: WseServer = WseServer(
        lambda attempt: attempt.accept("alice"),
        limits=Limits(heartbeat_interval=0.05, heartbeat_timeout=60),
    )
    server.register("where", lambda *_: "here")
    clock = time.time
    async with server.listen(port=0) as listener:
        client = WseClient(f"ws://127.0.0.1:{listener.port}/")
        await client.connect()
        assert client._link is not None
        asked = asyncio.Event()
        monkeypatch.setattr(client._link._transport, "answer", lambda _: asked.set())
        monkeypatch.setattr(time, "time", lambda: clock() + 3600)
        await asked.wait()
        assert await client.call("where") == "here"
        monkeypatch.setattr(time, "time", lambda: clock() - 3600)
        assert await client.call("where") == "here"
        await client.close()
        assert server.stats().closed == {"wse.by-client": 1}


# -- greed -----------------------------------------------------------------------------------------


@real_time
async def test_a_greedy_caller_is_served_in_the_end_and_nobody_else_waits() -> None:
    async with attacked() as victim:
        client = await honest(victim)
        answers: Counter[bytes] = Counter()
        greedy = Peer(upgrade("greedy"), heard=lambda data: answers.update([data]))
        async with crowd(victim.port, greedy, welcomed=True):
            greedy.transport.write(say(*(["echo", n, f"s{n}"] for n in range(20_000))))
            while greedy.count < 20_000:
                assert await client.call("echo", "still there?") == "still there?"
            assert len(answers) == 20_000
        await client.close()


# -- the end ---------------------------------------------------------------------------------------


@real_time
async def test_five_thousand_devices_are_sent_away_in_order() -> None:
    async with attacked("--drain", "3") as victim:
        peers = [Peer(upgrade(f"device {n}")) for n in range(5000)]
        async with crowd(victim.port, *peers, welcomed=True):
            victim.program.process.terminate()
            await asyncio.gather(*(peer.gone for peer in peers))
            assert {peer.closed for peer in peers} == {(1012, "wse.server-closing")}
            status, _, errors = await victim.program.end()
            assert (status, errors) == (0, "")
