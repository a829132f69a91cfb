"""One contract, told over every carrier: the same story gives the same events everywhere."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from carriers import Acceptor, Recorder, tls_contexts
from webservers import WEB_SERVERS

from wse import (
    Attempt,
    Backoff,
    ConnectionBroken,
    ConnectionFailed,
    Decision,
    Limits,
    NotAuthorized,
    Protocol,
    WseClient,
    WseConnection,
    WseJSON,
    WseServer,
)
from wse.transports import base, tcp
from wse.transports.base import Dialer, Transport
from wse.transports.memory import MemoryDialer

LIMITS = Limits(max_message_bytes=100_000, close_timeout=10.0, session_window=None)
QUICK = Backoff(first=0.001, cap=0.01)


# -- the carriers --------------------------------------------------------------------------------


class Way(NamedTuple):
    """How to reach an acceptor."""

    url: str
    dial: Dialer


class Carrier:
    """A way to carry messages, and the loop to do it on.

    Args:
        kind: memory, tcp, tls, unix or deflate, or a web server.
        fast: On uvloop.
    """

    def __init__(self, kind: str, *, fast: bool = False) -> None:
        self.name = f"{kind} on uvloop" if fast else kind
        self._kind = kind
        self._fast = fast

    def hears(self, code: int, reason: str) -> tuple[int, str]:
        """What a server is told of an end that a peer gave this code and reason."""
        match self._kind:
            case "granian":
                return code, ""
            case "hypercorn":
                return 1006, ""
            case _:
                return code, reason

    @property
    def aborted(self) -> int:
        """The code that a peer sees when the server aborts; each of them is one to come back on."""
        return {"granian": 1005, "hypercorn": 1011}.get(self._kind, 1006)

    def run(self, story: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30):
                await story

        factory = asyncio.new_event_loop
        if self._fast:
            try:
                import uvloop
            except ImportError:  # pragma: no cover - an extra
                story.close()
                pytest.skip("uvloop is not installed")
            factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(bounded())

    @asynccontextmanager
    async def reach(self, acceptor: base.Acceptor, directory: Path) -> AsyncIterator[Way]:
        """Make an acceptor reachable; it closes its own connections."""
        if self._kind == "memory":
            yield Way("ws://test/", MemoryDialer(acceptor, "127.0.0.1"))
            return
        if self._kind in WEB_SERVERS:
            async with WEB_SERVERS[self._kind](acceptor) as port:
                yield Way(f"ws://127.0.0.1:{port}/ws", tcp.TcpDialer())
            return
        unix = str(directory / "wse.sock") if self._kind == "unix" else None
        serving, trusting = tls_contexts() if self._kind == "tls" else (None, None)
        compression = self._kind == "deflate"
        listener = await tcp.listen(
            acceptor, "127.0.0.1", 0, unix=unix, ssl=serving, compression=compression
        )
        scheme = "wss" if serving else "ws"
        port = 1 if unix else listener.port
        dial = tcp.TcpDialer(ssl=trusting, unix=unix, compression=compression)
        try:
            yield Way(f"{scheme}://127.0.0.1:{port}/", dial)
        finally:
            listener.stop()
            await listener.wait_closed()


CARRIERS = [
    Carrier("memory"),
    Carrier("tcp"),
    Carrier("tls"),
    Carrier("unix"),
    Carrier("deflate"),
    Carrier("tcp", fast=True),
    Carrier("tls", fast=True),
    *(Carrier(name) for name in WEB_SERVERS),
    Carrier("uvicorn", fast=True),
]

Story = Callable[..., Coroutine[Any, Any, None]]


def contract(story: Story) -> Callable[[Carrier, Path], None]:
    """Tell a story that takes a place over every carrier."""

    @pytest.mark.parametrize("carrier", CARRIERS, ids=[carrier.name for carrier in CARRIERS])
    def test(carrier: Carrier, tmp_path: Path) -> None:
        carrier.run(story(Place(carrier, tmp_path)))

    return test


class Place:
    """Where a story happens."""

    def __init__(self, carrier: Carrier, directory: Path) -> None:
        self.hears = carrier.hears
        self.aborted = carrier.aborted
        self._carrier = carrier
        self._directory = directory

    @asynccontextmanager
    async def joined(self, *, started: bool = True) -> AsyncIterator[tuple[Recorder, Recorder]]:
        """Both ends of a connection, the client's and the server's."""
        acceptor = Acceptor(LIMITS)
        async with self._carrier.reach(acceptor, self._directory) as way:
            transport, _ = await way.dial(way.url, subprotocols=["x"], headers={}, limits=LIMITS)
            ours, theirs = Recorder(transport), await acceptor.receiver()
            if started:
                transport.start(ours)
            try:
                yield ours, theirs
            finally:
                for end in (ours, theirs):
                    end.transport.abort()
                    await end.transport.wait_closed()

    @asynccontextmanager
    async def town(self, **options: Any) -> AsyncIterator[Town]:
        """A server with users."""
        town = Town(**options)
        async with self._carrier.reach(town.server.acceptor, self._directory) as way:
            town.way = way
            try:
                yield town
            finally:
                for client in town.clients:
                    await client.close()
                await town.server.close()


class Log:
    """What happened, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self._changed = asyncio.Event()

    def note(self, *event: Any) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, *event: Any, times: int = 1) -> None:
        """Wait until it has happened."""
        while self.events.count(event) < times:
            self._changed.clear()
            await self._changed.wait()


