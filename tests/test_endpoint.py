from __future__ import annotations

import asyncio
import functools
import gc
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from support import SECRET, TOKEN, boom, real_time

from wse import (
    Attempt,
    CallDisconnected,
    CallFailed,
    CallNotRegistered,
    CallTimeout,
    ConnectionBroken,
    Decision,
    HandlerFailed,
    InvalidPayload,
    Limits,
    MessageTooLarge,
    MessageUnreadable,
    NoSuchClient,
    Protocol,
    ProtocolViolation,
    WseClient,
    WseConnection,
    WseError,
    WseJSON,
    WseServer,
    testing,
)
from wse.handler import EAGER
from wse.transports.base import Handshake
from wse.transports.memory import MemoryTransport, pair

Conn = WseConnection[Any]
OLD = "~wse:call:add:1"
NEW = "MkicOiqzp4"


class Move(msgspec.Struct):
    x: int


def make_server(**options: Any) -> WseServer[Any]:
    """Everybody is who they say."""
    return WseServer(lambda attempt: attempt.accept(attempt.identity), **options)


def errors_of(server: WseServer[Any]) -> list[WseError]:
    """What the server will report."""
    errors: list[WseError] = []
    server.when.error(lambda error, _: errors.append(error))
    return errors


def only(server: WseServer[Any]) -> Conn:
    """The one device that is connected."""
    (conn,) = server.clients.conns.values()
    return conn


class Raw:
    """A peer that says whatever the test wants, byte by byte."""

    def __init__(self, transport: MemoryTransport) -> None:
        self.transport = transport
        self.heard: list[Any] = []
        self.closed: tuple[int, str] | None = None

    def receive(self, data: bytes, text: bool) -> None:
        self.heard.append(json.loads(data))

    def flush(self) -> None: ...

    def writable(self) -> None: ...

    def lost(self, code: int, reason: str, *, failed: bool = False) -> None:
        self.closed = (code, reason)

    def say(self, *messages: Any) -> None:
        """Write JSON, or bytes as they are."""
        self.transport.write(
            [one if isinstance(one, bytes) else json.dumps(one).encode() for one in messages]
        )

    async def ask(self, *messages: Any) -> list[Any]:
        """Write, and return what comes back."""
        self.heard.clear()
        self.say(*messages)
        await testing.settle()
        return self.heard


def open_raw(server: WseServer[Any]) -> Raw:
    ours, theirs = pair(Limits())
    raw = Raw(ours)
    server._hub.bind()
    server.acceptor.open(theirs, Handshake(path="/", opened=0.0), "wse-default-json")
    ours.start(raw)
    return raw


async def welcomed(server: WseServer[Any], identity: str = "alice") -> Raw:
    raw = open_raw(server)
    assert await raw.ask(["~wse:hi", {"identity": identity}]) == [["~wse:welcome", None, None]]
    return raw


@asynccontextmanager
async def connected(
    server: WseServer[Any], **options: Any
) -> AsyncIterator[tuple[testing.Network, testing.Device]]:
    """A network and Alice's device on it."""
    async with testing.Network(server) as network:
        yield network, await network.connect("alice", **options)


# -- events ----------------------------------------------------------------------------------------


@testing.virtual_time
async def test_an_event_reaches_its_handlers_in_the_order_in_which_they_were_added() -> None:
    server, heard = make_server(), list[Any]()
    server.channel.on("a", lambda conn, payload: heard.append((1, conn.cid, payload)))
    server.channel.once("a", lambda conn, payload: heard.append((2, conn.cid, payload)))
    server.channel.on("b", lambda conn, payload: heard.append((3, conn.cid, payload)))
    async with connected(server) as (_, alice):
        alice.send("a", 0)
        alice.send("b")
        alice.send("a", False)
        await testing.settle()
    assert heard == [
        (1, "alice", 0),
        (2, "alice", 0),
        (3, "alice", None),
        (1, "alice", False),
    ]


@testing.virtual_time
async def test_an_event_that_nobody_handles_is_ignored_on_both_sides() -> None:
    server, ignored = make_server(), list[Any]()
    server.when.ignored(lambda conn, *message: ignored.append((conn.cid, *message)))
    async with connected(server) as (_, alice):
        alice.send("nobody", {"a": [1]})
        only(server).send("nobody-here", "")
        await testing.settle()
        assert ignored == [("alice", "nobody", {"a": [1]})]
        assert list(alice.received) == [("nobody-here", "")]


@testing.virtual_time
async def test_an_ignored_event_whose_payload_cannot_be_read_is_an_error() -> None:
    server, ignored = make_server(), list[Any]()
    errors = errors_of(server)
    server.when.ignored(lambda *args: ignored.append(args))
    raw = await welcomed(server)
    await raw.ask(b'["nobody",1e999]')
    assert [type(error) for error in errors] == [InvalidPayload]
    assert ignored == []
    assert raw.closed is None


class Glass(WseJSON):
    """Tells which payloads were decoded as plain data."""

    def __init__(self) -> None:
        super().__init__()
        self.decoded: list[bytes] = []

    def decoder(self, kind: Any) -> Callable[[Any], Any]:
        decode = super().decoder(kind)

        def decode_and_tell(payload: Any) -> Any:
            if kind is Any:
                self.decoded.append(bytes(payload))
            return decode(payload)

        return decode_and_tell


@testing.virtual_time
async def test_what_nobody_waits_for_or_listens_to_is_not_decoded() -> None:
    glass = Glass()
    server = make_server(protocols=[glass])
    raw = await welcomed(server)
    glass.decoded.clear()
    await raw.ask(["nobody", [1]], ["~wse:response", [2], "x"], [OLD, [3], {"success": True}])
    assert glass.decoded == []
    server.when.ignored(lambda *_: None)
    await raw.ask(["nobody", [4]])
    assert glass.decoded == [b"[4]"]


@testing.virtual_time
async def test_a_payload_that_does_not_fit_is_reported_and_the_connection_stays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    server, heard = make_server(), list[Any]()
    errors = errors_of(server)

    @server.channel.on("move")
    def move(_: Conn, payload: Move) -> None:
        heard.append(payload)

    async with connected(server) as (_, alice):
        alice.send("move", {"x": "far"})
        alice.send("move", {"x": 1})
        await testing.settle()
    assert heard == [Move(1)]
    assert [(type(error), error.details) for error in errors] == [(InvalidPayload, {"path": "$.x"})]
    assert caplog.records == []


