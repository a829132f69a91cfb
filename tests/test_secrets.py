"""What no peer may see, and what no log and no `repr` may show."""

from __future__ import annotations

import asyncio
import base64
import gc
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest
import wiretap
from carriers import (
    TEXT,
    Acceptor,
    F,
    FakeStream,
    closing,
    on_loop,
    raw_client,
    raw_server,
    request,
    tls_contexts,
)
from support import SECRET, TOKEN, Boom, boom
from websockets.protocol import Side

from wse import (
    AlreadyConnected,
    Attempt,
    CallDisconnected,
    CallFailed,
    CallTimeout,
    ConnectionFailed,
    Decision,
    HandlerFailed,
    InvalidPayload,
    Limits,
    MessageTooLarge,
    NoSuchClient,
    NotAuthorized,
    NotConnected,
    Proxies,
    SolverMissing,
    WseClient,
    WseConnection,
    WseError,
    WseServer,
    hmac_challenge,
    hmac_solver,
    testing,
)
from wse.endpoint import Endpoint
from wse.transports import tcp
from wse.transports.base import Handshake
from wse.transports.stream import StreamTransport


def only(server: WseServer) -> WseConnection:
    """The one device that is connected."""
    [conn] = server.clients.conns.values()
    return conn


# -- ids of errors --------------------------------------------------------------------------------


async def boom_later(*_: Any) -> None:
    await asyncio.sleep(1)
    raise Boom(SECRET)


async def cancelled_later(*_: Any) -> None:
    await asyncio.sleep(1)
    raise asyncio.CancelledError(SECRET)


def tell_too_much(*_: Any) -> None:
    raise WseError("mine", {"secret": Boom(SECRET)})


def tell_at_length(*_: Any) -> None:
    raise WseError("mine", "x" * 2000)


def fail_like_a_call(*_: Any) -> None:
    raise CallTimeout({"secret": SECRET})


FAILURES: dict[str, tuple[Callable[..., Any], type[BaseException]]] = {
    "plain": (boom, Boom),
    "in a thread": (boom, Boom),
    "async": (boom_later, Boom),
    "cancelled": (cancelled_later, asyncio.CancelledError),
    "a result that cannot be encoded": (lambda *_: object(), TypeError),
    "a result with a lone surrogate": (lambda *_: f"\udc80{SECRET}", TypeError),
    "a result above the limit": (lambda *_: "x" * 2000, MessageTooLarge),
    "details that cannot be encoded": (tell_too_much, TypeError),
    "details above the limit": (tell_at_length, MessageTooLarge),
    "an error of another call": (fail_like_a_call, CallTimeout),
}


@pytest.mark.parametrize("stamp", ["~wse:call:fail:1", "MkicOiqzp4"], ids=["old", "new"])
@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize("failure", FAILURES)
@testing.virtual_time
async def test_the_id_that_a_caller_gets_is_in_the_log_beside_the_traceback(
    failure: str, side: str, stamp: str, caplog: pytest.LogCaptureFixture
) -> None:
    function, kind = FAILURES[failure]
    blocking = failure == "in a thread"
    server: WseServer = WseServer(lambda a: a.accept("x"), limits=Limits(max_message_bytes=1000))
    async with testing.Network(server) as network:
        client = (await network.connect(limits=Limits(max_message_bytes=1000))).client
        conn = only(server)
        errors: list[WseError] = []
        server.when.error(lambda error, _: errors.append(error))
        client.when.error(errors.append)
        assert client._link is not None
        caller: Endpoint
        if side == "server":
            server.register("fail", function, blocking=blocking)
            caller = client._link
        else:
            client.register("fail", function, blocking=blocking)
            caller = conn
        caller._post(caller.protocol.encode("fail", None, stamp))
        with pytest.raises(CallFailed) as caught:
            await caller._calls.wait(stamp, 5)
        [(name, told)] = caught.value.details.items()
        assert (name, len(told)) == ("id", 16)
        [record] = [one for one in caplog.records if told in one.getMessage()]
        assert (record.name, record.levelno) == (f"wse.{side}", logging.ERROR)
        assert record.exc_info
        assert isinstance(record.exc_info[1], kind)
        [reported] = errors
        assert isinstance(reported, HandlerFailed)
        assert reported.details == {"type": "fail", "id": told}
        assert reported.__cause__ is record.exc_info[1]