class Town:
    """A server that accepts everybody but Mallory, its clients, and what each side sees."""

    way: Way

    def __init__(self, *, limits: Limits = LIMITS) -> None:
        self.seen = Log()
        """At the server."""
        self.clients: list[WseClient] = []
        self.server: WseServer = WseServer(_identify, limits=limits)
        self.conns: list[WseConnection] = []
        when, note = self.server.when, self.seen.note
        when.joined(lambda client, meta: note("joined", client.cid, meta))
        when.connected(self.conns.append)
        when.disconnected(lambda _, code, reason: note("disconnected", int(code), str(reason)))
        when.left(lambda client, code, reason: note("left", client.cid, int(code), str(reason)))
        when.error(lambda error, _: note("error", type(error)))
        when.ignored(lambda _, *message: note(*message))

    def client(
        self,
        *,
        limits: Limits = LIMITS,
        reconnect: bool = False,
        protocols: Sequence[Protocol] = (),
    ) -> tuple[WseClient, Log]:
        client = WseClient(
            self.way.url,
            dial=Dialling(self.way.dial),
            limits=limits,
            reconnect=reconnect,
            protocols=protocols,
            backoff=QUICK,
        )
        log = Log()
        client.when.ready(lambda welcome: log.note("ready", welcome))
        client.when.closed(lambda code, reason: log.note("closed", int(code), str(reason)))
        client.when.error(lambda error: log.note("error", type(error)))
        client.when.ignored(log.note)
        self.clients.append(client)
        return client, log

    def carrier_of(self, client: WseClient) -> Transport:
        """Its end of the connection."""
        assert isinstance(client._dial, Dialling)
        return client._dial.last


def _identify(attempt: Attempt) -> Decision:
    if attempt.identity == "mallory":
        return attempt.refuse()
    return attempt.accept(attempt.identity, {"hello": attempt.identity})


class Dialling:
    """Another dialer, whose last connection is at hand."""

    last: Transport

    def __init__(self, dial: Dialer) -> None:
        self._dial = dial

    async def __call__(
        self, url: str, *, subprotocols: Sequence[str], headers: Mapping[str, str], limits: Limits
    ) -> tuple[Transport, str | None]:
        self.last, selected = await self._dial(
            url, subprotocols=subprotocols, headers=headers, limits=limits
        )
        return self.last, selected


# -- the port ------------------------------------------------------------------------------------


@contract
async def test_messages_both_ways_in_order_as_text_and_binary(place: Place) -> None:
    async with place.joined() as (ours, theirs):
        for sender, receiver in ((ours, theirs), (theirs, ours)):
            sender.write(b"", b"1", "ü".encode())
            sender.write(b"\xff\x00", binary=True)
            sender.write(bytes(100_000), b"last")
            await receiver.received(6)
        assert (
            ours.events
            == theirs.events
            == [
                ("text", b""),
                ("text", b"1"),
                ("text", "ü".encode()),
                ("binary", b"\xff\x00"),
                ("text", bytes(100_000)),
                ("text", b"last"),
            ]
        )


@contract
async def test_close_from_either_end(place: Place) -> None:
    for closer in (0, 1):
        async with place.joined() as ends:
            one, other = ends[closer], ends[1 - closer]
            one.write(b"last")
            one.transport.close(4321, "reason: ü")
            one.transport.close(1000, "not this")
            one.write(b"late")
            told = (4321, "reason: ü") if closer else place.hears(4321, "reason: ü")
            assert await other.ended() == (*told, False)
            await one.transport.wait_closed()
            await other.transport.wait_closed()
            assert other.messages == [b"last"]
            assert one.events == []


