"""Calls and their replies: a reply ends one call of its own connection, and is never answered.

Where the carrier may make a difference, the story is told in memory and over TCP.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from support import real_time

from wse import (
    CallDisconnected,
    CallNotRegistered,
    Limits,
    WseClient,
    WseConnection,
    WseError,
    WseJSON,
    WseServer,
    testing,
)
from wse.endpoint import Endpoint
from wse.transports import base, tcp
from wse.transports.base import Dialer, Handshake, Transport
from wse.transports.memory import MemoryDialer, MemoryTransport
from wse.transports.stream import StreamTransport

NAME = "wse-default-json"
OLD = "~wse:call:"
NOT_REGISTERED = {"code": "wse.server.rp.not-registered"}

Conn = WseConnection[Any]
Frame = list[Any]
Answers = Callable[[Frame], Sequence[Frame]]

ON_EACH_CARRIER = pytest.mark.parametrize("carrier", ["memory", "tcp"])


# -- the ends --------------------------------------------------------------------------------------


class Peer:
    """An end of the test's own, on either side: hears everything, says what the test wants.

    Args:
        answers: What it says by itself to a frame that it has heard.
    """

    limits = Limits()

    def __init__(self, answers: Answers = lambda _: ()) -> None:
        self.heard: list[Frame] = []
        self.ends: list[tuple[int, str]] = []
        self._answers = answers
        self._transport: Transport
        self._changed = asyncio.Event()

    def say(self, *frames: Frame) -> None:
        """All of them in one write."""
        framed = self._transport.framing(binary=False)
        self._transport.write([framed(json.dumps(frame).encode()) for frame in frames])

    async def hears(self, count: int) -> list[Frame]:
        """Wait for so many frames, and forget them."""
        while len(self.heard) < count:
            self._changed.clear()
            await self._changed.wait()
        frames, self.heard[:] = self.heard[:count], self.heard[count:]
        return frames

    async def is_caught_up(self) -> None:
        """The other end has read everything so far, and said nothing to it."""
        self.say(["add", [1, 2], "are you there?"])
        assert await self.hears(1) == [["~wse:response", 3, "are you there?"]]
        assert self.heard == []

    def start(self, transport: Transport) -> None:
        self._transport = transport
        transport.start(self)

    def close(self) -> None:
        self._transport.close(1000, "")

    def receive(self, data: bytes, text: bool) -> None:
        frame = json.loads(data)
        self.heard.append(frame)
        self._changed.set()
        for answer in self._answers(frame):
            self.say(answer)

    def flush(self) -> None: ...

    def writable(self) -> None: ...

    def lost(self, code: int, reason: str, *, failed: bool = False) -> None:
        self.ends.append((code, reason))

    def vet(self, handshake: Handshake) -> None: ...

    def select(self, offered: Sequence[str]) -> str | None:
        return NAME

    def open(self, transport: Transport, handshake: Handshake, subprotocol: str | None) -> None:
        self.start(transport)


@asynccontextmanager
async def reached(carrier: str, acceptor: base.Acceptor) -> AsyncIterator[tuple[str, Dialer]]:
    """A URL, and the way there."""
    if carrier == "memory":
        yield "ws://test/", MemoryDialer(acceptor)
        return
    listener = await tcp.listen(acceptor, "127.0.0.1", 0, unix=None, ssl=None, compression=False)
    try:
        yield f"ws://127.0.0.1:{listener.port}/", tcp.TcpDialer()
    finally:
        listener.stop()
        await listener.wait_closed()


def add(numbers: list[int]) -> int:
    return sum(numbers)


def make_server(**options: Any) -> WseServer[Any]:
    """Everybody is who they say."""
    server: WseServer[Any] = WseServer(
        lambda attempt: attempt.accept(attempt.identity), conn_per_user=2, **options
    )
    server.register("add", lambda _, numbers: add(numbers))
    return server


def reports_of(end: WseServer[Any] | WseClient) -> list[Any]:
    """What an end tells its application of messages: nothing, when all is in order."""
    reports: list[Any] = []
    when: Any = end.when
    when.ignored(lambda *what: reports.append(what))
    when.error(lambda *what: reports.append(what))
    return reports


@asynccontextmanager
async def serving(carrier: str, server: WseServer[Any]) -> AsyncIterator[Callable[..., Any]]:
    """A function that connects a peer to the server, welcomed as somebody."""
    async with reached(carrier, server.acceptor) as (url, dial):

        async def welcomed(cid: str, answers: Answers = lambda _: ()) -> Peer:
            peer = Peer(answers)
            transport, _ = await dial(url, subprotocols=[NAME], headers={}, limits=Limits())
            peer.start(transport)
            peer.say(["~wse:hi", {"identity": cid}])
            assert await peer.hears(1) == [["~wse:welcome", None, None]]
            return peer

        yield welcomed
        await server.close()


@asynccontextmanager
async def connected(
    carrier: str, answers: Answers = lambda _: ()
) -> AsyncIterator[tuple[WseClient, Peer]]:
    """Our client, and a server of the test's own."""

    def welcome_and_answer(frame: Frame) -> Sequence[Frame]:
        return [["~wse:welcome"]] if frame[0] == "~wse:hi" else answers(frame)

    peer = Peer(welcome_and_answer)
    async with reached(carrier, peer) as (url, dial):
        async with WseClient(url, dial=dial) as client:
            client.register("add", add)
            await client.connect()
            assert [type for type, *_ in await peer.hears(1)] == ["~wse:hi"]
            yield client, peer
        peer.close()