# -- what is logged and shown ---------------------------------------------------------------------

IDENTITY = {"user": "someone", "token": f"{TOKEN}-identity"}
CID = f"{TOKEN}-cid"
META = {"device": f"{TOKEN}-meta"}
STATE = {"row": f"{TOKEN}-state"}
QUEST, ANSWER = f"{TOKEN}-quest", f"{TOKEN}-answer"
PAYLOAD = {f"{TOKEN}-key": f"{TOKEN}-payload"}
PASSWORD = f"{TOKEN}-password"
QUERY = f"?token={TOKEN}-query"
HEADERS = {
    "Authorization": f"Bearer {TOKEN}-bearer",
    "Cookie": f"session={TOKEN}-cookie",
    "X-Forwarded-For": f"{TOKEN}-forwarded, 203.0.113.7",
}
URL = f"ws://someone:{PASSWORD}@test/{QUERY}"
BASIC = base64.b64encode(f"someone:{PASSWORD}".encode()).decode()


class Stage:
    """What came up in a story, and may be shown; nothing of it may tell a secret."""

    def __init__(self) -> None:
        self._shown: list[object] = []
        self.server: WseServer = WseServer(self.identify, conn_per_user=2)

    def keep(self, *things: object) -> None:
        self._shown += things

    def texts(self) -> Iterable[str]:
        for thing in self._shown:
            things: Iterable[object] = [thing]
            if isinstance(thing, BaseException) and not isinstance(thing, InvalidPayload):
                things = wiretap.chain(thing)  # else its cause says why, to who asks for it
            for one in things:
                yield repr(one)
                yield str(one)

    def identify(self, attempt: Attempt) -> Decision:
        decision = attempt.accept(CID, PAYLOAD, state=STATE)
        self.keep(attempt, attempt.handshake, decision, attempt.refuse())
        return decision

    def make(self, identify: Any = None, **options: Any) -> WseServer:
        self.server = WseServer(identify or self.identify, **{"conn_per_user": 2, **options})
        return self.server

    @asynccontextmanager
    async def network(self) -> AsyncIterator[testing.Network]:
        async with testing.Network(self.server, URL) as network:
            yield network
            self.keep_all(network)

    def keep_all(self, network: testing.Network) -> None:
        server = self.server
        self.keep(network, *network.devices, *(device._dialer for device in network.devices))
        for device in network.devices:
            self.keep_client(device.client)
        self.keep(server, server.clients, server.acceptor, server._hub, server.limits)
        self.keep(server.channel, server.procedures, server.when, *vars(server.when).values())
        self.keep(*server.clients.values(), server.clients.conns)
        for conn in server.clients.conns.values():
            self.keep(conn, conn.protocol, conn._transport, conn._desk, conn._outbox, conn._calls)

    def keep_client(self, client: WseClient) -> None:
        self.keep(client, client.channel, client.procedures, client._hub, client._dial)
        self.keep(client.when, *vars(client.when).values(), client._link, client._emitter)
        if client._link is not None:
            self.keep(client._link._transport, client._link._desk, client._link._calls)

    @asynccontextmanager
    async def failing(self, *kinds: type[BaseException]) -> AsyncIterator[None]:
        with pytest.raises(kinds) as caught:
            yield
        self.keep(caught.value)

    def errors_of(self, *ends: WseServer | WseClient) -> list[WseError]:
        """What these report, kept too."""
        errors: list[WseError] = []

        def note(error: WseError, *_: object) -> None:
            errors.append(error)
            self.keep(error)

        for end in ends:
            end.when.error(note)
        return errors


async def enter(network: testing.Network, **options: Any) -> testing.Device:
    return await network.connect(IDENTITY, META, headers=HEADERS, **options)


