"""The server: users, and what they can be sent, asked and told."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

import msgspec
import pytest
from carriers import raw_client, request
from support import SECRET, boom, real_time

from wse import (
    AlreadyRegistered,
    Attempt,
    CallFailed,
    CallNotRegistered,
    Channel,
    ConnectionFailed,
    Decision,
    HandlerFailed,
    InvalidPayload,
    Limits,
    MessageTooLarge,
    MessageUnreadable,
    NoSuchClient,
    NotAuthorized,
    Procedures,
    Protocol,
    Proxies,
    Types,
    WseClient,
    WseConnection,
    WseError,
    WseIdentity,
    WseJSON,
    WseServer,
    testing,
)
from wse.transports.base import Transport
from wse.transports.memory import MemoryDialer

Conn = WseConnection[Any]


def identify(attempt: Attempt) -> Decision:
    return attempt.accept(attempt.identity, {"you are": attempt.identity})


def make_server(**options: Any) -> WseServer[Any]:
    return WseServer(identify, **{"conn_per_user": 3, **options})


def record_events(server: WseServer[Any]) -> list[str]:
    events: list[str] = []
    server.when.joined(lambda client, meta: events.append(f"joined {client.cid} {meta}"))
    server.when.connected(lambda conn: events.append(f"connected {conn.meta}"))
    server.when.disconnected(
        lambda conn, code, reason: events.append(f"disconnected {conn.meta} {code} {reason}")
    )
    server.when.left(lambda client, code, _: events.append(f"left {client.cid} {code}"))
    return events


# -- people ----------------------------------------------------------------------------------


@testing.virtual_time
async def test_a_user_joins_with_the_first_device_and_leaves_with_the_last() -> None:
    server = make_server(limits=Limits(session_window=None))
    events = record_events(server)
    async with testing.Network(server) as network:
        phone = await network.connect("alice", "phone")
        laptop = await network.connect("alice", "laptop")
        await phone.close()
        await testing.settle()
        laptop.tear()
        await testing.settle()
    assert events == [
        "joined alice phone",
        "connected phone",
        "connected laptop",
        "disconnected phone 1000 wse.by-client",
        "disconnected laptop 1006 ",
        "left alice 1006",
    ]


@testing.virtual_time
async def test_a_user_has_one_device_unless_said() -> None:
    server = WseServer(identify)
    async with testing.Network(server) as network:
        first = await network.connect("alice")
        await network.connect("bob")
        second = await network.connect("alice")
        await testing.settle()
        assert first.closed == (1000, "wse.clients-concurrency")
        assert second.closed is None
        assert len(server.clients.conns) == 2


@testing.virtual_time
async def test_one_too_many_evicts_the_oldest_and_the_user_stays() -> None:
    server = make_server(conn_per_user=2)
    events = record_events(server)
    async with testing.Network(server) as network:
        for number in range(3):
            await network.connect("alice", number)
        assert events == [
            "joined alice 0",
            "connected 0",
            "connected 1",
            "disconnected 0 1000 wse.clients-concurrency",
            "connected 2",
        ]


@testing.virtual_time
async def test_one_seat_changes_hands_without_a_left_in_between() -> None:
    server = WseServer(identify)
    events = record_events(server)
    async with testing.Network(server) as network:
        await network.connect("alice", "old")
        alice = server.clients["alice"]
        await network.connect("alice", "new")
        assert server.clients["alice"] is alice
        assert alice.meta == "old"
    assert events == [
        "joined alice old",
        "connected old",
        "disconnected old 1000 wse.clients-concurrency",
        "connected new",
        "disconnected new 1000 wse.by-client",
        "left alice 1000",
    ]


@testing.virtual_time
async def test_who_is_seen_where_while_events_are_told() -> None:
    server = make_server()
    seen: list[Any] = []

    @server.when.connected
    def connected(conn: Conn) -> None:
        seen.append((conn.is_open, conn.conn_id in server.clients[conn.cid].conns))

    @server.when.disconnected
    def disconnected(conn: Conn, _: int, __: str) -> None:
        seen.append((conn.is_open, conn.cid in server.clients))

    async with testing.Network(server) as network:
        await network.connect("alice")
    assert seen == [(True, True), (False, False)]


@testing.virtual_time
async def test_send_reaches_all_devices_of_one_user() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        devices = [await network.connect(cid) for cid in ("alice", "alice", "bob")]
        server.send("alice", "news", [1])
        server.send("nobody", "news", [2])
        server.send("alice", "news")
        await testing.settle()
        both = [("news", [1]), ("news", None)]
        assert [list(device.received) for device in devices] == [both, both, []]


@testing.virtual_time
async def test_broadcast_reaches_everybody_but_those_left_out() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        devices = [await network.connect(cid) for cid in ("alice", "alice", "bob", 0)]
        newest_of_alice = list(server.clients["alice"].conns.values())[1]
        server.broadcast("all", 1)
        server.broadcast("but a device", 2, but=newest_of_alice)
        server.broadcast("but a user", 3, but="alice")
        server.broadcast("but nobody who is here", 4, but="nobody")
        server.broadcast("but zero", 5, but=0)
        await testing.settle()
        assert [[payload for _, payload in device.received] for device in devices] == [
            [1, 2, 4, 5],
            [1, 4, 5],
            [1, 2, 3, 4, 5],
            [1, 2, 3, 4],
        ]


@testing.virtual_time
async def test_a_broadcast_is_packed_once_for_each_protocol() -> None:
    class Counting(WseJSON):
        packed = 0

        def pack(self, type: str, payload: Any, stamp: Any) -> bytes:
            Counting.packed += type == "news"
            return super().pack(type, payload, stamp)

    server = make_server(protocols=[Counting()])
    async with testing.Network(server) as network:
        devices = [await network.connect(f"user {number}") for number in range(10)]
        server.broadcast("news")
        await testing.settle()
        assert Counting.packed == 1
        assert all(list(device.received) == [("news", None)] for device in devices)


@testing.virtual_time
async def test_what_is_sent_in_one_turn_leaves_in_one_write() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        [conn] = server.clients.conns.values()
        writes: list[int] = []
        write = conn._transport.write

        def counted(frames: list[bytes]) -> None:
            writes.append(len(frames))
            write(frames)

        conn._transport.write = counted  # type: ignore[method-assign]
        for number in range(5):
            conn.send("n", number)
            server.send("alice", "n", number)
            server.broadcast("n", number)
        await testing.settle()
        assert writes == [15]
        assert len(device.received) == 15


@testing.virtual_time
async def test_sending_refuses_what_cannot_be_sent() -> None:
    server = make_server(limits=Limits(max_message_bytes=200))
    async with testing.Network(server) as network:
        device = await network.connect("alice", protocols=[WseJSON()])
        for send in (lambda *args: server.send("alice", *args), server.broadcast):
            with pytest.raises(ValueError, match="reserved"):
                send("~wse:welcome")
            with pytest.raises(TypeError):
                send("news", object())
            with pytest.raises(MessageTooLarge) as caught:
                send("news", "x" * 200)
            assert caught.value.details["limit"] == 200
        with pytest.raises(TypeError, match="a cid"):
            server.send(1.5, "news")  # type: ignore[arg-type]
        await testing.settle()
        assert list(device.received) == []
        assert device.closed is None


@testing.virtual_time
async def test_drop_client_drops_all_devices_of_one_user() -> None:
    server = make_server()
    events = record_events(server)
    async with testing.Network(server) as network:
        devices = [await network.connect(cid, cid) for cid in ("alice", "alice", "bob")]
        server.drop_client("nobody")
        server.drop_client("alice", "banned")
        await testing.settle()
        assert [device.closed for device in devices] == [(1000, "banned"), (1000, "banned"), None]
        server.drop_client("bob")
        assert await devices[2].wait_closed() == (1000, "wse.by-server")
    assert events[-5:] == [
        "disconnected alice 1000 banned",
        "disconnected alice 1000 banned",
        "left alice 1000",
        "disconnected bob 1000 wse.by-server",
        "left bob 1000",
    ]


@testing.virtual_time
async def test_a_reason_must_fit_whoever_is_here() -> None:
    server = make_server()
    with pytest.raises(ValueError, match="123 bytes"):
        server.drop_client("nobody", "x" * 124)


# -- messages --------------------------------------------------------------------------------


@testing.virtual_time
async def test_handlers_are_added_by_decorator_or_by_call_and_removed() -> None:
    server = make_server()
    heard: list[str] = []

    @server.channel.on("hello")
    def first(conn: Conn, data: Any) -> None:
        heard.append(f"first {conn.cid} {data}")

    def second(conn: Conn, data: Any) -> None:
        heard.append(f"second {conn.cid} {data}")

    assert server.channel.on("hello", second) is second
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        device.send("hello", 1)
        await testing.settle()
        server.channel.off("hello", first)
        device.send("hello", 2)
        await testing.settle()
        server.channel.off("hello")
        device.send("hello", 3)
        await testing.settle()
    assert heard == ["first alice 1", "second alice 1", "second alice 2"]


@testing.virtual_time
async def test_once_hears_one_message_whoever_sends_it() -> None:
    server = make_server()
    heard: list[str] = []
    ignored: list[Any] = []
    server.when.ignored(lambda conn, *message: ignored.append((conn.cid, *message)))

    @server.channel.once("hello")
    def hello(conn: Conn, _: Any) -> None:
        heard.append(conn.cid)

    async with testing.Network(server) as network:
        alice, bob = await network.connect("alice"), await network.connect("bob")
        bob.send("hello", 1)
        bob.send("hello", 2)
        await testing.settle()
        alice.send("hello", 3)
        await testing.settle()
    assert heard == ["bob"]
    assert ignored == [("bob", "hello", 2), ("alice", "hello", 3)]


@pytest.mark.parametrize("payload", [None, 0, "", False, {"a": [1]}])
@testing.virtual_time
async def test_what_nobody_handles_is_told_as_ignored(payload: Any) -> None:
    server = make_server()
    ignored: list[Any] = []
    server.when.ignored(lambda conn, *message: ignored.append((conn.cid, *message)))
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        device.send("unheard of", payload)
        await testing.settle()
        assert device.closed is None
    assert ignored == [("alice", "unheard of", payload)]


@testing.virtual_time
async def test_a_handler_that_raises_breaks_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = make_server()
    heard: list[Any] = []
    errors: list[Any] = []
    server.when.error(lambda error, conn: errors.append((error, conn)))

    @server.channel.on("boom")
    def raises(_: Conn, __: Any) -> None:
        raise LookupError(f"in a plain one {SECRET}")

    @server.channel.on("boom")
    async def raises_later(_: Conn, __: Any) -> None:
        await asyncio.sleep(1)
        raise LookupError(f"in an async one {SECRET}")

    server.channel.on("boom", lambda _, data: heard.append(data))
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        device.send("boom", 1)
        device.send("boom", 2)
        await testing.pass_time(2)
        assert device.closed is None
        assert list(device.received) == []
        [conn] = server.clients.conns.values()
        assert [type(error) for error, _ in errors] == [HandlerFailed] * 4
        assert all(whose is conn for _, whose in errors)
        assert [str(error.__cause__) for error, _ in errors] == [
            *[f"in a plain one {SECRET}"] * 2,
            *[f"in an async one {SECRET}"] * 2,
        ]
        assert all(error.details["id"] in caplog.text for error, _ in errors)
    assert heard == [1, 2]


# -- typed handlers --------------------------------------------------------------------------


class Point(msgspec.Struct):
    x: int
    y: int = 0


@dataclass
class Box:
    corner: Point
    name: str


class Options(TypedDict):
    verbose: bool


@testing.virtual_time
async def test_payloads_become_what_the_annotation_says() -> None:
    server = make_server()
    heard: list[Any] = []

    @server.channel.on("struct")
    def struct(_: Conn, point: Point) -> None:
        heard.append(point)

    @server.channel.on("dataclass")
    async def box(_: Conn, box: Box) -> None:
        heard.append(box)

    @server.channel.on("typed dict")
    def options(_: Conn, options: Options) -> None:
        heard.append(options)

    @server.channel.on("list")
    def numbers(_: Conn, numbers: list[int]) -> None:
        heard.append(numbers)

    @server.channel.on("union")
    def union(_: Conn, value: int | str | None) -> None:
        heard.append(value)

    @server.channel.on("any")
    def anything(_: Conn, value: Any) -> None:
        heard.append(value)

    sent = [
        ("struct", {"x": 1}, Point(1)),
        ("dataclass", {"corner": {"x": 1, "y": 2}, "name": "b"}, Box(Point(1, 2), "b")),
        ("typed dict", {"verbose": True}, {"verbose": True}),
        ("list", [1, 2], [1, 2]),
        ("union", "text", "text"),
        ("union", None, None),
        ("any", {"x": [1.5]}, {"x": [1.5]}),
    ]
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        for type, payload, _ in sent:
            device.send(type, payload)
            await testing.settle()
    assert heard == [expected for *_, expected in sent]


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({"corner": {"x": "secret"}, "name": "b"}, "$.corner.x"),
        ({"corner": {}, "name": "b"}, "$.corner.x"),
        ({"corner": {"x": 1}}, "$.name"),
        (None, "$"),
    ],
)
@testing.virtual_time
async def test_a_payload_that_does_not_fit_is_an_error_of_its_own(payload: Any, path: str) -> None:
    server = make_server()
    errors: list[tuple[WseError, Any]] = []
    server.when.error(lambda error, conn: errors.append((error, conn)))

    @server.channel.on("box")
    def hear(_: Conn, __: Box) -> None:
        raise AssertionError

    @server.register("box")
    def take(_: Conn, __: Box) -> None:
        raise AssertionError

    async with testing.Network(server) as network:
        device = await network.connect("alice")
        device.send("box", payload)
        with pytest.raises(InvalidPayload) as caught:
            await device.call("box", payload)
        assert caught.value.code == "wse.invalid-payload"
        assert caught.value.details == {"path": path}
        [(error, conn)] = errors
        assert isinstance(error, InvalidPayload)
        assert error.details == {"path": path}
        assert conn.cid == "alice"
        assert device.closed is None


@testing.virtual_time
async def test_procedures_are_typed_too() -> None:
    server = make_server()

    @server.register("flip")
    async def flip(_: Conn, point: Point) -> Point:
        return Point(point.y, point.x)

    async with testing.Network(server) as network:
        device = await network.connect("alice")
        assert await device.call("flip", {"x": 1, "y": 2}) == {"x": 2, "y": 1}


# -- procedures ------------------------------------------------------------------------------


@testing.virtual_time
async def test_devices_call_procedures() -> None:
    server = make_server()

    @server.register("who")
    def who(conn: Conn, _: Any) -> str:
        return conn.cid

    async def later(_: Conn, seconds: int) -> int:
        await asyncio.sleep(seconds)
        return seconds

    assert server.register("later", later) is later
    async with testing.Network(server) as network:
        alice, bob = await network.connect("alice"), await network.connect("bob")
        assert await alice.call("who") == "alice"
        calls = (alice.call("later", 2), bob.call("who"), bob.call("later", 1))
        assert [await call for call in map(asyncio.ensure_future, calls)] == [2, "bob", 1]


@pytest.mark.parametrize("result", [None, 0, "", False, [], {}])
@testing.virtual_time
async def test_falsy_results_are_results(result: Any) -> None:
    server = make_server()
    server.register("get", lambda *_: result)
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        device.client.register("get", lambda _: result)
        for value in (await device.call("get"), await server.call("alice", "get")):
            assert value == result
            assert type(value) is type(result)


@testing.virtual_time
async def test_a_procedure_is_registered_once() -> None:
    server = make_server()
    server.register("add", lambda *_: 1)
    with pytest.raises(AlreadyRegistered) as caught:
        server.register("add", lambda *_: 2)
    assert caught.value.details == {"name": "add"}
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        assert await device.call("add") == 1
        server.unregister("add")
        server.unregister("never there")
        with pytest.raises(CallNotRegistered):
            await device.call("add")
        server.register("add", lambda *_: 3)
        assert await device.call("add") == 3


@testing.virtual_time
async def test_what_a_procedure_raises(caplog: pytest.LogCaptureFixture) -> None:
    server = make_server()
    errors: list[WseError] = []
    server.when.error(lambda error, _: errors.append(error))

    @server.register("known")
    def known(_: Conn, __: Any) -> None:
        raise WseError("no-money", {"missing": 3}, "for the log")

    @server.register("unknown")
    async def unknown(_: Conn, __: Any) -> None:
        await asyncio.sleep(1)
        raise LookupError(SECRET)

    server.register("unsendable", lambda *_: object())
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        with pytest.raises(WseError) as caught:
            await device.call("known")
        assert (caught.value.code, caught.value.details) == ("no-money", {"missing": 3})
        assert errors == []
        for name in ("unknown", "unsendable"):
            with pytest.raises(CallFailed) as failed:
                await device.call(name)
            assert errors.pop().details == {"type": name, **failed.value.details}
            assert failed.value.details["id"] in caplog.text
            assert SECRET not in repr(failed.value)
        assert SECRET in caplog.text
        assert device.closed is None


@testing.virtual_time
async def test_call_asks_a_users_newest_device() -> None:
    server = make_server(timeout=2)
    async with testing.Network(server) as network:
        old, new = await network.connect("alice"), await network.connect("alice")
        old.client.register("which", lambda _: "old")
        new.client.register("which", lambda payload: f"new {payload}")
        assert await server.call("alice", "which", 1) == "new 1"


@testing.virtual_time
async def test_a_call_to_nobody_raises() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        await network.connect("alice")
        with pytest.raises(NoSuchClient) as caught:
            await server.call("bob", "which")
        assert caught.value.code == "wse.server.client.connection-missing"
        assert "bob" not in repr(caught.value)


# -- modules ---------------------------------------------------------------------------------


@testing.virtual_time
async def test_handlers_of_modules_are_taken_in() -> None:
    chat, sums = Channel(), Procedures()
    heard: list[Any] = []

    @chat.on("hello")
    def hello(conn: Conn, data: int) -> None:
        heard.append((conn.cid, data))

    @sums.register("add")
    def add(_: Conn, numbers: list[int]) -> int:
        return sum(numbers)

    server = make_server()
    server.include(chat, sums)
    chat.on("later", lambda _, data: heard.append(("later", data)))
    sums.register("max", lambda _, numbers: max(numbers))
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        device.send("hello", 1)
        device.send("later", 2)
        assert await device.call("add", [1, 2]) == 3
        assert await device.call("max", [1, 2]) == 2
        assert heard == [("alice", 1), ("later", 2)]
        chat.off("hello", hello)
        sums.unregister("add")
        device.send("hello", 3)
        with pytest.raises(CallNotRegistered):
            await device.call("add", [1, 2])
        assert len(heard) == 2


def test_a_name_is_taken_once_however_it_comes() -> None:
    server, sums = make_server(), Procedures()
    server.register("add", lambda *_: 1)
    sums.register("add", lambda *_: 2)
    with pytest.raises(AlreadyRegistered):
        server.include(sums)


def test_handlers_of_a_client_are_not_a_servers() -> None:
    server = make_server()
    with pytest.raises(TypeError, match="conn, payload"):
        server.include(Channel(takes=1))
    with pytest.raises(TypeError, match="conn, payload"):
        server.include(Procedures(takes=1))


# -- events ----------------------------------------------------------------------------------


@testing.virtual_time
async def test_event_handlers_are_added_and_removed() -> None:
    server = make_server()
    told: list[str] = []

    @server.when.connected
    def by_decorator(conn: Conn) -> None:
        told.append(f"decorator {conn.cid}")

    def by_call(conn: Conn) -> None:
        told.append(f"call {conn.cid}")

    async def later(conn: Conn) -> None:
        await asyncio.sleep(1)
        told.append(f"later {conn.cid}")

    server.when.connected(by_call)
    server.when.connected(later)
    server.when.connected.once(lambda conn: told.append(f"once {conn.cid}"))
    async with testing.Network(server) as network:
        await network.connect("alice")
        await testing.pass_time(2)
        assert told == ["decorator alice", "call alice", "once alice", "later alice"]
        told.clear()
        server.when.connected.off(by_decorator)
        server.when.connected.off(later)
        await network.connect("bob")
        await testing.pass_time(2)
        assert told == ["call bob"]


@pytest.mark.parametrize("is_async", [False, True])
@testing.virtual_time
async def test_an_event_handler_that_raises_breaks_nothing_else(
    is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server()
    errors: list[Any] = []

    def raise_now(*_: Any) -> None:
        raise LookupError(f"in an event handler {SECRET}")

    async def raise_later(*_: Any) -> None:
        await asyncio.sleep(1)
        raise LookupError(f"in an event handler {SECRET}")

    for signal in (server.when.joined, server.when.connected):
        signal(raise_later if is_async else raise_now)
    events = record_events(server)
    server.when.error(lambda error, conn: errors.append((error, conn)))
    async with testing.Network(server) as network:
        device = await network.connect("alice", "a")
        await testing.pass_time(2)
        assert device.closed is None
        assert events == ["joined alice a", "connected a"]
        assert [(type(error), error.details, conn) for error, conn in errors] == [
            (HandlerFailed, {"event": "joined"}, None),
            (HandlerFailed, {"event": "connected"}, None),
        ]
        assert all(isinstance(error.__cause__, LookupError) for error, _ in errors)
    assert caplog.text.count("LookupError: in an event handler") == 2


@testing.virtual_time
async def test_an_error_handler_that_raises_is_only_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = make_server()
    told: list[WseError] = []

    @server.when.error
    def fails(error: WseError, _: Any) -> None:
        told.append(error)
        raise LookupError(f"while reporting {SECRET}")

    server.channel.on("boom", boom)
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        device.send("boom")
        await testing.settle()
        assert device.closed is None
    assert len(told) == 1
    assert "while reporting" in caplog.text


@testing.virtual_time
async def test_events_that_handlers_cause_follow_the_event_at_hand() -> None:
    server = make_server()
    events = record_events(server)

    @server.when.connected
    def make_room(conn: Conn) -> None:
        for other in tuple(server.clients.values()):
            if other.cid != conn.cid:
                other.drop("only one")

    server.when.connected(lambda conn: events.append(f"also connected {conn.meta}"))
    async with testing.Network(server) as network:
        await network.connect("alice", "a")
        await network.connect("bob", "b")
        assert events == [
            "joined alice a",
            "connected a",
            "also connected a",
            "joined bob b",
            "connected b",
            "also connected b",
            "disconnected a 1000 only one",
            "left alice 1000",
        ]


# -- protocols -------------------------------------------------------------------------------


class Lines(Protocol):
    """Three lines of JSON in a text frame, and its own names for what the library says."""

    name = "lines"
    types: ClassVar[Types] = Types(
        hi="HELO",
        challenge="QUEST",
        welcome="OK",
        call="CALL",
        response="RESULT",
        response_error="FAILED",
    )

    def pack(self, type: str, payload: Any, stamp: Any) -> str:
        parts = (type, payload, stamp)
        return "\n".join(json.dumps(part, default=msgspec.to_builtins) for part in parts)

    def unpack(self, data: bytes) -> tuple[Any, Any, Any]:
        type, payload, stamp = (json.loads(line) for line in data.splitlines())
        return type, payload, stamp


class Msgpack(Protocol):
    """An application's own binary protocol."""

    name = "msgpack"
    binary = True

    def pack(self, type: str, payload: Any, stamp: Any) -> bytes:
        return msgspec.msgpack.encode([type, payload, stamp])

    def unpack(self, data: bytes) -> tuple[Any, Any, Any]:
        type, payload, stamp = msgspec.msgpack.decode(data)
        return type, payload, stamp


