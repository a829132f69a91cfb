"""The wire, scenario by scenario: a raw WebSocket client against our server, and the reverse."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
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
    WseMsgpack5,
    WseServer,
)

QUICK = Backoff(first=0.001, cap=0.01)
PATIENCE = 10.0
ACK = "~wse:ack"
BINARY = "wse.5.msgpack"

Vector = dict[str, Any]
Events = list[list[Any]]


# -- reading the vectors -----------------------------------------------------------------------


class Book:
    """A file of scenarios."""

    def __init__(self, file: str) -> None:
        said = json.loads(Path(__file__).with_name(file).read_text(encoding="utf-8"))
        self.subprotocol: str = said["subprotocol"]
        self.reconnect: bool = said["reconnect"]
        self.application: dict[str, Any] = said["application"]
        self.setups: dict[str, Any] = said["setups"]
        self.wrappers: dict[str, Any] = said["wrappers"]
        self.vectors: list[Vector] = said["vectors"]
        self.welcome: dict[str, Any] = said.get("welcome", {})
        self.closing: dict[str, list[int]] = said.get("closing", {})


CLASSIC = Book("wire_vectors.json")
SESSIONS = Book("session_vectors.json")
NAME = CLASSIC.subprotocol


@dataclass(frozen=True)
class Scenario:
    """One scenario, and how to run it.

    Args:
        book: Where it stands.
        vector: What it says.
        coding: How frames are written: as "text", as the same in "binary" frames, or as "msgpack".
        peer_is_ours: Whether the peer is ours or JavaScript's, where they differ.
    """

    book: Book
    vector: Vector
    coding: str = "text"
    peer_is_ours: bool = False

    @property
    def setup(self) -> dict[str, Any]:
        setup: dict[str, Any] = self.book.setups[self.vector["setup"]]
        return {"reconnect": self.book.reconnect, **setup}

    @property
    def opening(self) -> dict[str, Any]:
        """The subprotocols that are offered and selected, unless a step says otherwise."""
        usual = BINARY if self.coding == "msgpack" else self.book.subprotocol
        return {"offers": [usual], "selects": usual, **self.vector}

    def complete(self, side: str) -> tuple[list[dict[str, Any]], Events]:
        """The steps, and the events of one side, those of the wrapper included."""
        steps, events = self.vector["steps"], self.vector.get(f"{side}_events", [])
        if "wrap" in self.vector:
            wrap = self.book.wrappers[self.vector["wrap"]]
            before, after = wrap["before"], wrap["after"]
            steps = before["steps"] + steps + after["steps"]
            events = before[f"{side}_events"] + events + after[f"{side}_events"]
        return steps, events


def cases(side: str, classic: tuple[str, ...], sessions: tuple[str, ...]) -> list[Any]:
    """Each scenario of this side, in each of the codings of its protocol."""
    return [
        pytest.param(
            Scenario(book, vector, coding, ours),
            id=f"{vector['name']} ({coding}{', both ours' if ours else ''})",
        )
        for book, codings in ((CLASSIC, classic), (SESSIONS, sessions))
        for vector in book.vectors
        if side in vector["sides"]
        for ours in ((False, True) if any("ours" in s for s in vector["steps"]) else (False,))
        for coding in codings
        if coding != "msgpack" or vector.keys().isdisjoint(("offers", "selects"))
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


def same(expected: Any, actual: Any, names: dict[str, str] | None = None) -> bool:
    """Whether two JSON values are equal; `<any>` is the text that it was the first time."""
    if isinstance(expected, str) and re.fullmatch("<.+>", expected):
        if not isinstance(actual, str) or not actual:
            return False
        return names is None or names.setdefault(expected, actual) == actual
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(
            same(value, actual[key], names) for key, value in expected.items()
        )
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(
            same(one, other, names) for one, other in zip(expected, actual, strict=True)
        )
    return bool(canonical(expected) == canonical(actual))


def padded(message: list[Any]) -> list[Any]:
    """What is absent is null: three members, and a fourth that is not."""
    while message and message[-1] is None:
        message = message[:-1]
    return [*message, None, None, None][: max(3, len(message))]


# -- running them ------------------------------------------------------------------------------


class Run:
    """One scenario with one side under test; `peer` is the raw other side."""

    side: str
    """The side under test."""
    heard: str
    """The frames that it sends."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.events: Events = []
        self.stamps: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.waiting: asyncio.Task[Any] | None = None
        self.released = asyncio.Event()
        self.counted: dict[Connection, int] = {}
        self._changed = asyncio.Event()

    def tell(self, *event: Any) -> None:
        self.events.append(list(event))
        self._changed.set()

    async def another(self) -> None:
        """Wait for one more event."""
        self._changed.clear()
        await self._changed.wait()

    async def until(self, enough: Callable[[], bool]) -> None:
        """Wait until the events are enough, but not for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not enough():
                    await self.another()

    async def told_exactly(self, expected: Events) -> None:
        """Wait for these events; there are no others."""
        await self.until(lambda: len(self.events) >= len(expected))
        assert same(expected, self.events), f"expected {expected}, got {self.events}"

    async def told(self, name: str, times: int = 1) -> None:
        """Wait until an event has come so often."""

        def enough() -> bool:
            return [event[0] for event in self.events].count(name) >= times

        await self.until(enough)
        assert enough(), self.events

    async def peer(self, number: int, step: dict[str, Any]) -> Connection:
        raise NotImplementedError

    async def act(self, name: str, *args: Any, on: int) -> None:
        raise NotImplementedError

    def written(self, text: str) -> str | bytes:
        """JSON as the content of a frame."""
        return text if self.scenario.coding == "text" else text.encode()

    async def run(self, steps: list[dict[str, Any]]) -> None:
        for step in steps:
            await self.perform(step, step.get("on", 1))

    async def perform(self, step: dict[str, Any], on: int) -> None:
        ours = self.scenario.peer_is_ours and "ours" in step
        times = range(step.get("times", 1))
        if self.side in step:
            name, *args = step["ours"] if ours else step[self.side]
            for _ in times:
                if name == "told":
                    await self.told(*args)
                else:
                    await self.act(name, *args, on=on)
        elif "torn" in step:
            peer = await self.peer(on, step)
            peer.transport.abort()
            await peer.wait_closed()
        elif self.heard in step:
            peer = await self.peer(on, step)
            for _ in times:
                await self.hear(peer, step.get("ours", step[self.heard]))
        elif "C>S" in step or "S>C" in step:
            frame = step.get("C>S", step.get("S>C"))
            peer = await self.peer(on, step)
            await self.speak(peer, step["ours"] if ours else frame, times)
            with contextlib.suppress(ConnectionClosed):  # until the side under test has taken it
                await (await peer.ping())

    async def speak(self, peer: Connection, frame: Any, times: range) -> None:
        """Send a frame so often, at one go."""
        if isinstance(frame, dict) and "close" in frame:
            await close(peer, *frame["close"])
            return
        data: str | bytes
        if isinstance(frame, dict):
            data = self.written(frame["text"])
        elif peer.subprotocol == BINARY:
            data = msgspec.msgpack.encode(self.spoken(frame))
        else:
            data = self.written(json.dumps(self.spoken(frame)))
        for _ in times:
            if isinstance(data, str):
                peer.protocol.send_text(data.encode())
            else:
                peer.protocol.send_binary(data)
        peer.transport.write(b"".join(peer.protocol.data_to_send()))

    async def receive(self, peer: Connection) -> tuple[list[Any], str | bytes]:
        """The next message, read and as it came."""
        data = await peer.recv()
        if peer.subprotocol == BINARY:
            assert isinstance(data, bytes), "a text frame"
            message = msgspec.msgpack.decode(data)
        else:
            assert isinstance(data, str), "a binary frame"
            message = json.loads(data)
        if peer.subprotocol != NAME:
            message = padded(message)
            self.note(peer, message)
        return message, data

    def note(self, peer: Connection, message: list[Any]) -> None:
        """What the side under test says to have received: an acknowledgement says more."""
        match message:
            case ["~wse:hi", dict(payload), *_]:
                self.counted[peer] = payload.get("resume", {}).get("received", 0)
            case ["~wse:welcome", _, {"received": received}, *_]:
                self.counted[peer] = received
            case [kind, received, *_] if kind == ACK:
                assert received > self.counted[peer], f"{received} is nothing new"
                self.counted[peer] = received

    async def hear(self, peer: Connection, frame: Any) -> None:
        """Receive exactly this frame."""
        if isinstance(frame, dict):
            await self.ended(peer)
            assert [peer.close_code, peer.close_reason] == frame["close"]
            return
        while True:
            actual, data = await self.receive(peer)
            stamp = frame[2] if len(frame) > 2 else None
            if isinstance(stamp, str) and frame[0] == actual[0] and not frame[0].startswith("~"):
                assert isinstance(actual[2], str)
                assert 0 < len(actual[2]) <= 512
                assert self.side == "client" or not actual[2].startswith("~wse:call:")
                self.stamps.setdefault(stamp, actual[2])
            expected = padded(self.translated(frame))
            if len(expected) == len(actual) == 4:
                assert expected[3] / 2 <= actual[3] <= expected[3], f"{data!r}: not so many ms"
                actual[3] = expected[3]
            if same(expected, actual, self.names):
                return
            assert self.passes(peer, actual), f"expected {expected}, got {data!r}"

    async def ended(self, peer: Connection) -> None:
        """Nothing comes any more, until the connection is closed."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                actual, data = await self.receive(peer)
                assert self.passes(peer, actual), f"an unexpected frame: {data!r}"

    @staticmethod
    def passes(peer: Connection, message: list[Any]) -> bool:
        """Whether this is an acknowledgement, which may come at any time."""
        return peer.subprotocol != NAME and bool(message[0] == ACK)

    def translated(self, frame: list[Any]) -> list[Any]:
        """The frame with the stamps of the side under test, and all of its welcome's members."""
        frame = [
            self.stamps.get(member, member) if isinstance(member, str) and index != 1 else member
            for index, member in enumerate(frame)
        ]
        match frame:
            case ["~wse:welcome", _, dict(stamp), *_]:
                frame[2] = {**self.scenario.book.welcome, **stamp}
        return frame

    def spoken(self, value: Any) -> Any:
        """What the raw peer says: names stand for what they were the first time."""

        def put(value: Any) -> Any:
            if isinstance(value, str) and re.fullmatch("<.+>", value):
                return self.names.setdefault(value, value)
            if isinstance(value, dict):
                return {key: put(item) for key, item in value.items()}
            return [put(item) for item in value] if isinstance(value, list) else value

        return put(self.translated(value))

    async def outcome(self, name: str, *args: Any) -> None:
        """How what was begun ends."""
        assert self.waiting is not None
        async with asyncio.timeout(PATIENCE):
            if name in ("welcomed", "result"):
                assert same(args[0], await self.waiting, self.names)
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