async def is_accepted_and_talks(stage: Stage) -> None:
    server = stage.make(proxies=Proxies("127.0.0.1"))
    server.register("same", lambda _, payload: payload)
    server.channel.on("same", lambda conn, payload: conn.send("same", payload))
    async with stage.network() as network:
        device = await enter(network)
        device.client.register("same", lambda payload: payload)
        device.send("same", PAYLOAD)
        assert await device.next("same") == PAYLOAD
        assert await device.call("same", PAYLOAD) == PAYLOAD
        assert await server.call(CID, "same", PAYLOAD) == PAYLOAD
        server.broadcast("news", PAYLOAD)
        assert await device.next("news") == PAYLOAD
        device.send("nobody handles this", PAYLOAD)
        await testing.settle()
        assert only(server).remote_addr == "203.0.113.7"


async def is_refused(stage: Stage) -> None:
    stage.make(lambda attempt: attempt.refuse())
    async with stage.network() as network, stage.failing(NotAuthorized):
        await enter(network)


async def identify_raises(stage: Stage) -> None:
    def identify(attempt: Attempt) -> Decision:
        raise LookupError(f"{SECRET}: nobody has {attempt.identity} {attempt.cookies}")

    stage.make(identify)
    async with stage.network() as network, stage.failing(NotAuthorized):
        await enter(network)


async def identify_decides_oddly(stage: Stage) -> None:
    stage.make(lambda _: PAYLOAD)
    async with stage.network() as network, stage.failing(NotAuthorized):
        await enter(network)


async def identify_accepts_oddly(stage: Stage) -> None:
    stage.make(lambda attempt: attempt.accept(attempt.identity))
    async with stage.network() as network, stage.failing(NotAuthorized):
        await enter(network)


async def a_welcome_cannot_be_packed(stage: Stage) -> None:
    stage.make(lambda attempt: attempt.accept(CID, {"a": PAYLOAD, "b": f"\udc80{TOKEN}"}))
    async with stage.network() as network, stage.failing(NotAuthorized):
        await enter(network)


async def asks(attempt: Attempt) -> Decision:
    answer = await attempt.challenge(QUEST)
    return attempt.accept(CID if answer == ANSWER else None)


async def a_challenge_is_solved(stage: Stage) -> None:
    stage.make(asks)
    async with stage.network() as network:
        device = network.device(headers=HEADERS)
        device.client.challenge(lambda _: ANSWER)
        await device.connect(IDENTITY, META)


async def a_challenge_is_not_solved(stage: Stage) -> None:
    stage.make(asks)
    async with stage.network() as network:
        device = network.device(headers=HEADERS)
        async with stage.failing(SolverMissing):
            await device.connect(IDENTITY, META)
        device.client.challenge(lambda quest: f"{quest} wrong")
        async with stage.failing(NotAuthorized):
            await device.connect(IDENTITY, META)
        device.client.challenge(boom)
        async with stage.failing(Boom):
            await device.connect(IDENTITY, META)
        device.client.challenge(lambda _: f"\udc80{TOKEN}")
        async with stage.failing(TypeError):
            await device.connect(IDENTITY, META)


async def a_key_is_wrong(stage: Stage) -> None:
    async def identify(attempt: Attempt) -> Decision:
        return attempt.accept(CID if await hmac_challenge(attempt, PASSWORD) else None)

    stage.make(identify)
    async with stage.network() as network:
        device = network.device(headers=HEADERS)
        device.client.challenge(hmac_solver(f"{TOKEN}-guess"))
        async with stage.failing(NotAuthorized):
            await device.connect(IDENTITY)


async def too_many_challenges(stage: Stage) -> None:
    async def identify(attempt: Attempt) -> Decision:
        while True:
            await attempt.challenge(QUEST)

    stage.make(identify)
    async with stage.network() as network:
        device = network.device(headers=HEADERS)
        device.client.challenge(lambda _: ANSWER)
        async with stage.failing(NotAuthorized):
            await device.connect(IDENTITY)