async def tell_the_story(server: WseServer[Any], client: WseClient) -> None:
    """A challenge, a typed message and calls both ways; whatever the protocol and the carrier."""
    heard: asyncio.Queue[Any] = asyncio.Queue()

    @server.channel.on("move")
    def move(conn: Conn, point: Point) -> None:
        conn.send("moved", {"from": point, "blob": [1, None, "é"]})

    @server.register("norm")
    async def norm(_: Conn, point: Point) -> int:
        return point.x**2 + point.y**2

    @client.channel.on("moved")
    def moved(payload: dict[str, Any]) -> None:
        heard.put_nowait(payload)

    @client.register("where")
    def where(box: Box) -> Point:
        return box.corner

    @client.register("refuse")
    def refuse(_: Any) -> None:
        raise WseError("not-now", {"after": 3})

    client.challenge(lambda quest: quest["n"] + 1)
    assert await client.connect("alice", {"app": "demo"}) == {"solved": 8}
    client.send("move", {"x": 3, "y": 4})
    assert await heard.get() == {"from": {"x": 3, "y": 4}, "blob": [1, None, "é"]}
    assert await client.call("norm", {"x": 3, "y": 4}) == 25
    assert await server.call("alice", "where", {"corner": {"x": 1}, "name": "b"}) == {
        "x": 1,
        "y": 0,
    }
    with pytest.raises(InvalidPayload) as misfit:
        await client.call("norm", {"x": "three"})
    assert misfit.value.details == {"path": "$.x"}
    with pytest.raises(WseError) as refused:
        await server.call("alice", "refuse")
    assert (refused.value.code, refused.value.details) == ("not-now", {"after": 3})
    with pytest.raises(CallNotRegistered):
        await client.call("missing")
    assert server.clients["alice"].meta == {"app": "demo"}


