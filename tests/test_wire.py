"""The wire, scenario by scenario: a raw WebSocket client against our server, and the reverse."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from support import SECRET, real_time
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from wse import (
    Attempt,
    Backoff,
    CallTimeout,
    Decision,
    Status,
    WseClient,
    WseConnection,
    WseError,
    WseServer,
)

NAME = "wse-default-json"
VECTORS = json.loads(Path(__file__).with_name("wire_vectors.json").read_text(encoding="utf-8"))
APPLICATION = VECTORS["application"]
QUICK = Backoff(first=0.001, cap=0.01)
PATIENCE = 10.0

Vector = dict[str, Any]
Events = list[list[Any]]


# -- reading the vectors -----------------------------------------------------------------------


def complete(vector: Vector, side: str) -> tuple[list[dict[str, Any]], Events]:
    """The steps of a scenario and the events of one side, its wrapper included."""
    events = vector.get(f"{side}_events", [])
    if "wrap" not in vector:
        return vector["steps"], events
    wrap = VECTORS["wrappers"][vector["wrap"]]
    before, after = wrap["before"], wrap["after"]
    return (
        before["steps"] + vector["steps"] + after["steps"],
        before[f"{side}_events"] + events + after[f"{side}_events"],
    )


def cases(side: str) -> list[Any]:
    """Each scenario of this side, against a JavaScript peer, and against ours where it differs."""
    return [
        pytest.param(vector, ours, id=f"{vector['name']}{' (both ours)' if ours else ''}")
        for vector in VECTORS["vectors"]
        if side in vector["sides"]
        for ours in ((False, True) if any("ours" in s for s in vector["steps"]) else (False,))
    ]


def canonical(value: Any) -> Any:
    """A JSON value such that `==` says whether two are equal: 1 is 1.0, 0 is not false."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, list):
        return [canonical(item) for item in value]
    if isinstance(value, dict):
        return {key: canonical(item) for key, item in value.items()}
    return value


def same(expected: Any, actual: Any) -> bool:
    """Whether two JSON values are equal, `<id>` being any text."""
    if expected == "<id>":
        return isinstance(actual, str) and bool(actual)
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(
            same(value, actual[key]) for key, value in expected.items()
        )
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(map(same, expected, actual))
    return bool(canonical(expected) == canonical(actual))


def padded(message: list[Any]) -> list[Any]:
    return [*message, None, None, None][: max(3, len(message))]


# -- running them ------------------------------------------------------------------------------