async def raw(stage: Stage, *frames: str | bytes) -> FakeStream:
    """A peer on a stream, that says these frames, one after the other."""
    stream = FakeStream()
    stage.server._hub.bind()
    transport = StreamTransport(stream, Side.SERVER, stage.server.limits, [])
    now = asyncio.get_running_loop().time()
    headers = {name.lower(): value for name, value in HEADERS.items()}
    handshake = Handshake(path="/", query_string=QUERY, headers=headers, opened=now)
    stage.server.acceptor.open(transport, handshake, "wse-default-json")
    stage.keep(handshake, transport, *stage.server.acceptor.strangers)
    for frame in frames:
        data = frame.encode() if isinstance(frame, str) else frame
        stream.arrive(F(TEXT, data), side="server")
        await testing.settle()
    return stream


def hi(identity: str = f"{TOKEN}-identity") -> str:
    return f'["~wse:hi",{{"identity":"{identity}","meta":"{TOKEN}-meta"}}]'


async def waits(_: Attempt) -> None:
    await asyncio.get_running_loop().create_future()


async def the_protocol_is_broken(stage: Stage) -> None:
    """At each stage."""
    garbage = f'{{"{TOKEN}": "{TOKEN}'
    for identify, frames in (
        (None, [garbage]),
        (None, [f'["{TOKEN}-type","{TOKEN}"]']),
        (None, [f'["~wse:hi",["{TOKEN}"]]']),
        (asks, [hi(), garbage, f'["~wse:challenge","{TOKEN}-wrong"]']),
        (asks, [hi(), '["~wse:challenge",1e999]']),
        (None, [hi(), garbage]),
        (None, [hi(), f'[{{"{TOKEN}": 1}}, 2]']),
        (None, [hi(), f'["add", 1, {{"{TOKEN}": 1}}]']),
        (None, [hi(), f'["add", "{TOKEN}", "{TOKEN * 100}"]']),
        (None, [hi(), b'["add", "' + TOKEN.encode() + b'\xff"]']),
    ):
        stage.make(identify)
        stage.errors_of(stage.server)
        stream = await raw(stage, *frames)
        assert b"wse.protocol-error" in stream.written or b"wse.not-auth" in stream.written


async def a_binary_frame_is_no_text(stage: Stage) -> None:
    errors = stage.errors_of(stage.make())
    stage.server.when.ignored(lambda *_: None)
    async with stage.network() as network:
        device = await enter(network)
        device._end.write([b'["add", "' + TOKEN.encode() + b'\xff", "1"]'])
        stage.server.register("add", lambda *_: 1)
        device._end.write([b'["other", "' + TOKEN.encode() + b'\xff"]'])
        await testing.settle()
    assert errors


async def nobody_proves_who_it_is(stage: Stage) -> None:
    """In time."""
    for identify, frames in ((None, []), (waits, [hi()]), (asks, [hi()])):
        stage.make(identify)
        stream = await raw(stage, *frames)
        await testing.pass_time(11)
        assert b"wse.authentication-timeout" in stream.written


async def a_heartbeat_is_lost(stage: Stage) -> None:
    ends: list[tuple[Any, ...]] = []
    stage.make().when.left(lambda *end: ends.append(end))
    await raw(stage, hi())
    await testing.pass_time(36)
    [(client, code, reason)] = ends
    assert (code, reason) == (1006, "wse.heartbeat-lost")
    stage.keep(client)


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    n: int = 0


async def payloads_do_not_fit(stage: Stage) -> None:
    server = stage.make()

    @server.channel.on("strict")
    def strict(_: WseConnection, __: Strict) -> None: ...

    @server.register("strict")
    def strict_too(_: WseConnection, __: Strict) -> None: ...

    errors = stage.errors_of(server)
    async with stage.network() as network:
        device = await enter(network)
        for payload in (PAYLOAD, TOKEN, {"n": TOKEN}, {f"x` - at `$.{TOKEN}": 1}):
            device.send("strict", payload)
            async with stage.failing(InvalidPayload):
                await device.call("strict", payload)
    assert [type(error) for error in errors] == [InvalidPayload] * 4