async def identify_with_a_quest(attempt: Attempt) -> Decision:
    answer = await attempt.challenge({"n": 7})
    return attempt.accept(attempt.identity, {"solved": answer})


@pytest.mark.parametrize("protocol", [WseJSON, Lines, Msgpack])
@testing.virtual_time
async def test_a_protocol_of_the_applications_own(protocol: type[Protocol]) -> None:
    server = WseServer(identify_with_a_quest, protocols=[protocol()])
    async with testing.Network(server) as network:
        await tell_the_story(server, network.device(protocols=[protocol()]).client)


@pytest.mark.parametrize("protocol", [WseJSON, Lines, Msgpack])
@real_time
async def test_a_protocol_of_the_applications_own_over_a_socket(protocol: type[Protocol]) -> None:
    server = WseServer(identify_with_a_quest, protocols=[WseJSON(), Msgpack(), Lines()])
    async with (
        server.listen(port=0) as listener,
        WseClient(f"ws://127.0.0.1:{listener.port}/", protocols=[protocol()]) as client,
    ):
        await tell_the_story(server, client)


@testing.virtual_time
async def test_devices_of_several_protocols_hear_the_same() -> None:
    server = make_server(protocols=[WseJSON(), Lines(), Msgpack()])
    async with testing.Network(server) as network:
        devices = [
            await network.connect("alice", protocols=[protocol])
            for protocol in (WseJSON(), Lines(), Msgpack())
        ]
        server.broadcast("news", {"n": 1})
        server.send("alice", "news", {"n": 2})
        server.clients["alice"].send("news", {"n": 3})
        for device in devices:
            assert [await device.next("news") for _ in range(3)] == [{"n": 1}, {"n": 2}, {"n": 3}]