def procedure(behaviour: dict[str, Any] | None, released: asyncio.Event) -> Callable[..., Any]:
    """What a procedure of the vectors' application does."""

    async def run(*_: Any) -> Any:
        if behaviour is None:
            return await asyncio.get_running_loop().create_future()
        if "waits" in behaviour:
            await released.wait()
        if "returns" in behaviour:
            return behaviour["returns"]
        error = behaviour["raises"]
        raise RuntimeError(f"{error} {SECRET}") if isinstance(error, str) else WseError(**error)

    return run


def offer(app: WseServer[Any] | WseClient, run: Run) -> None:
    for name, behaviour in run.scenario.book.application[run.side]["procedures"].items():
        if behaviour is None or "never raised in Python" not in behaviour:
            does = procedure(behaviour, run.released)
            takes_one = run.side == "client"
            app.register(name, (lambda payload, does=does: does(payload)) if takes_one else does)


# -- our server, a raw client ------------------------------------------------------------------


class ServerRun(Run):
    side = "server"
    heard = "S>C"

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.setup = scenario.setup
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
        offer(server, self)
        when = server.when
        when.joined(lambda client, meta: self.tell("joined", client.cid, meta))
        when.left(lambda client, *end: self.tell("left", client.cid, *end))
        when.connected(self.connected)
        when.disconnected(lambda conn, *end: self.tell("disconnected", self.number(conn), *end))
        when.suspended(lambda conn, *end: self.tell("suspended", self.number(conn), *end))
        when.resumed(self.resumed)
        when.ignored(lambda conn, *what: self.tell("ignored", self.number(conn), *what))
        when.error(
            lambda error, conn: self.tell("error", conn and self.number(conn), str(error.code))
        )
        for type in self.scenario.book.application["server"]["handles"]:
            server.channel.on(type, self.handler(type))

    def handler(self, type: str) -> Callable[..., None]:
        return lambda conn, payload: self.tell("message", self.number(conn), type, payload)

    def number(self, conn: WseConnection | Attempt) -> int:
        return self._numbers.setdefault(conn.conn_id, len(self._numbers) + 1)

    def connected(self, conn: WseConnection) -> None:
        self.conns[self.number(conn)] = conn
        self.tell("connected", self.number(conn))

    def resumed(self, conn: WseConnection) -> None:
        self.tell("resumed", self.number(conn))
        if "greets" in self.setup:
            conn.send(*self.setup["greets"])

    async def identify(self, attempt: Attempt) -> Decision:
        self.tell("identify", self.number(attempt), attempt.identity, attempt.meta)
        await self.decided.wait()
        challenge = self.setup.get("challenge")
        if challenge:
            answer = await attempt.challenge(challenge["quest"])
            if not same(challenge["answer"], answer):
                return attempt.refuse()
        cid = self.setup["cid"]
        if isinstance(cid, dict):
            cid = cid.get(attempt.identity)
        return attempt.accept(cid, self.setup.get("welcome"))

    async def peer(self, number: int, step: dict[str, Any]) -> Connection:
        if number not in self.raw:
            said = {**self.scenario.opening, **step}
            offers = [Subprotocol(name) for name in said["offers"]]
            raw = await connect(
                self.url, subprotocols=offers or None, compression=None, ping_interval=None
            )
            self.raw[number] = raw
            selected = raw.response.headers.get("Sec-WebSocket-Protocol") if raw.response else ""
            assert selected == said["selects"]
        return self.raw[number]

    async def act(self, name: str, *args: Any, on: int) -> None:
        match name:
            case "send":
                self.conns[on].send(*args[:2], **dict(*args[2:]))
            case "call":
                payload = args[1] if len(args) > 1 else None
                timeout = args[2] if len(args) > 2 else None
                self.begin(self.conns[on].call(args[0], payload, timeout=timeout))
            case "drop":
                self.conns[on].drop(*args)
            case "decide":
                self.decided.set()
                self.decided = asyncio.Event()
            case "release":
                self.released.set()
            case "result" | "error":
                await self.outcome(name, *args)
            case _:
                pytest.fail(f"no such step: {name}")