async def handlers_raise(stage: Stage) -> None:
    server = stage.make()
    errors = stage.errors_of(server)

    def fail(*_: Any) -> None:
        raise LookupError(f"{SECRET} {PAYLOAD}")

    for signal in (server.when.joined, server.when.ignored, server.when.error):
        signal(fail)
    server.channel.on("fail", fail)
    server.register("fail", fail)

    @server.register("ask")
    async def ask(_: WseConnection, __: Any) -> None:
        await server.call(f"{TOKEN}-nobody", "anything", PAYLOAD)

    @server.register("look")
    def look(_: WseConnection, __: Any) -> None:
        server.clients[f"{TOKEN}-nobody"]

    @server.register("tell")
    def tell(conn: WseConnection, _: Any) -> None:
        conn.send("told", f"\udc80{TOKEN}")

    async with stage.network() as network:
        device = await enter(network)
        stage.errors_of(device.client)
        device.client.register("fail", fail)
        device.client.channel.on("fail", fail)
        device.send("fail", PAYLOAD)
        device.send("ignored", PAYLOAD)
        server.send(CID, "fail", PAYLOAD)
        for name in ("fail", "ask", "look", "tell"):
            async with stage.failing(CallFailed):
                await device.call(name, PAYLOAD)
        async with stage.failing(CallFailed):
            await server.call(CID, "fail", PAYLOAD)
    assert len(errors) == 7


async def messages_are_not_handled(stage: Stage) -> None:
    server = stage.make(limits=Limits(max_handlers=1))
    server.register("wait", lambda *_: asyncio.sleep(100))
    server.channel.on("wait", lambda *_: asyncio.sleep(100))
    async with stage.network() as network:
        device = await enter(network)
        for _ in range(3):
            device.send("wait", PAYLOAD)
        await testing.settle()
        async with stage.failing(CallDisconnected):
            calling = asyncio.create_task(device.call("wait", PAYLOAD))
            await testing.settle()
            only(server).drop()
            await calling


async def a_consumer_is_slow(stage: Stage) -> None:
    server = stage.make(limits=Limits(max_unwritten_messages=2))
    async with stage.network() as network:
        device = await enter(network)
        device.stall()
        for _ in range(4):
            server.send(CID, "news", PAYLOAD)
            await testing.settle()
        device.resume()
        assert await device.wait_closed() == (1013, "wse.slow-consumer")


async def a_device_is_evicted(stage: Stage) -> None:
    stage.make(conn_per_user=1)
    async with stage.network() as network:
        first = await enter(network)
        await enter(network)
        assert await first.wait_closed() == (1000, "wse.clients-concurrency")


async def a_page_is_refused(stage: Stage) -> None:
    stage.make()
    async with stage.network() as network, stage.failing(ConnectionFailed):
        headers = {**HEADERS, "Origin": "https://evil.example"}
        await network.connect(IDENTITY, META, headers=headers)


async def there_are_too_many_strangers(stage: Stage) -> None:
    stage.make(waits, limits=Limits(max_strangers=1))
    async with stage.network() as network:
        first = asyncio.create_task(enter(network))
        await testing.settle()
        async with stage.failing(ConnectionFailed):
            await enter(network)
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first


async def a_client_comes_back(stage: Stage) -> None:
    asked: list[int] = []

    def identity() -> Any:
        asked.append(1)
        if len(asked) == 2:
            raise LookupError(f"{SECRET} {IDENTITY}")
        return IDENTITY

    stage.make()
    async with stage.network() as network:
        device = network.device(headers=HEADERS, reconnect=True)
        errors = stage.errors_of(device.client)
        await device.connect(identity, META)
        device.unplug()
        await testing.pass_time(20)
        device.plug_in()
        await testing.pass_time(60)
        assert device.client.status == "READY"
        assert {type(error) for error in errors} == {HandlerFailed, ConnectionFailed}
        await device.client.jump(f"ws://elsewhere/{QUERY}")


async def a_client_may_not_come_back(stage: Stage) -> None:
    known = [True]
    stage.make(lambda attempt: attempt.accept(CID) if known else attempt.refuse())
    async with stage.network() as network:
        device = await enter(network, reconnect=True)
        errors = stage.errors_of(device.client)
        known.clear()
        device.tear()
        await testing.pass_time(60)
        assert [type(error) for error in errors] == [NotAuthorized]


