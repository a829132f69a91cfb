"""A client whose handlers check what they are given, and what is known of its connections."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from wse import ConnectError, Status, WseClient, WseError
from wse.errors import HandlerFailed
from wse.handler import EAGER

from . import readings, talk
from .payloads import TYPED, check_error, check_plain, packs_small
from .terms import (
    GIVEN_UP,
    LIMITS,
    PROTOCOL_ERROR,
    SILENT,
    TOO_LARGE,
    TOO_SLOW,
    TORN,
    End,
)

__all__ = ["PARTINGS", "Case", "Home", "check_heard"]

PATIENCE = 20.0
"""Seconds that the client waits for a welcome, and for answers."""
PARTINGS: dict[str, End] = {
    "leave": (1001, ""),
    "restart": (1012, "wse.server-closing"),
    "refuse": (1000, "wse.not-authorized"),
}
"""How a server closes."""


class Case:
    """One connection of the client's: what its server said, and how it ended."""

    def __init__(self) -> None:
        self.said: list[bytes] = []
        self.owed: Counter[str] = Counter()
        """The stamps that must be answered while it is there."""
        self.deeds: set[str] = set()
        self.welcomed = 0
        self.end: End | None = None

    @property
    def may_close_late(self) -> bool:
        """Whether a handler may have closed after the end: it may start late (Python 3.11)."""
        return "close" in self.deeds and not EAGER

    def may_break(self) -> bool:
        """Whether what was said may have broken the protocol, or was too much to keep."""
        return (
            len(self.said) > LIMITS.max_inbox_messages
            or sum(map(len, self.said)) > LIMITS.max_inbox_bytes
            or any(map(may_break, self.said))
        )

    def check_end(self, end: End, *, own: AbstractSet[End | None]) -> None:
        """Whether the connection may have ended so.

        Args:
            end: Code and reason.
            own: Ends that the server asked for, or broke RFC 6455 for.
        """
        largest = max(map(len, self.said), default=0)
        cause: dict[End, object] = {
            PROTOCOL_ERROR: self.may_break(),
            TOO_LARGE: largest > LIMITS.max_message_bytes,
            TOO_SLOW: "stall" in self.deeds,
            GIVEN_UP: "close" in self.deeds or not self.welcomed,
            TORN: self.deeds & {"tear", "lose", "end"},
            SILENT: self.deeds & {"silence", "come back"},
        }
        assert end in own or cause.get(end), end


def may_break(data: bytes) -> bool:
    """Whether a message may end the connection, for itself or for its payload."""
    if readings.breaks_protocol(data) is not False:
        return True
    type, *rest = readings.json_of(data)
    return type in ("~wse:welcome", "~wse:challenge") and "Infinity" in json.dumps(rest)