@pytest.mark.parametrize("protocol", [Lines, Msgpack])
@testing.virtual_time
async def test_a_protocol_that_raises_is_bad_input(protocol: type[Protocol]) -> None:
    server = make_server(protocols=[protocol()])
    errors: list[tuple[WseError, Any]] = []
    server.when.error(lambda error, conn: errors.append((error, conn and conn.cid)))
    async with testing.Network(server) as network:
        alice = await network.connect("alice", protocols=[protocol()])
        bob = await network.connect("bob", protocols=[protocol()])
        alice._end.write([b"\xc1 no such thing"])
        assert await alice.wait_closed() == (1000, "wse.protocol-error")
        [(error, cid)] = errors
        assert isinstance(error, MessageUnreadable)
        assert cid == "alice"
        assert bob.closed is None


@testing.virtual_time
async def test_what_pack_raises_reaches_the_sender() -> None:
    server = make_server(protocols=[Lines()])
    server.register("unsendable", lambda *_: object())
    async with testing.Network(server) as network:
        device = await network.connect("alice", protocols=[Lines()])
        [conn] = server.clients.conns.values()
        for send in (device.send, conn.send, server.broadcast):
            with pytest.raises(TypeError):
                send("news", object())
        with pytest.raises(CallFailed):
            await device.call("unsendable")
        assert device.closed is None
        assert list(device.received) == []