async def what_is_asked_for_cannot_be(stage: Stage) -> None:
    server = stage.make(limits=Limits(max_message_bytes=1000))
    async with stage.network() as network:
        client = network.device(headers=HEADERS, limits=Limits(max_message_bytes=1000)).client
        for identity in (object(), f"\udc80{TOKEN}", {PASSWORD: object()}):
            async with stage.failing(TypeError):
                await client.connect(identity)
        async with stage.failing(NotConnected):
            client.send("a", PAYLOAD)
        await client.connect(IDENTITY, META)
        async with stage.failing(AlreadyConnected):
            await client.connect(IDENTITY, META)
        sends: list[Callable[[Any], object]] = [
            lambda payload: client.send("a", payload),
            lambda payload: only(server).send("a", payload),
            lambda payload: server.send(CID, "a", payload),
            lambda payload: server.clients[CID].send("a", payload),
            lambda payload: server.broadcast("a", payload, but=CID),
        ]
        for send in sends:
            async with stage.failing(MessageTooLarge):
                send(TOKEN * 100)
            for payload in ({PASSWORD: object()}, f"\udc80{TOKEN}"):
                async with stage.failing(TypeError):
                    send(payload)
        gone, alone = only(server), server.clients[CID]
        server.drop_client(CID)
        for call in (gone.call, alone.call, lambda *what: server.call(CID, *what)):
            async with stage.failing(NoSuchClient):
                await call("a", PAYLOAD)
        async with stage.failing(KeyError):
            server.clients[CID]
        stage.keep(gone, alone)


async def another_thread_sends(stage: Stage) -> None:
    server = stage.make()
    async with stage.network() as network:
        device = await enter(network)
        conn = only(server)

        def send() -> None:
            server.send(CID, "news", PAYLOAD)
            server.broadcast("news", PAYLOAD, but=f"{TOKEN}-other")
            conn.send("news", PAYLOAD)
            device.send("news", PAYLOAD)
            server.drop_client(CID, "bye")

        thread = threading.Thread(target=send)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert await device.wait_closed() == (1000, "bye")
        assert [await device.next("news") for _ in range(3)] == [PAYLOAD] * 3


IN_MEMORY = [
    is_accepted_and_talks,
    is_refused,
    identify_raises,
    identify_decides_oddly,
    identify_accepts_oddly,
    a_welcome_cannot_be_packed,
    a_challenge_is_solved,
    a_challenge_is_not_solved,
    a_key_is_wrong,
    too_many_challenges,
    the_protocol_is_broken,
    a_binary_frame_is_no_text,
    nobody_proves_who_it_is,
    a_heartbeat_is_lost,
    payloads_do_not_fit,
    handlers_raise,
    messages_are_not_handled,
    a_consumer_is_slow,
    a_device_is_evicted,
    a_page_is_refused,
    there_are_too_many_strangers,
    a_client_comes_back,
    a_client_may_not_come_back,
    what_is_asked_for_cannot_be,
    another_thread_sends,
]


# -- the same on sockets --------------------------------------------------------------------------


@asynccontextmanager
async def served(stage: Stage, **options: Any) -> AsyncIterator[tuple[tcp.Listener, str]]:
    """The stage's server on a port, and a URL of it that tells too much."""
    async with stage.server.listen(port=0, **options) as listener:
        scheme = "wss" if "ssl" in options else "ws"
        yield listener, f"{scheme}://someone:{PASSWORD}@127.0.0.1:{listener.port}/{QUERY}"
        stage.keep(listener, *listener.open, *listener.upgrading)


async def fails(stage: Stage, url: str, identity: Any = IDENTITY, **options: Any) -> None:
    """To connect."""
    async with WseClient(url, **{"headers": HEADERS, **options}) as client:
        async with stage.failing(ConnectionFailed):
            await client.connect(identity, META)
        stage.keep_client(client)


