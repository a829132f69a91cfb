"""Many devices for a while: a short form in `make test`, the long one in `make soak`.

What takes or is measured in seconds is asserted in the long form alone, which prints its figures.
"""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from crowd import Peer, attacked, crowd, linux, say, upgrade
from support import bounded
from test_attacks import FLOODS, MIB, flood, honest, settled

pytestmark = linux


def told(**figures: Any) -> None:
    """Print figures, for the documentation."""
    print(json.dumps(figures))  # noqa: T201 - what the long form is run for


class Count:
    """What somebody waits for the number of."""

    def __init__(self) -> None:
        self.value = 0
        self._wanted = 0
        self._reached = asyncio.Event()

    def one_more(self) -> None:
        self.value += 1
        if self.value == self._wanted:
            self._reached.set()

    async def reach(self, number: int) -> None:
        """Wait until there were so many."""
        self._wanted = number
        self._reached.clear()
        if self.value < number:
            await self._reached.wait()


# -- five minutes ----------------------------------------------------------------------------------


class Load(NamedTuple):
    devices: int
    seconds: float
    """How long; a broadcast to everybody each second."""
    calls: int
    """Calls in each second, by as many devices, one after the other."""


class Listener(Peer):
    """A device that knows which broadcast is next, and which answers it waits for."""

    def __init__(self, number: int, news: Count, answers: Count) -> None:
        super().__init__(upgrade(f"device {number}"), heard=self.hear)
        self.news, self.answers = news, answers
        self.next = 0
        self.asked = self.answered = 0

    def ask(self) -> None:
        self.asked += 1
        self.transport.write(say(["echo", self.asked, "s"]))

    def hear(self, data: bytes) -> None:
        type, payload, *_ = json.loads(data)
        if type == "news":
            assert payload[0] == self.next, "a broadcast was lost, or doubled"
            self.next += 1
            self.news.one_more()
        else:
            assert (type, payload) == ("~wse:response", self.answered + 1)
            self.answered += 1
            self.answers.one_more()