# -- each connection counts for itself -------------------------------------------------------------


@ON_EACH_CARRIER
@real_time
async def test_stamps_count_within_their_connection(carrier: str) -> None:
    server = make_server()
    async with serving(carrier, server) as welcomed:
        peers = [await welcomed(cid) for cid in ("alice", "alice", "bob")]
        conns = list(server.clients.conns.values())
        for stamp in ("1", "2"):
            calls = [asyncio.ensure_future(conn.call("who", stamp)) for conn in conns]
            for peer in peers:
                assert await peer.hears(1) == [["who", stamp, stamp]]
            for number, peer in reversed(list(enumerate(peers))):
                peer.say(["~wse:response", number, stamp])
            assert await asyncio.gather(*calls) == [0, 1, 2]


@ON_EACH_CARRIER
@real_time
async def test_equal_stamps_of_two_clients_get_each_its_own_answer(carrier: str) -> None:
    server, both = make_server(), asyncio.Barrier(2)

    @server.register("who")
    async def who(conn: Conn, _: Any) -> str:
        await both.wait()
        return conn.cid

    async with serving(carrier, server) as welcomed:
        alice, bob = await welcomed("alice"), await welcomed("bob")
        for peer in (alice, bob):
            peer.say(["who", None, "1"])
        assert await alice.hears(1) == [["~wse:response", "alice", "1"]]
        assert await bob.hears(1) == [["~wse:response", "bob", "1"]]
        stamp = OLD + "who:1"
        for peer in (alice, bob):
            peer.say(["who", None, stamp])
        assert await alice.hears(1) == [[stamp, "alice", {"success": True}]]
        assert await bob.hears(1) == [[stamp, "bob", {"success": True}]]


FORGED: dict[str, Callable[[str], Frame]] = {
    "a result": lambda stamp: ["~wse:response", "forged", stamp],
    "an error": lambda stamp: ["~wse:response-err", {"code": "forged"}, stamp],
    "a result in the old form": lambda stamp: [OLD + stamp, "forged", {"success": True}],
    "an error in the old form": lambda stamp: [OLD + stamp, None, {"code": "forged"}],
}


@ON_EACH_CARRIER
@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
@real_time
async def test_an_answer_to_the_call_of_another_device_changes_nothing(
    carrier: str, forge: Callable[[str], Frame]
) -> None:
    """Mallory waits for a call of her own, and answers the one that only alice was asked."""
    server = make_server()
    reports = reports_of(server)
    async with serving(carrier, server) as welcomed:
        alice, mallory = await welcomed("alice"), await welcomed("mallory")
        calls = [
            asyncio.ensure_future(server.call(cid, "who")) for cid in ("alice", "alice", "mallory")
        ]
        assert [frame[2] for frame in await alice.hears(2)] == ["1", "2"]
        assert [frame[2] for frame in await mallory.hears(1)] == ["1"]
        mallory.say(forge("2"))
        await mallory.is_caught_up()
        assert not any(call.done() for call in calls)
        alice.say(["~wse:response", "first", "1"], ["~wse:response", "second", "2"])
        mallory.say(["~wse:response", "mallory", "1"])
        assert await asyncio.gather(*calls) == ["first", "second", "mallory"]
        assert reports == []