async def a_device_connects_and_is_torn(stage: Stage) -> None:
    for compression in (False, True):
        server = stage.make(limits=Limits(session_window=None))
        server.register("same", lambda _, payload: payload)
        lost = asyncio.Event()
        server.when.left(lambda *_, lost=lost: lost.set())
        async with (
            served(stage, compression=compression) as (_, url),
            WseClient(url, headers=HEADERS, compression=compression) as client,
        ):
            assert await client.connect(IDENTITY, META) == PAYLOAD
            assert await client.call("same", PAYLOAD) == PAYLOAD
            stage.keep_client(client)
            stage.keep(only(server), only(server)._transport)
            assert client._link is not None
            client._link._transport.abort()
            await lost.wait()


async def a_challenge_travels(stage: Stage) -> None:
    stage.make(asks)
    async with (
        served(stage, ssl=tls_contexts()[0]) as (_, url),
        WseClient(url, headers=HEADERS, ssl=tls_contexts()[1]) as client,
    ):
        client.challenge(lambda _: ANSWER)
        await client.connect(IDENTITY, META)
        stage.keep_client(client)


async def requests_are_refused(stage: Stage) -> None:
    stage.make(limits=Limits(max_strangers=1, max_upgrade_bytes=1000))
    line = f"GET /{QUERY} HTTP/1.1"
    async with served(stage) as (listener, _):
        for status, headers, line_too in (
            (400, {"Sec-WebSocket-Key": TOKEN}, line),
            (400, {"Sec-WebSocket-Key": f"{TOKEN}\xe9"}, line),
            (400, {"Cookie": f"{TOKEN}\0"}, line),
            (403, {"Origin": "https://evil.example"}, line),
            (405, {}, f"POST /{QUERY} HTTP/1.1"),
            (426, {"Upgrade": TOKEN}, line),
            (431, {"Cookie": TOKEN * 1000}, line),
            (400, {}, f"GET /{QUERY}"),
        ):
            async with raw_client(listener.port, upgraded=False) as peer:
                peer.writer.write(request({**HEADERS, **headers}, line=line_too))
                assert (await peer.head())[0] == status
        async with (
            raw_client(listener.port, upgraded=False) as first,
            raw_client(listener.port, upgraded=False) as second,
        ):
            for peer, status in ((first, 101), (second, 503)):
                headers = {**HEADERS, "Sec-WebSocket-Protocol": "wse-default-json"}
                peer.writer.write(request(headers, line=line))
                assert (await peer.head())[0] == status


async def a_server_answers_oddly(stage: Stage) -> None:
    for answer in (
        f"HTTP/1.1 401 {TOKEN}\r\nSet-Cookie: {TOKEN}\r\nContent-Length: 0\r\n\r\n",
        f"HTTP/1.1 302 Found\r\nLocation: /?{TOKEN}\r\nContent-Length: 0\r\n\r\n",
        f"HTTP/1.1 101 Sure\r\nUpgrade: {TOKEN}\r\nConnection: Upgrade\r\n\r\n",
        f"{TOKEN}\r\n\r\n",
        "",
    ):
        async with raw_server() as (url, came):
            connecting = asyncio.create_task(fails(stage, url + QUERY))
            peer = await came.get()
            await peer.reader.readuntil(b"\r\n\r\n")
            peer.writer.write(answer.encode())
            await peer.close()
            await connecting


async def nobody_is_there(stage: Stage) -> None:
    listener = await tcp.listen(
        Acceptor(Limits()), "127.0.0.1", 0, unix=None, ssl=None, compression=False
    )
    port = listener.port
    listener.stop()
    await listener.wait_closed()
    for url, options in (
        (f"ws://someone:{PASSWORD}@127.0.0.1:{port}/{QUERY}", {}),
        (f"ws://someone:{PASSWORD}@localhost:{port}/{QUERY}", {}),
        (f"ws://someone:{PASSWORD}@{'x' * 64}.invalid/{QUERY}", {}),
        (f"ws://someone:{PASSWORD}@test/{QUERY}", {"unix": "/nowhere/at/all"}),
    ):
        await fails(stage, url, **options)


async def certificates_are_not_trusted(stage: Stage) -> None:
    stage.make()
    async with served(stage, ssl=tls_contexts()[0]) as (_, url):
        await fails(stage, url)
        await fails(stage, url.replace("wss:", "ws:"))
    stage.make(limits=Limits(upgrade_timeout=0.1))
    async with served(stage) as (_, url):
        await fails(stage, url.replace("ws:", "wss:"), ssl=tls_contexts()[1])


