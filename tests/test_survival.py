"""Sessions on a network that tears, stalls, delays and loses the tail, against a model.

Every message carries the session it was sent in, and a number of that session. Whatever happens:
they are handed over once and in order, without a gap as long as the session lasts; and a session
that ends with anything missing was announced as lost.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Coroutine
from typing import Any

import hypothesis.strategies as st
import pytest
from census import count_from_here, counted
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
    CallDisconnected,
    CallTimeout,
    ConnectError,
    Decision,
    Limits,
    NoSuchClient,
    NotConnected,
    OutboxFull,
    Status,
    WseConnection,
    WseServer,
    testing,
    time_left,
)
from wse.protocol5 import WseJSON5, WseMsgpack5
from wse.stages import Stage
from wse.transports.memory import MemoryTransport

WINDOW = 60.0
KEPT = 24
LIMITS = Limits(session_window=WINDOW, max_kept_messages=KEPT, max_unwritten_messages=40)

picks = st.integers(min_value=0, max_value=11)
counts = st.integers(min_value=1, max_value=9)
tails = st.integers(min_value=0, max_value=12)
returns = st.sampled_from([1.0, 1.0, 0.1, 0.0])
"""Seconds after a connection is lost; most phones are back after one."""

Numbered = tuple[str, int]
"""A session, and a number of it."""


class Cut(deque[Any]):
    """What still arrives of a connection that is gone: this, and no more."""

    def append(self, _: Any) -> None:
        pass

    def extend(self, _: Any) -> None:
        pass


class Seen:
    """What has come of what was sent one way."""

    def __init__(self) -> None:
        self.sent: dict[str, list[int]] = defaultdict(list)
        """By session, what must come."""
        self.came: dict[str, list[int]] = defaultdict(list)
        self.flighty: set[Numbered] = set()
        """What may be lost."""
        self._numbers = itertools.count(1)

    def send(self, session: str, *, keep: bool = True) -> Numbered:
        number = next(self._numbers)
        self.sent[session].append(number)
        if not keep:
            self.flighty.add((session, number))
        return session, number

    def unsend(self, message: Numbered) -> None:
        self.sent[message[0]].remove(message[1])

    def take(self, session: str, number: int) -> None:
        """A message has come: none before it may be missing, and it never came before."""
        came = self.came[session]
        came.append(number)
        assert self.fits(session), f"{came} of {self.sent[session]}"

    def fits(self, session: str) -> bool:
        """Whether what came is how what was sent begins, but for what may be lost."""
        came = self.came[session]
        last = came[-1] if came else 0
        expected = [
            number
            for number in self.sent[session]
            if number <= last and ((session, number) not in self.flighty or number in came)
        ]
        return came == expected

    def is_complete(self, session: str) -> bool:
        """Whether nothing is missing that had to come."""
        came = set(self.came[session])
        return all(
            number in came or (session, number) in self.flighty for number in self.sent[session]
        )


class Phone:
    """A device, what it has heard, and what was announced to it."""

    def __init__(self, device: testing.Device, name: str) -> None:
        self.device = device
        self.name = name
        self.client = device.client
        self.session = ""
        """Which one it is in, as its sends have it: a new name with each `ready`."""
        self.lost: list[tuple[str, int]] = []
        self.told: list[str] = []
        self.calls: dict[asyncio.Task[Any], int] = {}
        self.outcomes: Counter[str] = Counter()
        sessions = itertools.count(1)
        when = self.client.when

        @when.ready
        def ready(_: Any) -> None:
            assert not self.told or self.told[-1] != "suspended"
            self.session = f"{name} {next(sessions)}"
            self.told.append("ready")

        @when.suspended
        def suspended(*_: Any) -> None:
            assert self.told[-1] in ("ready", "resumed")
            self.told.append("suspended")

        @when.resumed
        def resumed(_: Any) -> None:
            assert self.told[-1] == "suspended"
            self.told.append("resumed")

        @when.lost
        def lost(count: int) -> None:
            assert self.told[-1] == "suspended"
            self.told.append("lost")
            self.lost.append((self.session, count))

        @when.closed
        def closed(*_: Any) -> None:
            assert self.told[-1] != "suspended"
            self.told.append("closed")

    @property
    def talks(self) -> bool:
        absence = self.client._absence
        waits = absence is not None and not absence.is_over
        return waits or self.client.status is Status.READY


class Survival(RuleBasedStateMachine):
    """Phones of one user each, and everything that a network does to them."""

    def __init__(self) -> None:
        super().__init__()
        count_from_here()
        self.runner = asyncio.Runner(loop_factory=testing.VirtualClockLoop)
        self.phones: list[Phone] = []
        self.up = Seen()
        self.down = Seen()
        self.server_told: list[tuple[Any, ...]] = []
        self.at_work: Counter[str] = Counter()
        self.steps = 0

    @initialize(count=st.integers(min_value=1, max_value=3), packed=st.booleans())
    def open(self, count: int, packed: bool) -> None:
        self.server: WseServer[Any] = WseServer(self.identify, conn_per_user=2, limits=LIMITS)
        when = self.server.when
        when.joined(lambda client, _: self.server_told.append(("joined", client.cid)))
        when.left(lambda client, *_: self.server_told.append(("left", client.cid)))
        when.connected(lambda conn: self.server_told.append(("connected", conn.conn_id)))
        when.disconnected(lambda conn, *_: self.server_told.append(("gone", conn.conn_id)))
        when.suspended(lambda conn, *_: self.server_told.append(("suspended", conn.conn_id)))
        when.resumed(lambda conn: self.server_told.append(("resumed", conn.conn_id)))
        self.server.channel.on("up", lambda _, message: self.up.take(*message))
        self.server.register("work", self.work)
        self.network = testing.Network(self.server)
        self.packed = packed

        async def happens() -> None:
            for number in range(count):
                await self.new_phone(f"phone {number}")

        self.step(happens())

    def identify(self, attempt: Attempt) -> Decision:
        return attempt.accept(attempt.identity)

    async def work(self, _: WseConnection[Any], seconds: float) -> float:
        left = time_left()
        assert left is not None
        self.at_work["server"] += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.at_work["server"] -= 1
        return seconds

    async def new_phone(self, name: str) -> Phone:
        protocol = WseMsgpack5() if self.packed else WseJSON5()
        device = self.network.device(reconnect=True, limits=LIMITS, protocols=[protocol])
        phone = Phone(device, name)
        device.client.channel.on("down", lambda message: self.down.take(*message))

        @device.client.register("work")
        async def work(seconds: float) -> float:
            self.at_work[name] += 1
            try:
                await asyncio.sleep(seconds)
            finally:
                self.at_work[name] -= 1
            return seconds

        await device.connect(name)
        self.phones.append(phone)
        return phone

    def step(self, happens: Coroutine[Any, Any, None]) -> None:
        async def do_and_check() -> None:
            await happens
            await testing.settle()
            self.check()

        self.steps += 1
        self.runner.run(do_and_check())

    def check(self) -> None:
        """What must hold at any time."""
        users = Counter[str]()
        devices: dict[str, str] = {}
        for event, subject in self.server_told:
            if event in ("joined", "left"):
                users[subject] += 1 if event == "joined" else -1
                assert users[subject] in (0, 1)
            else:
                before = devices.get(subject)
                assert (
                    before
                    in {
                        "connected": (None,),
                        "suspended": ("connected", "resumed"),
                        "resumed": ("suspended", "connected", "resumed"),
                        "gone": ("connected", "suspended", "resumed"),
                    }[event]
                ), (before, event)
                devices[subject] = event
        here = {conn_id for conn_id, event in devices.items() if event != "gone"}
        assert here == set(self.server.clients.conns)
        stats = self.server.stats()
        assert stats.suspended == sum(conn.is_suspended for conn in self.conns)
        assert stats.kept_messages <= sum(
            KEPT + LIMITS.max_unwritten_messages + 1 for _ in self.conns
        )

    @property
    def conns(self) -> list[WseConnection[Any]]:
        return list(self.server.clients.conns.values())

    def pick(self, number: int) -> Phone:
        return self.phones[number % len(self.phones)]

    def conn_of(self, phone: Phone) -> WseConnection[Any] | None:
        client = self.server.clients.get(phone.name)
        return None if client is None else next(reversed(client.conns.values()))

    @staticmethod
    def ends_of(phone: Phone) -> tuple[MemoryTransport, MemoryTransport] | None:
        """The client's end and the server's, of a connection that is open."""
        end = phone.device._dialer.last
        return None if end is None or end._ended else (end, end._peer)

    # -- what people do ----------------------------------------------------------------------

    def server_sends(self, phone: Phone, count: int, *, keep: bool) -> None:
        conn = self.conn_of(phone)
        if conn is not None:
            for _ in range(count):
                conn.send("down", self.down.send(conn.conn_id, keep=keep), keep=keep)

    def phone_sends(self, phone: Phone, count: int, *, keep: bool) -> None:
        for _ in range(count):
            message = self.up.send(phone.session, keep=keep)
            try:
                phone.client.send("up", message, keep=keep)
            except OutboxFull:
                self.up.unsend(message)
            except NotConnected:
                self.up.unsend(message)
                assert not phone.talks

    @rule(number=picks, count=counts, keep=st.booleans())
    def send_down(self, number: int, count: int, keep: bool) -> None:
        async def happens() -> None:
            self.server_sends(self.pick(number), count, keep=keep)

        self.step(happens())

    @rule(number=picks, count=counts, keep=st.booleans())
    def send_up(self, number: int, count: int, keep: bool) -> None:
        async def happens() -> None:
            self.phone_sends(self.pick(number), count, keep=keep)

        self.step(happens())

    @rule(number=picks, seconds=st.sampled_from([0.0, 0.3, 5.0, 40.0]), wait=st.integers(1, 30))
    def call_up(self, number: int, seconds: float, wait: int) -> None:
        async def happens() -> None:
            phone = self.pick(number)

            async def call() -> None:
                try:
                    assert await phone.client.call("work", seconds, timeout=wait) == seconds
                    phone.outcomes["answered"] += 1
                except (CallTimeout, CallDisconnected, NotConnected, OutboxFull) as error:
                    phone.outcomes[type(error).__name__] += 1

            phone.calls[asyncio.create_task(call())] = wait

        self.step(happens())

    @rule(number=picks, seconds=st.sampled_from([0.0, 0.3, 5.0, 40.0]), wait=st.integers(1, 30))
    def call_down(self, number: int, seconds: float, wait: int) -> None:
        async def happens() -> None:
            phone = self.pick(number)

            async def call() -> None:
                try:
                    found = await self.server.call(phone.name, "work", seconds, timeout=wait)
                    assert found == seconds
                except (CallTimeout, CallDisconnected, NoSuchClient):
                    pass

            phone.calls[asyncio.create_task(call())] = wait

        self.step(happens())

    @precondition(lambda self: any(phone.calls for phone in self.phones))
    @rule(number=picks)
    def give_up(self, number: int) -> None:
        async def happens() -> None:
            calls = [task for phone in self.phones for task in phone.calls if not task.done()]
            if calls:
                calls[number % len(calls)].cancel()

        self.step(happens())

    # -- what the network does ---------------------------------------------------------------

    @rule(
        number=picks,
        up=tails,
        down=tails,
        first=tails,
        lag=st.sampled_from([0.0, 0.1, 0.3]),
        later=returns,
    )
    def lose_the_tail(  # noqa: PLR0917 - one for each strategy
        self, number: int, up: int, down: int, first: int, lag: float, later: float
    ) -> None:
        """Things are said, some of them arrive, and the connection is gone."""

        async def happens() -> None:
            phone = self.pick(number)
            ends = self.ends_of(phone)
            if ends is None or not phone.client._link:
                return
            for end in ends:
                end.stall()
            self.server_sends(phone, down, keep=True)
            self.phone_sends(phone, up, keep=True)
            await testing.settle()
            for end in ends:
                end._arriving = Cut(itertools.islice(end._arriving, first))
                end.resume()
            await testing.pass_time(lag)
            ends[0].tear()
            await testing.pass_time(later)

        self.step(happens())

    @rule(number=picks, later=returns)
    def tear(self, number: int, later: float) -> None:
        async def happens() -> None:
            ends = self.ends_of(self.pick(number))
            if ends is not None:
                ends[0].tear()
            await testing.pass_time(later)

        self.step(happens())

    @rule(number=picks, count=counts, later=returns)
    def die_at_one_end(self, number: int, count: int, later: float) -> None:
        """The phone knows that its connection is gone, the server does not."""

        async def happens() -> None:
            phone = self.pick(number)
            ends = self.ends_of(phone)
            if ends is None or phone.client._link is None:
                return
            ours, _ = ends
            self.phone_sends(phone, count, keep=True)
            receiver = ours._receiver
            assert receiver is not None
            ours._ended = True
            ours._gone.set_result(None)
            ours._arriving.clear()
            receiver.lost(1006, "")
            self.server_sends(phone, count, keep=True)
            await testing.pass_time(later)

        self.step(happens())

    @rule(number=picks)
    def stall(self, number: int) -> None:
        async def happens() -> None:
            ends = self.ends_of(self.pick(number))
            if ends is not None:
                ends[0].stall()

        self.step(happens())

    @rule()
    def flow(self) -> None:
        async def happens() -> None:
            for phone in self.phones:
                ends = self.ends_of(phone)
                if ends is not None:
                    ends[0].resume()

        self.step(happens())

    @precondition(lambda self: self.steps % 3 == 0)
    @rule(number=picks, seconds=st.sampled_from([0.25, 1.0, 10.0, 45.0, 100.0]))
    def unplug(self, number: int, seconds: float) -> None:
        async def happens() -> None:
            phone = self.pick(number)
            phone.device._dialer.reachable = False
            ends = self.ends_of(phone)
            if ends is not None:
                ends[0].tear()
            await testing.pass_time(seconds)

        self.step(happens())

    @precondition(lambda self: any(not p.device._dialer.reachable for p in self.phones))
    @rule()
    def plug_in(self) -> None:
        async def happens() -> None:
            for phone in self.phones:
                phone.device.plug_in()
            await testing.pass_time(1.0)

        self.step(happens())

    @rule(seconds=st.sampled_from([0.01, 0.25, 1.0, 10.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.step(testing.pass_time(seconds))

    # -- what ends sessions ------------------------------------------------------------------

    @precondition(lambda self: self.steps % 5 == 0)
    @rule(number=picks)
    def drop(self, number: int) -> None:
        async def happens() -> None:
            phone = self.pick(number)
            conn = self.conn_of(phone)
            if conn is not None:
                conn.drop("enough")

        self.step(happens())

    @precondition(lambda self: self.steps % 5 == 0)
    @rule(number=picks)
    def close_and_connect(self, number: int) -> None:
        async def happens() -> None:
            phone = self.pick(number)
            await phone.device.close()
            phone.device.plug_in()
            await testing.settle()
            try:
                await phone.device.connect(phone.name)
            except ConnectError:
                assert phone.client.status is Status.OFFLINE

        self.step(happens())

    # -- the end -----------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if self.phones:
                self.runner.run(self.come_to_rest())
        finally:
            self.runner.close()

    async def come_to_rest(self) -> None:
        for phone in self.phones:
            phone.device.plug_in()
            ends = self.ends_of(phone)
            if ends is not None:
                ends[0].resume()
        await testing.pass_time(40.0)
        self.check()
        for phone in self.phones:
            assert all(task.done() for task in phone.calls)
            for task in phone.calls:
                if not task.cancelled():
                    task.result()
            if phone.client.status is Status.READY:
                conn = self.conn_of(phone)
                assert conn is not None
                assert self.up.is_complete(phone.session)
                assert self.down.is_complete(conn.conn_id)
                assert phone.client._link is not None
                for end in (conn, phone.client._link):
                    assert end.stage is Stage.READY
                    assert end._ring is not None
                    assert end._ring.unacked == 0
                    assert end._ring.size == 0
            else:
                assert phone.told[-1] in ("closed", "lost")
            ended = phone.told.count("ready") - (phone.client.status is Status.READY)
            assert phone.told.count("closed") + phone.told.count("lost") >= ended
        assert not +self.at_work, "handlers whose callers have gone"
        for phone in self.phones:
            await phone.device.close()
        await self.server.close()
        self.check()
        assert not self.server.clients
        assert asyncio.all_tasks() == {asyncio.current_task()}


def test_whatever_the_network_does_nothing_is_lost_or_doubled_in_silence() -> None:
    play(1_000)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_thousand_times_nothing_is_lost_or_doubled_in_silence() -> None:
    play(10_000)


def play(times: int) -> None:
    how = settings(max_examples=times, stateful_step_count=50, deadline=None)
    with counted():
        run_state_machine_as_test(Survival, settings=how)