class Stubborn:
    """A procedure that answers its first call though it was cancelled, and its second never."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[int] = asyncio.Queue()
        self.go = asyncio.Event()
        self.ended = asyncio.Event()
        self._calls = 0

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None:
        self.go.set()

    async def __call__(self, *_: Any) -> str:
        self._calls += 1
        self.begun.put_nowait(self._calls)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self._calls > 1:
                raise
        await self.go.wait()
        self.ended.set()
        return "of an earlier connection"


def tear(client: WseClient) -> None:
    assert client._link is not None
    match client._link._transport:
        case MemoryTransport() as transport:
            transport.tear()
        case StreamTransport() as transport:
            transport._stream.abort()


@ON_EACH_CARRIER
@pytest.mark.parametrize("caller", ["client", "server"])
@real_time
async def test_an_answer_of_an_earlier_connection_does_not_end_a_call_of_the_next(
    carrier: str, caller: str
) -> None:
    """Both calls have the same stamp, for each connection counts from one."""
    server, procedure, left = (
        make_server(limits=Limits(session_window=None)),
        Stubborn(),
        asyncio.Event(),
    )
    server.register("slow", procedure)
    server.when.left(lambda *_: left.set())
    async with reached(carrier, server.acceptor) as (url, dial):
        client = WseClient(url, dial=dial)
        client.register("slow", procedure)
        client.register("add", add)
        reports = [reports_of(server), reports_of(client)]
        call = client.call if caller == "client" else partial(server.call, "alice")
        async with client, procedure:
            await client.connect("alice")
            earlier = asyncio.ensure_future(call("slow"))
            assert await procedure.begun.get() == 1
            tear(client)
            await client.wait_closed()
            await left.wait()
            with pytest.raises(CallDisconnected):
                await earlier
            await client.connect("alice")
            later = asyncio.ensure_future(call("slow"))
            assert await procedure.begun.get() == 2
            procedure.go.set()
            await procedure.ended.wait()
            assert await client.call("add", [1, 2]) == await server.call("alice", "add", [1, 2])
            assert not later.done()
        with pytest.raises(CallDisconnected):
            await later
        assert reports == [[], []]
        await server.close()


# -- no reply is answered --------------------------------------------------------------------------


STRAYS: list[Frame] = [
    ["~wse:response", 1, "unknown"],
    ["~wse:response", 1, 5],
    ["~wse:response", 1, None],
    ["~wse:response", 1, OLD + "add:unknown"],
    ["~wse:response-err", NOT_REGISTERED, "unknown"],
    ["~wse:response-err", {"code": "my-code", "details": {"fun": 1}}, "unknown"],
    ["~wse:response-err", None, None],
    [OLD + "add:unknown", 1, {"success": True}],
    [OLD + "add:unknown", None, NOT_REGISTERED],
    [OLD + "add:unknown", None, "no object"],
]
CALLS: list[Frame] = [
    ["missing", None, "1"],
    ["missing", None, OLD + "missing:1"],
    ["broken", None, "2"],
    ["broken", None, OLD + "broken:2"],
    ["broken", "no list", "3"],
]


def is_call(frame: Frame) -> bool:
    return not frame[0].startswith("~wse:") and frame[2] is not None


def stamp_of(reply: Frame) -> Any:
    return reply[0] if reply[0].startswith(OLD) else reply[2]


def broken(*_: Any) -> None:
    raise WseError("my-code")


@ON_EACH_CARRIER
@real_time
async def test_strays_between_two_of_our_ends_start_no_conversation(
    carrier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every frame that either end hears is counted: what was put there, and one reply a call."""
    heard: dict[type, list[Frame]] = {}
    receive = Endpoint.receive

    def count(self: Endpoint, data: bytes, text: bool) -> None:
        heard.setdefault(type(self), []).append(json.loads(data))
        receive(self, data, text)

    monkeypatch.setattr(Endpoint, "receive", count)
    server = make_server()
    server.register("broken", broken)
    async with reached(carrier, server.acceptor) as (url, dial):
        async with WseClient(url, dial=dial, protocols=[WseJSON()]) as client:
            client.register("add", add)
            client.register("broken", broken)
            reports = [reports_of(server), reports_of(client)]
            await client.connect("alice")
            [conn] = server.clients.conns.values()
            assert client._link is not None
            heard.clear()
            for end in (conn, client._link):
                for frame in (*STRAYS, *CALLS):
                    end.enqueue(end._frame(json.dumps(frame).encode()))
            for _ in range(3):
                assert await client.call("add", [1, 2]) == 3
                assert await server.call("alice", "add", [1, 2]) == 3
        assert len(heard) == 2
        for frames in heard.values():
            assert len(frames) == len(STRAYS) + 2 * len(CALLS) + 2 * 3
        assert reports == [[], []]
        await server.close()