class Run:
    """One scenario with one side under test; `peer` is the raw other side."""

    side: str
    """The side under test."""
    heard: str
    """The frames that it sends."""

    def __init__(self, *, peer_is_ours: bool) -> None:
        self.peer_is_ours = peer_is_ours
        self.events: Events = []
        self.stamps: dict[str, str] = {}
        self.waiting: asyncio.Task[Any] | None = None
        self._changed = asyncio.Event()

    def tell(self, *event: Any) -> None:
        self.events.append(list(event))
        self._changed.set()

    async def told(self, count: int) -> None:
        """Wait for so many events."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while len(self.events) < count:
                    self._changed.clear()
                    await self._changed.wait()

    async def peer(self, number: int) -> Connection:
        raise NotImplementedError

    async def act(self, name: str, *args: Any, on: int) -> None:
        raise NotImplementedError

    async def say(self, peer: Connection, text: str) -> None:
        await peer.send(text)

    async def run(self, steps: list[dict[str, Any]]) -> None:
        for step in steps:
            await self.perform(step, step.get("on", 1))

    async def perform(self, step: dict[str, Any], on: int) -> None:
        if self.side in step:
            ours = self.peer_is_ours and "ours" in step
            await self.act(*(step["ours"] if ours else step[self.side]), on=on)
        elif "torn" in step:
            peer = await self.peer(on)
            peer.transport.abort()
            await peer.wait_closed()
        elif self.heard in step:
            await self.hear(await self.peer(on), step.get("ours", step[self.heard]))
        elif "C>S" in step or "S>C" in step:
            frame = step.get("C>S", step.get("S>C"))
            frame = step["ours"] if self.peer_is_ours and "ours" in step else frame
            await self.speak(await self.peer(on), frame)

    async def speak(self, peer: Connection, frame: Any) -> None:
        """Send a frame, and wait until the side under test has taken it."""
        if isinstance(frame, list):
            text = json.dumps(self.translated(frame))
        elif "text" in frame:
            text = frame["text"]
        else:
            await close(peer, *frame["close"])
            return
        await self.say(peer, text)
        with contextlib.suppress(ConnectionClosed):
            await (await peer.ping())

    async def hear(self, peer: Connection, frame: Any) -> None:
        """Receive exactly this frame."""
        if isinstance(frame, dict):
            with pytest.raises(ConnectionClosed):
                pytest.fail(f"a frame instead of a close: {await peer.recv()!r}")
            assert [peer.close_code, peer.close_reason] == frame["close"]
            return
        data = await peer.recv()
        assert isinstance(data, str), "a binary frame"
        actual = json.loads(data)
        stamp = frame[2] if len(frame) > 2 else None
        if isinstance(stamp, str) and not frame[0].startswith("~wse:"):
            assert isinstance(actual[2], str)
            assert 0 < len(actual[2]) <= 512
            assert self.side == "client" or not actual[2].startswith("~wse:call:")
            self.stamps[stamp] = actual[2]
        expected = padded(self.translated(frame))
        assert same(expected, actual), f"expected {expected}, got {data}"

    def translated(self, frame: list[Any]) -> list[Any]:
        """The frame with the stamps of the side under test."""
        return [
            self.stamps.get(member, member) if isinstance(member, str) and index != 1 else member
            for index, member in enumerate(frame)
        ]

    async def outcome(self, name: str, *args: Any) -> None:
        """How what was begun ends."""
        assert self.waiting is not None
        async with asyncio.timeout(PATIENCE):
            if name in ("welcomed", "result"):
                assert same(args[0], await self.waiting)
                return
            with pytest.raises(WseError) as caught:
                await self.waiting
        assert caught.value.code == args[0]
        assert len(args) == 1 or same(args[1], caught.value.details)

    def begin(self, work: Any) -> None:
        self.waiting = asyncio.ensure_future(work)


async def close(peer: Connection, code: int, reason: str) -> None:
    if code == 1005:
        masked = isinstance(peer, ClientConnection)
        peer.transport.write(b"\x88\x80\0\0\0\0" if masked else b"\x88\x00")
        await peer.wait_closed()
    else:
        await peer.close(code, reason)


def procedure(behaviour: dict[str, Any] | None) -> Callable[..., Any]:
    """What a procedure of the vectors' application does."""

    async def run(*_: Any) -> Any:
        if behaviour is None:
            return await asyncio.get_running_loop().create_future()
        if "returns" in behaviour:
            return behaviour["returns"]
        error = behaviour["raises"]
        raise RuntimeError(f"{error} {SECRET}") if isinstance(error, str) else WseError(**error)

    return run


def offer(app: WseServer[Any] | WseClient, side: str) -> None:
    takes = 2 if side == "server" else 1
    for name, behaviour in APPLICATION[side]["procedures"].items():
        if behaviour is None or "never raised in Python" not in behaviour:
            run = procedure(behaviour)
            app.register(name, run if takes == 2 else lambda payload, run=run: run(payload))


# -- our server, a raw client ------------------------------------------------------------------