@pytest.mark.parametrize("scenario", cases("server", ("text", "binary"), ("text", "msgpack")))
@real_time
async def test_server(scenario: Scenario) -> None:
    run = ServerRun(scenario)
    steps, expected = scenario.complete("server")
    async with run.server.listen(port=0) as listener:
        run.url = f"ws://127.0.0.1:{listener.port}"
        await run.run(steps)
        for raw in run.raw.values():
            await raw.wait_closed()
            await run.ended(raw)
        await run.told_exactly(expected)
        assert not run.server.clients


# -- our client, a raw server ------------------------------------------------------------------


@contextlib.asynccontextmanager
async def raw_server(
    selects: str = NAME,
) -> AsyncIterator[tuple[str, asyncio.Queue[ServerConnection]]]:
    """A server that leaves its connections to the test."""
    connections: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def take(connection: ServerConnection) -> None:
        connections.put_nowait(connection)
        await connection.wait_closed()

    async with serve(
        take,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol(selects)],
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
    when.suspended(lambda *end: tell("suspended", *end))
    when.resumed(lambda welcome: tell("resumed", welcome))
    when.lost(lambda count: tell("lost", count))
    when.ignored(lambda *what: tell("ignored", *what))
    when.error(lambda error: tell("error", str(error.code)))