@pytest.mark.parametrize("is_async", [True, False])
@testing.virtual_time
async def test_what_an_event_handler_raises_is_reported_and_breaks_nothing_else(
    caplog: pytest.LogCaptureFixture, *, is_async: bool
) -> None:
    server, heard = make_server(), list[Any]()
    errors = errors_of(server)
    error = ZeroDivisionError(SECRET)

    def raises(_: Conn, __: Any) -> None:
        raise error

    async def raises_later(conn: Conn, payload: Any) -> None:
        raises(conn, payload)

    server.channel.on("a", raises_later if is_async else raises)
    server.channel.on("a", lambda _, payload: heard.append(payload))
    raw = await welcomed(server)
    assert await raw.ask(["a", 1], ["a", 2]) == []
    assert heard == [1, 2]
    assert raw.closed is None
    assert [type(error) for error in errors] == [HandlerFailed] * 2
    assert [one.__cause__ for one in errors] == [error] * 2
    assert errors[0].details["type"] == "a"
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.exc_info and record.exc_info[1] for record in logged] == [error] * 2
    assert errors[0].details["id"] in logged[0].getMessage()


@testing.virtual_time
async def test_an_error_of_the_applications_in_an_event_handler_has_nobody_to_travel_to() -> None:
    server = make_server()
    errors = errors_of(server)

    @server.channel.on("a")
    def raises(_: Conn, __: Any) -> None:
        raise WseError("mine", SECRET)

    raw = await welcomed(server)
    assert await raw.ask(["a", 1]) == []
    assert [type(error) for error in errors] == [HandlerFailed]


# -- calls -----------------------------------------------------------------------------------------


@testing.virtual_time
async def test_calls_in_both_directions() -> None:
    server = make_server()
    server.register("double", lambda conn, n: [conn.cid, n * 2])

    @server.register("slow-double")
    async def slow_double(_: Conn, n: int) -> int:
        await asyncio.sleep(1)
        return n * 2

    async with connected(server) as (_, alice):
        alice.client.register("who", lambda payload: {"me": payload})
        assert await alice.call("double", 4) == ["alice", 8]
        assert await alice.call("slow-double", 4) == 8
        assert await only(server).call("who", 0) == {"me": 0}
        assert await server.call("alice", "who") == {"me": None}