class ServerRun(Run):
    side = "server"
    heard = "S>C"

    def __init__(self, vector: Vector, *, peer_is_ours: bool, binary: bool) -> None:
        super().__init__(peer_is_ours=peer_is_ours)
        self.vector = vector
        self.setup = VECTORS["setups"][vector["setup"]]
        self.binary = binary
        self.url = ""
        self.raw: dict[int, ClientConnection] = {}
        self.conns: dict[int, WseConnection] = {}
        self.decided = asyncio.Event()
        if not self.setup.get("waits"):
            self.decided.set()
        self._numbers: dict[str, int] = {}
        self.server: WseServer = WseServer(
            self.identify, conn_per_user=self.setup.get("conn_per_user", 1)
        )
        self._listen(self.server)

    def _listen(self, server: WseServer[Any]) -> None:
        offer(server, "server")
        when = server.when
        when.joined(lambda client, meta: self.tell("joined", client.cid, meta))
        when.left(lambda client, *end: self.tell("left", client.cid, *end))
        when.connected(self.connected)
        when.disconnected(lambda conn, *end: self.tell("disconnected", self.number(conn), *end))
        when.ignored(lambda conn, *what: self.tell("ignored", self.number(conn), *what))
        when.error(
            lambda error, conn: self.tell("error", conn and self.number(conn), str(error.code))
        )
        for type in APPLICATION["server"]["handles"]:
            server.channel.on(type, self.handler(type))

    def handler(self, type: str) -> Callable[..., None]:
        return lambda conn, payload: self.tell("message", self.number(conn), type, payload)

    def number(self, conn: WseConnection | Attempt) -> int:
        return self._numbers.setdefault(conn.conn_id, len(self._numbers) + 1)

    def connected(self, conn: WseConnection) -> None:
        self.conns[self.number(conn)] = conn
        self.tell("connected", self.number(conn))

    async def identify(self, attempt: Attempt) -> Decision:
        self.tell("identify", self.number(attempt), attempt.identity, attempt.meta)
        await self.decided.wait()
        challenge = self.setup.get("challenge")
        if challenge:
            answer = await attempt.challenge(challenge["quest"])
            if not same(challenge["answer"], answer):
                return attempt.refuse()
        return attempt.accept(self.setup["cid"], self.setup.get("welcome"))

    async def peer(self, number: int) -> Connection:
        if number not in self.raw:
            offers = [Subprotocol(name) for name in self.vector.get("offers", [NAME])]
            raw = await connect(
                self.url, subprotocols=offers or None, compression=None, ping_interval=None
            )
            self.raw[number] = raw
            selected = raw.response.headers.get("Sec-WebSocket-Protocol") if raw.response else ""
            assert selected == self.vector.get("selects", NAME)
        return self.raw[number]

    async def say(self, peer: Connection, text: str) -> None:
        await peer.send(text.encode() if self.binary else text)

    async def act(self, name: str, *args: Any, on: int) -> None:
        match name:
            case "send":
                self.conns[on].send(*args)
            case "call":
                payload = args[1] if len(args) > 1 else None
                timeout = args[2] if len(args) > 2 else None
                self.begin(self.conns[on].call(args[0], payload, timeout=timeout))
            case "drop":
                self.conns[on].drop(*args)
            case "decide":
                self.decided.set()
            case "result" | "error":
                await self.outcome(name, *args)
            case _:
                pytest.fail(f"no such step: {name}")


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize(("vector", "peer_is_ours"), cases("server"))
@real_time
async def test_server(vector: Vector, peer_is_ours: bool, binary: bool) -> None:
    run = ServerRun(vector, peer_is_ours=peer_is_ours, binary=binary)
    steps, expected = complete(vector, "server")
    async with run.server.listen(port=0) as listener:
        run.url = f"ws://127.0.0.1:{listener.port}"
        await run.run(steps)
        await run.told(len(expected))
        for raw in run.raw.values():
            await raw.wait_closed()
            with pytest.raises(ConnectionClosed):
                pytest.fail(f"an unexpected frame: {await raw.recv()!r}")
        assert not run.server.clients
    assert same(expected, run.events), run.events


# -- our client, a raw server ------------------------------------------------------------------


@contextlib.asynccontextmanager
async def raw_server() -> AsyncIterator[tuple[str, asyncio.Queue[ServerConnection]]]:
    """A server that leaves its connections to the test."""
    connections: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def take(connection: ServerConnection) -> None:
        connections.put_nowait(connection)
        await connection.wait_closed()

    async with serve(
        take,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol(NAME)],
        compression=None,
        ping_interval=None,
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}", connections


def listen_to(client: WseClient, tell: Callable[..., None]) -> None:
    when = client.when
    when.updated(lambda status: tell("updated", str(status)))
    when.connected(lambda: tell("connected"))
    when.ready(lambda welcome: tell("ready", welcome))
    when.closed(lambda *end: tell("closed", *end))
    when.ignored(lambda *what: tell("ignored", *what))
    when.error(lambda error: tell("error", str(error.code)))


class ClientRun(Run):
    side = "client"
    heard = "C>S"

    def __init__(
        self,
        vector: Vector,
        url: str,
        connections: asyncio.Queue[ServerConnection],
        *,
        peer_is_ours: bool,
    ) -> None:
        super().__init__(peer_is_ours=peer_is_ours)
        setup = VECTORS["setups"][vector["setup"]]
        self.url = url
        self._connections = connections
        self.raw: list[ServerConnection] = []
        self.client = WseClient(url, reconnect=setup.get("reconnect", False), backoff=QUICK)
        if "solver" in setup:
            self.client.challenge(lambda _: setup["solver"])
        offer(self.client, "client")
        listen_to(self.client, self.tell)
        for type in APPLICATION["client"]["handles"]:
            self.client.channel.on(type, self.handler(type))

    def handler(self, type: str) -> Callable[..., None]:
        return lambda payload: self.tell("message", type, payload)

    async def peer(self, number: int) -> Connection:
        while len(self.raw) < number:
            async with asyncio.timeout(PATIENCE):
                self.raw.append(await self._connections.get())
        return self.raw[number - 1]

    async def act(self, name: str, *args: Any, on: int) -> None:
        match name:
            case "connect":
                self.begin(self.client.connect(*args))
            case "jump":
                self.begin(self.client.jump(self.url + "/other"))
            case "send":
                self.client.send(*args)
            case "call":
                payload = args[1] if len(args) > 1 else None
                timeout = args[2] if len(args) > 2 else None
                self.begin(self.client.call(args[0], payload, timeout=timeout))
            case "close":
                await self.client.close(*args)
            case "welcomed" | "refused" | "result" | "error":
                await self.outcome(name, *args)
            case _:
                pytest.fail(f"no such step: {name}")


