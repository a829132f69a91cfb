"""What happens in the middle of something else.

Devices connect, prove who they are, talk, call, hang and end, and so does the server, with any
number of the loop's turns in between: what is under way meets what ends it at each of its steps.
The promises hold at every turn, and whenever all has come to rest, what is left is counted.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import hypothesis.strategies as st
import pytest
from application import Application
from census import alive, count_from_here, counted, held, timers
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from visits import (
    BANNED,
    BY_CLIENT,
    FOR_EVER,
    LATE,
    SLOW,
    TORN,
    VIOLATION,
    Plan,
    Stage,
    Visit,
    Visitor,
)

from wse import Status, stages, testing

VISITORS = 6

SETTLED = -1
"""As many turns as it takes until nothing happens any more."""

users = st.sampled_from(["alice", "bob"])
picks = st.integers(min_value=0, max_value=VISITORS - 1)
turns = st.sampled_from([SETTLED, 0, 1, 2, 3, 4, 5, 6])
times = st.sampled_from([0, 0, 1, 1, 2, 3, 5, FOR_EVER, FOR_EVER])
timeouts = st.sampled_from([1.0, 20.0])
procedures = st.sampled_from(["double", "double slowly", "fail"])
plans = st.builds(
    Plan,
    cid=users,
    is_known=st.sampled_from([True, True, True, False]),
    quests=st.sampled_from([0, 0, 1, 2]),
    answers=st.sampled_from(["rightly", "rightly", "rightly", "wrongly", "not at all"]),
    pauses=st.sampled_from([0, 0, 1, 3]),
    thinks=times,
    solves=times,
    is_stubborn=st.booleans(),
)

plots_at_the_server = st.tuples(
    st.sampled_from(["joined", "left", "connected", "disconnected"]),
    st.sampled_from(["drop the user", "drop a device", "send", "send later", "ask", "raise"]),
)
plots_at_a_client = st.tuples(
    st.sampled_from(["opened", "ready", "closed"]),
    st.sampled_from(["close", "connect", "jump", "ask", "raise"]),
)

EVENTS = ["plain", "slow", "ordered", "ask", "raise", "leave"]


def messages(*types: str) -> st.SearchStrategy[list[tuple[str, int]]]:
    """Some messages, and the turns that their handlers take."""
    return st.lists(st.tuples(st.sampled_from(types), times), min_size=1, max_size=6)


words = messages("slow", "ordered", "ask")


def action(
    when: Callable[[Interleaving], Any] = lambda _: True, **strategies: Any
) -> Callable[[Any], Any]:
    """A rule: do this at the end of the loop's next turn, then let so many turns pass.

    Where it makes no sense, somebody comes instead. It is no `precondition`: which tasks of a set
    are cancelled first is a matter of chance, and what is drawn must not depend on that.
    """

    def decorate(function: Callable[..., None]) -> Any:
        def happen(self: Interleaving, turns: int, **drawn: Any) -> None:
            deed = partial(function, self, **drawn) if when(self) else self.somebody_comes
            self.loop.call_soon(deed)
            self.let_pass(turns)

        happen.__name__ = function.__name__
        make_rule: Any = rule
        return make_rule(turns=turns, **strategies)(happen)

    return decorate


def there_is(what: str) -> Callable[[Interleaving], Any]:
    return lambda self: getattr(self, what)


class Interleaving(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        count_from_here()
        self.runner = asyncio.Runner(loop_factory=testing.VirtualClockLoop)
        self.loop = self.runner.get_loop()
        self.loop.set_exception_handler(lambda _, context: self.crashes.append(context))
        self.crashes: list[dict[str, Any]] = []
        self.tasks: dict[asyncio.Task[None], Visitor | None] = {}
        """What goes on, and who connects by it."""
        self.cancelled: set[asyncio.Task[None]] = set()
        self.is_broken = False
        self.app = Application()
        self.visits = self.app.visits
        self.visitors = self.app.visitors
        self.accepted = self.app.accepted

    # -- each step ---------------------------------------------------------------------------

    def let_pass(self, turns: int) -> None:
        if turns == SETTLED:
            self.loop.run_until_complete(testing.settle())
        for _ in range(turns):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        self.is_broken = True
        self.check()
        if turns == SETTLED:
            self.check_at_rest()
        self.is_broken = False

    def start(self, coroutine: Coroutine[Any, Any, None], connects: Visitor | None = None) -> None:
        self.tasks[self.loop.create_task(coroutine)] = connects

    def check(self) -> None:
        for context in self.crashes:
            raise context.get("exception") or AssertionError(context["message"])
        self.visits.learn()
        for task in [task for task in self.tasks if task.done()]:
            del self.tasks[task]
            if task.cancelled():
                assert task in self.cancelled
            else:
                task.result()
            self.cancelled.discard(task)

    def check_at_rest(self) -> None:
        self.visits.check_at_rest(self.app.server)
        for conn in self.app.server.clients.conns.values():
            is_busy = self.app.visit_of(conn).server.at_work or conn._calls
            assert is_busy or conn.stage is not stages.Stage.LEAVING
        for visitor in self.app.connecting:
            self.check_reason_to_wait(visitor)
        for visitor in self.visitors:
            status = visitor.client.status
            is_ready = visitor.visit is not None and visitor.visit.client.stage is Stage.READY
            assert (status is Status.READY) is is_ready
            is_connecting = status in (Status.CONNECTING, Status.RE_CONNECTING)
            assert (visitor.client._work is not None) is is_connecting
        self.count_what_is_left()

    def check_reason_to_wait(self, visitor: Visitor) -> None:
        visit = visitor.visit
        assert visit is not None
        if visit.client.stage is Stage.OPEN:
            assert visit.is_stalled or FOR_EVER in (visit.plan.thinks, visit.plan.solves)
        else:
            assert visitor.client.reconnect

    def count_what_is_left(self) -> None:
        strangers = len(self.app.server.acceptor.strangers)
        devices = sum(map(len, self.visits.here.values()))
        attempts = sum(visitor.client._work is not None for visitor in self.visitors)
        calls = len(self.visits.waiting)
        sides = [side for visit in self.visits.all for side in visit.sides]
        clients = [visitor.client for visitor in self.visitors]
        found = held(self.app.server, clients)
        del found["messages"]  # those that wait behind handlers at work
        assert found == +Counter(
            users=len(self.visits.here),
            strangers=strangers,
            devices=devices,
            seats=devices,
            links=len(self.visits.connected),
            attempts=attempts,
            calls=calls,
            handlers=sum(len(side.at_work) for side in sides),
            tasks=self.app.working["handler"],
        )
        tasks = len(self.tasks) + attempts + self.app.working.total()
        due = strangers + attempts + len(self.app.connecting)
        drains = self.app.draining  # each waits for its next batch, or for all devices
        assert 0 <= len(asyncio.all_tasks(self.loop)) - tasks <= drains * devices
        assert drains <= timers(self.loop, self.app.server, clients) - due <= 2 * drains

    # -- the end -----------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if self.is_broken:
                self.app.plots.clear()
            else:
                self.end()
        finally:
            self.runner.close()

    def end(self) -> None:
        """Everybody goes at once, and nothing is left."""
        self.let_pass(1)
        self.app.plots.clear()
        self.loop.call_soon(self.close_everything)
        self.let_pass(SETTLED)
        if self.app.draining:  # which finds that nobody is left
            self.loop.run_until_complete(testing.pass_time(1))
            self.let_pass(SETTLED)
        assert not self.visits.here
        assert not self.visits.connected
        assert not self.tasks
        assert not held(self.app.server, [visitor.client for visitor in self.visitors])
        assert not asyncio.all_tasks(self.loop)
        clients = [visitor.client for visitor in self.visitors]
        assert not timers(self.loop, self.app.server, clients)
        for visitor in self.visitors:
            visitor.device._dialer.last = None
        for visit in self.visits.all:
            visit.transport = None
        self.accepted.clear()
        assert not alive()

    def close_everything(self) -> None:
        for visitor in self.visitors:
            self.start(self.app.close(visitor))
        self.start(self.app.close_server())

    # -- arriving ----------------------------------------------------------------------------

    @initialize(
        devices=st.lists(st.tuples(users, st.booleans(), words), min_size=2, max_size=4),
    )
    def begin_with(self, devices: list[tuple[str, bool, list[tuple[str, int]]]]) -> None:
        for cid, comes_back, _ in devices:
            self.loop.call_soon(self.connect_new, Plan(cid), comes_back)
        self.let_pass(SETTLED)
        for visitor, (*_, said) in zip(tuple(self.visitors), devices, strict=True):
            if visitor.client.status is Status.READY:
                self.loop.call_soon(self.has_said, visitor, said)
        self.let_pass(1)

    def connect_new(self, plan: Plan, comes_back: bool) -> None:
        visitor = self.app.invite(plan, comes_back=comes_back)
        self.start(self.app.connect(visitor), visitor)

    def somebody_comes(self) -> None:
        """Who is away, else a new one."""
        for visitor in self.visitors:
            if visitor.client.status in (Status.IDLE, Status.OFFLINE):
                visitor.device.plug_in()
                visitor.plan = Plan(visitor.plan.cid)
                self.start(self.app.connect(visitor), visitor)
                return
        if len(self.visitors) < VISITORS:
            self.connect_new(Plan("alice"), comes_back=True)

    @action(lambda self: len(self.visitors) < VISITORS, plan=plans, comes_back=st.booleans())
    def connect(self, plan: Plan, comes_back: bool) -> None:
        self.connect_new(plan, comes_back)

    @action(there_is("visitors"), number=picks, plan=plans)
    def connect_again(self, number: int, plan: Plan) -> None:
        for visitor in one(number, self.visitors):
            visitor.plan = plan
            self.start(self.app.connect(visitor), visitor)

    @action(there_is("connected"), number=picks)
    def jump(self, number: int) -> None:
        for visitor in one(number, self.visitors):
            self.start(self.app.jump(visitor), visitor)

    @action(there_is("tasks"), number=picks)
    def cancel(self, number: int) -> None:
        for task, visitor in one(number, list(self.tasks.items())):
            if visitor is not None and visitor.visit is not None:
                visitor.visit.causes.add(BY_CLIENT)
            self.cancelled.add(task)
            task.cancel()

    # -- talking -----------------------------------------------------------------------------

    @property
    def connected(self) -> list[Visit]:
        return self.visits.connected

    @action(
        there_is("connected"), number=picks, messages=messages(*EVENTS, "unknown", "leave at once")
    )
    def say(self, number: int, messages: list[tuple[str, int]]) -> None:
        ready = [one for one in self.visitors if one.client.status is Status.READY]
        for visitor in one(number, ready):
            self.has_said(visitor, messages)

    def has_said(self, visitor: Visitor, messages: list[tuple[str, int]]) -> None:
        for type, turns in messages:
            assert visitor.visit is not None
            message = self.app.next_number()
            visitor.visit.server.is_sent(type, message)
            visitor.client.send(type, [message, turns])

    @action(there_is("connected"), number=picks, messages=messages(*EVENTS, "unknown"))
    def tell(self, number: int, messages: list[tuple[str, int]]) -> None:
        for conn in one(number, self.app.conns):
            for type, turns in messages:
                message = self.app.next_number()
                if conn.is_open:
                    self.app.visit_of(conn).client.is_sent(type, message)
                conn.send(type, [message, turns])

    @action(there_is("connected"), cid=users, to_the_others=st.booleans())
    def send(self, cid: str, to_the_others: bool) -> None:
        server, message = self.app.server, self.app.next_number()
        for conn in server.clients.conns.values():
            if (conn.cid == cid) is not to_the_others:
                self.app.visit_of(conn).client.is_sent("plain", message)
        if to_the_others:
            server.broadcast("plain", [message, 0], but=cid)
        else:
            server.send(cid, "plain", [message, 0])

    @action(
        there_is("connected"), number=picks, name=procedures, turns_taken=times, timeout=timeouts
    )
    def call_the_server(self, number: int, name: str, turns_taken: int, timeout: float) -> None:
        for visitor in one(number, self.visitors):
            self.start(self.app.call_the_server(visitor, name, turns_taken, timeout))

    @action(
        there_is("connected"), number=picks, name=procedures, turns_taken=times, timeout=timeouts
    )
    def call_a_device(self, number: int, name: str, turns_taken: int, timeout: float) -> None:
        for conn in one(number, self.app.conns):
            self.start(self.app.call_a_device(conn, name, turns_taken, timeout))

    @action(there_is("connected"), cid=users, turns_taken=times, timeout=timeouts)
    def call_a_user(self, cid: str, turns_taken: int, timeout: float) -> None:
        self.start(self.app.call_a_user(cid, turns_taken, timeout))

    @action(plot=st.one_of(plots_at_the_server, plots_at_a_client))
    def plot(self, plot: tuple[str, str]) -> None:
        event, deed = plot
        self.app.plots[event] = deed

    # -- hanging -----------------------------------------------------------------------------

    @action(there_is("connected"), number=picks)
    def hang_or_read_on(self, number: int) -> None:
        for visit in one(number, self.connected):
            if visit.is_stalled:
                visit.transport.resume()
            else:
                visit.causes.add(SLOW)
                visit.transport.stall()

    @action(lambda self: self.app.working.total())
    def release(self) -> None:
        self.app.released.set()
        self.app.released.clear()

    @rule(seconds=st.sampled_from([0.5, 2, 11, 31]))
    def pass_time(self, seconds: float) -> None:
        known = [visit for visit in self.visits.all if visit.client.stage is Stage.READY]
        self.loop.run_until_complete(testing.pass_time(seconds))
        for visit in self.visits.all:
            if visit not in known:
                visit.causes |= {LATE, BY_CLIENT}
        self.let_pass(SETTLED)

    # -- going -------------------------------------------------------------------------------

    @action(there_is("connected"), number=picks)
    def close(self, number: int) -> None:
        for visitor in one(number, self.visitors):
            self.start(self.app.close(visitor))

    @action(there_is("connected"), number=picks)
    def tear(self, number: int) -> None:
        for visit in one(number, self.connected):
            visit.causes.add(TORN)
            visit.transport.tear()

    @action(lambda self: self.connected or any(map(is_unplugged, self.visitors)), number=picks)
    def unplug_or_plug_in(self, number: int) -> None:
        for visitor in one(number, self.visitors):
            if is_unplugged(visitor):
                visitor.device.plug_in()
                continue
            if visitor.visit is not None:
                visitor.visit.causes.add(TORN)
            visitor.device.unplug()

    @action(there_is("connected"), number=picks)
    def drop_a_device(self, number: int) -> None:
        for conn in one(number, self.app.conns):
            self.app.drop(conn, BANNED)

    @action(there_is("connected"), cid=users)
    def drop_a_user(self, cid: str) -> None:
        if cid in self.app.server.clients:
            self.app.drop_user(self.app.server.clients[cid], BANNED)

    @action(there_is("connected"), number=picks, says_hi=st.booleans())
    def babble(self, number: int, says_hi: bool) -> None:
        for visit in one(number, self.connected):
            if says_hi:
                visit.transport.write([b'["~wse:hi",{"identity":%d}]' % visit.number])
            else:
                visit.causes.add(VIOLATION)
                visit.transport.write([b"{"])

    @action(lambda self: len(self.connected) > 1, drain=st.sampled_from([0.0, 0.0, 0.5, 5.0]))
    def close_the_server(self, drain: float) -> None:
        self.start(self.app.close_server(drain))


def is_unplugged(visitor: Visitor) -> bool:
    return not visitor.device._dialer.reachable


def one(number: int, among: list[Any]) -> list[Any]:
    """One of them; none where there is none."""
    return [among[number % len(among)]] if among else []


@pytest.mark.timeout(300)  # what fails is made small, which takes its time
def test_whatever_comes_in_between_the_promises_hold() -> None:
    play(500)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_twenty_thousand_times_the_promises_hold() -> None:
    play(20_000)


def play(times: int) -> None:
    how = settings(max_examples=times, stateful_step_count=40, deadline=None)
    with counted():
        run_state_machine_as_test(Interleaving, settings=how)