@testing.virtual_time
async def test_answers_find_their_calls_in_any_order() -> None:
    server = make_server()

    @server.register("wait")
    async def wait(_: Conn, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    async with connected(server) as (_, alice):
        loop = asyncio.get_running_loop()
        began = loop.time()
        seconds = [5, 1, 4, 2, 3]
        assert await asyncio.gather(*(alice.call("wait", n) for n in seconds)) == seconds
        assert loop.time() - began == pytest.approx(5, abs=0.01)


@testing.virtual_time
async def test_the_stamp_chooses_the_form_of_every_reply() -> None:
    server = make_server()

    def fail(_: Conn, __: Any) -> None:
        raise WseError("my-code", {"fun": 1})

    server.register("add", lambda _, args: args["a"] + args["b"])
    server.register("none", lambda *_: None)
    server.register("fail", fail)
    raw = await welcomed(server)
    assert await raw.ask(
        ["add", {"a": 5, "b": 3}, OLD],
        ["none", None, OLD],
        ["fail", None, OLD],
        ["missing", None, OLD],
    ) == [
        [OLD, 8, {"success": True}],
        [OLD, None, {"success": True}],
        [OLD, None, {"type": "wse-error", "code": "my-code", "details": {"fun": 1}}],
        [OLD, None, {"code": "wse.server.rp.not-registered"}],
    ]
    assert await raw.ask(
        ["add", {"a": 5, "b": 3}, NEW],
        ["none", None, NEW],
        ["fail", None, NEW],
        ["missing", None, NEW],
    ) == [
        ["~wse:response", 8, NEW],
        ["~wse:response", None, NEW],
        ["~wse:response-err", {"code": "my-code", "details": {"fun": 1}}, NEW],
        ["~wse:response-err", {"code": "wse.server.rp.not-registered"}, NEW],
    ]


@pytest.mark.parametrize("stamp", [OLD, NEW])
@testing.virtual_time
async def test_of_an_ordinary_error_the_caller_learns_an_id_and_the_log_everything(
    caplog: pytest.LogCaptureFixture, stamp: str
) -> None:
    server = make_server()
    errors = errors_of(server)

    @server.register("login")
    async def login(_: Conn, __: Any) -> None:
        raise RuntimeError(SECRET)

    raw = await welcomed(server)
    (reply,) = await raw.ask(["login", {"password": TOKEN}, stamp])
    assert SECRET not in json.dumps(reply)
    assert "RuntimeError" not in json.dumps(reply)
    error = reply[2] if stamp == OLD else reply[1]
    assert error.keys() == {"code", "message", "details"}
    assert error["code"] == "wse.server.rp.failed"
    assert error["message"] == "Remote procedure failed"
    assert error["details"].keys() == {"id"}
    assert error["details"]["id"] in caplog.text
    assert SECRET in caplog.text
    assert [(type(one), one.details) for one in errors] == [
        (HandlerFailed, {"type": "login", "id": error["details"]["id"]})
    ]


@testing.virtual_time
async def test_errors_of_a_call_are_raised_as_their_classes() -> None:
    server = make_server()

    def fail(_: Conn, __: Any) -> None:
        raise WseError("out-of-stock", {"left": 0})

    def fail_plainly(_: Conn, __: Any) -> None:
        raise ValueError(SECRET)

    @server.register("typed")
    def typed(_: Conn, numbers: list[int]) -> int:
        return sum(numbers)

    server.register("fail", fail)
    server.register("fail-plainly", fail_plainly)
    async with connected(server) as (_, alice):
        with pytest.raises(WseError) as caught:
            await alice.call("fail")
        assert (caught.value.code, caught.value.details) == ("out-of-stock", {"left": 0})
        with pytest.raises(CallFailed) as failed:
            await alice.call("fail-plainly")
        assert failed.value.details.keys() == {"id"}
        with pytest.raises(InvalidPayload) as invalid:
            await alice.call("typed", [1, "2"])
        assert invalid.value.details == {"path": "$[1]"}
        with pytest.raises(CallNotRegistered):
            await alice.call("missing")
        with pytest.raises(CallNotRegistered):
            await server.call("alice", "missing")
        assert await alice.call("typed", [1, 2]) == 3


@testing.virtual_time
async def test_a_call_that_is_not_answered_times_out() -> None:
    server = make_server(timeout=7)
    loop = asyncio.get_running_loop()

    async def never(*_: Any) -> None:
        await loop.create_future()

    server.register("never", never)
    async with connected(server, timeout=3) as (_, alice):
        alice.client.register("never", never)
        for call, seconds in (
            (alice.call("never"), 3),
            (alice.call("never", timeout=1), 1),
            (only(server).call("never"), 7),
            (only(server).call("never", timeout=0.5), 0.5),
        ):
            began = loop.time()
            with pytest.raises(CallTimeout):
                await call
            assert loop.time() - began == pytest.approx(seconds, abs=0.01)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
@testing.virtual_time
async def test_a_timeout_is_positive(timeout: float) -> None:
    async with connected(make_server()) as (_, alice):
        with pytest.raises(ValueError, match="positive"):
            await alice.call("a", timeout=timeout)


@testing.virtual_time
async def test_names_that_cannot_be_called() -> None:
    async with connected(make_server(), protocols=[WseJSON()]) as (_, alice):
        with pytest.raises(ValueError, match="reserved"):
            await alice.call("~wse:hi")
        with pytest.raises(TypeError, match="int"):
            await alice.call(5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="too long"):
            await alice.call("a" * 512)
        with pytest.raises(CallNotRegistered):
            await alice.call("a" * 400)


@testing.virtual_time
async def test_a_call_that_cannot_be_packed_waits_for_nothing() -> None:
    async with connected(make_server()) as (_, alice):
        with pytest.raises(TypeError):
            await alice.call("a", object())
        link = alice.client._link
        assert link is not None
        assert len(link._calls) == 0


@testing.virtual_time
async def test_replies_that_nobody_waits_for_are_dropped_without_a_word() -> None:
    server = make_server()
    errors, ignored = errors_of(server), list[Any]()
    server.when.ignored(lambda *args: ignored.append(args))
    raw = await welcomed(server)
    assert (
        await raw.ask(
            ["~wse:response", 1, "1"],
            ["~wse:response", 1, 5],
            ["~wse:response", 1],
            ["~wse:response-err", {"code": "c"}, "1"],
            ["~wse:response-err", None, None],
            [OLD, 1, {"success": True}],
            [OLD, None, {"code": "c"}],
        )
        == []
    )
    assert (errors, ignored, raw.closed) == ([], [], None)


@testing.virtual_time
async def test_a_reply_of_another_device_is_foreign() -> None:
    server = make_server(conn_per_user=2)
    other, called = await welcomed(server), await welcomed(server)
    call = asyncio.ensure_future(server.call("alice", "who"))
    await testing.settle()
    ((_, _, stamp),) = [message for message in called.heard if message[0] == "who"]
    await other.ask(["~wse:response", "foreign", stamp])
    assert not call.done()
    await called.ask(["~wse:response", "mine", stamp])
    assert await call == "mine"


@testing.virtual_time
async def test_a_late_reply_is_dropped() -> None:
    server = make_server(timeout=1)
    raw = await welcomed(server)
    call = asyncio.ensure_future(server.call("alice", "who"))
    await testing.pass_time(2)
    stamp = raw.heard[-1][2]
    assert await raw.ask(["~wse:response", "late", stamp]) == []
    with pytest.raises(CallTimeout):
        await call


@testing.virtual_time
async def test_a_reply_whose_payload_cannot_be_read_ends_its_call() -> None:
    server = make_server()
    raw = await welcomed(server)
    call = asyncio.ensure_future(server.call("alice", "who"))
    await testing.settle()
    stamp = raw.heard[-1][2]
    await raw.ask(b'["~wse:response",1e999,"%s"]' % stamp.encode())
    with pytest.raises(InvalidPayload):
        await call
    assert raw.closed is None


@testing.virtual_time
async def test_calls_end_with_their_connection() -> None:
    async def never(*_: Any) -> None:
        await asyncio.get_running_loop().create_future()

    server = make_server(limits=Limits(session_window=None))
    server.register("never", never)
    async with connected(server) as (_, alice):
        alice.client.register("never", never)
        conn = only(server)
        calls = [asyncio.ensure_future(one.call("never")) for one in (alice, conn)]
        await testing.settle()
        alice.tear()
        for call in calls:
            with pytest.raises(CallDisconnected):
                await call
        with pytest.raises(NoSuchClient):
            await conn.call("never")


# -- results that cannot be sent -------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [True, False])
@testing.virtual_time
async def test_a_result_that_cannot_be_encoded(
    caplog: pytest.LogCaptureFixture, *, is_async: bool
) -> None:
    async def later(*_: Any) -> object:
        return object()

    server = make_server()
    errors = errors_of(server)
    server.register("object", later if is_async else lambda *_: object())
    async with connected(server) as (_, alice):
        with pytest.raises(CallFailed) as caught:
            await alice.call("object")
    assert caught.value.details["id"] in caplog.text
    assert [type(error.__cause__) for error in errors] == [TypeError]


@testing.virtual_time
async def test_details_that_cannot_be_encoded(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any) -> None:
        raise WseError("mine", {"what": object()})

    server = make_server()
    errors = errors_of(server)
    server.register("fail", fail)
    async with connected(server) as (_, alice):
        with pytest.raises(CallFailed) as caught:
            await alice.call("fail")
    assert caught.value.details["id"] in caplog.text
    assert [type(error) for error in errors] == [HandlerFailed]


@testing.virtual_time
async def test_a_result_above_the_limit_is_an_error_of_the_procedure() -> None:
    server = make_server(limits=Limits(max_message_bytes=1000))
    errors = errors_of(server)
    server.register("text", lambda _, size: "x" * size)
    async with connected(server) as (_, alice):
        with pytest.raises(CallFailed) as caught:
            await alice.call("text", 1000)
        (error,) = errors
        assert error.details == {"type": "text", **caught.value.details}
        assert isinstance(error.__cause__, MessageTooLarge)
        assert await alice.call("text", 900) == "x" * 900


@testing.virtual_time
async def test_details_above_the_limit() -> None:
    def fail(_: Conn, size: int) -> None:
        raise WseError("mine", "x" * size)

    server = make_server(limits=Limits(max_message_bytes=1000))
    server.register("fail", fail)
    async with connected(server) as (_, alice):
        with pytest.raises(CallFailed):
            await alice.call("fail", 1000)
        with pytest.raises(WseError, match="mine"):
            await alice.call("fail", 900)


@testing.virtual_time
async def test_a_procedure_whose_own_task_is_cancelled_answers_its_caller() -> None:
    async def cancelled(*_: Any) -> None:
        inner = asyncio.ensure_future(asyncio.sleep(10))
        inner.cancel()
        await inner

    server = make_server()
    server.register("cancelled", cancelled)
    async with connected(server) as (_, alice):
        with pytest.raises(CallFailed):
            await alice.call("cancelled")


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (b"hello", MessageUnreadable),
        (b"[" + b'"a",' + b"[" * 200_000, MessageUnreadable),
        (b'["\xff"]', MessageUnreadable),
        (b"{}", ProtocolViolation),
        (b"[]", ProtocolViolation),
        (b"[5]", ProtocolViolation),
        (b'["a",1,5]', ProtocolViolation),
        (b'["a",1,{}]', ProtocolViolation),
        (b'["a",1,"%s"]' % (b"s" * 513), ProtocolViolation),
    ],
)
@testing.virtual_time
async def test_bad_input_closes_its_connection_and_no_other(
    frame: bytes, error: type[WseError]
) -> None:
    server, heard, gone = make_server(), list[Any](), list[Any]()
    errors = errors_of(server)
    server.channel.on("a", lambda conn, payload: heard.append((conn.cid, payload)))
    server.when.disconnected(lambda conn, code, reason: gone.append((conn.cid, code, reason)))
    bad, good = await welcomed(server, "bad"), await welcomed(server, "good")
    await bad.ask(frame, ["a", "never heard"])
    await good.ask(["a", 1])
    assert bad.closed == (1000, "wse.protocol-error")
    assert gone == [("bad", 1000, "wse.protocol-error")]
    assert heard == [("good", 1)]
    assert good.closed is None
    assert [type(one) for one in errors] == [error]