@testing.virtual_time
async def test_the_most_preferred_protocol_is_chosen() -> None:
    server = make_server(protocols=[Lines(), WseJSON()])
    assert server.acceptor.select(["wse-default-json", "lines"]) == "lines"
    assert server.acceptor.select(["unknown", "wse-default-json"]) == "wse-default-json"
    assert server.acceptor.select(["unknown"]) is None
    assert server.acceptor.select([]) is None


def test_protocols_have_names_of_their_own() -> None:
    with pytest.raises(ValueError, match="same name"):
        make_server(protocols=[WseJSON(), WseJSON()])


@pytest.mark.parametrize("offer", ["unknown", "lines"])
@testing.virtual_time
async def test_without_a_common_protocol_nobody_is_asked(offer: str) -> None:
    asked: list[Attempt] = []

    def identify(attempt: Attempt) -> Decision:
        asked.append(attempt)
        return attempt.accept("alice")

    class Unknown(Lines):
        name = offer

    server = WseServer(identify)
    async with testing.Network(server) as network:
        device = network.device(protocols=[Unknown()])
        with pytest.raises(Exception, match=r"wse\.protocol-error"):
            await device.connect("key")
        assert device.closed == (1000, "wse.protocol-error")
        assert not server.acceptor.strangers
    assert asked == []