async def frames_are_broken(stage: Stage) -> None:
    for frame in (
        F(TEXT, TOKEN.encode(), wrong_mask=True),
        F(TEXT, TOKEN.encode(), rsv=4),
        F(TEXT, TOKEN.encode() + b"\xff"),
        F(TEXT, TOKEN.encode() * 100_000),
        closing(17, TOKEN),
        closing(1000, TOKEN.encode() + b"\xff"),
        closing(4999, TOKEN),
    ):
        errors = stage.errors_of(stage.make())
        line = f"GET /{QUERY} HTTP/1.1"
        async with (
            served(stage) as (listener, _),
            raw_client(listener.port, upgraded=False) as peer,
        ):
            headers = {**HEADERS, "Sec-WebSocket-Protocol": "wse-default-json"}
            peer.writer.write(request(headers, line=line))
            assert (await peer.head())[0] == 101
            peer.send(F(TEXT, hi().encode()), frame)
            await peer.until_close()
        assert len(errors) == (frame != closing(4999, TOKEN))


async def a_header_cannot_be_sent(stage: Stage) -> None:
    stage.make()
    async with served(stage) as (_, url):
        for headers in (
            {"Authorization": f"{TOKEN}\n"},
            {"Authorization": f"{TOKEN}\u20ac"},
            {"X-\u20ac": TOKEN, **HEADERS},
        ):
            async with WseClient(url, headers=headers) as client, stage.failing(ValueError):
                await client.connect(IDENTITY, META)


ON_SOCKETS = [
    a_device_connects_and_is_torn,
    a_challenge_travels,
    requests_are_refused,
    a_server_answers_oddly,
    nobody_is_there,
    certificates_are_not_trusted,
    frames_are_broken,
    a_header_cannot_be_sent,
]


# -- listening to the stories ---------------------------------------------------------------------

Story = Callable[[Stage], Coroutine[Any, Any, None]]


def overhear(
    story: Story, loop: str, caplog: pytest.LogCaptureFixture
) -> tuple[list[str], list[str]]:
    """The secrets that are logged and those that are shown while a story happens.

    Every logger is at DEBUG, whatever was said about its level before, and the loop logs each
    step that it takes.
    """
    caplog.set_level(logging.DEBUG)
    for name in ("wse", "wse.websockets", "websockets", "websockets.server", "asyncio"):
        caplog.set_level(logging.DEBUG, name)
    shown: list[str] = []

    async def noisily() -> None:
        running = asyncio.get_running_loop()
        running.set_debug(True)
        running.slow_callback_duration = 0.0
        stage = Stage()
        await story(stage)
        shown.extend(stage.texts())

    if loop == "virtual":
        testing.run(noisily())
    else:
        on_loop(loop, noisily())
    gc.collect()
    assert any("Executing" in record.getMessage() for record in caplog.records)
    logged = (text for record in caplog.records for text in wiretap.told(record))
    return list(filter(is_secret, logged)), list(filter(is_secret, shown))


def is_secret(text: str) -> bool:
    return TOKEN in text or BASIC in text


@pytest.mark.parametrize(
    ("story", "loop"),
    [
        *((story, "virtual") for story in IN_MEMORY),
        *((story, "asyncio") for story in ON_SOCKETS),
        *((story, "uvloop") for story in ON_SOCKETS),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_no_secret_is_logged_or_shown_when(
    story: Story, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert overhear(story, loop, caplog) == ([], [])


def test_a_secret_that_is_logged_or_shown_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    async def careless(stage: Stage) -> None:
        stage.keep({"password": PASSWORD}, NoSuchClient({"cid": CID}), only)
        asyncio.get_running_loop().call_soon(str, CID)
        logging.getLogger("websockets.client").debug("> Authorization: Basic %s", BASIC)
        await asyncio.sleep(0)

    with wiretap.overhearing():
        logged, shown = overhear(careless, "virtual", caplog)
    assert [CID in text or BASIC in text for text in logged] == [True] * 4  # and in their args
    assert len(shown) == 4