class ClientRun(Run):
    side = "client"
    heard = "C>S"

    def __init__(
        self, scenario: Scenario, url: str, connections: asyncio.Queue[ServerConnection]
    ) -> None:
        super().__init__(scenario)
        setup = scenario.setup
        self.url = url
        self._connections = connections
        self.raw: list[ServerConnection] = []
        options = client_options(setup)
        if scenario.coding == "msgpack":
            options["protocols"] = (WseMsgpack5(),)
        self.client = WseClient(url, **options)
        if "solver" in setup:
            self.client.challenge(lambda _: setup["solver"])
        offer(self.client, self)
        listen_to(self.client, self.tell)
        for type in scenario.book.application["client"]["handles"]:
            self.client.channel.on(type, self.handler(type))

    def handler(self, type: str) -> Callable[..., None]:
        return lambda payload: self.tell("message", type, payload)

    async def peer(self, number: int, _: dict[str, Any]) -> Connection:
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
                self.client.send(*args[:2], **dict(*args[2:]))
            case "call":
                payload = args[1] if len(args) > 1 else None
                timeout = args[2] if len(args) > 2 else None
                self.begin(self.client.call(args[0], payload, timeout=timeout))
            case "close":
                await self.client.close(*args)
            case "release":
                self.released.set()
            case "welcomed" | "refused" | "result" | "error":
                await self.outcome(name, *args)
            case _:
                pytest.fail(f"no such step: {name}")


