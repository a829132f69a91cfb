"""Many devices of several users, driven at random through everything that may happen to them.

Whatever the order: every `joined` has one `left`, every `connected` one `disconnected`, nothing is
heard of a device after its end, messages arrive once and in order, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import pytest
from census import alive, count_from_here, counted, held, timers
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from wse import (
    Attempt,
    CallTimeout,
    ConnectError,
    ConnectionFailed,
    Decision,
    Limits,
    NoSuchClient,
    NotAuthorized,
    Status,
    WseConnection,
    WseIdentity,
    WseServer,
    hmac_challenge,
    hmac_solver,
    testing,
)
from wse.link import Link
from wse.transports.memory import MemoryTransport

SEATS = 2
KEY = "the right key"
TORN = (1006, "")
SLOW = (1013, "wse.slow-consumer")
LIMITS = Limits(max_unwritten_messages=500, session_window=None)

users = st.sampled_from(["alice", "bob", "carol"])
picks = st.integers(min_value=0, max_value=11)


@dataclass
class Known:
    """What the model knows of one device."""

    device: testing.Device
    number: int
    cid: str
    comes_back: bool
    stalled: bool = False
    ended: tuple[int, str] | None = None
    """How the server ended it, as long as it has not read that."""
    closed: tuple[int, str] | None = None
    heard: list[Any] = field(default_factory=list)
    under_way: list[Any] = field(default_factory=list)
    """What it will have heard once it reads again."""
    loses: bool = False
    """Whether the end of what is under way may be lost, as it did not keep up."""

    def is_sent(self, message: Any) -> None:
        (self.under_way if self.stalled else self.heard).append(message)


async def identify(attempt: Attempt) -> Decision | None:
    manner, cid = attempt.identity
    match manner:
        case "wait":
            await asyncio.Event().wait()
        case "ask":
            await attempt.challenge("a question without an answer")
        case "prove" if not await hmac_challenge(attempt, KEY):
            return attempt.refuse()
        case "refuse":
            return None
    return attempt.accept(cid)


def make_server(told: list[Any]) -> WseServer[Any]:
    server = WseServer(identify, conn_per_user=SEATS, limits=LIMITS)
    server.when.joined(lambda client, number: told.append(("joined", client.cid, number)))
    server.when.left(lambda client, *end: told.append(("left", client.cid, *end)))
    server.when.connected(lambda conn: told.append(("connected", conn.meta)))
    server.when.disconnected(lambda conn, *end: told.append(("disconnected", conn.meta, *end)))
    server.when.ignored(lambda conn, *message: told.append(("ignored", conn.meta, *message)))
    server.when.error(lambda error, _: told.append(("error", error)))
    server.register("double", lambda _, number: number * 2)

    @server.channel.on("say")
    async def say(conn: WseConnection[Any], words: Any) -> None:
        told.append(("said", conn.meta, words))
        assert conn.client is not None
        conn.client.send("said", words)

    @server.channel.on("leave")
    def leave(conn: WseConnection[Any], reason: str) -> None:
        conn.drop(reason)

    return server


class Lifecycle(RuleBasedStateMachine):
    """The real thing and the model, side by side; every step is checked at its end."""

    def __init__(self) -> None:
        super().__init__()
        count_from_here()
        self.runner = asyncio.Runner(loop_factory=testing.VirtualClockLoop)
        self.told: list[Any] = []
        self.expected: list[Any] = []
        self.known: list[Known] = []
        self.seats: dict[str, list[Known]] = {}
        self.count = 0

    @initialize(cids=st.lists(users, max_size=4))
    def open(self, cids: list[str]) -> None:
        self.server = make_server(self.told)
        self.network = testing.Network(self.server)

        async def happens() -> None:
            for number, cid in enumerate(cids):
                await self.arrive(self.new_device(cid), 100 + number)

        self.step(happens())

    def teardown(self) -> None:
        try:
            if self.count:
                self.step(self.close_all())
            self.runner.run(self.check_the_end())
        finally:
            self.runner.close()

    # -- the model ---------------------------------------------------------------------------

    @property
    def seated(self) -> list[Known]:
        return [known for seats in self.seats.values() for known in seats]

    @property
    def open_devices(self) -> list[Known]:
        return [known for known in self.known if known.closed is None]

    def pick(self, number: int, among: list[Known] | None = None) -> Known:
        devices = self.open_devices if among is None else among
        return devices[number % len(devices)]

    def is_seated(self, known: Known) -> bool:
        return known in self.seats.get(known.cid, [])

    def seat(self, known: Known) -> None:
        if known.cid not in self.seats:
            self.seats[known.cid] = []
            self.expected.append(("joined", known.cid, known.number))
        seats = self.seats[known.cid]
        seats.append(known)
        if len(seats) > SEATS:
            self.ends(seats[0], 1000, "wse.clients-concurrency")
        self.expected.append(("connected", known.number))
        known.closed = known.ended = None
        known.stalled = known.loses = False
        known.under_way = []

    def ends(self, known: Known, code: int, reason: str) -> None:
        """The server ends a device, which notices when it reads."""
        seats = self.seats[known.cid]
        seats.remove(known)
        self.expected.append(("disconnected", known.number, code, reason))
        if not seats:
            del self.seats[known.cid]
            self.expected.append(("left", known.cid, code, reason))
        if known.stalled:
            known.ended = (code, reason)
        else:
            known.closed = (code, reason)

    async def is_torn(self, known: Known) -> None:
        if self.is_seated(known):
            self.ends(known, *TORN)
        await self.is_closed(known, TORN)

    async def is_closed(self, known: Known, end: tuple[int, str]) -> None:
        known.closed = end
        if known.comes_back and end in (TORN, SLOW):
            await testing.pass_time(31)
            self.seat(known)

    # -- each step ---------------------------------------------------------------------------

    def step(self, happens: Coroutine[Any, Any, None]) -> None:
        async def do_and_check() -> None:
            await happens
            await testing.pass_time(0.3)  # until what came is acknowledged
            self.check()

        self.count += 1
        self.runner.run(do_and_check())

    def check(self) -> None:
        assert self.told == self.expected
        assert {
            cid: [conn.meta for conn in client.conns.values()]
            for cid, client in self.server.clients.items()
        } == {cid: [known.number for known in seats] for cid, seats in self.seats.items()}
        assert sorted(conn.meta for conn in self.server.clients.conns.values()) == sorted(
            known.number for known in self.seated
        )
        for known in self.known:
            received = [message for message in known.device.received if message[0] != "flood"]
            assert received == known.heard
            assert known.device.closed == known.closed
        self.count_what_is_left()

    def count_what_is_left(self) -> None:
        """Nothing but what belongs to the devices that are here."""
        assert asyncio.all_tasks() == {asyncio.current_task()}
        clients = [device.client for device in self.network.devices]
        assert timers(asyncio.get_running_loop(), self.server, clients) == 0
        here = len(self.seated)
        assert held(self.server, clients) == +Counter(
            users=len(self.seats), devices=here, seats=here, links=len(self.open_devices)
        )
        for device in self.network.devices:
            if device.client.status is not Status.READY:
                device._dialer.last = None
        if len(self.open_devices) == here:  # nobody holds on to an end that it has not read
            assert alive() == +Counter(
                {
                    WseIdentity: len(self.seats),
                    WseConnection: here,
                    Link: here,
                    MemoryTransport: 2 * here,
                }
            )

    def new_device(self, cid: str, *, comes_back: bool = False) -> Known:
        device = self.network.device(reconnect=comes_back, limits=LIMITS)
        device.client.register("triple", lambda number: number * 3)
        return Known(device, self.count, cid, comes_back)

    # -- arriving ----------------------------------------------------------------------------

    @rule(cid=users, manner=st.sampled_from(["plain", "prove"]), comes_back=st.booleans())
    def connect(self, cid: str, manner: str, comes_back: bool) -> None:
        async def happens() -> None:
            known = self.new_device(cid, comes_back=comes_back)
            known.device.client.challenge(hmac_solver(KEY))
            await self.arrive(known, self.count, manner)

        self.step(happens())

    async def arrive(self, known: Known, number: int, manner: str = "plain") -> None:
        known.number = number
        self.known.append(known)
        await known.device.connect((manner, known.cid), number)
        self.seat(known)

    @rule(cid=users, manner=st.sampled_from(["refuse", "prove"]), comes_back=st.booleans())
    def is_refused(self, cid: str, manner: str, comes_back: bool) -> None:
        async def happens() -> None:
            device = self.new_device(cid, comes_back=comes_back).device
            device.client.challenge(hmac_solver("another key"))
            with pytest.raises(NotAuthorized):
                await device.connect((manner, cid))

        self.step(happens())

    @rule(
        cid=users,
        manner=st.sampled_from(["wait", "ask"]),
        way=st.sampled_from(["tear", "close", "cancel", "time out"]),
    )
    def vanish(self, cid: str, manner: str, way: str) -> None:
        async def happens() -> None:
            device = self.new_device(cid).device
            device.client.challenge(lambda _: asyncio.Event().wait())
            connecting = asyncio.create_task(device.connect((manner, cid)))
            await testing.settle()
            assert len(self.server.acceptor.strangers) == 1
            match way:
                case "tear":
                    device.tear()
                case "close":
                    await device.close()
                case "cancel":
                    connecting.cancel()
                case _:
                    await testing.pass_time(11)
            with pytest.raises(asyncio.CancelledError if way == "cancel" else ConnectionFailed):
                await connecting

        self.step(happens())

    @rule(cid=users, where=st.sampled_from(["joined", "connected"]))
    def is_dropped_on_arrival(self, cid: str, where: str) -> None:
        async def happens() -> None:
            known = self.new_device(cid)
            self.known.append(known)
            if where == "connected":
                self.server.when.connected.once(lambda conn: conn.drop("unwelcome"))
            elif cid not in self.seats:
                self.server.when.joined.once(lambda client, _: client.drop("unwelcome"))
            drops = where == "connected" or cid not in self.seats
            await known.device.connect(("plain", cid), known.number)
            self.seat(known)
            if drops:
                self.ends(known, 1000, "unwelcome")

        self.step(happens())

    @rule(cid=users, others=st.booleans())
    def several_at_once(self, cid: str, others: bool) -> None:
        async def happens() -> None:
            arriving = [self.new_device(cid) for _ in range(SEATS + 1)]
            self.known += arriving
            for number, known in enumerate(arriving):
                known.number = self.count * 100 + number
            refused = self.new_device(cid).device
            outcomes = await asyncio.gather(
                *(known.device.connect(("plain", cid), known.number) for known in arriving),
                *([refused.connect(("refuse", cid))] if others else []),
                return_exceptions=True,
            )
            assert sum(isinstance(outcome, ConnectError) for outcome in outcomes) == others
            for known in arriving:
                self.seat(known)

        self.step(happens())

    # -- talking -----------------------------------------------------------------------------

    @precondition(lambda self: self.open_devices)
    @rule(number=picks, words=st.sampled_from([None, 0, "", {"a": [1]}]))
    def say(self, number: int, words: Any) -> None:
        async def happens() -> None:
            known = self.pick(number)
            for sent in (words, self.count):
                known.device.send("say", sent)
                if self.is_seated(known):
                    self.expected.append(("said", known.number, sent))
                    for hearer in self.seats[known.cid]:
                        hearer.is_sent(("said", sent))

        self.step(happens())

    @rule(cid=users)
    def send(self, cid: str) -> None:
        async def happens() -> None:
            self.server.send(cid, "news", self.count)
            for known in self.seats.get(cid, []):
                known.is_sent(("news", self.count))

        self.step(happens())

    @rule(cid=users)
    def broadcast_but_a_user(self, cid: str) -> None:
        async def happens() -> None:
            self.server.broadcast("all", self.count, but=cid)
            for known in self.seated:
                if known.cid != cid:
                    known.is_sent(("all", self.count))

        self.step(happens())

    @precondition(lambda self: self.seated)
    @rule(number=picks)
    def broadcast_but_a_device(self, number: int) -> None:
        async def happens() -> None:
            left_out = self.pick(number, self.seated)
            self.server.broadcast("all", self.count, but=self.conn_of(left_out))
            for known in self.seated:
                if known is not left_out:
                    known.is_sent(("all", self.count))

        self.step(happens())

    @precondition(lambda self: self.open_devices)
    @rule(number=picks)
    def call(self, number: int) -> None:
        async def happens() -> None:
            known = self.pick(number)
            if known.stalled:
                with pytest.raises(CallTimeout):
                    await known.device.call("double", 4, timeout=1)
            else:
                assert await known.device.call("double", 4, timeout=1) == 8

        self.step(happens())

    @rule(cid=users)
    def ask(self, cid: str) -> None:
        async def happens() -> None:
            asking = self.server.call(cid, "triple", 4, timeout=1)
            if cid not in self.seats:
                with pytest.raises(NoSuchClient):
                    await asking
            elif self.seats[cid][-1].stalled:
                with pytest.raises(CallTimeout):
                    await asking
            else:
                assert await asking == 12

        self.step(happens())

    # -- going -------------------------------------------------------------------------------

    def conn_of(self, known: Known) -> WseConnection[Any]:
        [conn] = [conn for conn in self.server.clients.conns.values() if conn.meta == known.number]
        return conn

    @precondition(lambda self: self.seated)
    @rule(number=picks, reason=st.sampled_from(["", "banned"]))
    def drop_a_device(self, number: int, reason: str) -> None:
        async def happens() -> None:
            known = self.pick(number, self.seated)
            self.conn_of(known).drop(reason)
            self.ends(known, 1000, reason)

        self.step(happens())

    @precondition(lambda self: self.seated)
    @rule(number=picks)
    def drop_in_a_handler(self, number: int) -> None:
        async def happens() -> None:
            known = self.pick(number, self.seated)
            known.device.send("say", "last words")
            known.device.send("leave", "left")
            known.device.send("say", "never heard")
            self.expected.append(("said", known.number, "last words"))
            for hearer in self.seats[known.cid]:
                hearer.is_sent(("said", "last words"))
            self.ends(known, 1000, "left")

        self.step(happens())

    @rule(cid=users, drops=st.sampled_from(["server", "identity"]))
    def drop_a_user(self, cid: str, drops: str) -> None:
        async def happens() -> None:
            if drops == "server":
                self.server.drop_client(cid)
            elif cid in self.server.clients:
                self.server.clients[cid].drop()
            for known in tuple(self.seats.get(cid, ())):
                self.ends(known, 1000, "wse.by-server")

        self.step(happens())

    @precondition(lambda self: self.open_devices)
    @rule(number=picks)
    def close(self, number: int) -> None:
        async def happens() -> None:
            known = self.pick(number)
            await known.device.close()
            if self.is_seated(known):
                self.ends(known, 1000, "wse.by-client")
            known.closed = (1000, "wse.by-client")

        self.step(happens())

    @precondition(lambda self: self.open_devices)
    @rule(number=picks)
    def tear(self, number: int) -> None:
        async def happens() -> None:
            known = self.pick(number)
            known.device.tear()
            await self.is_torn(known)

        self.step(happens())

    # -- hanging -----------------------------------------------------------------------------

    @precondition(lambda self: self.open_devices)
    @rule(number=picks)
    def stall(self, number: int) -> None:
        async def happens() -> None:
            known = self.pick(number)
            known.device.stall()
            known.stalled = True

        self.step(happens())

    @precondition(lambda self: any(known.stalled for known in self.open_devices))
    @rule(number=picks)
    def resume(self, number: int) -> None:
        async def happens() -> None:
            known = self.pick(number, [known for known in self.open_devices if known.stalled])
            known.device.resume()
            await testing.settle()
            known.stalled = False
            under_way, known.under_way = known.under_way, []
            if known.loses:
                news = [message for message in known.device.received if message[0] != "flood"]
                under_way = under_way[: len(news) - len(known.heard)]
            known.heard += under_way
            if known.ended is not None:
                await self.is_closed(known, known.ended)

        self.step(happens())

    @precondition(lambda self: any(known.stalled for known in self.seated))
    @rule(number=picks)
    def flood(self, number: int) -> None:
        async def happens() -> None:
            known = self.pick(number, [known for known in self.seated if known.stalled])
            conn = self.conn_of(known)
            for _ in range(LIMITS.max_unwritten_messages + 1):
                conn.send("flood")
            known.loses = True
            self.ends(known, *SLOW)

        self.step(happens())

    # -- the end -----------------------------------------------------------------------------

    async def close_all(self) -> None:
        stalled = [known for known in self.open_devices if known.stalled]
        for known in sorted(self.seated, key=self.seated_since):
            known.comes_back = known.device.client.reconnect = False
            self.ends(known, 1012, "wse.server-closing")
        await self.server.close()
        for known in stalled:
            await known.device.close()
            known.closed = (1000, "wse.by-client")

    def seated_since(self, known: Known) -> int:
        order = [conn.meta for conn in self.server.clients.conns.values()]
        return order.index(known.number)

    async def check_the_end(self) -> None:
        assert asyncio.all_tasks() == {asyncio.current_task()}
        count: Callable[[str], Counter[Any]] = lambda name: Counter(  # noqa: E731
            subject for event, subject, *_ in self.told if event == name
        )
        assert count("joined") == count("left")
        assert count("connected") == count("disconnected")


def test_whatever_happens_the_books_balance() -> None:
    play(200)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_thousand_times_the_books_balance() -> None:
    play(10_000)


def play(times: int) -> None:
    how = settings(max_examples=times, stateful_step_count=30, deadline=None)
    with counted():
        run_state_machine_as_test(Lifecycle, settings=how)