stamps = st.sampled_from(["1", "2", "", OLD + "add:1", OLD + "add:unknown", "unknown"])
replies = st.one_of(
    st.tuples(
        st.sampled_from(["~wse:response", "~wse:response-err"]),
        st.sampled_from([None, 0, "text", {"code": "my-code"}, NOT_REGISTERED]),
        st.one_of(stamps, st.sampled_from([None, 1, {"success": True}, ["1"]])),
    ),
    st.tuples(
        st.sampled_from([OLD + "add:1", OLD + "add:unknown", OLD, OLD + "missing:"]),
        st.sampled_from([None, 8, {"code": "my-code"}]),
        st.one_of(
            stamps,
            st.sampled_from([None, {"success": True}, {"success": False}, NOT_REGISTERED, 0]),
        ),
    ),
)
calls = st.tuples(
    st.sampled_from(["missing", "broken", "add"]), st.sampled_from([None, [1, 2]]), stamps
)
others = st.tuples(
    st.sampled_from(["~wse:welcome", "~wse:unknown", "~wse:challenge", "news"]),
    st.sampled_from([None, 1]),
    st.none(),
)


@settings(max_examples=300, deadline=None)
@given(frames=st.lists(st.one_of(replies, calls, others).map(list), max_size=12))
@pytest.mark.parametrize("side", ["server", "client"])
def test_whatever_comes_only_calls_are_answered_and_each_once(
    side: str, frames: list[Frame]
) -> None:
    """Two calls of its own wait meanwhile, with stamps among those that come."""

    async def story() -> None:
        if side == "server":
            server = make_server()
            server.register("broken", broken)
            async with serving("memory", server) as welcomed:
                await tell(await welcomed("alice"), server.clients["alice"])
        else:
            async with connected("memory") as (client, peer):
                client.register("broken", broken)
                await tell(peer, client)

    async def tell(peer: Peer, end: Any) -> None:
        waiting = [asyncio.ensure_future(end.call("add", number)) for number in (1, 2)]
        await peer.hears(2)
        peer.say(*frames)
        await testing.settle()
        assert Counter(map(stamp_of, peer.heard)) == Counter(
            frame[2] for frame in frames if is_call(frame)
        )
        assert all(frame[0].startswith("~wse:") for frame in peer.heard)
        assert peer.ends == []
        peer.close()
        await asyncio.gather(*waiting, return_exceptions=True)

    testing.run(story())


# -- one that answers everything -------------------------------------------------------------------


def answer_as_4_7(frame: Frame) -> Sequence[Frame]:
    stamp = stamp_of(frame)
    is_old = isinstance(stamp, str) and stamp.startswith(OLD)
    return [[stamp, None, NOT_REGISTERED]] if is_old else []


def answer_as_4_8(frame: Frame) -> Sequence[Frame]:
    stamp = stamp_of(frame)
    return [["~wse:response-err", NOT_REGISTERED, stamp]] if isinstance(stamp, str) else []


DIALECTS = pytest.mark.parametrize(
    ("answers", "stamp"),
    [(answer_as_4_7, OLD + "add:GG6m2sxiou"), (answer_as_4_8, "MkicOiqzp4")],
    ids=["4.7", "4.8"],
)


@ON_EACH_CARRIER
@DIALECTS
@pytest.mark.parametrize("side", ["server", "client"])
@real_time
async def test_with_a_peer_that_answers_everything_no_conversation_goes_on(
    carrier: str, side: str, answers: Answers, stamp: str
) -> None:
    """It takes our answers for calls, and answers those with errors: that ends there."""
    missing = ["missing", None, stamp.replace("add", "missing")]

    async def tell(
        peer: Peer,
        end: WseServer[Any] | WseClient,
        ask: Callable[..., Coroutine[Any, Any, Any]],
    ) -> None:
        reports = reports_of(end)
        peer.say(missing, ["add", [1, 2], stamp], missing)
        replies = await peer.hears(3)
        assert [stamp_of(reply) for reply in replies] == [missing[2], stamp, missing[2]]
        if (side, answers) != ("server", answer_as_4_7):  # whom a server cannot ask
            for number in range(3):
                with pytest.raises(CallNotRegistered):
                    await ask("absent", number)
                assert [frame[:2] for frame in await peer.hears(1)] == [["absent", number]]
        peer.say(missing)
        assert [stamp_of(reply) for reply in await peer.hears(1)] == [missing[2]]
        assert [peer.heard, peer.ends, reports] == [[], [], []]

    if side == "server":
        server = make_server()
        async with serving(carrier, server) as welcomed:
            peer = await welcomed("alice", answers)
            await tell(peer, server, partial(server.call, "alice"))
    else:
        async with connected(carrier, answers) as (client, peer):
            await tell(peer, client, client.call)