@testing.virtual_time
async def test_a_message_above_the_limit_is_an_error_of_its_connection() -> None:
    server, gone = make_server(limits=Limits(max_message_bytes=1000)), list[Any]()
    errors = errors_of(server)
    server.when.disconnected(lambda _, code, reason: gone.append((code, reason)))
    raw = await welcomed(server)
    assert await raw.ask(["a", "x" * 1000], ["a", "never heard"]) == []
    assert raw.closed == (1009, "wse.message-too-large")
    assert gone == [(1009, "wse.message-too-large")]
    assert [(type(error), error.details) for error in errors] == [
        (ConnectionBroken, {"code": 1009, "reason": "wse.message-too-large"})
    ]


@testing.virtual_time
async def test_the_end_of_a_connection_is_told_once() -> None:
    server, gone = make_server(), list[Any]()
    server.when.disconnected(lambda _, code, reason: gone.append((code, reason)))
    await welcomed(server)
    conn = only(server)
    conn.drop("first")
    conn.lost(1006, "second", failed=True)
    conn.drop("third")
    assert gone == [(1000, "first")]


@testing.virtual_time
async def test_nothing_is_heard_while_the_server_decides() -> None:
    asked, decide = list[Any](), asyncio.Event()

    async def identify(attempt: Attempt) -> Decision:
        asked.append(attempt.identity)
        await decide.wait()
        return attempt.accept(attempt.identity)

    server, heard = WseServer(identify), list[Any]()
    server.channel.on("a", lambda _, payload: heard.append(payload))
    raw = open_raw(server)
    hi = ["~wse:hi", {"identity": "alice"}]
    assert await raw.ask(hi, hi, ["a", 1], b"not even JSON", ["~wse:challenge", 1]) == []
    decide.set()
    await testing.settle()
    assert await raw.ask(["a", 2]) == []
    assert (asked, heard, raw.closed) == (["alice"], [2], None)


@testing.virtual_time
async def test_only_the_answer_is_heard_while_the_server_waits_for_it() -> None:
    answers = list[Any]()

    async def identify(attempt: Attempt) -> Decision:
        answers.append(await attempt.challenge("why?"))
        return attempt.accept("alice")

    raw = open_raw(WseServer(identify))
    assert await raw.ask(["~wse:hi", {}]) == [["~wse:challenge", "why?", None]]
    assert await raw.ask(b"not JSON", ["a", 1], ["a", 1, 5], ["~wse:hi", {}]) == []
    assert await raw.ask(["~wse:challenge", "because"]) == [["~wse:welcome", None, None]]
    assert (answers, raw.closed) == (["because"], None)


@testing.virtual_time
async def test_nothing_is_heard_after_the_end() -> None:
    server, heard = make_server(), list[Any]()
    server.channel.on("a", lambda _, payload: heard.append(payload))
    await welcomed(server)
    conn = only(server)
    conn.drop()
    conn.receive(b'["a",1]', text=True)
    conn.receive(b'["~wse:hi",{"identity":"mallory"}]', text=True)
    assert heard == []
    assert not server.clients


class Fragile(Protocol):
    """A protocol whose author did not expect everything."""

    name = "fragile"
    binary = True

    def pack(self, type: str, payload: Any, stamp: Any) -> bytes:
        return repr([type, payload, stamp]).encode()

    def unpack(self, data: bytes) -> tuple[Any, Any, Any]:
        type, payload, stamp = json.loads(data.replace(b"'", b'"').replace(b"None", b"null"))
        return type, payload, boom() if payload == "boom" else stamp


@testing.virtual_time
async def test_a_protocol_that_raises_is_bad_input_and_no_crash() -> None:
    server, heard = make_server(protocols=[Fragile()]), list[Any]()
    errors = errors_of(server)

    @server.channel.on("a")
    def handler(_: Conn, numbers: list[int]) -> None:
        heard.append(numbers)

    async with connected(server, protocols=[Fragile()]) as (_, alice):
        alice.send("a", [1])
        alice.send("a", "boom")
        assert await alice.wait_closed() == (1000, "wse.protocol-error")
    assert heard == [[1]]
    assert [type(error) for error in errors] == [MessageUnreadable]


# -- the order of handlers -------------------------------------------------------------------------


@testing.virtual_time
async def test_handlers_start_in_the_order_of_their_messages_whatever_their_kind() -> None:
    server, started = make_server(), list[int]()

    async def later(n: int) -> None:
        started.append(n)
        await asyncio.sleep(1)

    async def quick(_: Conn, n: int) -> None:
        started.append(n)

    async def slow(_: Conn, n: int) -> None:
        await later(n)

    kinds: dict[str, Callable[[Conn, int], Any]] = {
        "plain": lambda _, n: started.append(n),
        "quick": quick,
        "slow": slow,
        "lambda": lambda _, n: later(n),
    }
    for name, handler in kinds.items():
        server.channel.on(name, handler)
        server.register(name, handler)
    raw = await welcomed(server)
    names = ["slow", "plain", "quick", "plain", "lambda", "plain", "slow", "quick", "plain"] * 3
    await raw.ask(*[[name, n, NEW if n % 4 == 0 else None] for n, name in enumerate(names)])
    assert started == list(range(len(names)))


@testing.virtual_time
async def test_replies_of_plain_procedures_keep_their_order() -> None:
    server = make_server()

    async def quick(_: Conn, n: int) -> int:
        return n

    server.register("plain", lambda _, n: n)
    server.register("quick", quick)
    raw = await welcomed(server)
    heard = await raw.ask(*[[("plain", "quick")[n % 2], n, str(n)] for n in range(20)])
    assert sorted(message[1] for message in heard) == list(range(20))
    assert [message[1] for message in heard if message[1] % 2 == 0] == list(range(0, 20, 2))


@testing.virtual_time
async def test_async_handlers_overlap_but_ordered_ones_wait_for_their_predecessor() -> None:
    server, steps = make_server(), list[str]()

    async def work(_: Conn, n: int) -> None:
        steps.append(f"{n} began")
        await asyncio.sleep(10 - n)
        steps.append(f"{n} ended")

    server.channel.on("free", work)
    server.channel.on("ordered", work, ordered=True)
    raw = await welcomed(server)
    raw.say(["free", 1], ["free", 2])
    await testing.pass_time(20)
    assert steps == ["1 began", "2 began", "2 ended", "1 ended"]
    steps.clear()
    raw.say(["ordered", 1], ["ordered", 2], ["free", 3])
    await testing.pass_time(30)
    assert steps == ["1 began", "1 ended", "2 began", "3 began", "3 ended", "2 ended"]