def client_options(setup: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {
        name: setup[name] for name in ("reconnect", "device") if name in setup
    }
    if "backoff" in setup:
        return {**options, "backoff": Backoff(first=setup["backoff"], cap=setup["backoff"])}
    return {**options, "backoff": QUICK}


@pytest.mark.parametrize("scenario", cases("client", ("text",), ("text", "msgpack")))
@real_time
async def test_client(scenario: Scenario) -> None:
    steps, expected = scenario.complete("client")
    async with raw_server(scenario.opening["selects"]) as (url, connections):
        run = ClientRun(scenario, url, connections)
        async with run.client:
            await run.run(steps)
            await gone(run, run.raw)
            await run.told_exactly(expected)
        assert connections.empty()


async def gone(run: Run, connections: list[ServerConnection]) -> None:
    """The connections of a client have been what they should, and have ended."""
    scenario = run.scenario
    for raw in connections:
        assert raw.subprotocol == scenario.opening["selects"]
        if "offers" in scenario.vector:
            assert raw.request is not None
            offered = raw.request.headers["Sec-WebSocket-Protocol"]
            assert offered.split(", ") == scenario.vector["offers"]
        await raw.wait_closed()
        await run.ended(raw)


# -- what frames alone do not say --------------------------------------------------------------


def test_every_vector_is_well_formed() -> None:
    names = [vector["name"] for book in (CLASSIC, SESSIONS) for vector in book.vectors]
    assert len(names) == len(set(names))
    for book in (CLASSIC, SESSIONS):
        for vector in book.vectors:
            assert vector["sides"]
            assert vector["setup"] in book.setups
            for side in vector["sides"]:
                steps, _ = Scenario(book, vector).complete(side)
                assert steps
                for step in steps:
                    kinds = step.keys() - {"on", "ours", "times", "offers", "selects"}
                    assert len(kinds) == 1, (vector["name"], step)
                    assert kinds <= {"C>S", "S>C", "client", "server", "torn"}, vector["name"]


def test_equality_of_json_values() -> None:
    assert same([1, {"a": 2.0}], [1.0, {"a": 2}])
    assert same({"id": "<id>"}, {"id": "f00"})
    names: dict[str, str] = {}
    assert same(["<one>", "<one>", "<two>"], ["a", "a", "b"], names)
    assert names == {"<one>": "a", "<two>": "b"}
    assert same("<one>", "a", names)
    assert not same("<one>", "b", names)
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


@pytest.mark.parametrize("code", CLASSIC.closing["comes_back"])
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


@pytest.mark.parametrize("code", CLASSIC.closing["stays_away"])
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


@pytest.mark.parametrize("code", CLASSIC.closing["comes_back"])
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