@contract
async def test_who_asks_is_told_when_nothing_is_left(place: Place) -> None:
    loop = asyncio.get_running_loop()
    async with place.joined() as ends:
        gone = [loop.create_future() for _ in ends]
        for end, future in zip(ends, gone, strict=True):
            end.transport.when_closed(future.set_result)
        assert not any(future.done() for future in gone)
        ends[0].transport.close(1000, "")
        for end, future in zip(ends, gone, strict=True):
            assert await future is end.transport
            late = loop.create_future()
            end.transport.when_closed(late.set_result)
            assert await late is end.transport


@contract
async def test_what_waits_at_the_peer_of_a_close_does_not_disturb(place: Place) -> None:
    async with place.joined() as (ours, theirs):
        theirs.on_message = lambda data: theirs.post(b"echo of " + data)
        ours.write(b"x")
        ours.transport.close(1000, "")
        assert await theirs.ended() == (*place.hears(1000, ""), False)
        await ours.transport.wait_closed()
        assert ours.events == []


@contract
async def test_both_close_at_once(place: Place) -> None:
    async with place.joined() as (ours, theirs):
        ours.transport.close(1000, "ours")
        theirs.transport.close(1000, "theirs")
        await ours.transport.wait_closed()
        await theirs.transport.wait_closed()
        assert ours.events == theirs.events == []


@contract
async def test_abort_at_either_end_is_1006_at_the_other(place: Place) -> None:
    for breaker in (0, 1):
        async with place.joined() as ends:
            one, other = ends[breaker], ends[1 - breaker]
            one.transport.abort()
            one.write(b"late")
            code = place.aborted if breaker else 1006
            assert await other.ended() == (code, "", False)
            await one.transport.wait_closed()
            assert one.events == []
            other.transport.close(1000, "late")
            await other.transport.wait_closed()


@contract
async def test_message_above_the_limit_of_either_end(place: Place) -> None:
    for receiving in (0, 1):
        async with place.joined() as ends:
            receiver, sender = ends[receiving], ends[1 - receiving]
            receiver.on_message = lambda _, receiver=receiver: receiver.post(b"got it")
            sender.write(b"fits", bytes(100_001), b"late")
            assert await receiver.ended() == (1009, "wse.message-too-large", True)
            told = (1009, "wse.message-too-large")
            told = told if receiving else place.hears(*told)
            assert await sender.ended() == (*told, False)
            assert receiver.messages == [b"fits"]
            assert sender.messages == [b"got it"]


@contract
async def test_limit_may_be_raised(place: Place) -> None:
    async with place.joined() as (ours, theirs):
        theirs.transport.max_message_bytes = 1_000
        theirs.transport.max_message_bytes = 100_000
        ours.write(bytes(100_000))
        await theirs.until(lambda: theirs.messages)
        assert theirs.messages == [bytes(100_000)]


@contract
async def test_pause_and_resume(place: Place) -> None:
    async with place.joined() as (ours, theirs):
        theirs.on_message = lambda _: theirs.transport.pause_reading()
        ours.write(b"1", b"2", b"3")
        for count in (1, 2, 3):
            await theirs.until(lambda: theirs.messages)
            while len(theirs.messages) < count:
                theirs.transport.resume_reading()
                await asyncio.sleep(0)
            assert len(theirs.messages) == count
        assert theirs.messages == [b"1", b"2", b"3"]


@contract
async def test_a_peer_that_does_not_read(place: Place) -> None:
    """What waits is unwritten; once the peer reads, all of it comes, and who wrote is told."""
    async with place.joined() as (ours, theirs):
        ours.transport.pause_reading()
        sent = 0
        while not theirs.transport.unwritten:
            theirs.write(os.urandom(100_000), binary=True)
            sent += 1
            await asyncio.sleep(0)
        assert theirs.events == []
        ours.transport.resume_reading()
        await theirs.until(lambda: theirs.events)
        assert theirs.events == [("writable",)]
        assert theirs.transport.unwritten == 0
        await ours.received(sent)


