"""A server whose handlers check what they are given, and what is known of one that is hostile."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from wse import Attempt, Decision, WseConnection, WseError, WseServer
from wse.errors import HandlerFailed
from wse.handler import EAGER
from wse.stages import Stage

from . import readings, talk
from .payloads import TYPED, check_error, check_plain, packs_small
from .terms import (
    BURST,
    DROPPED,
    LIMITS,
    PROTOCOL_ERROR,
    REFUSED,
    SILENT,
    TOO_LARGE,
    TOO_LATE,
    TOO_MANY,
    TOO_SLOW,
    TORN,
    End,
)

__all__ = ["BYSTANDER", "Case", "House", "check_heard", "is_hi"]

BYSTANDER = "a bystander"


class Case:
    """One hostile connection: what it said, and what is known of it."""

    def __init__(self) -> None:
        self.conn: WseConnection[Any] | None = None
        self.said: list[bytes] = []
        """Its messages, as far as they may have arrived."""
        self.owed: Counter[str] = Counter()
        """The stamps that must be answered while it is there."""
        self.largest = 0
        """Bytes of what never became a message."""
        self.deeds: set[str] = set()
        self.waited = 0.0
        self.attempts = 0
        self.connected = 0
        self.end: End | None = None
        """As `disconnected` told it."""
        self.parting: set[str] = set()
        """Reasons with which a handler dropped it."""
        self.calls = 0
        """Calls to it that wait."""
        self.news = 0
        """Broadcasts meanwhile."""

    @property
    def may_drop_late(self) -> bool:
        """Whether a handler may have dropped it after its end: it may start late (Python 3.11)."""
        return bool(self.parting) and not EAGER

    def asked(self) -> Counter[str]:
        """How often each stamp may have been answered."""
        stamps: Counter[str] = Counter()
        for data in self.said:
            stamps.update(readings.stamp_of(data))
        return stamps

    def may_break(self) -> bool:
        """Whether the connection may have ended for what was said."""
        first = [is_hi(data) is not True for data in self.said[:1]]
        return any([*first, *(readings.breaks_protocol(data) is not False for data in self.said)])

    def check_end(self, end: End, *, own: AbstractSet[End | None]) -> None:
        """Whether the connection may have ended so.

        Args:
            end: Code and reason.
            own: Ends that the peer asked for, or broke RFC 6455 for.
        """
        largest = max(self.largest, *map(len, self.said), 0)
        cause: dict[End, object] = {
            PROTOCOL_ERROR: self.may_break(),
            REFUSED: self.attempts and not self.connected,
            TOO_LATE: self.waited >= LIMITS.authentication_timeout and not self.connected,
            TOO_MANY: len(self.said) > BURST,
            TOO_LARGE: largest > LIMITS.max_stranger_message_bytes,
            TOO_SLOW: "stall" in self.deeds,
            DROPPED: "drop" in self.deeds,
            TORN: self.deeds & {"tear", "lose", "end"},
            SILENT: "silence" in self.deeds,
        }
        assert end in own or cause.get(end) or (end[0] == 1000 and end[1] in self.parting), end


def is_hi(data: bytes) -> bool | None:
    """Whether it is a proper hi; None when its payload might not be readable."""
    said = readings.members(data)
    if not said or said[0] != "~wse:hi" or len(said) < 2 or not isinstance(said[1], dict):
        return False
    if readings.breaks_protocol(data) is not False or "Infinity" in json.dumps(said):
        return None
    return True


def check_heard(heard: Sequence[Any], case: Case) -> Counter[str]:
    """What a server may say; how often it answered each stamp."""
    welcomed = False
    replies: Counter[str] = Counter()
    for type, payload, stamp in heard:
        assert welcomed or type in ("~wse:challenge", "~wse:welcome")
        match type:
            case "~wse:challenge":
                assert payload == {"quest": 1}
                assert not welcomed
            case "~wse:welcome":
                assert payload == "welcome"
                assert not welcomed
                welcomed = True
            case "~wse:response" | "~wse:response-err":
                replies[stamp] += 1
            case _ if type.startswith("~wse:call:"):
                replies[type] += 1
            case _:
                assert type in ("ask", "flood", "news")
                assert stamp is None or type == "ask"
    assert welcomed is bool(case.connected) or not heard
    assert replies <= case.asked()
    return replies


class House:
    """A server whose handlers check what they are given."""

    def __init__(self) -> None:
        self.server: WseServer[Any] = WseServer(self.identify, limits=LIMITS, timeout=20.0)
        self.case = Case()
        self.offer_handlers()
        self.offer_procedures()
        when = self.server.when
        when.joined(self.joined)
        when.left(self.left)
        when.connected(self.connected)
        when.disconnected(self.disconnected)
        when.ignored(self.ignored)
        when.error(self.error)

    # -- who comes in ------------------------------------------------------------------------

    def identify(self, attempt: Attempt) -> Any:
        if attempt.meta == BYSTANDER:
            return attempt.accept(BYSTANDER)
        self.case.attempts += 1
        assert self.case.attempts == 1
        check_plain(attempt.identity)
        check_plain(attempt.meta)
        match attempt.identity:
            case "in":
                return attempt.accept("eve", "welcome")
            case "slow" | "ask" | "ask often" | "never":
                return self.consider(attempt)
        return attempt.refuse()

    async def consider(self, attempt: Attempt) -> Decision:
        match attempt.identity:
            case "slow":
                await asyncio.sleep(3.0)
                return attempt.accept("eve", "welcome")
            case "never":
                await asyncio.get_running_loop().create_future()
        answer = await attempt.challenge({"quest": 1})
        check_plain(answer)
        if attempt.identity == "ask often":
            answer = await attempt.challenge({"quest": 1})
        return attempt.accept("eve" if answer == 42 else None, "welcome")

    def joined(self, client: Any, _: Any) -> None:
        assert set(self.server.clients) == {BYSTANDER, "eve"} or client.cid == BYSTANDER

    def left(self, client: Any, code: int, reason: str) -> None:
        assert client.cid == BYSTANDER or (code, reason) == self.case.end

    def connected(self, conn: WseConnection[Any]) -> None:
        if conn.cid != BYSTANDER:
            self.case.connected += 1
            assert self.case.connected == 1

    def disconnected(self, conn: WseConnection[Any], code: int, reason: str) -> None:
        if conn.cid != BYSTANDER:
            assert self.case.connected
            assert self.case.end is None
            self.case.end = (int(code), str(reason))

    # -- what it hears -----------------------------------------------------------------------

    def seen(self, conn: WseConnection[Any], *, later: bool = False) -> None:
        """A message is handled: that of a connection that is there."""
        self.is_the_one(conn)
        if EAGER or not later:
            assert conn.stage is Stage.READY
            assert self.case.end is None

    def is_the_one(self, conn: WseConnection[Any]) -> None:
        if self.case.conn is None:
            self.case.conn = conn
        assert conn is self.case.conn

    def ignored(self, conn: WseConnection[Any], type: str, payload: Any) -> None:
        self.seen(conn)
        check_plain(type)
        assert type not in talk.HEARD
        check_plain(payload)

    def error(self, error: WseError, conn: WseConnection[Any] | None) -> None:
        assert conn is not None
        self.is_the_one(conn)
        assert not isinstance(error, HandlerFailed)
        check_error(error)
        assert self.case.end is None

    def typed(self, name: str) -> Callable[[WseConnection, Any], Any]:
        kind, check = TYPED[name]

        def handle(conn: WseConnection, payload: Any) -> None:
            self.seen(conn)
            check(payload)

        handle.__annotations__["payload"] = kind
        return handle

    def offer_handlers(self) -> None:
        on = self.server.channel.on
        for name in ("plain", "numbers", "text", "count", "many", "table"):
            on(name, self.typed(name))

        @on("later")
        async def later(conn: WseConnection, _: list[int] | None) -> None:
            self.seen(conn, later=True)
            await asyncio.sleep(1.0)

        @on("ordered", ordered=True)
        async def ordered(conn: WseConnection, payload: Any) -> None:
            self.seen(conn, later=True)
            check_plain(payload)
            await asyncio.sleep(0.5)

        @on("ask")
        async def ask(conn: WseConnection, _: Any) -> None:
            self.seen(conn, later=True)
            await self.ask(conn)

        @on("flood")
        def flood(conn: WseConnection, _: Any) -> None:
            self.seen(conn)
            for number in range(15):
                conn.send("flood", [number, "x" * 100])

        @on("quit")
        def leave(conn: WseConnection, payload: str) -> None:
            self.seen(conn)
            self.drop(conn, payload)

    def offer_procedures(self) -> None:
        register = self.server.register
        for name in ("add", "fit"):
            register(name, self.typed(name))

        @register("echo")
        def echo(conn: WseConnection, payload: Any) -> Any:
            self.seen(conn)
            check_plain(payload)
            return payload if packs_small(payload) else None

        @register("fail")
        async def fail(conn: WseConnection, payload: int | None) -> None:
            self.seen(conn, later=True)
            raise WseError("mine", payload)

        @register("later")
        async def later(conn: WseConnection, _: Any) -> None:
            self.seen(conn, later=True)
            await asyncio.sleep(1.0)

        @register("stuck", ordered=True)
        async def stuck(conn: WseConnection, _: Any) -> None:
            self.seen(conn, later=True)
            await asyncio.sleep(25.0)

        @register("quit")
        def leave(conn: WseConnection, payload: str) -> None:
            self.seen(conn)
            self.drop(conn, payload)

    async def ask(self, conn: WseConnection[Any]) -> None:
        """Call the peer; whatever it says, that ends, with plain data or an error."""
        case = self.case
        case.calls += 1
        try:
            check_plain(await conn.call("ask", 1))
        except WseError as error:
            check_error(error)
        finally:
            case.calls -= 1

    def drop(self, conn: WseConnection[Any], reason: str) -> None:
        if len(reason.encode()) <= 123:
            self.case.parting.add(reason)
            conn.drop(reason)

    # -- the end -----------------------------------------------------------------------------

    def begin(self) -> Case:
        self.case = Case()
        return self.case

    def check_nothing_is_left(self) -> None:
        server = self.server
        assert self.case.calls == 0
        assert server.acceptor.strangers_count == 0
        assert set(server.clients) == {BYSTANDER}
        assert len(server.clients.conns) == 1
        assert server._hub.tasks == set()
        assert server._emitter.tasks == set()
