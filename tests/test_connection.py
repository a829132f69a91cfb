"""One device of a user, at the server."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from support import SECRET, real_time

from wse import (
    Attempt,
    CallDisconnected,
    CallFailed,
    CallNotRegistered,
    CallTimeout,
    Decision,
    Limits,
    MessageTooLarge,
    NoSuchClient,
    Reason,
    WseClient,
    WseConnection,
    WseError,
    WseJSON,
    WseServer,
    testing,
)
from wse.transports.base import Transport
from wse.transports.memory import MemoryDialer

Conn = WseConnection[Any]


def identify(attempt: Attempt) -> Decision:
    return attempt.accept(attempt.identity, "welcome")


def make_server(**options: Any) -> WseServer[Any]:
    return WseServer(identify, **{"conn_per_user": 3, **options})


def only_conn(server: WseServer[Any]) -> Conn:
    [conn] = server.clients.conns.values()
    return conn


class Peer:
    """What a server says to one bare connection."""

    def __init__(self) -> None:
        self.frames: list[Any] = []
        self.ends: list[tuple[int, str]] = []
        self.transport: Transport

    def receive(self, data: bytes, text: bool) -> None:
        self.frames.append(json.loads(data))

    def flush(self) -> None:
        """Nothing waits here."""

    def writable(self) -> None:
        """Nothing waits here."""

    def lost(self, code: int, reason: str, *, failed: bool = False) -> None:
        self.ends.append((code, reason))

    def say(self, *message: Any) -> None:
        self.transport.write([json.dumps(message).encode()])


async def bare_peer(server: WseServer[Any], cid: str) -> Peer:
    peer = Peer()
    peer.transport, _ = await MemoryDialer(server.acceptor, "127.0.0.1")(
        "ws://test/", subprotocols=["wse-default-json"], headers={}, limits=Limits()
    )
    peer.transport.start(peer)
    peer.say("~wse:hi", {"identity": cid})
    await testing.settle()
    return peer


def record_events(server: WseServer[Any]) -> list[str]:
    events: list[str] = []
    server.when.joined(lambda client, _: events.append(f"joined {client.cid}"))
    server.when.connected(lambda conn: events.append(f"connected {conn.meta}"))
    server.when.disconnected(
        lambda conn, code, reason: events.append(f"disconnected {conn.meta} {code} {reason}")
    )
    server.when.left(
        lambda client, code, reason: events.append(f"left {client.cid} {code} {reason}")
    )
    return events


# -- what it knows ---------------------------------------------------------------------------


@testing.virtual_time
async def test_it_knows_whose_it_is() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        await network.connect("alice", {"app": "demo"}, remote_addr="10.0.0.7")
        conn = only_conn(server)
        assert conn.cid == "alice"
        assert conn.client is server.clients["alice"]
        assert conn.meta == {"app": "demo"}
        assert conn.remote_addr == "10.0.0.7"
        assert [conn.is_open] == [True]
        assert len(bytes.fromhex(conn.conn_id)) == 16
        assert "alice" not in repr(conn)
        conn.drop()
        assert [conn.is_open, conn.cid] == [False, "alice"]


@testing.virtual_time
async def test_ids_are_never_the_same() -> None:
    server = make_server(conn_per_user=20)
    async with testing.Network(server) as network:
        for _ in range(20):
            await network.connect("alice")
        assert len(server.clients["alice"].conns) == 20


# -- state -----------------------------------------------------------------------------------


@testing.virtual_time
async def test_its_state_is_a_namespace_unless_said() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        await network.connect("alice")
        conn = only_conn(server)
        conn.state.page = 3
        assert conn.state.page == 3


@testing.virtual_time
async def test_its_state_is_made_once_for_each_device() -> None:
    @dataclass
    class State:
        opened: list[str] = field(default_factory=list)

    made = 0

    def make_state() -> State:
        nonlocal made
        made += 1
        return State()

    server = WseServer(identify, conn_per_user=2, state=make_state)

    @server.channel.on("open")
    def open_document(conn: WseConnection[State], name: str) -> None:
        conn.state.opened.append(name)

    async with testing.Network(server) as network:
        first = await network.connect("alice")
        second = await network.connect("alice")
        await network.connect("bob")
        first.send("open", "a")
        first.send("open", "b")
        second.send("open", "c")
        await testing.settle()
        states = [conn.state.opened for conn in server.clients["alice"].conns.values()]
        assert states == [["a", "b"], ["c"]]
        assert made == 2


@testing.virtual_time
async def test_its_state_may_come_with_the_decision() -> None:
    def identify(attempt: Attempt) -> Decision:
        return attempt.accept("alice", state={"row": attempt.identity})

    server = WseServer(identify, conn_per_user=2)
    seen: list[Any] = []
    server.when.connected(lambda conn: seen.append(conn.state))
    async with testing.Network(server) as network:
        await network.connect(1)
        await network.connect(2)
    assert seen == [{"row": 1}, {"row": 2}]


@pytest.mark.parametrize("value", [None, 0, [], "mine"])
@testing.virtual_time
async def test_its_state_may_be_replaced_by_anything(value: Any) -> None:
    server = make_server()
    async with testing.Network(server) as network:
        await network.connect("alice")
        conn = only_conn(server)
        conn.state = value
        assert conn.state is value


# -- messages --------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [None, 0, "", False, [], {}, 0.5, {"a": [1, None]}])
@testing.virtual_time
async def test_payloads_arrive_as_they_were_sent(payload: Any) -> None:
    server = make_server()
    heard: list[Any] = []
    server.channel.on("up", lambda _, data: heard.append(data))
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        device.send("up", payload)
        only_conn(server).send("down", payload)
        assert await device.next("down") == payload
        await testing.settle()
    assert heard == [payload]
    assert type(heard[0]) is type(payload)


@testing.virtual_time
async def test_a_payload_may_be_left_out() -> None:
    server = make_server()
    heard: list[Any] = []
    server.channel.on("up", lambda _, data: heard.append(data))
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        device.send("up")
        only_conn(server).send("down")
        assert await device.next("down") is None
        await testing.settle()
    assert heard == [None]


@testing.virtual_time
async def test_send_reaches_this_device_only_and_in_order() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        first = await network.connect("alice", 1)
        second = await network.connect("alice", 2)
        conn = next(iter(server.clients["alice"].conns.values()))
        for number in range(100):
            conn.send("n", number)
        await testing.settle()
        assert list(first.received) == [("n", number) for number in range(100)]
        assert list(second.received) == []


@testing.virtual_time
async def test_send_refuses_what_cannot_be_sent() -> None:
    server = make_server(limits=Limits(max_message_bytes=200))
    async with testing.Network(server) as network:
        device = await network.connect("alice", protocols=[WseJSON()])
        conn = only_conn(server)
        with pytest.raises(ValueError, match="reserved"):
            conn.send("~wse:welcome")
        with pytest.raises(TypeError):
            conn.send("news", object())
        with pytest.raises(TypeError):
            conn.send(7)  # type: ignore[arg-type]
        with pytest.raises(MessageTooLarge):
            conn.send("news", "x" * 200)
        await testing.settle()
        assert list(device.received) == []
        assert device.closed is None


@testing.virtual_time
async def test_what_is_sent_after_the_end_goes_nowhere() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        conn = only_conn(server)
        conn.send("news", 1)
        conn.drop()
        conn.send("news", 2)
        conn.drop("again")
        assert await device.wait_closed() == (1000, "wse.by-server")
        assert list(device.received) == [("news", 1)]


@testing.virtual_time
async def test_what_handlers_send_follows_the_welcome() -> None:
    server = make_server()

    @server.when.joined
    def joined(client: Any, _: Any) -> None:
        client.send("from joined")
        server.broadcast("broadcast in joined")

    @server.when.connected
    def connected(conn: Conn) -> None:
        conn.send("from connected")
        server.broadcast("broadcast in connected")

    @server.when.connected
    async def connected_later(conn: Conn) -> None:
        conn.send("from an async handler")

    peer = await bare_peer(server, "alice")
    assert [type for type, *_ in peer.frames] == [
        "~wse:welcome",
        "from joined",
        "broadcast in joined",
        "from connected",
        "broadcast in connected",
        "from an async handler",
    ]
    peer.transport.abort()
    await testing.settle()


@testing.virtual_time
async def test_a_broadcast_while_identify_decides_does_not_reach_the_stranger() -> None:
    async def identify(attempt: Attempt) -> Decision:
        server.broadcast("in identify")
        await asyncio.sleep(1)
        server.broadcast("in identify")
        return attempt.accept("alice")

    server = WseServer(identify)
    peer = await bare_peer(server, "alice")
    await testing.pass_time(2)
    server.broadcast("afterwards")
    await testing.settle()
    assert [type for type, *_ in peer.frames] == ["~wse:welcome", "afterwards"]
    peer.transport.abort()
    await testing.settle()


@testing.virtual_time
async def test_handlers_start_in_the_order_of_the_messages() -> None:
    server = make_server()
    started: list[tuple[str, int]] = []

    @server.channel.on("plain")
    def plain(_: Conn, number: int) -> None:
        started.append(("plain", number))

    @server.channel.on("async")
    async def later(_: Conn, number: int) -> None:
        started.append(("async", number))
        await asyncio.sleep(1)

    async with testing.Network(server) as network:
        device = await network.connect("alice")
        sent = [("async" if number % 3 else "plain", number) for number in range(30)]
        for type, number in sent:
            device.send(type, number)
        await testing.pass_time(5)
        assert started == sent


@testing.virtual_time
async def test_async_handlers_overlap_unless_ordered() -> None:
    server = make_server()
    told: list[str] = []

    async def tell(_: Conn, seconds: int) -> None:
        told.append(f"begin {seconds}")
        await asyncio.sleep(seconds)
        told.append(f"end {seconds}")

    server.channel.on("free", tell)
    server.channel.on("ordered", tell, ordered=True)
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        device.send("free", 2)
        device.send("free", 1)
        await testing.pass_time(5)
        assert told == ["begin 2", "begin 1", "end 1", "end 2"]
        told.clear()
        device.send("ordered", 2)
        device.send("ordered", 1)
        await testing.pass_time(5)
        assert told == ["begin 2", "end 2", "begin 1", "end 1"]


@testing.virtual_time
async def test_one_device_does_not_hold_up_another() -> None:
    server = make_server()
    ended: list[str] = []

    @server.channel.on("work", ordered=True)
    async def work(conn: Conn, seconds: int) -> None:
        await asyncio.sleep(seconds)
        ended.append(conn.cid)

    async with testing.Network(server) as network:
        alice = await network.connect("alice")
        bob = await network.connect("bob")
        alice.send("work", 5)
        bob.send("work", 1)
        await testing.pass_time(9)
        assert ended == ["bob", "alice"]


# -- calls -----------------------------------------------------------------------------------


@testing.virtual_time
async def test_a_device_is_asked() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        device = await network.connect("alice")

        @device.client.register("add")
        async def add(numbers: list[int]) -> int:
            await asyncio.sleep(1)
            return sum(numbers)

        device.client.register("nothing", lambda _: None)
        conn = only_conn(server)
        assert await conn.call("add", [1, 2, 3]) == 6
        assert await conn.call("nothing") is None
        assert await asyncio.gather(*(conn.call("add", [n]) for n in range(5))) == [0, 1, 2, 3, 4]


@testing.virtual_time
async def test_what_a_device_raises() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        device = await network.connect("alice")

        @device.client.register("refuse")
        def refuse(_: Any) -> None:
            raise WseError("too-busy", {"until": 5})

        @device.client.register("fail")
        def fail(_: Any) -> None:
            raise LookupError(SECRET)

        conn = only_conn(server)
        with pytest.raises(WseError) as caught:
            await conn.call("refuse")
        assert (caught.value.code, caught.value.details) == ("too-busy", {"until": 5})
        with pytest.raises(CallFailed) as failed:
            await conn.call("fail")
        assert list(failed.value.details) == ["id"]
        assert SECRET not in str(failed.value)
        with pytest.raises(CallNotRegistered):
            await conn.call("missing")


@testing.virtual_time
async def test_a_call_ends_in_time() -> None:
    server = make_server(timeout=3)
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        device.client.register("never", lambda _: asyncio.sleep(1000))
        conn = only_conn(server)
        loop = asyncio.get_running_loop()
        for timeout, seconds in ((None, 3), (0.5, 0.5), (8, 8)):
            before = loop.time()
            with pytest.raises(CallTimeout):
                await conn.call("never", timeout=timeout)
            assert loop.time() - before == pytest.approx(seconds)
        for timeout in (0, -1):
            with pytest.raises(ValueError, match="positive"):
                await conn.call("never", timeout=timeout)
        assert len(conn._calls) == 0


@testing.virtual_time
async def test_a_late_reply_is_dropped_without_a_word() -> None:
    server = make_server()
    errors: list[WseError] = []
    server.when.error(lambda error, _: errors.append(error))
    async with testing.Network(server) as network:
        device = await network.connect("alice")

        @device.client.register("slow")
        async def slow(seconds: float) -> float:
            await asyncio.sleep(seconds)
            return seconds

        conn = only_conn(server)
        with pytest.raises(CallTimeout):
            await conn.call("slow", 2, timeout=1)
        assert await conn.call("slow", 3, timeout=5) == 3
        assert list(device.received) == []
        assert device.closed is None
    assert errors == []


@testing.virtual_time
async def test_a_call_may_be_cancelled() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        device.client.register("slow", lambda _: asyncio.sleep(2))
        conn = only_conn(server)
        waiting = asyncio.create_task(conn.call("slow"))
        await testing.settle()
        assert len(conn._calls) == 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert len(conn._calls) == 0
        await testing.pass_time(5)
        assert device.closed is None


@pytest.mark.parametrize(
    "end",
    [
        lambda device, conn: device.tear(),  # noqa: ARG005
        lambda device, conn: conn.drop(),  # noqa: ARG005
        lambda device, conn: conn.client.drop("banned"),  # noqa: ARG005
    ],
)
@testing.virtual_time
async def test_a_call_ends_with_its_connection(end: Callable[[Any, Any], None]) -> None:
    server = make_server(limits=Limits(session_window=None))
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        device.client.register("never", lambda _: asyncio.sleep(1000))
        conn = only_conn(server)
        waiting = asyncio.create_task(conn.call("never"))
        await testing.settle()
        end(device, conn)
        with pytest.raises(CallDisconnected):
            await waiting
        assert asyncio.get_running_loop().time() < 1


@testing.virtual_time
async def test_who_is_gone_cannot_be_asked() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        await network.connect("alice")
        conn = only_conn(server)
        conn.drop()
        with pytest.raises(NoSuchClient) as caught:
            await conn.call("anything")
        assert caught.value.details == {"conn_id": conn.conn_id}
        assert caught.value.code == "wse.server.client.connection-missing"


@pytest.mark.parametrize(
    "reply",
    [
        lambda stamp: ("~wse:response", "forged", stamp),
        lambda stamp: ("~wse:response-err", {"code": "forged"}, stamp),
        lambda stamp: (f"~wse:call:ask:{stamp}", "forged", {"success": True}),
    ],
)
@testing.virtual_time
async def test_a_device_cannot_answer_for_another(reply: Callable[[Any], Any]) -> None:
    server = make_server()
    told: list[Any] = []
    server.when.error(lambda error, _: told.append(error))
    server.when.ignored(lambda *args: told.append(args))
    alice, mallory = await bare_peer(server, "alice"), await bare_peer(server, "mallory")
    asking = asyncio.create_task(server.call("alice", "ask"))
    await testing.settle()
    [stamp] = [stamp for type, _, stamp in alice.frames if type == "ask"]
    mallory.say(*reply(stamp))
    await testing.settle()
    assert not asking.done()
    alice.say("~wse:response", "the truth", stamp)
    assert await asking == "the truth"
    assert mallory.ends == []
    assert [type for type, *_ in mallory.frames] == ["~wse:welcome"]
    assert told == []
    await server.close()


@testing.virtual_time
async def test_a_reply_counts_once() -> None:
    server = make_server()
    peer = await bare_peer(server, "alice")
    asking = asyncio.create_task(server.call("alice", "ask"))
    await testing.settle()
    [_, [_, _, stamp]] = peer.frames
    peer.say("~wse:response", 1, "no such stamp")
    peer.say("~wse:response", 2, stamp)
    peer.say("~wse:response", 3, stamp)
    peer.say("~wse:response-err", {"code": "late"}, stamp)
    assert await asking == 2
    await testing.settle()
    assert peer.ends == []
    assert len(peer.frames) == 2
    await server.close()


# -- the end ---------------------------------------------------------------------------------


@testing.virtual_time
async def test_drop_closes_this_device_only() -> None:
    server = make_server()
    events = record_events(server)
    async with testing.Network(server) as network:
        first = await network.connect("alice", 1)
        second = await network.connect("alice", 2)
        next(iter(server.clients["alice"].conns.values())).drop("banned")
        assert events[-1] == "disconnected 1 1000 banned"
        assert await first.wait_closed() == (1000, "banned")
        assert second.closed is None
    assert events == [
        "joined alice",
        "connected 1",
        "connected 2",
        "disconnected 1 1000 banned",
        "disconnected 2 1000 wse.by-client",
        "left alice 1000 wse.by-client",
    ]


@testing.virtual_time
async def test_a_reason_must_fit_a_close_frame() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        conn = only_conn(server)
        with pytest.raises(ValueError, match="123 bytes"):
            conn.drop("x" * 124)
        assert conn.is_open
        conn.drop("")
        assert await device.wait_closed() == (1000, "")


@testing.virtual_time
async def test_a_torn_connection_ends_with_1006() -> None:
    server = make_server(limits=Limits(session_window=None))
    events = record_events(server)
    async with testing.Network(server) as network:
        device = await network.connect("alice", 1)
        device.tear()
        await testing.settle()
        assert events[-2:] == ["disconnected 1 1006 ", "left alice 1006 "]


@pytest.mark.parametrize("where", ["joined", "connected", "message", "procedure"])
@pytest.mark.parametrize("is_async", [False, True])
@testing.virtual_time
async def test_a_drop_in_a_handler_keeps_the_order_of_events(where: str, is_async: bool) -> None:
    server = make_server()
    events = record_events(server)

    def handler(subject: Any, _: Any = None) -> None:
        subject.drop("in a handler")

    async def async_handler(subject: Any, _: Any = None) -> None:
        subject.drop("in a handler")

    chosen = async_handler if is_async else handler
    if where == "joined":
        server.when.joined(chosen)
    elif where == "connected":
        server.when.connected(chosen)
    elif where == "message":
        server.channel.on("drop me", chosen)
    else:
        server.register("drop me", chosen)
    async with testing.Network(server) as network:
        device = await network.connect("alice", 1)
        if where == "message":
            device.send("drop me")
        elif where == "procedure":
            with pytest.raises(CallDisconnected):
                await device.call("drop me")
        assert await device.wait_closed() == (1000, "in a handler")
        assert events == [
            "joined alice",
            "connected 1",
            "disconnected 1 1000 in a handler",
            "left alice 1000 in a handler",
        ]
        assert len(server.clients) == 0


@testing.virtual_time
async def test_a_drop_in_disconnected_and_left_changes_nothing() -> None:
    server = make_server()
    server.when.disconnected(lambda conn, *_: conn.drop("again"))
    server.when.left(lambda client, *_: client.drop("again"))
    events = record_events(server)
    async with testing.Network(server) as network:
        device = await network.connect("alice", 1)
        await device.close()
        await testing.settle()
    assert events[2:] == ["disconnected 1 1000 wse.by-client", "left alice 1000 wse.by-client"]


@testing.virtual_time
async def test_its_handlers_are_cancelled_when_it_leaves() -> None:
    server = make_server(limits=Limits(session_window=None))
    outcome: list[str] = []

    @server.channel.on("work")
    async def work(_: Conn, name: str) -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            outcome.append(f"{name} cancelled")
            raise

    async with testing.Network(server) as network:
        device = await network.connect("alice")
        other = await network.connect("alice")
        device.send("work", "first")
        device.send("work", "second")
        other.send("work", "other")
        await testing.settle()
        device.tear()
        await testing.settle()
        assert sorted(outcome) == ["first cancelled", "second cancelled"]


@testing.virtual_time
async def test_the_handler_that_drops_its_own_device_runs_to_its_end() -> None:
    server = make_server()
    outcome: list[str] = []

    @server.channel.on("bye")
    async def bye(conn: Conn, _: Any) -> None:
        conn.drop()
        await asyncio.sleep(1)
        outcome.append("ended")

    async with testing.Network(server) as network:
        device = await network.connect("alice")
        device.send("bye")
        await testing.pass_time(5)
        assert device.closed == (1000, "wse.by-server")
    assert outcome == ["ended"]


@testing.virtual_time
async def test_nothing_is_heard_after_a_drop() -> None:
    server = make_server()
    heard: list[int] = []

    @server.channel.on("n")
    def hear(conn: Conn, number: int) -> None:
        heard.append(number)
        if number == 2:
            conn.drop()

    async with testing.Network(server) as network:
        device = await network.connect("alice")
        for number in range(5):
            device.send("n", number)
        await testing.settle()
    assert heard == [0, 1, 2]


@testing.virtual_time
async def test_a_second_hi_is_an_ordinary_ignored_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    server = make_server()
    ignored: list[str] = []
    server.when.ignored(lambda _, name, __: ignored.append(name))
    peer = await bare_peer(server, "alice")
    peer.say("~wse:hi", {"identity": "mallory"})
    peer.say("~wse:challenge", 1)
    peer.say("~wse:welcome", 2)
    peer.say("~wse:unknown", 3)
    await testing.settle()
    assert ignored == ["~wse:hi", "~wse:challenge", "~wse:welcome", "~wse:unknown"]
    assert list(server.clients) == ["alice"]
    assert peer.ends == []
    assert caplog.records == []
    await server.close()


@testing.virtual_time
async def test_a_device_that_does_not_read_is_closed_and_told_why() -> None:
    server = make_server(limits=Limits(max_unwritten_messages=10))
    events = record_events(server)
    async with testing.Network(server) as network:
        slow = await network.connect("alice", "slow")
        quick = await network.connect("alice", "quick")
        slow.stall()
        for number in range(30):
            server.send("alice", "n", number)
            await testing.settle()
        assert events[-1] == "disconnected slow 1013 wse.slow-consumer"
        assert [number for _, number in quick.received] == list(range(30))
        slow.resume()
        assert await slow.wait_closed() == (1013, "wse.slow-consumer")


@real_time
async def test_the_same_over_a_socket() -> None:
    server = make_server()
    events = record_events(server)

    @server.channel.on("hello")
    def hello(conn: Conn, payload: Any) -> None:
        conn.send("welcome", payload)

    async with server.listen(port=0) as listener:
        client = WseClient(f"ws://127.0.0.1:{listener.port}/")
        heard: asyncio.Queue[Any] = asyncio.Queue()
        closed: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
        client.channel.on("welcome", heard.put_nowait)
        client.when.closed(lambda code, reason: closed.put_nowait((code, reason)))
        client.register("double", lambda number: number * 2)
        assert await client.connect("alice", "phone") == "welcome"
        client.send("hello", {"n": 1})
        assert await heard.get() == {"n": 1}
        conn = only_conn(server)
        assert conn.remote_addr == "127.0.0.1"
        assert await conn.call("double", 21) == 42
        conn.drop("banned")
        assert await closed.get() == (1000, "banned")
    assert events == [
        "joined alice",
        "connected phone",
        "disconnected phone 1000 banned",
        "left alice 1000 banned",
    ]


@pytest.mark.parametrize("reason", [one for one in Reason if one.close_code != 1006])
@testing.virtual_time
async def test_a_reason_of_the_library_travels_with_its_own_code(reason: Reason) -> None:
    server = make_server()
    async with testing.Network(server) as network:
        alice = await network.connect("alice")
        only_conn(server).drop(reason)
        assert await alice.wait_closed() == (reason.close_code, reason)


@testing.virtual_time
async def test_a_reason_that_is_never_sent_is_refused() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        await network.connect("alice")
        with pytest.raises(ValueError, match="never sent"):
            only_conn(server).drop(Reason.HEARTBEAT_LOST)