@contract
async def test_what_came_before_start(place: Place) -> None:
    async with place.joined(started=False) as (ours, theirs):
        theirs.write(b"early")
        theirs.transport.close(4321, "gone")
        for _ in range(20):
            await asyncio.sleep(0)
        ours.transport.start(ours)
        assert await ours.ended() == (4321, "gone", False)
        assert ours.messages == [b"early"]


# -- people --------------------------------------------------------------------------------------


@contract
async def test_a_whole_story(place: Place) -> None:
    big = "0123456789" * 9_000
    async with place.town() as town:
        client, heard = town.client()
        server = town.server
        server.channel.on("hello", lambda conn, data: conn.send("hello", {"back": data}))
        server.register("double", lambda _, n: n * 2)
        client.register("name", lambda _: "Alice's phone")

        assert await client.connect("alice", {"app": "demo"}) == {"hello": "alice"}
        client.send("hello", 1)
        client.send("unknown")
        client.send("big", big)
        assert await client.call("double", 21) == 42
        assert await server.call("alice", "name") == "Alice's phone"
        server.send("alice", "falsy", 0)
        server.broadcast("everybody", [None, False, ""])
        server.send("alice", "big", big)
        assert await client.call("double", "x") == "xx"
        await client.close("see you")
        end = place.hears(1000, "see you")
        await town.seen.until("left", "alice", *end)

        assert town.seen.events == [
            ("joined", "alice", {"app": "demo"}),
            ("unknown", None),
            ("big", big),
            ("disconnected", *end),
            ("left", "alice", *end),
        ]
        assert heard.events == [
            ("ready", {"hello": "alice"}),
            ("hello", {"back": 1}),
            ("falsy", 0),
            ("everybody", [None, False, ""]),
            ("big", big),
            ("closed", 1000, "see you"),
        ]


@contract
async def test_the_server_drops(place: Place) -> None:
    async with place.town() as town:
        client, heard = town.client(reconnect=True)
        await client.connect("alice")
        town.server.send("alice", "before")
        town.server.drop_client("alice", "banned")
        town.server.send("alice", "after")
        await heard.until("closed", 1000, "banned")
        assert heard.events[1:] == [("before", None), ("closed", 1000, "banned")]
        assert town.seen.events[1:] == [
            ("disconnected", 1000, "banned"),
            ("left", "alice", 1000, "banned"),
        ]


@contract
async def test_refused(place: Place) -> None:
    async with place.town() as town:
        client, heard = town.client(reconnect=True)
        with pytest.raises(NotAuthorized):
            await client.connect("mallory")
        assert heard.events == [("closed", 1000, "wse.not-authorized")]
        assert town.seen.events == []


@contract
async def test_one_device_too_many(place: Place) -> None:
    async with place.town() as town:
        (first, heard), (second, _) = town.client(), town.client()
        await first.connect("alice", 1)
        await second.connect("alice", 2)
        await heard.until("closed", 1000, "wse.clients-concurrency")
        assert town.seen.events == [
            ("joined", "alice", 1),
            ("disconnected", 1000, "wse.clients-concurrency"),
        ]


@contract
async def test_torn_at_the_client(place: Place) -> None:
    async with place.town() as town:
        client, _ = town.client()
        await client.connect("alice")
        town.carrier_of(client).abort()
        await town.seen.until("left", "alice", 1006, "")
        assert town.seen.events[1:] == [("disconnected", 1006, ""), ("left", "alice", 1006, "")]


@contract
async def test_torn_at_the_server_and_back_again(place: Place) -> None:
    async with place.town() as town:
        client, heard = town.client(reconnect=True)
        await client.connect("alice")
        town.conns[0]._transport.abort()
        await heard.until("closed", place.aborted, "")
        await heard.until("ready", {"hello": "alice"}, times=2)
        assert heard.events == [
            ("ready", {"hello": "alice"}),
            ("closed", place.aborted, ""),
            ("ready", {"hello": "alice"}),
        ]