@pytest.mark.parametrize(("vector", "peer_is_ours"), cases("client"))
@real_time
async def test_client(vector: Vector, peer_is_ours: bool) -> None:
    steps, expected = complete(vector, "client")
    async with raw_server() as (url, connections):
        run = ClientRun(vector, url, connections, peer_is_ours=peer_is_ours)
        async with run.client:
            await run.run(steps)
            await run.told(len(expected))
            for raw in run.raw:
                assert raw.subprotocol == NAME
                await raw.wait_closed()
                with pytest.raises(ConnectionClosed):
                    pytest.fail(f"an unexpected frame: {await raw.recv()!r}")
        assert connections.empty()
    assert same(expected, run.events), run.events


# -- what frames alone do not say --------------------------------------------------------------


def test_every_vector_is_well_formed() -> None:
    names = [vector["name"] for vector in VECTORS["vectors"]]
    assert len(names) == len(set(names))
    for vector in VECTORS["vectors"]:
        assert vector["sides"]
        assert vector["setup"] in VECTORS["setups"]
        for side in vector["sides"]:
            steps, _ = complete(vector, side)
            assert steps
            for step in steps:
                kinds = step.keys() - {"on", "ours"}
                assert len(kinds) == 1, (vector["name"], step)
                assert kinds <= {"C>S", "S>C", "client", "server", "torn"}, vector["name"]


def test_equality_of_json_values() -> None:
    assert same([1, {"a": 2.0}], [1.0, {"a": 2}])
    assert same({"id": "<id>"}, {"id": "f00"})
    for one, other in [(0, False), (1, True), (0, None), ("", None), ([0], [False])]:
        assert not same(one, other)
    assert not same({"id": "<id>"}, {"id": ""})
    assert not same({"a": 1}, {"a": 1, "b": None})


@real_time
async def test_the_welcome_follows_joined_and_connected_and_precedes_what_they_send() -> None:
    events: list[str] = []
    server: WseServer = WseServer(lambda attempt: attempt.accept("u1", "w"), conn_per_user=2)

    @server.when.joined
    def joined(client: Any, _: Any) -> None:
        events.append("joined")
        client.send("from joined")

    @server.when.connected
    def connected(conn: WseConnection) -> None:
        events.append("connected")
        conn.send("from connected")
        server.broadcast("to all", but=None)

    async with server.listen(port=0) as listener:
        url = f"ws://127.0.0.1:{listener.port}"
        async with connect(url, subprotocols=[Subprotocol(NAME)]) as raw:
            await raw.send('["~wse:hi",{"identity":"s","meta":{}},null]')
            frames = [await raw.recv()]
            assert events == ["joined", "connected"]
            frames += [await raw.recv() for _ in range(3)]
    assert [json.loads(frame)[0] for frame in frames] == [
        "~wse:welcome",
        "from joined",
        "from connected",
        "to all",
    ]


@pytest.mark.parametrize("offer_header", ["", "Sec-WebSocket-Protocol: graphql-ws, soap\r\n"])
@real_time
async def test_without_a_common_subprotocol_the_upgrade_answers_with_none(
    offer_header: str,
) -> None:
    identified: list[Attempt] = []

    def identify(attempt: Attempt) -> Decision:
        identified.append(attempt)
        return attempt.accept("u1")

    server: WseServer = WseServer(identify)
    async with server.listen(port=0) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            + offer_header.encode()
            + b"\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"sec-websocket-protocol" not in head.lower()
        reason = b"wse.protocol-error"
        assert await reader.readexactly(4 + len(reason)) == b"\x88\x14\x03\xe8" + reason
        hi = b'["~wse:hi",{"identity":"s"}]'
        writer.write(bytes((0x81, 0x80 | len(hi))) + b"\0\0\0\0" + hi)
        writer.write(b"\x88\x82\0\0\0\0\x03\xe8")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    assert not identified


@real_time
async def test_client_stamps_are_of_the_form_that_every_server_answers() -> None:
    async with raw_server() as (url, connections), WseClient(url) as client:
        raw = await welcomed(client, connections)
        stamps = []
        for name in ("add", "add", "a:b c"):
            call = asyncio.ensure_future(client.call(name))
            frame = json.loads(await raw.recv())
            stamps.append(frame[2])
            assert re.fullmatch(f"~wse:call:{name}:[A-Za-z0-9]+", frame[2])
            await raw.send(json.dumps([frame[2], None, {"success": True}]))
            await call
        assert len(set(stamps)) == 3