# -- the end ---------------------------------------------------------------------------------


class Peer:
    """A bare connection that records how it ends."""

    def __init__(self) -> None:
        self.ends: list[tuple[int, str]] = []

    def receive(self, data: bytes, text: bool) -> None:
        """Nobody listens."""

    def flush(self) -> None:
        """Nothing waits here."""

    def writable(self) -> None:
        """Nothing waits here."""

    def lost(self, code: int, reason: str, *, failed: bool = False) -> None:
        self.ends.append((code, reason))


async def bare_transport(server: WseServer[Any], peer: Peer) -> Transport:
    transport, _ = await MemoryDialer(server.acceptor)(
        "ws://test/", subprotocols=["wse-default-json"], headers={}, limits=Limits()
    )
    transport.start(peer)
    return transport


@testing.virtual_time
async def test_close_sends_everybody_away_and_leaves_nothing() -> None:
    async def identify(attempt: Attempt) -> Decision:
        if attempt.identity == "undecided":
            await asyncio.Event().wait()
        return attempt.accept(attempt.identity)

    server = WseServer(identify)
    events = record_events(server)

    @server.channel.on("work")
    async def work(_: Conn, __: Any) -> None:
        await asyncio.Event().wait()

    async with testing.Network(server) as network:
        alice, bob = await network.connect("alice", "a"), await network.connect("bob", "b")
        alice.send("work")
        silent, undecided = Peer(), Peer()
        await bare_transport(server, silent)
        transport = await bare_transport(server, undecided)
        transport.write([b'["~wse:hi",{"identity":"undecided"}]'])
        await testing.settle()
        assert len(server.acceptor.strangers) == 2

        await server.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not server.acceptor.strangers
        assert len(server.clients) == 0
        away = (1012, "wse.server-closing")
        assert await alice.wait_closed() == await bob.wait_closed() == away
        assert silent.ends == undecided.ends == [away]
    assert events == [
        "joined alice a",
        "connected a",
        "joined bob b",
        "connected b",
        "disconnected a 1012 wse.server-closing",
        "left alice 1012",
        "disconnected b 1012 wse.server-closing",
        "left bob 1012",
    ]


@testing.virtual_time
async def test_close_lets_event_handlers_end() -> None:
    server = make_server()
    outcome: list[str] = []

    @server.when.left
    async def save(client: WseIdentity[Any], _: int, __: str) -> None:
        await asyncio.sleep(3)
        outcome.append(f"saved {client.cid}")

    async with testing.Network(server) as network:
        await network.connect("alice")
        await server.close()
        assert outcome == ["saved alice"]