class Home:
    """A client whose handlers check what they are given."""

    def __init__(self, dial: Callable[..., Any]) -> None:
        self.client = WseClient(
            "ws://test/", timeout=PATIENCE, limits=LIMITS, dial=dial, headers={"Host": "test"}
        )
        self.cases: list[Case] = []
        """The connections of this story."""
        self.calls = 0
        """Calls that wait."""
        self.offer_handlers()
        self.offer_procedures()
        self.client.challenge(self.solve)
        when = self.client.when
        when.connected(self.connected)
        when.ready(self.ready)
        when.closed(self.closed)
        when.ignored(self.ignored)
        when.error(self.error)

    @property
    def case(self) -> Case:
        """The newest connection."""
        return self.cases[-1]

    # -- what it hears -----------------------------------------------------------------------

    def connected(self) -> None:
        assert all(case.end is not None for case in self.cases)
        self.cases.append(Case())

    def ready(self, welcome: Any) -> None:
        check_plain(welcome)
        assert self.case.end is None
        self.case.welcomed += 1
        assert self.case.welcomed == 1

    def closed(self, code: int, reason: str) -> None:
        assert self.case.end is None
        self.case.end = (int(code), str(reason))

    async def solve(self, quest: Any) -> int:
        check_plain(quest)
        assert not self.case.welcomed or not EAGER
        if isinstance(quest, list):
            await asyncio.sleep(0.5)
        return 42

    def seen(self, *, later: bool = False) -> None:
        """A message is handled: that of a connection that is there."""
        if EAGER or not later:
            assert self.client.status is Status.READY
            assert self.case.welcomed
            assert self.case.end is None

    def ignored(self, type: str, payload: Any) -> None:
        self.seen()
        check_plain(type)
        assert type not in talk.HEARD
        check_plain(payload)

    def error(self, error: WseError) -> None:
        assert not isinstance(error, HandlerFailed)
        check_error(error)

    def typed(self, name: str) -> Callable[[Any], Any]:
        kind, check = TYPED[name]

        def handle(payload: Any) -> None:
            self.seen()
            check(payload)

        handle.__annotations__["payload"] = kind
        return handle

    def offer_handlers(self) -> None:
        on = self.client.channel.on
        for name in ("plain", "numbers", "text", "count", "many", "table"):
            on(name, self.typed(name))

        @on("later")
        async def later(_: list[int] | None) -> None:
            self.seen(later=True)
            await asyncio.sleep(1.0)

        @on("ordered", ordered=True)
        async def ordered(payload: Any) -> None:
            self.seen(later=True)
            check_plain(payload)
            await asyncio.sleep(0.5)

        @on("ask")
        async def ask(_: Any) -> None:
            self.seen(later=True)
            await self.ask()

        @on("flood")
        def flood(_: Any) -> None:
            self.seen()
            for number in range(15):
                self.client.send("flood", [number, "x" * 100])

        @on("quit")
        async def leave(_: str) -> None:
            self.seen(later=True)
            await self.leave()

    def offer_procedures(self) -> None:
        register = self.client.register
        for name in ("add", "fit"):
            register(name, self.typed(name))

        @register("echo")
        def echo(payload: Any) -> Any:
            self.seen()
            check_plain(payload)
            return payload if packs_small(payload) else None

        @register("fail")
        async def fail(payload: int | None) -> None:
            self.seen(later=True)
            raise WseError("mine", payload)

        @register("later")
        async def later(_: Any) -> None:
            self.seen(later=True)
            await asyncio.sleep(1.0)

        @register("stuck", ordered=True)
        async def stuck(_: Any) -> None:
            self.seen(later=True)
            await asyncio.sleep(25.0)

        @register("quit")
        async def leave(_: str) -> None:
            self.seen(later=True)
            await self.leave()

    async def ask(self) -> None:
        """Call the server; whatever it says, that ends, with plain data or an error."""
        self.calls += 1
        try:
            check_plain(await self.client.call("ask", 1))
        except WseError as error:
            check_error(error)
        finally:
            self.calls -= 1

    async def leave(self) -> None:
        self.case.deeds.add("close")
        await self.client.close()

    # -- the story ---------------------------------------------------------------------------

    async def connect(self) -> None:
        """`connect`, which ends with plain data or one of its own errors."""
        try:
            check_plain(await self.client.connect("me", {"app": "fuzz"}))
        except ConnectError as error:
            check_error(error)

    def begin(self, *, reconnect: bool) -> asyncio.Task[None]:
        self.cases.clear()
        self.client.reconnect = reconnect
        return asyncio.get_running_loop().create_task(self.connect())

    async def end(self, connecting: asyncio.Task[None]) -> None:
        if self.cases and self.case.end is None:
            self.case.deeds.add("close")
        await self.client.close()
        await connecting
        assert self.client.status is Status.OFFLINE

    def check_nothing_is_left(self) -> None:
        client = self.client
        assert self.calls == 0
        assert client._link is None
        assert client._work is None
        assert client._leaving == set()
        assert client._hub.tasks == set()
        assert client._emitter.tasks == set()


def check_heard(heard: Sequence[Any], case: Case) -> Counter[str]:
    """What a client may say; how often it answered each stamp."""
    replies: Counter[str] = Counter()
    for number, (type, payload, stamp) in enumerate(heard):
        match type:
            case "~wse:hi":
                assert number == 0
                assert payload == {"identity": "me", "meta": {"app": "fuzz"}}
            case "~wse:challenge":
                assert payload == 42
            case "~wse:response" | "~wse:response-err":
                replies[stamp] += 1
            case _ if type.startswith("~wse:call:"):
                replies[type] += 1
            case _:
                assert type in ("ask", "flood")
                assert stamp is None or stamp.startswith("~wse:call:ask:")
    assert not heard or heard[0][0] == "~wse:hi"
    assert not replies or case.welcomed
    asked: Counter[str] = Counter()
    for data in case.said:
        asked.update(readings.stamp_of(data))
    assert replies <= asked
    return replies
