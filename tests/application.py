"""An application that does everything there is to do, at both ends, and takes its time over it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from support import SECRET, Boom
from visits import (
    BY_CLIENT,
    CLOSING,
    FOR_EVER,
    HANDLERS,
    JUMPED,
    LEFT,
    PLOTTED,
    SEATS,
    SENT_AWAY,
    End,
    Plan,
    Side,
    Visit,
    Visitor,
    Visits,
)

from wse import (
    AlreadyConnected,
    Attempt,
    Backoff,
    CallDisconnected,
    CallFailed,
    CallTimeout,
    ConnectionFailed,
    Decision,
    Limits,
    NoSuchClient,
    NotAuthorized,
    NotConnected,
    Status,
    WseClient,
    WseConnection,
    WseError,
    WseIdentity,
    WseJSON,
    WseServer,
    testing,
)

__all__ = ["Application"]

LIMITS = Limits(max_handlers=HANDLERS, max_inbox_messages=4, max_unwritten_messages=2)

Conn = WseConnection[Any]
Message = list[int]
"""Its number, and the turns of the loop that its handler takes."""


SLOW_CALL = "double slowly"


class SolverGivesUp(Exception):
    pass


class Punctual(Backoff):
    """Waits as long as it may, so that who comes back first is no matter of chance."""

    def delay(self, attempts: int) -> float:
        return self.ceiling(attempts)


class Application:
    def __init__(self) -> None:
        self.visits = Visits()
        self.visitors: list[Visitor] = []
        self.server: WseServer[Any] = WseServer(self._identify, conn_per_user=SEATS, limits=LIMITS)
        self.network = testing.Network(self.server)
        self.accepted: list[Conn] = []
        """Every connection there was."""
        self.connecting: list[Visitor] = []
        self.draining = 0
        """How many closes of the server take their time."""
        self.working: Counter[str] = Counter()
        """How many coroutines are at work for the library, by their kind."""
        self.released = asyncio.Event()
        """Lets those go on that take for ever."""
        self.plots: dict[str, str] = {}
        """What the next handler of an event does."""
        self._numbers: dict[str, int] = {}
        self._messages = 0
        self._listen()
        Functions(self, self._server_side, self._leave, self._ask).offer(self.server)

    def next_number(self) -> int:
        self._messages += 1
        return self._messages

    @property
    def conns(self) -> list[Conn]:
        """The connections that are open, and the last one that was accepted, open or not."""
        return [*self.server.clients.conns.values(), *self.accepted[-1:]]

    def visit_of(self, conn: Conn) -> Visit:
        return self.visits.all[self._numbers[conn.conn_id]]

    @contextmanager
    def at_work(self, what: str = "handler") -> Iterator[None]:
        self.working[what] += 1
        try:
            yield
        finally:
            self.working[what] -= 1

    async def take(self, turns: int) -> None:
        if turns == FOR_EVER:
            await self.released.wait()
        for _ in range(turns):
            await asyncio.sleep(0)

    def fail(self) -> None:
        self.visits.raised += 1
        raise Boom(SECRET)

    # -- coming in ---------------------------------------------------------------------------

    def invite(self, plan: Plan, *, comes_back: bool) -> Visitor:
        """A new device."""
        device = self.network.device(
            reconnect=comes_back, timeout=15, backoff=Punctual(), protocols=[WseJSON()]
        )
        visitor = Visitor(len(self.visitors), device, plan)
        self.visitors.append(visitor)
        self._listen_at(visitor)
        return visitor

    async def connect(self, visitor: Visitor) -> None:
        """Connect, and check how that ends."""
        await self._come_in(visitor, visitor.client.connect(partial(self._identity, visitor)))

    async def jump(self, visitor: Visitor) -> None:
        """Jump, and check how that ends."""
        if visitor.visit is not None:
            visitor.visit.causes.add(JUMPED)
        await self._come_in(visitor, visitor.client.jump("ws://elsewhere/"))

    async def _come_in(self, visitor: Visitor, way: Coroutine[Any, Any, Any]) -> None:
        before = len(self.visits.all)
        self.connecting.append(visitor)
        try:
            welcome = await way
        except (AlreadyConnected, ConnectionFailed, NotConnected):
            return
        except (NotAuthorized, SolverGivesUp):
            welcome = None
        finally:
            self.connecting.remove(visitor)
        tried = [visit for visit in self.visits.all[before:] if visit.visitor is visitor]
        if welcome is None:
            assert not all(visit.plan.is_welcome for visit in tried)
        else:
            assert welcome in [visit.number for visit in tried]

    async def _identity(self, visitor: Visitor) -> int:
        visit = self.visits.new(visitor)
        await self.take(visit.plan.pauses)
        return visit.number

    def _identify(self, attempt: Attempt) -> Awaitable[Decision] | Decision:
        visit = self.visits.all[attempt.identity]
        self._numbers[attempt.conn_id] = visit.number
        self.visits.tell("identify", visit)
        if visit.plan.quests or visit.plan.thinks:
            return self._identify_slowly(attempt, visit)
        return self._decide(attempt, visit)

    async def _identify_slowly(self, attempt: Attempt, visit: Visit) -> Decision:
        with self.at_work():
            try:
                for quest in range(visit.plan.quests):
                    await self.take(visit.plan.thinks)
                    answer = await attempt.challenge([visit.number, quest])
                    if answer == "wrong":
                        return attempt.refuse()
                    assert answer == [visit.number, quest]
                await self.take(visit.plan.thinks)
            except asyncio.CancelledError:
                if not visit.plan.is_stubborn:
                    raise
            return self._decide(attempt, visit)

    def _decide(self, attempt: Attempt, visit: Visit) -> Decision:
        cid = visit.plan.cid if visit.plan.is_known else None
        return attempt.accept(cid, visit.number, state=visit.number)

    async def _solve(self, quest: Any) -> Any:
        with self.at_work("solver"):
            visit = self.visits.all[quest[0]]
            await self.take(visit.plan.solves)
            if visit.plan.answers == "not at all":
                visit.causes.add(BY_CLIENT)
                raise SolverGivesUp
            return quest if visit.plan.answers == "rightly" else "wrong"

    # -- events ------------------------------------------------------------------------------

    def _listen(self) -> None:
        """At the server."""
        when, tell = self.server.when, self.visits.tell

        @when.joined
        def joined(client: WseIdentity[Any], _: Any) -> Any:
            tell("joined", client.cid)
            return self._carry_out("joined", client)

        @when.left
        def left(client: WseIdentity[Any], code: int, reason: str) -> Any:
            tell("left", client.cid, (code, reason))
            return self._carry_out("left", client)

        @when.connected
        def connected(conn: Conn) -> Any:
            assert conn.client is not None
            self.accepted.append(conn)
            tell("connected", self.visit_of(conn), len(conn.client.conns))
            return self._carry_out("connected", conn.client)

        @when.disconnected
        def disconnected(conn: Conn, code: int, reason: str) -> Any:
            assert conn.client is not None
            tell("disconnected", self.visit_of(conn), (code, reason))
            return self._carry_out("disconnected", conn.client)

        @when.error
        def error(error: WseError, conn: Conn | None) -> None:
            tell("error", type(error), error.details, conn and self.visit_of(conn))

        @when.ignored
        def ignored(conn: Conn, type: str, payload: Any) -> None:
            if not type.startswith("~wse:"):
                tell("ignored", self._server_side(conn), payload[0])

    def _listen_at(self, visitor: Visitor) -> None:
        """At a client."""
        client, when = visitor.client, visitor.client.when

        def tell(event: str, *args: Any) -> Any:
            self.visits.tell(event, visitor.visit, *args)
            return self._carry_out_at(visitor, event)

        @when.connected
        def opened() -> Any:
            assert visitor.visit is not None
            visitor.visit.transport = visitor.device._end
            return tell("opened")

        def side(*_: Any) -> Side:
            assert visitor.visit is not None
            return visitor.visit.client

        async def leave(payload: Message) -> None:
            if client.status is Status.READY:
                self.visits.tell("ends", side(), payload[0])
            await self.close(visitor, LEFT)

        async def ask(payload: Message) -> None:
            await self.call_the_server(visitor, SLOW_CALL, payload[1])

        when.ready(lambda welcome: tell("ready", welcome))
        when.closed(lambda *end: tell("closed", end))
        when.updated(lambda status: self.visits.tell("updated", visitor, status))
        when.ignored(lambda _, payload: self.visits.tell("ignored", side(), payload[0]))
        when.error(lambda error: self.visits.tell("error", type(error), error.details, None))
        client.challenge(self._solve)
        Functions(self, side, leave, ask).offer(client)

    def _carry_out(self, event: str, client: WseIdentity[Any]) -> Awaitable[None] | None:
        """What is plotted for an event at the server."""
        match self.plots.pop(event, None):
            case "drop the user":
                self.drop_user(client, PLOTTED)
            case "drop a device" if client.conns:
                self.drop(next(iter(client.conns.values())), PLOTTED)
            case "send":
                self._send_to_all(client)
            case "send later":
                return self._send_later(client)
            case "ask":
                return self._later(self.call_a_user(client.cid, 1))
            case "raise":
                self.fail()
        return None

    def _carry_out_at(self, visitor: Visitor, event: str) -> Awaitable[None] | None:
        """What is plotted for an event at a client."""
        match self.plots.pop(event, None):
            case "close":
                return self._later(self.close(visitor))
            case "connect":
                return self._later(self.connect(visitor))
            case "jump":
                return self._later(self.jump(visitor))
            case "ask":
                return self._later(self.call_the_server(visitor, "double", 0))
            case "raise":
                self.fail()
        return None

    async def _later(self, coroutine: Coroutine[Any, Any, None]) -> None:
        with self.at_work():
            await coroutine

    async def _send_later(self, client: WseIdentity[Any]) -> None:
        with self.at_work():
            await self.take(2)
            self._send_to_all(client)

    def _send_to_all(self, client: WseIdentity[Any]) -> None:
        number = self.next_number()
        for conn in client.conns.values():
            self.visit_of(conn).client.is_sent("plain", number)
        client.send("plain", [number, 0])

    # -- messages ----------------------------------------------------------------------------

    def _server_side(self, conn: Conn, *_: Any) -> Side:
        return self.visit_of(conn).server

    async def _leave(self, conn: Conn, payload: Message) -> None:
        if conn.is_open:
            self.visits.tell("ends", self._server_side(conn), payload[0])
        self.drop(conn, SENT_AWAY)

    async def _ask(self, conn: Conn, payload: Message) -> None:
        await self.call_a_device(conn, SLOW_CALL, payload[1])

    # -- calls -------------------------------------------------------------------------------

    async def call_the_server(
        self, visitor: Visitor, name: str, turns: int, timeout: float = 20.0
    ) -> None:
        visit, call = visitor.visit, visitor.client.call
        if visit is None:
            with pytest.raises(NotConnected):
                await call(name)
        else:
            await self._call(visit.client, visit.server, call, name, turns=turns, timeout=timeout)

    async def call_a_device(self, conn: Conn, name: str, turns: int, timeout: float = 20.0) -> None:
        visit = self.visit_of(conn)
        await self._call(visit.server, visit.client, conn.call, name, turns=turns, timeout=timeout)

    async def call_a_user(self, cid: str, turns: int, timeout: float = 20.0) -> None:
        """Which asks the newest device."""
        client, call = self.server.clients.get(cid), partial(self.server.call, cid)
        if client is None:
            with pytest.raises(NoSuchClient):
                await call("double")
        else:
            newest = self.visit_of(next(reversed(client.conns.values())))
            await self._call(
                newest.server, newest.client, call, SLOW_CALL, turns=turns, timeout=timeout
            )

    async def _call(
        self,
        caller: Side,
        callee: Side,
        call: Callable[..., Coroutine[Any, Any, Any]],
        name: str,
        *,
        turns: int,
        timeout: float,
    ) -> None:
        """Call, and check how that ends."""
        loop = asyncio.get_running_loop()
        number, since = self.next_number(), loop.time()
        callee.sent.append(number)
        self.visits.waiting[number] = caller, callee
        try:
            result = await call(name, [number, turns], timeout=timeout)
        except (NotConnected, NoSuchClient):
            assert callee.sent.pop() == number
        except CallTimeout:
            assert loop.time() - since == pytest.approx(timeout)
        except CallDisconnected:
            self.visits.tell("hung up", caller)
        except CallFailed:
            assert name == "fail"
        else:
            assert name != "fail"
            assert result == 2 * number
        finally:
            del self.visits.waiting[number]

    # -- ending ------------------------------------------------------------------------------

    async def close(self, visitor: Visitor, end: End = BY_CLIENT) -> None:
        visit = visitor.visit
        if visit is not None:
            visit.causes.add(end)
        await visitor.client.close(end[1])
        if visit is not None:
            self.visits.tell("gone", visit)

    async def close_server(self, drain: float = 0.0) -> None:
        visits = list(self.visits.all)
        for visit in visits:
            visit.causes.add(CLOSING)
            visit.may_leave = visit.may_leave or drain > 0
        self.draining += drain > 0
        try:
            await self.server.close(drain=drain)
        finally:
            self.draining -= drain > 0
        self.visits.tell("all gone", visits)

    def drop(self, conn: Conn, end: End) -> None:
        self.visit_of(conn).causes.add(end)
        conn.drop(end[1])
        assert not conn.is_open

    def drop_user(self, client: WseIdentity[Any], end: End) -> None:
        for conn in client.conns.values():
            self.visit_of(conn).causes.add(end)
        client.drop(end[1])
        assert not client.conns


class Functions:
    """The handlers and procedures of one end, the same on both; the payload comes last.

    Args:
        app: Whose they are.
        side: Which side of which visit it is, from a handler's arguments.
        leave: Ends the connection, from a handler.
        ask: Calls the other end, from a handler.
    """

    def __init__(
        self,
        app: Application,
        side: Callable[..., Side],
        leave: Callable[..., Coroutine[Any, Any, None]],
        ask: Callable[..., Coroutine[Any, Any, None]],
    ) -> None:
        self._app = app
        self._side = side
        self._leave = leave
        self._ask = ask

    def offer(self, end: WseServer[Any] | WseClient) -> None:
        on, register = end.channel.on, end.register
        on("plain", self.plain)
        on("raise", self.throw)
        on("slow", self.slow)
        on("ordered", self.ordered, ordered=True)
        on("leave", self.leave)
        on("ask", self.ask)
        register("double", self.plain)
        register(SLOW_CALL, self.slow)
        register("fail", self.fail)
        if isinstance(end, WseServer):
            on("leave at once", self.leave_at_once)
            on("leave at once", self.never)

    @contextmanager
    def _handling(self, type: str, args: tuple[Any, ...]) -> Iterator[int]:
        """An asynchronous handler is at work, for so many turns."""
        side, (number, turns), how = self._side(*args), args[-1], "done"
        self._app.visits.tell("started", side, number, type)
        with self._app.at_work():
            try:
                yield turns
            except asyncio.CancelledError:
                how = "cancelled"
                raise
            finally:
                self._app.visits.tell("stopped", side, number, how)

    def plain(self, *args: Any) -> int:
        number = int(args[-1][0])
        self._app.visits.tell("started", self._side(*args), number)
        return 2 * number

    def throw(self, *args: Any) -> None:
        self.plain(*args)
        self._app.fail()

    async def slow(self, *args: Any) -> int:
        with self._handling("slow", args) as turns:
            await self._app.take(turns)
        return 2 * int(args[-1][0])

    async def ordered(self, *args: Any) -> None:
        with self._handling("ordered", args) as turns:
            await self._app.take(turns)

    async def leave(self, *args: Any) -> None:
        with self._handling("leave", args) as turns:
            await self._app.take(turns)
            await self._leave(*args)
            await self._app.take(2)

    async def ask(self, *args: Any) -> None:
        with self._handling("ask", args):
            await self._ask(*args)

    async def fail(self, *args: Any) -> None:
        await self.slow(*args)
        self._app.fail()

    def leave_at_once(self, *args: Any) -> None:
        self.plain(*args)
        self._app.drop(args[0], SENT_AWAY)

    def never(self, *args: Any) -> None:
        self._app.visits.tell("handled after the end", self._side(*args))