@testing.virtual_time
async def test_ordered_handlers_of_one_device_do_not_hold_up_another() -> None:
    server, done = make_server(), list[tuple[str, int]]()

    @server.channel.on("a", ordered=True)
    async def work(conn: Conn, seconds: int) -> None:
        await asyncio.sleep(seconds)
        done.append((conn.cid, seconds))

    alice, bob = await welcomed(server, "alice"), await welcomed(server, "bob")
    alice.say(["a", 5], ["a", 1])
    bob.say(["a", 1], ["a", 2])
    await testing.pass_time(20)
    assert done == [("bob", 1), ("bob", 2), ("alice", 5), ("alice", 1)]


@testing.virtual_time
async def test_an_ordered_procedure_waits_for_the_call_before() -> None:
    server, running = make_server(), list[int]()

    @server.register("one-at-a-time", ordered=True)
    async def work(_: Conn, n: int) -> int:
        running.append(n)
        assert len(running) == 1
        await asyncio.sleep(1)
        running.remove(n)
        return n

    async with connected(server) as (_, alice):
        results = await asyncio.gather(*(alice.call("one-at-a-time", n) for n in range(5)))
    assert results == list(range(5))


@testing.virtual_time
async def test_a_blocking_handler_leaves_the_loop_free_and_may_send() -> None:
    server, release = make_server(), threading.Event()

    @server.register("block", blocking=True)
    def block(conn: Conn, n: int) -> int:
        release.wait(10)
        conn.send("from-a-thread", n)
        return n

    server.channel.on("release", lambda *_: release.set())
    async with connected(server) as (_, alice):
        call = asyncio.ensure_future(alice.call("block", 5))
        await asyncio.sleep(0)
        alice.send("release")
        assert await call == 5
        assert list(alice.received) == [("from-a-thread", 5)]


# -- how many at once ------------------------------------------------------------------------------


@testing.virtual_time
async def test_so_many_handlers_are_at_work_and_the_rest_waits() -> None:
    server, release = make_server(), asyncio.Event()
    begun: list[int] = []
    plain: list[int] = []

    @server.channel.on("work")
    async def work(_: Conn, n: int) -> None:
        begun.append(n)
        await release.wait()

    server.channel.on("plain", lambda _, n: plain.append(n))
    raw = await welcomed(server)
    await raw.ask(*[["work", n] for n in range(100)], ["plain", 1])
    assert begun == list(range(64))
    assert plain == []
    release.set()
    await testing.settle()
    assert begun == list(range(100))
    assert plain == [1]


@testing.virtual_time
async def test_handlers_that_all_call_their_own_device_all_end() -> None:
    server, results = make_server(), list[int]()

    @server.channel.on("work")
    async def work(conn: Conn, n: int) -> None:
        results.append(await conn.call("double", n))

    async with connected(server) as (_, alice):

        async def double(n: int) -> int:
            await asyncio.sleep(1)
            return n * 2

        alice.client.register("double", double)
        for n in range(200):
            alice.send("work", n)
        await testing.pass_time(10)
    assert sorted(results) == [n * 2 for n in range(200)]


@testing.virtual_time
async def test_a_full_inbox_pauses_reading_and_nothing_is_lost() -> None:
    limits = Limits(max_handlers=2, max_inbox_messages=5)
    server, release = make_server(limits=limits), asyncio.Event()
    begun: list[int] = []
    ended: list[int] = []

    @server.channel.on("work")
    async def work(_: Conn, n: int) -> None:
        begun.append(n)
        await release.wait()
        ended.append(n)

    async with connected(server) as (network, alice):
        bob = await network.connect("bob")
        for n in range(100):
            alice.send("work", n)
        await testing.settle()
        (conn,) = server.clients["alice"].conns.values()
        assert len(conn._desk) == 5
        server.register("ping", lambda *_: "pong")
        assert await bob.call("ping") == "pong"
        release.set()
        await testing.settle()
        assert begun == sorted(ended) == list(range(100))
        assert await alice.call("ping") == "pong"


@testing.virtual_time
async def test_while_a_call_waits_twice_as_much_is_read_and_no_more() -> None:
    server = make_server(limits=Limits(max_handlers=1, max_inbox_messages=5))
    answers: list[Any] = []

    @server.channel.on("work")
    async def work(conn: Conn, n: int) -> None:
        try:
            answers.append(await conn.call("double", n, timeout=5))
        except CallTimeout:
            answers.append(None)

    async with connected(server) as (_, alice):
        alice.client.register("double", lambda n: n * 2)
        for n in range(30):
            alice.send("work", n)
        await testing.settle()
        assert len(only(server)._desk) == 10
        await testing.pass_time(200)
        assert len(answers) == 30
        assert answers[0] is None
        assert answers[-5:] == [50, 52, 54, 56, 58]


@testing.virtual_time
async def test_an_inbox_full_of_bytes_pauses_reading_too() -> None:
    limits = Limits(max_handlers=1, max_inbox_bytes=1000)
    server, release = make_server(limits=limits), asyncio.Event()
    handled: list[int] = []

    @server.channel.on("work")
    async def work(_: Conn, text: str) -> None:
        await release.wait()
        handled.append(len(text))

    raw = await welcomed(server)
    await raw.ask(*[["work", "x" * 400]] * 20)
    assert len(only(server)._desk) == 3
    release.set()
    await testing.settle()
    assert handled == [400] * 20


# -- the end of a device ---------------------------------------------------------------------------


@testing.virtual_time
async def test_handlers_are_cancelled_when_their_device_leaves_and_those_of_others_are_not() -> (
    None
):
    server, ended = make_server(limits=Limits(session_window=None)), list[str]()

    @server.channel.on("work")
    async def work(conn: Conn, _: Any) -> None:
        try:
            await asyncio.sleep(10)
            ended.append(f"{conn.cid} done")
        except asyncio.CancelledError:
            ended.append(f"{conn.cid} cancelled")
            raise

    async with connected(server) as (network, alice):
        bob = await network.connect("bob")
        for device in (alice, alice, bob):
            device.send("work")
        await testing.settle()
        alice.tear()
        await testing.settle()
        assert ended == ["alice cancelled"] * 2
        await testing.pass_time(20)
        assert ended[2:] == ["bob done"]


@testing.virtual_time
async def test_a_handler_that_drops_its_own_device_goes_on_and_others_are_cancelled() -> None:
    server, ended = make_server(), list[str]()

    @server.channel.on("sleep")
    async def sleep(_: Conn, __: Any) -> None:
        try:
            await asyncio.sleep(10)
        finally:
            ended.append("slept")

    @server.channel.on("leave")
    async def leave(conn: Conn, seconds: float) -> None:
        await asyncio.sleep(seconds)
        conn.drop("enough")
        await asyncio.sleep(5)
        ended.append("left")

    for seconds in (0, 1):
        async with connected(server) as (_, alice):
            alice.send("sleep")
            alice.send("leave", seconds)
            assert await alice.wait_closed() == (1000, "enough")
            await testing.settle()
            assert ended == ["slept"]
            await testing.pass_time(6)
            assert ended == ["slept", "left"]
            ended.clear()