@real_time
async def test_answers_in_either_form_and_any_order_find_their_calls() -> None:
    async with raw_server() as (url, connections), WseClient(url) as client:
        raw = await welcomed(client, connections)
        calls = [asyncio.ensure_future(client.call("echo", number)) for number in range(4)]
        frames = [json.loads(await raw.recv()) for _ in calls]
        for index, (_, number, stamp) in reversed(list(enumerate(frames))):
            old, new = [stamp, number, {"success": True}], ["~wse:response", number, stamp]
            await raw.send(json.dumps(old if index % 2 else new))
        assert await asyncio.gather(*calls) == [0, 1, 2, 3]


@real_time
async def test_a_late_answer_is_dropped_without_a_word() -> None:
    async with raw_server() as (url, connections), WseClient(url) as client:
        reported: list[Any] = []
        client.when.ignored(lambda *what: reported.append(what))
        client.when.error(reported.append)
        raw = await welcomed(client, connections)
        with pytest.raises(CallTimeout):
            await client.call("slow", timeout=0.001)
        stamp = json.loads(await raw.recv())[2]
        await raw.send(json.dumps([stamp, 1, {"success": True}]))
        await raw.send(json.dumps(["~wse:response", 1, stamp]))
        await (await raw.ping())
        await client.close()
        with pytest.raises(ConnectionClosed):
            await raw.recv()
        assert not reported


@pytest.mark.parametrize("code", VECTORS["closing"]["comes_back"])
@real_time
async def test_the_client_comes_back_after(code: int) -> None:
    async with raw_server() as (url, connections):
        client = WseClient(url, reconnect=True, backoff=QUICK)
        events: Events = []
        listen_to(client, lambda *event: events.append(list(event)))
        async with client:
            raw = await welcomed(client, connections)
            del events[:]
            await end(raw, code)
            again = await connections.get()
            await again.send('["~wse:welcome",2,null]')
            await (await again.ping())
            assert json.loads(await again.recv()) == [
                "~wse:hi",
                {"identity": "s", "meta": {}},
                None,
            ]
            assert events == [
                ["closed", code, ""],
                ["updated", "OFFLINE"],
                ["updated", "RE_CONNECTING"],
                ["connected"],
                ["updated", "READY"],
                ["ready", 2],
            ]


@pytest.mark.parametrize("code", VECTORS["closing"]["stays_away"])
@real_time
async def test_the_client_stays_away_after(code: int) -> None:
    async with raw_server() as (url, connections):
        client = WseClient(url, reconnect=True, backoff=QUICK)
        events: Events = []
        listen_to(client, lambda *event: events.append(list(event)))
        raw = await welcomed(client, connections)
        del events[:]
        await end(raw, code)
        assert events == [["closed", code, ""], ["updated", "OFFLINE"]]
        assert client.status is Status.OFFLINE
        await welcomed(client, connections)  # it connects again only when it is told to
        await client.close()
        assert connections.empty()


@pytest.mark.parametrize("code", VECTORS["closing"]["comes_back"])
@real_time
async def test_a_client_without_reconnection_stays_away_after(code: int) -> None:
    async with raw_server() as (url, connections):
        client = WseClient(url, backoff=QUICK)
        events: Events = []
        closed = asyncio.Event()
        listen_to(client, lambda *event: events.append(list(event)))
        client.when.closed(lambda *_: closed.set())
        raw = await welcomed(client, connections)
        del events[:]
        await end(raw, code)
        await closed.wait()
        assert events == [["closed", code, ""], ["updated", "OFFLINE"]]
        assert client.status is Status.OFFLINE


async def welcomed(
    client: WseClient, connections: asyncio.Queue[ServerConnection]
) -> ServerConnection:
    """Connect a client, and take the server's end."""
    connecting = asyncio.ensure_future(client.connect("s"))
    raw = await connections.get()
    assert json.loads(await raw.recv())[0] == "~wse:hi"
    await raw.send('["~wse:welcome",null,null]')
    await connecting
    return raw


async def end(raw: ServerConnection, code: int) -> None:
    """End a connection with a close code, also those that no close frame can carry."""
    if code == 1006:
        raw.transport.abort()
        await raw.wait_closed()
    elif code == 1005:
        await close(raw, 1005, "")
    else:
        raw.protocol.send_close(code, "")
        raw.transport.write(b"".join(raw.protocol.data_to_send()))
        await raw.wait_closed()