async def keep_busy(load: Load) -> None:
    loop = asyncio.get_running_loop()
    async with attacked("--drain", "0") as victim:
        speaker = await honest(victim)
        news, answers = Count(), Count()
        devices = [Listener(number, news, answers) for number in range(load.devices)]
        began = loop.time()
        async with crowd(victim.port, *devices, welcomed=True):
            connected = loop.time() - began
            idle = victim.memory()
            await speaker.call("held")
            memory: list[int] = []
            sent = turn = 0
            began = loop.time()
            while loop.time() - began < load.seconds:
                speaker.send("broadcast", [sent, "what everybody hears"])
                sent += 1
                for _ in range(load.calls):
                    devices[turn % load.devices].ask()
                    turn += 1
                await news.reach(sent * load.devices)
                memory.append(victim.memory())
                await asyncio.sleep(max(0.0, began + sent - loop.time()))
            await answers.reach(turn)
            assert {device.next for device in devices} == {sent}
            assert all(device.answered == device.asked for device in devices)
            held = await speaker.call("held")
            stats = await settled(speaker, devices=load.devices + 1)
            assert stats["closed"] == {}
        after_a_minute = memory[60] if len(memory) > 60 else memory[0]
        growth = max(memory) - after_a_minute
        told(
            devices=load.devices,
            seconds=round(load.seconds),
            connected_per_second=round(load.devices / connected),
            messages_delivered=news.value,
            calls_answered=turn,
            lost=sent * load.devices - news.value,
            idle_mib=round(idle / MIB, 1),
            after_a_minute_mib=round(after_a_minute / MIB, 1),
            growth_after_that_mib=round(growth / MIB, 1),
            longest_hold_ms=round(held * 1000, 1),
        )
        assert growth < max(2 * MIB, after_a_minute // 50)
        await speaker.close()


@bounded(50)
async def test_devices_lose_nothing_while_they_talk() -> None:
    await keep_busy(Load(devices=500, seconds=4, calls=500))


@pytest.mark.soak
@pytest.mark.timeout(900)
@bounded(900)
async def test_ten_thousand_devices_for_five_minutes() -> None:
    await keep_busy(Load(devices=10_000, seconds=300, calls=1000))


# -- one percent that does not read ----------------------------------------------------------------


async def latencies(receivers: int, stalled: int, rounds: int) -> tuple[list[float], int]:
    """Seconds from each broadcast to each receiver that reads, and how many were sent away."""
    loop = asyncio.get_running_loop()
    found: list[float] = []
    heard = Count()

    def hear(data: bytes) -> None:
        found.append(loop.time() - json.loads(data)[1][0])
        heard.one_more()

    async with attacked("--drain", "0") as victim:
        speaker = await honest(victim)
        readers = [Peer(upgrade(f"reader {n}"), heard=hear) for n in range(receivers - stalled)]
        idlers = [Peer(upgrade(f"idler {n}")) for n in range(stalled)]
        async with crowd(victim.port, *readers, *idlers, welcomed=True):
            for peer in idlers:
                peer.transport.pause_reading()
            for number in range(rounds):
                speaker.send("broadcast", [loop.time(), "x" * 10_000])
                await heard.reach((number + 1) * len(readers))
            stats = await speaker.call("stats")
        await speaker.close()
    assert len(found) == rounds * len(readers)
    return found, stats["closed"].get("wse.slow-consumer", 0)


def percentile(found: Sequence[float], share: float) -> float:
    return sorted(found)[int(len(found) * share)]


@bounded(50)
async def test_those_who_read_hear_everything_though_others_do_not() -> None:
    await latencies(receivers=100, stalled=10, rounds=50)


@pytest.mark.soak
@pytest.mark.timeout(600)
@bounded(600)
async def test_one_percent_that_does_not_read_does_not_slow_the_others_down() -> None:
    """Interleaved, since the machine may be shared."""
    ratios: list[float] = []
    for _ in range(5):
        alone, _ = await latencies(receivers=990, stalled=0, rounds=1500)
        beside, sent_away = await latencies(receivers=1000, stalled=10, rounds=1500)
        assert sent_away == 10
        p99 = percentile(alone, 0.99), percentile(beside, 0.99)
        ratios.append(p99[1] / p99[0])
        told(
            p99_ms_without=round(p99[0] * 1000, 1),
            p99_ms_with_ten_stalled=round(p99[1] * 1000, 1),
            ratio=round(ratios[-1], 2),
        )
    assert statistics.median(ratios) < 2


# -- how long an attack holds the loop -------------------------------------------------------------


@pytest.mark.parametrize("name", FLOODS)
@pytest.mark.soak
@pytest.mark.timeout(120)
@bounded(120)
async def test_no_flood_holds_the_loop_for_long(name: str) -> None:
    attack = FLOODS[name]
    async with attacked(*attack.options) as victim:
        client = await honest(victim)
        peer = Peer(attack.opening)
        async with crowd(victim.port, peer, welcomed=True):
            peer.transport.pause_reading()
            await client.call("held")
            before = victim.forget_peak()
            sent = await flood(peer, attack.data, attack.total)
            held = await client.call("held")
            told(
                flood=name,
                sent_mib=round(sent / MIB, 1),
                growth_kib=(victim.peak() - before) // 1024,
                longest_hold_ms=round(held * 1000, 1),
            )
            assert held < 0.05
        await client.close()


# -- strangers, with the bounds that everybody has -------------------------------------------------


@pytest.mark.soak
@pytest.mark.timeout(120)
@bounded(120)
async def test_five_thousand_strangers_are_gone_in_time() -> None:
    loop = asyncio.get_running_loop()

    class Stranger(Peer):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            began = loop.time()
            self.gone.add_done_callback(lambda _: setattr(self, "stayed", loop.time() - began))

    async with attacked("--drain", "0") as victim:
        client = await honest(victim)
        before = victim.forget_peak()
        silent = [Stranger() for _ in range(4000)]
        upgraded = [Stranger(upgrade()) for _ in range(1000)]
        async with crowd(victim.port, *upgraded, *silent):
            await asyncio.gather(*(peer.gone for peer in (*silent, *upgraded)))
        without_request = max(vars(peer)["stayed"] for peer in silent)
        not_identified = max(vars(peer)["stayed"] for peer in upgraded)
        told(
            strangers=5000,
            kib_each=round((victim.peak() - before) / 5000 / 1024, 1),
            seconds_without_request=round(without_request, 1),
            seconds_not_identified=round(not_identified, 1),
        )
        assert {peer.closed for peer in upgraded} == {(1013, "wse.authentication-timeout")}
        assert without_request < 5.5
        assert not_identified < 10.5
        await client.close()


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.timeout(120)
@bounded(120)
async def test_five_thousand_devices_are_sent_away_in_time() -> None:
    loop = asyncio.get_running_loop()
    async with attacked() as victim:
        devices = [Peer(upgrade(f"device {n}")) for n in range(5000)]
        ends: list[float] = []
        async with crowd(victim.port, *devices, welcomed=True):
            for device in devices[:50]:
                device.transport.pause_reading()
            began = loop.time()
            for device in devices[50:]:
                device.gone.add_done_callback(lambda _: ends.append(loop.time() - began))
            victim.program.process.terminate()
            status, _, errors = await victim.program.end()
            out = loop.time() - began
            assert (status, errors) == (0, "")
        assert {device.closed for device in devices[50:]} == {(1012, "wse.server-closing")}
        told(
            devices=5000,
            first_gone_s=round(ends[0], 2),
            median_gone_s=round(statistics.median(ends), 2),
            last_gone_s=round(ends[-1], 2),
            process_ended_s=round(out, 2),
        )
        assert out < 30