@testing.virtual_time
async def test_what_waits_in_the_inbox_is_forgotten_with_the_device() -> None:
    server, begun = make_server(limits=Limits(max_handlers=1)), list[int]()

    @server.channel.on("work")
    async def work(_: Conn, n: int) -> None:
        begun.append(n)
        await asyncio.sleep(10)

    raw = await welcomed(server)
    await raw.ask(*[["work", n] for n in range(5)])
    raw.transport.tear()
    await testing.pass_time(100)
    assert begun == [0]
    assert not server.clients


@testing.virtual_time
async def test_a_handler_may_drop_its_device_amid_further_messages() -> None:
    server, heard = make_server(), list[int]()

    @server.channel.on("a")
    def handler(conn: Conn, n: int) -> None:
        heard.append(n)
        if n == 2:
            conn.drop()

    raw = await welcomed(server)
    await raw.ask(*[["a", n] for n in range(5)])
    assert heard == [0, 1, 2]
    assert raw.closed == (1000, "wse.by-server")


@testing.virtual_time
async def test_a_handler_that_would_have_to_wait_does_not_when_its_device_was_dropped() -> None:
    server, begun = make_server(), list[int]()

    @server.channel.on("a")
    def drops(conn: Conn, n: int) -> None:
        if n == 2:
            conn.drop()

    @server.channel.on("a", ordered=True)
    async def work(_: Conn, n: int) -> None:
        begun.append(n)
        await asyncio.sleep(10)

    raw = await welcomed(server)
    await raw.ask(["a", 1])
    await raw.ask(["a", 2])
    await testing.pass_time(20)
    assert begun == [1]


@testing.virtual_time
async def test_a_result_for_a_device_that_has_left_goes_nowhere() -> None:
    server, errors = make_server(), list[Any]()
    server.when.error(lambda *args: errors.append(args))

    @server.register("leave")
    async def leave(conn: Conn, _: Any) -> str:
        conn.drop()
        await asyncio.sleep(1)
        return "too late"

    raw = await welcomed(server)
    assert await raw.ask(["leave", None, NEW]) == []
    await testing.pass_time(2)
    assert raw.heard == errors == []


@pytest.mark.parametrize("leaves", ["close", "tear", "drop"])
@testing.virtual_time
async def test_a_coroutine_is_never_left_behind_unawaited(leaves: str) -> None:
    server, begun = make_server(), list[int]()

    async def later(n: int) -> None:
        begun.append(n)
        await asyncio.sleep(10)

    server.channel.on("work", lambda _, n: later(n))
    raw = await welcomed(server)
    raw.say(["work", 1])
    if leaves == "close":
        raw.transport.close(1000, "")
    await asyncio.sleep(0)
    if leaves == "tear":
        raw.transport.tear()
    if leaves == "drop":
        only(server).drop()
    await testing.settle()
    gc.collect()  # a coroutine that was never awaited would warn, and a warning is an error
    assert begun == [1] or (leaves == "drop" and not EAGER)
    assert not server.clients


@pytest.mark.parametrize("is_lost_too", [False, True])
@testing.virtual_time
async def test_no_handler_starts_after_the_end(is_lost_too: bool) -> None:
    server, told = make_server(), list[str]()

    @server.channel.on("later")
    async def later(_: Conn, __: Any) -> None:
        told.append("handled")

    server.when.disconnected(lambda *_: told.append("disconnected"))
    raw = await welcomed(server)
    conn = only(server)
    raw.say(["later"])
    await asyncio.sleep(0)
    if is_lost_too:
        raw.transport.tear()
    conn.drop()
    await testing.settle()
    assert told == ["handled"] * EAGER + ["disconnected"]


@testing.virtual_time
async def test_a_drop_that_a_goodbye_waits_for_is_the_only_end() -> None:
    server, ends, crashes = make_server(), list[tuple[int, str]](), list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda *args: crashes.append(args))

    @server.channel.on("later")
    async def later(_: Conn, __: Any) -> None: ...

    server.channel.on("leave", lambda conn, _: conn.drop())
    server.when.disconnected(lambda _, *end: ends.append(end))
    raw = await welcomed(server)
    raw.say(["later"], ["leave"])
    raw.transport.close(1000, "")
    await testing.settle()
    assert ends == [(1000, "wse.by-server")]
    assert crashes == []


# -- out -------------------------------------------------------------------------------------------


@testing.virtual_time
async def test_what_is_sent_in_one_turn_leaves_in_one_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = make_server()
    async with connected(server) as (_, alice):
        conn = only(server)
        writes: list[list[bytes]] = []
        write = conn._transport.write

        def spy(frames: list[bytes]) -> None:
            writes.append(frames)
            write(frames)

        monkeypatch.setattr(conn._transport, "write", spy)
        for n in range(100):
            conn.send("a", n)
        server.broadcast("b")
        await testing.settle()
        conn.send("c")
        await testing.settle()
        assert [len(frames) for frames in writes] == [101, 1]
        assert [type for type, _ in alice.received] == ["a"] * 100 + ["b", "c"]
        assert [payload for _, payload in alice.received][:100] == list(range(100))


@testing.virtual_time
async def test_what_was_sent_before_the_end_arrives_and_what_is_sent_after_goes_nowhere() -> None:
    server = make_server()
    async with connected(server) as (_, alice):
        conn = only(server)
        conn.send("last words", 1)
        conn.drop("bye")
        conn.send("too late", 2)
        conn.drop("again")
        assert await alice.wait_closed() == (1000, "bye")
        assert list(alice.received) == [("last words", 1)]


@testing.virtual_time
async def test_what_cannot_be_sent_raises_and_sends_nothing() -> None:
    protocol = WseJSON()
    fits = "x" * (1000 - len(protocol.encode("a", "")))
    server = make_server(limits=Limits(max_message_bytes=1000))
    async with connected(server, limits=Limits(max_message_bytes=1000)) as (_, alice):
        conn = only(server)
        for send in (conn.send, alice.send):
            with pytest.raises(MessageTooLarge) as caught:
                send("a", fits + "x")
            assert caught.value.details == {"size": 1001, "limit": 1000}
            with pytest.raises(TypeError):
                send("a", object())
            with pytest.raises(ValueError, match="reserved"):
                send("~wse:welcome", 1)
            with pytest.raises(TypeError, match="None"):
                send(None, 1)  # type: ignore[arg-type]
        with pytest.raises(MessageTooLarge):
            await alice.call("a", fits)
        conn.send("a", fits)
        await testing.settle()
        assert list(alice.received) == [("a", fits)]