@testing.virtual_time
async def test_close_does_not_wait_for_ever() -> None:
    server = make_server()
    outcome: list[str] = []

    @server.when.left
    async def hang(_: Any, __: int, ___: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            outcome.append("cancelled")

    async with testing.Network(server) as network:
        await network.connect("alice")
        await server.close()
        assert outcome == ["cancelled"]
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert asyncio.get_running_loop().time() == pytest.approx(5, abs=0.1)


@testing.virtual_time
async def test_close_lets_cancelled_handlers_clean_up() -> None:
    cleaned: list[str] = []

    async def wait_and_clean(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            cleaned.append(name)

    async def identify(attempt: Attempt) -> Decision:
        if attempt.identity == "undecided":
            await wait_and_clean("identify")
        return attempt.accept(attempt.identity)

    server = WseServer(identify)
    server.channel.on("work", lambda *_: wait_and_clean("handler"))
    async with testing.Network(server) as network:
        alice = await network.connect("alice")
        alice.send("work")
        transport = await bare_transport(server, Peer())
        transport.write([b'["~wse:hi",{"identity":"undecided"}]'])
        await testing.settle()
        await server.close()
        assert sorted(cleaned) == ["handler", "identify"]
        assert asyncio.all_tasks() == {asyncio.current_task()}


@testing.virtual_time
async def test_a_handler_may_close_the_server() -> None:
    server = make_server()
    outcome: list[str] = []

    @server.channel.on("shut down")
    async def shut_down(_: Conn, __: Any) -> None:
        await server.close()
        outcome.append("closed")

    async with testing.Network(server) as network:
        device = await network.connect("alice")
        device.send("shut down")
        assert await device.wait_closed() == (1012, "wse.server-closing")
        await testing.settle()
        assert outcome == ["closed"]


@pytest.mark.parametrize("drain", [0, 2])
@pytest.mark.parametrize("thinks", [False, True])
@testing.virtual_time
async def test_identify_may_close_the_server(thinks: bool, drain: float) -> None:
    outcome: list[str] = []

    async def identify(attempt: Attempt) -> Decision:
        if attempt.identity == "shut down":
            if thinks:
                await asyncio.sleep(1)
            await server.close(drain=drain)
            outcome.append("closed")
        return attempt.accept(attempt.identity)

    server = WseServer(identify)
    events = record_events(server)
    async with testing.Network(server) as network:
        alice = await network.connect("alice", "a")
        with pytest.raises(ConnectionFailed) as caught:
            await network.connect("shut down")
        assert caught.value.details == {"code": 1012, "reason": "wse.server-closing"}
        assert await alice.wait_closed() == (1012, "wse.server-closing")
        await testing.settle()
        assert outcome == ["closed"]
        assert "joined shut down" not in " ".join(events)
        assert not server.clients
        assert not server.acceptor.is_shut
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert asyncio.get_running_loop().time() < 2


@testing.virtual_time
async def test_close_twice_and_of_an_empty_server() -> None:
    server = make_server()
    await server.close()
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        await server.close()
        await server.close()
        assert await device.wait_closed() == (1012, "wse.server-closing")


@real_time
async def test_listening_ends_with_a_goodbye() -> None:
    server = make_server()
    events = record_events(server)
    closed: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
    async with server.listen(port=0) as listener:
        assert listener.port > 0
        client = WseClient(f"ws://127.0.0.1:{listener.port}/")
        client.when.closed(lambda code, reason: closed.put_nowait((code, reason)))
        await client.connect("alice", "a")
    assert await closed.get() == (1012, "wse.server-closing")
    assert events == [
        "joined alice a",
        "connected a",
        "disconnected a 1012 wse.server-closing",
        "left alice 1012",
    ]
    await client.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@real_time
async def test_an_address_that_is_taken_is_an_error() -> None:
    server = make_server()
    async with server.listen(port=0) as listener:
        with pytest.raises(OSError, match="in use"):
            async with server.listen(port=listener.port):
                pass
        async with WseClient(f"ws://127.0.0.1:{listener.port}/") as client:
            assert await client.connect("alice") == {"you are": "alice"}


@real_time
async def test_a_server_listens_at_several_places() -> None:
    server = make_server()
    async with (
        server.listen(port=0) as first,
        server.listen(port=0) as second,
        WseClient(f"ws://127.0.0.1:{first.port}/") as one,
        WseClient(f"ws://127.0.0.1:{second.port}/") as other,
    ):
        await one.connect("alice")
        await other.connect("alice")
        assert len(server.clients["alice"].conns) == 2


def test_a_server_may_run_on_one_loop_after_another() -> None:
    server = make_server()
    heard: list[Any] = []
    server.channel.on("n", lambda _, number: heard.append(number))

    @testing.virtual_time
    async def run(number: int) -> None:
        async with testing.Network(server) as network:
            device = await network.connect("alice")
            device.send("n", number)
            await testing.settle()

    run(1)
    run(2)
    assert heard == [1, 2]
    assert len(server.clients) == 0


@real_time
async def test_strangers_disturb_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    server = WseServer(lambda attempt: attempt.accept("alice" if attempt.identity == 1 else None))
    events = record_events(server)
    async with server.listen(port=0) as listener:
        url = f"ws://127.0.0.1:{listener.port}/"
        async with WseClient(url) as alice, WseClient(url) as stranger:
            await alice.connect(1, "a")
            with pytest.raises(NotAuthorized):
                await stranger.connect(2)
            assert events == ["joined alice a", "connected a"]
            assert not server.acceptor.strangers
    assert caplog.records == []


# -- who may connect at all ------------------------------------------------------------------


@testing.virtual_time
async def test_pages_of_other_origins_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[Any] = []

    def ask(attempt: Attempt) -> Decision:
        asked.append(attempt)
        return attempt.accept("alice")

    server = WseServer(ask)
    async with testing.Network(server, "ws://chat.example/") as network:
        page = {"Host": "chat.example", "Origin": "https://evil.example"}
        with pytest.raises(ConnectionFailed) as caught:
            await network.connect(headers=page)
        assert caught.value.details == {"status": 403}
        assert not caught.value.temporary
        assert asked == []
        assert "origins=['https://evil.example']" in caplog.text
        await network.connect(headers={"Host": "chat.example", "Origin": "https://chat.example"})
        await network.connect()
        assert len(asked) == 2


@testing.virtual_time
async def test_pages_of_listed_origins_may_connect() -> None:
    server = make_server(origins=["https://app.example"])
    async with testing.Network(server) as network:
        page = {"Host": "api.example", "Origin": "https://app.example"}
        assert (await network.connect("alice", headers=page)).welcome == {"you are": "alice"}


def test_what_is_no_origin_cannot_be_listed() -> None:
    with pytest.raises(ValueError, match=r"app\.example"):
        make_server(origins=["app.example"])


@real_time
async def test_sockets_without_a_request_are_in_the_figures() -> None:
    server = make_server()
    async with server.listen(port=0) as listener, raw_client(listener.port, upgraded=False) as peer:
        async with raw_client(listener.port, upgraded=False) as other:
            other.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await other.head()
            assert server.stats().upgrading == 2
            assert server.stats().strangers == 0
        peer.writer.write(request({"Sec-WebSocket-Protocol": WseJSON.name}))
        await peer.head()
        assert server.stats().strangers == 1
    assert server.stats().upgrading == 0


@testing.virtual_time
async def test_more_strangers_than_allowed_come_back_later() -> None:
    server = WseServer(
        lambda attempt: attempt.accept(attempt.identity),
        limits=Limits(max_strangers=2, authentication_timeout=3),
    )
    limits = server.limits
    async with testing.Network(server) as network:
        alice = await network.connect("alice")
        dialer = MemoryDialer(server.acceptor)
        for _ in range(2):
            await dialer("ws://test/", subprotocols=[WseJSON.name], headers={}, limits=limits)
        with pytest.raises(ConnectionFailed) as caught:
            await network.connect("bob")
        assert caught.value.details == {"status": 503}
        assert (caught.value.temporary, caught.value.retry_after) == (True, 3)
        await testing.pass_time(3)
        await network.connect("bob")
        assert alice.closed is None


@testing.virtual_time
async def test_the_word_of_a_listed_proxy_counts() -> None:
    seen: list[Any] = []

    def look(attempt: Attempt) -> Decision:
        seen.append(attempt.remote_addr)
        return attempt.accept("alice")

    server = WseServer(look, proxies=Proxies("10.0.0.0/8"), conn_per_user=2)
    async with testing.Network(server) as network:
        told = {"X-Forwarded-For": "198.51.100.1, 203.0.113.7"}
        await network.connect(headers=told, remote_addr="10.0.0.1")
        await network.connect(headers=told, remote_addr="203.0.113.99")
        assert seen == ["203.0.113.7", "203.0.113.99"]
        assert [conn.remote_addr for conn in server.clients["alice"].conns.values()] == seen


@testing.virtual_time
async def test_nobody_joins_while_the_server_closes() -> None:
    server = make_server()
    events = record_events(server)
    dialer = MemoryDialer(server.acceptor)

    async with testing.Network(server) as network:
        await network.connect("alice", "a")

        @server.when.disconnected
        async def linger(*_: Any) -> None:
            await asyncio.sleep(1)

        early = network.device()
        await early._dialer(
            "ws://test/", subprotocols=[WseJSON.name], headers={}, limits=server.limits
        )
        closing = asyncio.create_task(server.close())
        await asyncio.sleep(0)
        with pytest.raises(ConnectionFailed) as caught:
            await dialer(
                "ws://test/", subprotocols=[WseJSON.name], headers={}, limits=server.limits
            )
        assert caught.value.details == {"status": 503}
        await closing
        assert events == [
            "joined alice a",
            "connected a",
            "disconnected a 1012 wse.server-closing",
            "left alice 1012",
        ]
        assert not server.acceptor.strangers
        assert (await network.connect("bob")).welcome == {"you are": "bob"}


@pytest.mark.parametrize("identify", [lambda: None, lambda *, attempt: attempt])
def test_an_identify_with_other_arguments_is_refused(identify: Any) -> None:
    with pytest.raises(TypeError, match=r"\(attempt\)"):
        WseServer(identify)


@pytest.mark.parametrize("options", [{"proxies": "10.0.0.1"}, {"origins": "https://a.example"}])
def test_options_of_another_kind_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        make_server(**options)


@testing.virtual_time
async def test_what_cannot_be_encoded_is_an_error_though_nobody_is_there() -> None:
    server = make_server()
    async with testing.Network(server):
        with pytest.raises(TypeError):
            server.send("nobody", "x", object())
        with pytest.raises(TypeError):
            server.broadcast("x", object())


@testing.virtual_time
async def test_a_device_too_slow_for_its_own_welcome_joins_and_leaves() -> None:
    async def ask_much(attempt: Attempt) -> Decision:
        for _ in range(2):
            await attempt.challenge("x" * 400)
        return attempt.accept("alice", "x" * 400)

    server = WseServer(ask_much, limits=Limits(max_unwritten_bytes=500))
    events = record_events(server)
    async with testing.Network(server) as network:
        blind = network.device()
        transport, _ = await blind._dialer(
            "ws://test/", subprotocols=[WseJSON.name], headers={}, limits=server.limits
        )
        blind.stall()
        hi, answer = b'["~wse:hi",{"identity":1}]', b'["~wse:challenge",1]'
        for said in (hi, answer, answer):
            transport.write([said])
            await testing.settle()
        assert len(server.clients) == 0
        assert [event.split()[0] for event in events] in (
            [],
            ["joined", "connected", "disconnected", "left"],
        )
        assert not server.acceptor.strangers


@pytest.mark.parametrize("event", ["ignored", "error"])
@testing.virtual_time
async def test_handlers_of_what_peers_cause_are_bounded(event: str) -> None:
    server = make_server(limits=Limits(max_event_handlers=2))
    at_work: list[Any] = []

    async def linger(*args: Any) -> None:
        at_work.append(args)
        await asyncio.Event().wait()

    getattr(server.when, event)(linger)

    @server.channel.on("number")
    def number(_: WseConnection, __: int) -> None: ...

    async with testing.Network(server) as network:
        device = await network.connect("alice")
        for _ in range(5):
            device.send("nobody" if event == "ignored" else "number", "no number")
        await testing.settle()
        assert len(at_work) == 2