@contract
async def test_a_session_outlasts_its_connections(place: Place) -> None:
    """Who aborts a connection is not told of its end, so that each side is the one to notice."""
    async with place.town(limits=Limits()) as town:
        client, heard = town.client(reconnect=True)
        client.when.suspended(lambda code, _: heard.note("suspended", int(code)))
        client.when.resumed(lambda welcome: heard.note("resumed", welcome))
        away = asyncio.Event()
        town.server.when.suspended(lambda *_: away.set())
        town.server.register("which", lambda conn, _: conn.conn_id)
        await client.connect("alice")
        [conn] = town.conns
        conn._transport.abort()
        conn.send("under way", 1)
        await heard.until("resumed", {"hello": "alice"})
        assert await client.call("which") == conn.conn_id
        assert not away.is_set()
        town.carrier_of(client).abort()
        await away.wait()
        conn.send("while away", 2)
        assert client._link is not None
        client._link.lost(1006, "")
        client.send("while away", 3)
        assert await client.call("which") == conn.conn_id
        assert heard.events == [
            ("ready", {"hello": "alice"}),
            ("suspended", place.aborted),
            ("resumed", {"hello": "alice"}),
            ("under way", 1),
            ("suspended", 1006),
            ("resumed", {"hello": "alice"}),
            ("while away", 2),
        ]
        assert town.conns == [conn]
        assert town.seen.events == [("joined", "alice", {}), ("while away", 3)]


@contract
async def test_a_message_above_the_limit_of_the_server(place: Place) -> None:
    async with place.town() as town:
        client, heard = town.client(limits=Limits(max_message_bytes=10_000_000), reconnect=True)
        await client.connect("alice")
        client.send("big", "x" * 150_000)
        await heard.until("closed", 1009, "wse.message-too-large")
        assert heard.events[1:] == [("closed", 1009, "wse.message-too-large")]
        assert town.seen.events[1:] == [
            ("error", ConnectionBroken),
            ("disconnected", 1009, "wse.message-too-large"),
            ("left", "alice", 1009, "wse.message-too-large"),
        ]


@contract
async def test_a_message_above_the_limit_of_the_client(place: Place) -> None:
    limits = Limits(max_message_bytes=10_000_000, session_window=None)
    async with place.town(limits=limits) as town:
        client, heard = town.client()
        await client.connect("alice")
        town.server.send("alice", "big", "x" * 5_000_000)
        end = place.hears(1009, "wse.message-too-large")
        await town.seen.until("left", "alice", *end)
        assert heard.events[1:] == [
            ("error", ConnectionBroken),
            ("closed", 1009, "wse.message-too-large"),
        ]
        assert town.seen.events[1:] == [
            ("disconnected", *end),
            ("left", "alice", *end),
        ]


@contract
async def test_a_stranger_has_a_smaller_limit(place: Place) -> None:
    async with place.town() as town:
        client, heard = town.client()
        with pytest.raises(ConnectionFailed):
            await client.connect("x" * 20_000)
        assert heard.events == [("closed", 1009, "wse.message-too-large")]
        assert town.seen.events == [("error", ConnectionBroken)]


@contract
async def test_the_server_closes(place: Place) -> None:
    async with place.town() as town:
        client, heard = town.client()
        await client.connect("alice")
        town.server.send("alice", "before")
        await town.server.close()
        await heard.until("closed", 1012, "wse.server-closing")
        assert heard.events[1:] == [("before", None), ("closed", 1012, "wse.server-closing")]
        assert town.seen.events[1:] == [
            ("disconnected", 1012, "wse.server-closing"),
            ("left", "alice", 1012, "wse.server-closing"),
        ]


@contract
async def test_a_slow_consumer(place: Place) -> None:
    """It is closed; once it reads again it learns why, after all that had been written.

    One that acknowledges while it reads may lose that: hypercorn answers it with a reset.
    """
    async with place.town() as town:
        client, heard = town.client(protocols=[WseJSON()])
        await client.connect("alice")
        carrier = town.carrier_of(client)
        carrier.pause_reading()
        sent = 0
        while town.conns[0].is_open:
            town.server.send("alice", "more", [sent, secrets.token_hex(25_000)])
            sent += 1
            await asyncio.sleep(0)
        assert town.seen.events[1:] == [
            ("disconnected", 1013, "wse.slow-consumer"),
            ("left", "alice", 1013, "wse.slow-consumer"),
        ]
        carrier.resume_reading()
        await heard.until("closed", 1013, "wse.slow-consumer")
        numbers = [event[1][0] for event in heard.events if event[0] == "more"]
        assert numbers == list(range(len(numbers)))
        assert 0 < len(numbers) < sent


@contract
async def test_a_flood_keeps_its_order(place: Place) -> None:
    async with place.town() as town:
        client, heard = town.client()
        town.server.channel.on("n", lambda conn, n: conn.send("n", n))
        await client.connect("alice")
        for n in range(500):
            client.send("n", n)
        await heard.until("n", 499)
        assert heard.events[1:] == [("n", n) for n in range(500)]