@testing.virtual_time
async def test_threads_send_in_order() -> None:
    server = make_server()
    async with connected(server) as (_, alice):
        conn = only(server)

        def work() -> None:
            for n in range(50):
                conn.send("a", n)
            with pytest.raises(TypeError):
                conn.send("a", object())
            with pytest.raises(MessageTooLarge):
                conn.send("a", "x" * 2_000_000)

        await asyncio.to_thread(work)
        await testing.settle()
        assert [payload for _, payload in alice.received] == list(range(50))


@testing.virtual_time
async def test_a_call_is_made_on_the_loops_own_thread() -> None:
    server = make_server()
    async with connected(server):
        conn = only(server)

        def work() -> None:
            with pytest.raises(RuntimeError, match="run_coroutine_threadsafe"):
                conn.call("a").send(None)

        await asyncio.to_thread(work)


def test_after_its_loop_has_ended_nothing_is_sent_and_nothing_breaks() -> None:
    conns: list[Conn] = []

    async def main() -> None:
        server = make_server()
        await welcomed(server)
        conns.append(only(server))

    testing.run(main())
    thread = threading.Thread(target=conns[0].send, args=("a", 1))
    thread.start()
    thread.join()
    assert conns[0]._hub.elsewhere is False


def test_a_hub_belongs_to_the_loop_that_runs() -> None:
    server, loops, flushers = make_server(), list[Any](), list[Any]()

    async def main() -> None:
        loops.append(server._hub.bind())
        assert server._hub.bind() is loops[-1]
        flushers.append(server._hub.flusher)
        raw = await welcomed(server)
        only(server).send("a", 1)
        await testing.settle()
        assert raw.heard[-1] == ["a", 1, None]
        raw.transport.tear()
        await testing.settle()

    assert server._hub.elsewhere is False
    ran: list[int] = []
    server._hub.run(ran.append, 1)
    assert ran == [1]
    testing.run(main())
    testing.run(main())
    assert loops[0] is not loops[1]
    assert flushers[0] is not flushers[1]


# -- slow consumers --------------------------------------------------------------------------------


@testing.virtual_time
async def test_a_slow_consumer_is_closed_and_nobody_else_notices() -> None:
    server, gone = make_server(), list[Any]()
    server.when.disconnected(lambda conn, code, reason: gone.append((conn.cid, code, reason)))
    async with connected(server) as (network, alice):
        bob = await network.connect("bob")
        alice.stall()
        for n in range(2000):
            server.broadcast("news", n)
            if n % 10 == 0:
                await asyncio.sleep(0)
        await testing.settle()
        assert gone == [("alice", 1013, "wse.slow-consumer")]
        assert [payload for _, payload in bob.received] == list(range(2000))
        assert bob.closed is None
        alice.resume()
        assert await alice.wait_closed() == (1013, "wse.slow-consumer")
        heard = [payload for _, payload in alice.received]
        assert heard == list(range(len(heard)))


@testing.virtual_time
async def test_of_what_a_slow_consumer_was_sent_only_what_its_carrier_has_is_kept() -> None:
    server = make_server()
    async with connected(server) as (_, alice):
        conn = only(server)
        alice.stall()
        conn.send("a", "handed over")
        await testing.settle()
        for _ in range(1024):
            conn.send("a", "waiting")
        await testing.settle()
        assert not conn.is_open
        alice.resume()
        assert await alice.wait_closed() == (1013, "wse.slow-consumer")
        assert list(alice.received) == [("a", "handed over")]


@pytest.mark.parametrize(("count", "closed"), [(1024, False), (1025, True)])
@pytest.mark.parametrize("turns", [1, 2, 1000])
@testing.virtual_time
async def test_the_bound_is_the_same_however_the_messages_come(
    count: int, turns: int, *, closed: bool
) -> None:
    server = make_server()
    async with connected(server) as (_, alice):
        conn = only(server)
        alice.stall()
        for n in range(count):
            conn.send("a", n)
            if n % (count // turns) == 0 and turns > 1:
                await asyncio.sleep(0)
        await testing.settle()
        assert conn.is_open is not closed
        alice.resume()
        await testing.settle()
        if not closed:
            assert [payload for _, payload in alice.received] == list(range(count))
            conn.send("a", "more")
            assert await alice.next("a") == 0


@testing.virtual_time
async def test_a_stalled_consumer_that_reads_again_loses_nothing() -> None:
    server = make_server()
    async with connected(server) as (_, alice):
        conn = only(server)
        sent = 0
        for _ in range(5):
            alice.stall()
            for _ in range(1000):
                conn.send("a", sent)
                sent += 1
                if sent % 100 == 0:
                    await testing.settle()
            alice.resume()
            await testing.settle()
        assert [payload for _, payload in alice.received] == list(range(sent))


@testing.virtual_time
async def test_a_burst_to_a_consumer_that_reads_is_no_matter_of_bounds() -> None:
    server = make_server()
    async with connected(server) as (_, alice):
        conn = only(server)
        for n in range(5000):
            conn.send("a", n)
        await testing.settle()
        assert [payload for _, payload in alice.received] == list(range(5000))


@testing.virtual_time
async def test_a_single_message_to_a_stalled_consumer_always_goes() -> None:
    limits = Limits(max_unwritten_bytes=100)
    server = make_server(limits=limits)
    async with connected(server) as (_, alice):
        conn = only(server)
        alice.stall()
        conn.send("a", "x" * 10_000)
        await testing.settle()
        assert conn.is_open
        alice.resume()
        assert await alice.next("a") == "x" * 10_000


@testing.virtual_time
async def test_calls_to_a_slow_consumer_end_with_its_connection() -> None:
    server = make_server()
    loop = asyncio.get_running_loop()
    async with connected(server) as (_, alice):
        alice.stall()
        began = loop.time()
        calls = (server.call("alice", "who", n) for n in range(1026))
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in errors] == [CallDisconnected] * 1026
        assert loop.time() == pytest.approx(began, abs=0.01)


@testing.virtual_time
async def test_a_device_without_a_server_that_reads_closes_too() -> None:
    limits = Limits(max_handlers=1, max_inbox_messages=1)
    server = make_server(limits=limits)

    @server.channel.on("work")
    async def work(_: Conn, __: Any) -> None:
        await asyncio.get_running_loop().create_future()

    async with connected(server) as (_, alice):
        for n in range(2000):
            if alice.closed is None:
                alice.send("work", n)
            await asyncio.sleep(0)
        assert alice.closed == (1013, "wse.slow-consumer")


# -- ends in the midst of things -------------------------------------------------------------------


@testing.virtual_time
async def test_a_handler_that_overruns_a_slow_consumer_is_cancelled_with_it() -> None:
    server, ticks = make_server(), list[int]()

    @server.channel.on("stream")
    async def stream(conn: Conn, _: Any) -> None:
        while True:
            ticks.append(len(ticks))
            for _ in range(100):
                conn.send("tick")
            await asyncio.sleep(1)

    async with connected(server) as (_, alice):
        alice.send("stream")
        await testing.settle()
        alice.stall()
        await testing.pass_time(60)
        assert len(server.clients) == 0
        ended = len(ticks)
        await testing.pass_time(60)
        assert len(ticks) == ended
        assert server._hub.tasks == set()


