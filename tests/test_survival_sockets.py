"""Real devices whose sockets are torn again and again, and all at once.

A short form in `make test`; the long one in `make soak` prints its figures.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from carriers import TEXT, request
from crowd import Peer, attacked, linux, say
from support import bounded
from test_attacks import honest
from test_load import Count, told

from wse import WseClient, WseError

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
        opened: Counter[int] = Counter()
        failed: defaultdict[str, Counter[int]] = defaultdict(Counter)

        def fail(error: WseError) -> None:
            why = str((error.details or {}).get("status", error))
            failed[why][int(loop.time() - began)] += 1

        began = loop.time()
        each(phones, "connected", lambda: opened.update([int(loop.time() - began)]))
        each(phones, "error", fail)
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
        seconds = range(int(took) + 1)
        told(
            devices=devices,
            all_back_after_seconds=round(took, 1),
            opened_in_each_second=[opened[n] for n in seconds],
            failed_in_each_second={why: [of[n] for n in seconds] for why, of in failed.items()},
            refused=stats["refused"],
        )


# -- at full rate: handsets on plain sockets, which cost this process less than clients ------------

_LONGEST_ABSENCE = 30
"""Ticks of a tenth of a second."""


class Handset:
    """A device that writes down what it must not hear."""

    def __init__(self, port: int, number: int) -> None:
        self.line: Line
        self.next = self.resumed = self.missing = self.double = 0
        self.lost: list[Any] = []
        """Welcomes of sessions that did not go on."""
        self.is_away = False
        """Torn, and not to be torn again before it is back."""
        self.answered = asyncio.Event()
        self._port = port
        self._hi = {"identity": f"handset {number}", "device": "handset"}
        self._session = ""
        self._received = 0

    async def open(self) -> None:
        """Connect, whether or not it still is."""
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: Line(self), "127.0.0.1", self._port)

    def tear(self, how: str) -> None:
        self.is_away = True
        if how == "vanish":
            self.line.transport.abort()
        elif how == "hang up":
            self.line.transport.close()

    def hi(self) -> bytes:
        resume = {"session": self._session, "received": self._received}
        return say(["~wse:hi", {**self._hi, "resume": resume} if self._session else self._hi])

    def welcome(self, terms: Any) -> None:
        if self._session and not terms["resumed"]:
            self.lost.append(terms)
        self.resumed += terms["resumed"]
        self._session = terms["session"]
        self.is_away = False

    def hear(self, line: Line, data: bytes) -> None:
        if line is not self.line:  # another has told what had come
            return
        type, payload, *_ = msgspec.json.decode(data)
        if type.startswith("~wse:") and type != "~wse:response":
            return
        self._received += 1
        if self._received % 20 == 0:
            line.transport.write(say(["~wse:ack", self._received]))
        if type == "~wse:response":
            self.answered.set()
        else:
            self.missing += max(0, payload - self.next)
            self.double += payload < self.next
            self.next = max(self.next, payload + 1)


class Line(Peer):
    """One connection of a handset."""

    def __init__(self, handset: Handset) -> None:
        super().__init__(heard=lambda data: handset.hear(self, data))
        self._handset = handset

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._handset.line = self
        self._opening = request({"Sec-WebSocket-Protocol": "wse.5.json"}) + self._handset.hi()
        super().connection_made(transport)

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == TEXT and not self.welcomed.done():
            self._handset.welcome(msgspec.json.decode(payload)[2])
        super()._frame(opcode, payload)


async def kick_handsets(devices: int, seconds: int, rate: int, kicks: int) -> None:
    """As `kick`, by the clock, and nobody waits for those who are away.

    A third vanish, a third hang up, and a third come back while their last connection is there.
    """
    loop = asyncio.get_running_loop()
    chance = random.Random(5)  # noqa: S311 - no secret
    async with attacked("--drain", "0") as victim:
        speaker = await honest(victim)
        handsets = [Handset(victim.port, number) for number in range(devices)]
        for start in range(0, devices, TOGETHER):
            some = handsets[start : start + TOGETHER]
            await asyncio.gather(*(one.open() for one in some))
            await asyncio.gather(*(one.line.welcomed for one in some))
        due: defaultdict[int, list[Handset]] = defaultdict(list)
        ticks = 10 * seconds
        sent = kicked = 0
        began = loop.time()
        for tick in range(ticks + _LONGEST_ABSENCE):
            await asyncio.gather(*(one.open() for one in due.pop(tick, [])))
            if tick >= ticks:
                continue
            for _ in range(rate // 10):
                speaker.send("broadcast", sent)
                sent += 1
            await speaker.call("echo", tick)
            here = [one for one in handsets if not one.is_away]
            for one in chance.sample(here, min(kicks // 10, len(here))):
                one.tear(chance.choice(("vanish", "hang up", "stay until replaced")))
                kicked += 1
                due[tick + chance.randint(1, _LONGEST_ABSENCE)].append(one)
            await asyncio.sleep(max(0.0, began + (tick + 1) / 10 - loop.time()))
        assert not due
        await asyncio.gather(*(one.line.welcomed for one in handsets))
        for one in handsets:
            one.line.transport.write(say(["echo", None, "1"]))
        await asyncio.gather(*(one.answered.wait() for one in handsets))
        took = loop.time() - began
        stats = await speaker.call("stats")
        resumed = sum(one.resumed for one in handsets)
        missing = sum(one.missing + sent - one.next for one in handsets)
        double = sum(one.double for one in handsets)
        told(
            devices=devices,
            messages_handed_over=sent * devices - missing,
            missing=missing,
            double=double,
            messages_to_each_per_second=round(sent / took),
            kicked=kicked,
            resumed=resumed,
            closed=stats["closed"],
        )
        assert (missing, double) == (0, 0)
        assert [one.lost for one in handsets if one.lost] == []
        assert resumed == kicked == stats["resumed"] > 0
        for one in handsets:
            one.line.transport.abort()
        await asyncio.gather(*(one.line.gone for one in handsets))
        await speaker.close()


@bounded(60)
async def test_nothing_is_missing_or_double_however_often_devices_are_kicked() -> None:
    await kick(50, 2, 100, 50)


@bounded(60)
async def test_devices_that_are_torn_at_once_are_all_back() -> None:
    await tear_all(300)


@pytest.mark.soak
@pytest.mark.timeout(900)
@bounded(880)
async def test_a_thousand_devices_are_kicked_again_and_again() -> None:
    await kick(1000, 60, 100, 100)


@bounded(60)
async def test_nothing_is_missing_or_double_while_messages_do_not_wait_for_who_is_away() -> None:
    await kick_handsets(50, 2, 100, 50)


@pytest.mark.soak
@pytest.mark.timeout(600)
@bounded(580)
async def test_a_hundred_messages_a_second_reach_a_thousand_devices_that_are_kicked() -> None:
    await kick_handsets(1000, 60, 100, 100)


@pytest.mark.soak
@pytest.mark.timeout(900)
@bounded(880)
async def test_ten_thousand_devices_are_torn_at_once() -> None:
    await tear_all(10_000)
