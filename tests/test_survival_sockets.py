"""Real devices whose sockets are torn again and again, and all at once.

A short form in `make test`; the long one in `make soak` prints its figures.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from crowd import attacked, linux
from support import bounded
from test_attacks import honest
from test_load import Count, told

from wse import WseClient

pytestmark = linux

TOGETHER = 400
"""Devices that connect at the same time: fewer than strangers may be."""


class Phone:
    """A device that must hear each broadcast once and in order."""

    def __init__(self, port: int, number: int, news: Count) -> None:
        self.client = WseClient(f"ws://127.0.0.1:{port}/", reconnect=True, timeout=60)
        self.name = f"phone {number}"
        self.news = news
        self.next = 0
        self.client.channel.on("news", self.hear)

    def hear(self, number: int) -> None:
        assert number == self.next, f"{number} instead of {self.next}: lost, or doubled"
        self.next += 1
        self.news.one_more()

    def tear(self) -> bool:
        """Cut the cable; false when it is cut already."""
        link = self.client._link
        if link is None or self.client.status != "READY":
            return False
        stream: Any = link._transport
        stream._stream.abort()
        return True


async def connect(phones: list[Phone]) -> None:
    for start in range(0, len(phones), TOGETHER):
        some = phones[start : start + TOGETHER]
        await asyncio.gather(*(phone.client.connect(phone.name) for phone in some))


def each(phones: Iterable[Phone], event: str, tell: Any) -> None:
    for phone in phones:
        getattr(phone.client.when, event)(tell)


async def kick(devices: int, seconds: int, rate: int, kicks: int) -> None:
    """So many messages to each device in each second, and so many devices kicked."""
    loop = asyncio.get_running_loop()
    chance = random.Random(5)  # noqa: S311 - no secret
    async with attacked("--drain", "0") as victim:
        speaker = await honest(victim)
        news, resumed, lost = Count(), Count(), Count()
        phones = [Phone(victim.port, number, news) for number in range(devices)]
        await connect(phones)
        each(phones, "resumed", lambda _: resumed.one_more())
        each(phones, "lost", lambda _: lost.one_more())
        began = loop.time()
        sent = kicked = 0
        for _ in range(seconds):
            for part in range(10):
                for _ in range(rate // 10):
                    speaker.send("broadcast", sent)
                    sent += 1
                await speaker.call("echo", part)
                for phone in chance.sample(phones, kicks // 10):
                    kicked += phone.tear()
            await news.reach(sent * devices)
        took = loop.time() - began
        assert {phone.next for phone in phones} == {sent}
        stats = await speaker.call("stats")
        assert lost.value == 0
        assert resumed.value == stats["resumed"] > 0
        for phone in phones:
            await phone.client.close()
        told(
            devices=devices,
            messages_handed_over=news.value,
            missing_or_double=0,
            messages_to_each_per_second=round(sent / took),
            kicked=kicked,
            resumed=resumed.value,
        )


async def tear_all(devices: int) -> None:
    """All at once, and what comes of it."""
    loop = asyncio.get_running_loop()
    async with attacked("--drain", "0") as victim:
        speaker = await honest(victim)
        news, resumed, lost = Count(), Count(), Count()
        phones = [Phone(victim.port, number, news) for number in range(devices)]
        await connect(phones)
        seconds: Counter[int] = Counter()
        refused: Counter[int] = Counter()
        began = loop.time()
        each(phones, "connected", lambda: seconds.update([int(loop.time() - began)]))
        each(phones, "error", lambda _: refused.update([int(loop.time() - began)]))
        each(phones, "resumed", lambda _: resumed.one_more())
        each(phones, "lost", lambda _: lost.one_more())
        began = loop.time()
        assert all(phone.tear() for phone in phones)
        speaker.send("broadcast", 0)
        await resumed.reach(devices)
        took = loop.time() - began
        await news.reach(devices)
        assert lost.value == 0
        stats = await speaker.call("stats")
        assert stats["resumed"] == devices
        assert stats["suspended"] == 0
        for phone in phones:
            await phone.client.close()
        told(
            devices=devices,
            all_back_after_seconds=round(took, 1),
            attempts_in_each_second=[seconds[n] for n in range(int(took) + 1)],
            refused_in_each_second=[refused[n] for n in range(int(took) + 1)],
        )


@bounded(60)
async def test_nothing_is_missing_or_double_however_often_devices_are_kicked() -> None:
    await kick(50, 2, 100, 50)


@bounded(60)
async def test_devices_that_are_torn_at_once_are_all_back() -> None:
    await tear_all(200)


@pytest.mark.soak
@pytest.mark.timeout(900)
@bounded(880)
async def test_a_thousand_devices_are_kicked_again_and_again() -> None:
    await kick(1000, 60, 100, 100)


@pytest.mark.soak
@pytest.mark.timeout(900)
@bounded(880)
async def test_ten_thousand_devices_are_torn_at_once() -> None:
    await tear_all(10_000)