@testing.virtual_time
async def test_what_a_handler_sends_as_a_peer_becomes_too_slow_stays_in_order() -> None:
    server = make_server(limits=Limits(max_unwritten_messages=3))
    server.when.disconnected(lambda conn, *_: server.broadcast("gone", conn.cid))
    async with testing.Network(server) as network:
        first, slow, last = [await network.connect(name) for name in ("a", "slow", "z")]
        slow.stall()
        for n in range(6):
            server.broadcast("n", n)
        await testing.settle()
        heard = [("n", n) for n in range(6)] + [("gone", "slow")]
        assert list(first.received) == heard
        assert list(last.received) == heard


@testing.virtual_time
async def test_no_further_handler_of_a_message_starts_when_one_has_dropped_the_device() -> None:
    server, heard = make_server(), list[str]()
    server.channel.on("bye", lambda conn, _: conn.drop())

    @server.channel.on("bye")
    async def never(_: Conn, __: Any) -> None:
        heard.append("started")

    async with connected(server) as (_, alice):
        alice.send("bye")
        assert await alice.wait_closed() == (1000, "wse.by-server")
        assert heard == []
        assert server._hub.tasks == set()


@testing.virtual_time
async def test_what_came_before_a_goodbye_starts_before_it() -> None:
    server, heard = make_server(), list[str]()

    @server.channel.on("later")
    async def later(conn: Conn, _: Any) -> None:
        heard.append(f"later, open: {conn.is_open}")

    server.channel.on("now", lambda conn, _: heard.append(f"now, open: {conn.is_open}"))
    server.when.disconnected(lambda *_: heard.append("disconnected"))
    async with connected(server) as (_, alice):
        alice.send("later")
        alice.send("now")
        alice.send("later")
        await alice.close()
        await testing.settle()
    told = ["later, open: True", "now, open: True", "later, open: True", "disconnected"]
    assert heard == told


@testing.virtual_time
async def test_messages_that_an_end_leaves_unhandled_are_counted_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    server = make_server()

    @server.channel.on("slow", ordered=True)
    async def slow(_: Conn, __: Any) -> None:
        await asyncio.sleep(10)

    async with connected(server) as (_, alice):
        for _ in range(4):
            alice.send("slow")
        await alice.close()
        await testing.settle()
    assert "ended with 3 messages not handled" in caplog.text


@testing.virtual_time
async def test_an_answer_passes_a_full_inbox() -> None:
    server = make_server(limits=Limits(max_inbox_messages=10))
    answers: list[Any] = []

    @server.channel.on("ask", ordered=True)
    async def ask(conn: Conn, _: Any) -> None:
        answers.append(await conn.call("ping", timeout=5))

    async with connected(server) as (_, alice):
        alice.client.register("ping", lambda _: "pong")
        for _ in range(15):
            alice.send("ask")
        await testing.pass_time(1)
    assert answers == ["pong"] * 15


# -- errors that are not the caller's --------------------------------------------------------------


@testing.virtual_time
async def test_an_error_of_an_inner_call_is_not_the_callers() -> None:
    server = make_server()
    errors = errors_of(server)

    @server.register("relay")
    async def relay(_: Conn, cid: str) -> Any:
        return await server.call(cid, "slow", timeout=1)

    async with testing.Network(server) as network:
        alice, bob = await network.connect("alice"), await network.connect("bob")

        @bob.client.register("slow")
        async def slow(_: Any) -> None:
            await asyncio.sleep(100)

        for cid in ("bob", "nobody"):
            with pytest.raises(CallFailed) as caught:
                await alice.call("relay", cid)
            assert set(caught.value.details) == {"id"}
        assert [type(error.__cause__) for error in errors] == [CallTimeout, NoSuchClient]


class Mute(WseJSON):
    """Cannot say that a call failed."""

    name = "mute"

    def pack(self, type: str, payload: Any, stamp: Any) -> bytes:
        if type == self.types.response_error:
            raise ZeroDivisionError(SECRET)
        return super().pack(type, payload, stamp)


@testing.virtual_time
async def test_a_protocol_that_cannot_pack_a_failure_breaks_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = make_server(protocols=[Mute()])
    errors = errors_of(server)
    async with connected(server, protocols=[Mute()]) as (_, alice):
        raw = alice.client._link
        assert raw is not None
        raw._post(raw.protocol.encode("nothing", None, NEW))
        await testing.settle()
        assert alice.closed is None
        assert [type(error.__cause__) for error in errors] == [ZeroDivisionError]
        assert "cannot pack a failure" in caplog.text


@testing.virtual_time
async def test_a_plain_handler_that_raises_cancelled_error_fails_like_others() -> None:
    server = make_server()

    @server.register("cancelled")
    def cancelled(_: Conn, __: Any) -> None:
        raise asyncio.CancelledError(SECRET)

    async with connected(server) as (_, alice):
        with pytest.raises(CallFailed):
            await alice.call("cancelled")
        assert alice.closed is None


@testing.virtual_time
async def test_whatever_can_be_awaited_is() -> None:
    server = make_server()
    loop = asyncio.get_running_loop()

    async def work(_: Conn, __: Any) -> str:
        return "worked"

    @functools.wraps(work)
    def guard(conn: Conn, payload: Any) -> Any:
        return work(conn, payload) if payload else "refused"

    @server.register("future")
    def future(_: Conn, payload: Any) -> asyncio.Future[Any]:
        outcome = loop.create_future()
        loop.call_later(1, outcome.set_result, payload)
        return outcome

    server.register("guard", guard)
    async with connected(server) as (_, alice):
        assert await alice.call("guard", True) == "worked"
        assert await alice.call("guard", False) == "refused"
        assert await alice.call("future", [1]) == [1]


@testing.virtual_time
async def test_a_failed_call_tells_what_was_called() -> None:
    async with connected(make_server()) as (_, alice):
        with pytest.raises(CallNotRegistered, match="calling 'nothing'"):
            await alice.call("nothing")


@real_time
async def test_an_answer_passes_a_full_inbox_on_a_socket() -> None:
    """There what waits is read at once when reading goes on, not in a later turn."""
    server = make_server(limits=Limits(max_inbox_messages=10))
    answers: list[Any] = []
    done = asyncio.Event()

    @server.channel.on("ask", ordered=True)
    async def ask(conn: Conn, _: Any) -> None:
        answers.append(await conn.call("ping", timeout=20))
        if len(answers) == 15:
            done.set()

    async with (
        server.listen(port=0) as listener,
        WseClient(f"ws://127.0.0.1:{listener.port}") as client,
    ):
        client.register("ping", lambda _: "pong")
        await client.connect("alice")
        for _ in range(15):
            client.send("ask")
        await done.wait()
    assert answers == ["pong"] * 15
