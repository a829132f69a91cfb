"""Saying who a connection is."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support import SECRET, real_time

from wse import (
    Attempt,
    ChallengeRoundsExceeded,
    ConnectionFailed,
    Decision,
    IdentifyMissing,
    InvalidPayload,
    InvalidSolver,
    Limits,
    NotAuthorized,
    SolverMissing,
    WseClient,
    WseConnection,
    WseError,
    WseServer,
    hmac_challenge,
    hmac_solver,
    testing,
)
from wse.auth import cid_of
from wse.transports.base import Transport
from wse.transports.memory import MemoryDialer

KEY = "a key that never travels"


def welcome_all(attempt: Attempt) -> Decision:
    return attempt.accept(attempt.identity, {"hello": attempt.identity})


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


async def bare_peer(server: WseServer[Any]) -> Peer:
    peer = Peer()
    peer.transport, _ = await MemoryDialer(server.acceptor, "127.0.0.1")(
        "ws://test/", subprotocols=["wse-default-json"], headers={}, limits=Limits()
    )
    peer.transport.start(peer)
    return peer


def record_events(server: WseServer[Any]) -> list[str]:
    events: list[str] = []
    server.when.joined(lambda client, _: events.append(f"joined {client.cid}"))
    server.when.connected(lambda conn: events.append(f"connected {conn.cid}"))
    server.when.disconnected(lambda _, code, __: events.append(f"disconnected {code}"))
    server.when.left(lambda client, _, __: events.append(f"left {client.cid}"))
    return events


def nothing_is_left(server: WseServer[Any]) -> bool:
    """No stranger, no user, and no task but the test's own."""
    return not server.acceptor.strangers and not server.clients and len(asyncio.all_tasks()) == 1


# -- identify --------------------------------------------------------------------------------


@testing.virtual_time
async def test_a_plain_identify_accepts_with_a_welcome() -> None:
    async with testing.Network(WseServer(welcome_all)) as network:
        alice = await network.connect("alice", {"app": "demo"})
        assert alice.welcome == {"hello": "alice"}
        assert list(network.server.clients) == ["alice"]


@testing.virtual_time
async def test_an_async_identify_may_take_its_time() -> None:
    async def identify(attempt: Attempt) -> Decision:
        await asyncio.sleep(9)
        return attempt.accept("alice")

    async with testing.Network(WseServer(identify)) as network:
        alice = await network.connect("token")
        assert alice.welcome is None
        assert list(network.server.clients) == ["alice"]


@testing.virtual_time
async def test_any_callable_identifies() -> None:
    class Users:
        async def __call__(self, attempt: Attempt) -> Decision:
            return attempt.accept("by a call")

    async with testing.Network(WseServer(Users())) as network:
        await network.connect()
        assert list(network.server.clients) == ["by a call"]


def test_a_server_needs_an_identify() -> None:
    with pytest.raises(IdentifyMissing):
        WseServer(None)  # type: ignore[arg-type]


@testing.virtual_time
async def test_meta_is_an_empty_object_when_none_is_given() -> None:
    seen: list[Any] = []

    def identify(attempt: Attempt) -> Decision:
        seen.append((attempt.identity, attempt.meta))
        return attempt.accept("alice")

    async with testing.Network(WseServer(identify, conn_per_user=4)) as network:
        await network.connect()
        await network.connect({"name": "a", "password": "b"}, {"app": "demo"})
        await network.connect(0, [1])
        await network.connect(False, 0)
    assert seen == [
        (None, {}),
        ({"name": "a", "password": "b"}, {"app": "demo"}),
        (0, [1]),
        (False, 0),
    ]


@real_time
async def test_an_attempt_knows_the_upgrade_it_came_with() -> None:
    attempts: list[Attempt] = []

    def identify(attempt: Attempt) -> Decision:
        attempts.append(attempt)
        return attempt.accept("alice")

    server = WseServer(identify)
    async with server.listen(port=0) as listener:
        url = f"ws://127.0.0.1:{listener.port}/chat/room?lang=en&empty=&q=a%20b"
        headers = {"Authorization": "Bearer t", "Cookie": 'sid=abc; theme="dark"'}
        async with WseClient(url, headers=headers) as client:
            await client.connect("key", {"app": "demo"})
            [conn] = server.clients["alice"].conns.values()
    [attempt] = attempts
    assert attempt.identity == "key"
    assert attempt.meta == {"app": "demo"}
    assert attempt.path == "/chat/room"
    assert attempt.query == {"lang": "en", "empty": "", "q": "a b"}
    assert attempt.headers["authorization"] == attempt.headers["Authorization"] == "Bearer t"
    assert attempt.cookies == {"sid": "abc", "theme": "dark"}
    assert attempt.remote_addr == conn.remote_addr == "127.0.0.1"
    assert attempt.conn_id == conn.conn_id
    assert len(attempt.conn_id) == 32


@testing.virtual_time
async def test_an_attempt_in_memory_knows_as_much() -> None:
    attempts: list[Attempt] = []

    def identify(attempt: Attempt) -> Decision:
        attempts.append(attempt)
        return attempt.accept("alice")

    async with testing.Network(WseServer(identify)) as network:
        await network.connect(
            url="ws://test/in?a=1", headers={"Cookie": "c=2"}, remote_addr="10.0.0.7"
        )
    [attempt] = attempts
    assert (attempt.path, attempt.query, attempt.cookies) == ("/in", {"a": "1"}, {"c": "2"})
    assert attempt.remote_addr == "10.0.0.7"


@testing.virtual_time
async def test_an_attempt_never_shows_its_secrets() -> None:
    texts: list[str] = []

    def identify(attempt: Attempt) -> Decision:
        texts.append(repr(attempt))
        return attempt.accept("alice", "the welcome")

    async with testing.Network(WseServer(identify)) as network:
        await network.connect(
            "secret-identity",
            {"m": "secret-meta"},
            url="ws://test/?token=secret-query",
            headers={"Authorization": "secret-header"},
        )
    assert len(texts) == 1
    assert "secret" not in texts[0]


def test_a_decision_does_not_show_who_it_is_about() -> None:
    assert repr(Decision("alice", "the welcome", {"row": 1})) == "<Decision to accept>"
    assert repr(Decision("")) == "<Decision to refuse>"


# -- refusing --------------------------------------------------------------------------------


@pytest.mark.parametrize("cid", [None, False, ""])
@testing.virtual_time
async def test_an_empty_cid_refuses(cid: Any) -> None:
    server = WseServer(lambda attempt: attempt.accept(cid))
    events = record_events(server)
    async with testing.Network(server) as network:
        device = network.device()
        with pytest.raises(NotAuthorized):
            await device.connect("key")
        assert device.closed == (1000, "wse.not-authorized")
        assert nothing_is_left(server)
    assert events == []


@pytest.mark.parametrize("cid", [True, 1.5, b"alice", ["alice"]])
@testing.virtual_time
async def test_a_cid_of_another_type_refuses_and_is_logged(
    cid: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = WseServer(lambda attempt: attempt.accept(cid))
    async with testing.Network(server) as network:
        with pytest.raises(NotAuthorized):
            await network.connect("key")
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is TypeError


@testing.virtual_time
async def test_refuse_refuses() -> None:
    server = WseServer(lambda attempt: attempt.refuse())
    events = record_events(server)
    async with testing.Network(server) as network:
        with pytest.raises(NotAuthorized) as caught:
            await network.connect("key")
        assert caught.value.code == "wse.not-authorized"
        assert nothing_is_left(server)
    assert events == []


def raises(_: Attempt) -> Decision:
    raise LookupError(f"no database {SECRET}")


async def raises_later(_: Attempt) -> Decision:
    await asyncio.sleep(1)
    raise LookupError(f"no database {SECRET}")


def decides_nothing(_: Attempt) -> None:
    return None


async def decides_nothing_later(_: Attempt) -> None:
    await asyncio.sleep(1)


def decides_oddly(_: Attempt) -> Any:
    return True


@pytest.mark.parametrize(
    "identify", [raises, raises_later, decides_nothing, decides_nothing_later, decides_oddly]
)
@testing.virtual_time
async def test_no_decision_refuses_and_is_logged(
    identify: Callable[[Attempt], Any], caplog: pytest.LogCaptureFixture
) -> None:
    server = WseServer(identify)
    events = record_events(server)
    async with testing.Network(server) as network:
        device = network.device()
        with pytest.raises(NotAuthorized):
            await device.connect("the secret key")
        assert device.closed == (1000, "wse.not-authorized")
        assert nothing_is_left(server)
    assert events == []
    assert [record.name for record in caplog.records if record.levelno == logging.ERROR] == [
        "wse.server"
    ]
    assert "the secret key" not in caplog.text


@pytest.mark.parametrize("cid", [None, False, "", 0])
@testing.virtual_time
async def test_a_refusal_is_logged_without_what_was_brought(
    cid: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wse.server")
    async with testing.Network(WseServer(lambda attempt: attempt.accept(cid))) as network:
        device = network.device()
        await asyncio.gather(device.connect("the secret key"), return_exceptions=True)
        refused = [text for text in caplog.messages if "refused" in text]
        assert len(refused) == (0 if cid == 0 and cid is not False else 1)
    assert "the secret key" not in caplog.text


@testing.virtual_time
async def test_a_welcome_that_cannot_be_packed_refuses(caplog: pytest.LogCaptureFixture) -> None:
    server = WseServer(lambda attempt: attempt.accept("alice", object()))
    events = record_events(server)
    async with testing.Network(server) as network:
        with pytest.raises(NotAuthorized):
            await network.connect()
        assert nothing_is_left(server)
    assert events == []
    assert "identify failed" in caplog.text


@testing.virtual_time
async def test_a_refused_connection_is_not_heard_again() -> None:
    asked: list[Any] = []

    def identify(attempt: Attempt) -> Decision:
        asked.append(attempt.identity)
        return attempt.refuse()

    server = WseServer(identify)
    peer = await bare_peer(server)
    peer.say("~wse:hi", {"identity": 1})
    peer.say("~wse:hi", {"identity": 2})
    await testing.settle()
    peer.say("~wse:hi", {"identity": 3})
    await testing.settle()
    assert asked == [1]
    assert peer.ends == [(1000, "wse.not-authorized")]


# -- addresses -------------------------------------------------------------------------------


@testing.virtual_time
async def test_zero_is_a_user() -> None:
    async with testing.Network(WseServer(lambda attempt: attempt.accept(0))) as network:
        device = await network.connect()
        assert list(network.server.clients) == ["0"]
        network.server.send(0, "hello")
        assert await device.next("hello") is None


@pytest.mark.parametrize("accepted", [7, "7"])
@pytest.mark.parametrize("address", [7, "7"])
@testing.virtual_time
async def test_7_is_the_same_user_everywhere(accepted: Any, address: Any) -> None:
    server = WseServer(lambda attempt: attempt.accept(attempt.identity), conn_per_user=2)
    async with testing.Network(server) as network:
        first = await network.connect(accepted)
        second = await network.connect(address)
        other = await network.connect("other")
        second.client.register("ping", lambda payload: f"pong {payload}")

        assert sorted(server.clients) == ["7", "other"]
        assert address in server.clients
        assert len(server.clients[address].conns) == 2
        server.send(address, "news", 1)
        assert [await device.next("news") for device in (first, second)] == [1, 1]
        assert await server.call(address, "ping", 2) == "pong 2"
        server.broadcast("all", but=address)
        await testing.settle()
        assert [list(device.received) for device in (first, second)] == [[], []]
        assert list(other.received) == [("all", None)]
        server.drop_client(address, "banned")
        assert await first.wait_closed() == await second.wait_closed() == (1000, "banned")
        assert address not in server.clients


def test_a_cid_is_text() -> None:
    assert [cid_of(value) for value in ("a", 0, 7, "", None, False)] == ["a", "0", "7", "", "", ""]
    for value in (True, 1.0, object()):
        with pytest.raises(TypeError, match="a cid is a str or an int"):
            cid_of(value)


# -- the peer goes away ----------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "tear"])
@testing.virtual_time
async def test_a_peer_that_goes_cancels_its_identify(end: str) -> None:
    outcome: list[str] = []

    async def identify(attempt: Attempt) -> Decision:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise
        return attempt.accept("alice")

    server = WseServer(identify)
    events = record_events(server)
    async with testing.Network(server) as network:
        device = network.device()
        connecting = asyncio.create_task(device.connect())
        await testing.settle()
        assert len(server.acceptor.strangers) == 1
        if end == "tear":
            device.tear()
        else:
            await device.close()
        with pytest.raises(ConnectionFailed):
            await connecting
        await testing.settle()
        assert outcome == ["cancelled"]
        assert nothing_is_left(server)
    assert events == []


@testing.virtual_time
async def test_an_identify_that_will_not_be_cancelled_accepts_nobody() -> None:
    async def identify(attempt: Attempt) -> Decision:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            return attempt.accept("alice")
        raise AssertionError

    server = WseServer(identify)
    events = record_events(server)
    peer = await bare_peer(server)
    peer.say("~wse:hi", {})
    await testing.settle()
    peer.transport.abort()
    await testing.settle()
    assert nothing_is_left(server)
    assert events == []


@testing.virtual_time
async def test_a_peer_that_goes_during_a_challenge_cancels_its_identify() -> None:
    outcome: list[str] = []

    async def identify(attempt: Attempt) -> Decision:
        try:
            await attempt.challenge("who goes there?")
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise
        return attempt.accept("alice")

    server = WseServer(identify)
    events = record_events(server)
    peer = await bare_peer(server)
    peer.say("~wse:hi", {})
    await testing.settle()
    assert peer.frames == [["~wse:challenge", "who goes there?", None]]
    peer.transport.abort()
    await testing.settle()
    assert outcome == ["cancelled"]
    assert nothing_is_left(server)
    assert events == []


@testing.virtual_time
async def test_a_cancelled_identify_that_the_peer_did_not_cause_refuses(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def identify(_: Attempt) -> Decision:
        raise asyncio.CancelledError(SECRET)

    server = WseServer(identify)
    async with testing.Network(server) as network:
        with pytest.raises(NotAuthorized):
            await network.connect()
    assert "identify failed" in caplog.text


# -- taking too long -------------------------------------------------------------------------


async def thinks_for_ever(attempt: Attempt) -> Decision:
    await asyncio.Event().wait()
    return attempt.accept("alice")


async def asks_for_ever(attempt: Attempt) -> Decision:
    await attempt.challenge("?")
    return attempt.accept("alice")


@pytest.mark.parametrize("greets", [True, False])
@pytest.mark.parametrize("identify", [thinks_for_ever, asks_for_ever])
@testing.virtual_time
async def test_a_stranger_has_ten_seconds(
    identify: Callable[[Attempt], Awaitable[Decision]], greets: bool
) -> None:
    server = WseServer(identify)
    events = record_events(server)
    peer = await bare_peer(server)
    if greets:
        peer.say("~wse:hi", {})
    await testing.pass_time(9.9)
    assert peer.ends == []
    assert len(server.acceptor.strangers) == 1
    await testing.pass_time(0.2)
    assert peer.ends == [(1013, "wse.authentication-timeout")]
    assert nothing_is_left(server)
    assert events == []


@testing.virtual_time
async def test_the_time_to_authenticate_is_a_limit() -> None:
    server = WseServer(thinks_for_ever, limits=Limits(authentication_timeout=2))
    async with testing.Network(server) as network:
        with pytest.raises(ConnectionFailed) as caught:
            await network.connect()
        assert caught.value.details == {"code": 1013, "reason": "wse.authentication-timeout"}
        assert caught.value.temporary
        assert asyncio.get_running_loop().time() == pytest.approx(2, abs=0.01)


@testing.virtual_time
async def test_who_is_welcome_stays() -> None:
    async with testing.Network(WseServer(welcome_all)) as network:
        alice = await network.connect("alice")
        await testing.pass_time(3600)
        assert alice.closed is None


# -- challenges ------------------------------------------------------------------------------


@testing.virtual_time
async def test_a_challenge_is_one_linear_flow() -> None:
    async def identify(attempt: Attempt) -> Decision:
        first = await attempt.challenge({"a": 1, "b": 2})
        second = await attempt.challenge({"a": first, "b": 4})
        return attempt.accept("alice", {"answers": [first, second]})

    async with testing.Network(WseServer(identify)) as network:
        device = network.device()

        @device.client.challenge
        def add(quest: Any) -> int:
            return int(quest["a"] + quest["b"])

        assert await device.connect("alice") == {"answers": [3, 7]}


@testing.virtual_time
async def test_a_solver_may_be_async() -> None:
    async def identify(attempt: Attempt) -> Decision:
        return attempt.accept("alice", await attempt.challenge(20))

    async with testing.Network(WseServer(identify)) as network:
        device = network.device()

        @device.client.challenge
        async def ask_a_person(quest: int) -> int:
            await asyncio.sleep(3)
            return quest + 1

        assert await device.connect() == 21


@pytest.mark.parametrize("answer", [0, "", False, None, [], {}])
@testing.virtual_time
async def test_a_falsy_answer_is_an_answer(answer: Any) -> None:
    answers: list[Any] = []

    async def identify(attempt: Attempt) -> Decision:
        answers.append(await attempt.challenge(None))
        return attempt.accept("alice")

    async with testing.Network(WseServer(identify)) as network:
        device = network.device()
        device.client.challenge(lambda _: answer)
        await device.connect()
    assert answers == [answer]


@testing.virtual_time
async def test_a_refusal_after_a_challenge() -> None:
    async def identify(attempt: Attempt) -> Decision:
        answer = await attempt.challenge("the word?")
        return attempt.accept("alice") if answer == "xyzzy" else attempt.refuse()

    async with testing.Network(WseServer(identify)) as network:
        device = network.device()
        device.client.challenge(lambda _: "guess")
        with pytest.raises(NotAuthorized):
            await device.connect()
        assert nothing_is_left(network.server)


@testing.virtual_time
async def test_the_rounds_of_an_attempt_are_bounded() -> None:
    solved: list[Any] = []
    reached: list[BaseException] = []

    async def identify(attempt: Attempt) -> Decision:
        try:
            for number in range(9):
                await attempt.challenge(number)
        except ChallengeRoundsExceeded as error:
            reached.append(error)
            raise
        return attempt.accept("alice")

    async with testing.Network(WseServer(identify, limits=Limits(max_challenge_rounds=3))) as net:
        device = net.device()
        device.client.challenge(solved.append)
        with pytest.raises(NotAuthorized):
            await device.connect()
    assert solved == [0, 1, 2]
    [error] = reached
    assert isinstance(error, ChallengeRoundsExceeded)
    assert error.details == {"limit": 3}


@testing.virtual_time
async def test_a_quest_that_cannot_be_packed_costs_no_round() -> None:
    async def identify(attempt: Attempt) -> Decision:
        with pytest.raises(TypeError):
            await attempt.challenge(object())
        return attempt.accept("alice", await attempt.challenge("?"))

    limits = Limits(max_challenge_rounds=1)
    async with testing.Network(WseServer(identify, limits=limits)) as network:
        device = network.device()
        device.client.challenge(lambda quest: quest + "!")
        assert await device.connect() == "?!"


@testing.virtual_time
async def test_only_the_answer_is_heard_during_a_challenge() -> None:
    asked = 0
    answers: list[Any] = []

    async def identify(attempt: Attempt) -> Decision:
        nonlocal asked
        asked += 1
        answers.append(await attempt.challenge("?"))
        await asyncio.sleep(1)
        return attempt.accept("alice")

    server = WseServer(identify)
    events = record_events(server)
    server.when.ignored(lambda _, name, __: events.append(f"ignored {name}"))
    peer = await bare_peer(server)
    peer.say("~wse:challenge", "too early is a violation of its own")
    await testing.settle()
    assert peer.ends == [(1000, "wse.protocol-error")]

    peer = await bare_peer(server)
    peer.say("~wse:hi", {})
    await testing.settle()
    peer.say("hello", 1)
    peer.say("~wse:hi", {"identity": "again"})
    peer.say("add", 1, "stamp")
    peer.say("~wse:challenge", "the answer")
    peer.say("~wse:challenge", "another answer")
    await testing.pass_time(2)
    assert answers == ["the answer"]
    assert asked == 1
    assert events == ["joined alice", "connected alice"]
    assert [type for type, *_ in peer.frames] == ["~wse:challenge", "~wse:welcome"]


@testing.virtual_time
async def test_an_answer_to_a_challenge_that_was_given_up_is_ignored() -> None:
    answers: list[Any] = []

    async def identify(attempt: Attempt) -> Decision:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(attempt.challenge(1), timeout=1)
        await asyncio.sleep(2)
        answers.append(await attempt.challenge(2))
        return attempt.accept("alice")

    async with testing.Network(WseServer(identify)) as network:
        device = network.device()

        @device.client.challenge
        async def slow_at_first(quest: int) -> int:
            await asyncio.sleep(2 if quest == 1 else 0)
            return quest * 10

        await device.connect()
        assert answers == [20]
        assert list(device.received) == []


@pytest.mark.parametrize("payload", [b"9" * 5000, b"1e999", b'"\xff"'])
@testing.virtual_time
async def test_an_answer_that_cannot_be_read_refuses(
    payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    raised: list[BaseException] = []

    async def identify(attempt: Attempt) -> Decision:
        try:
            await attempt.challenge("?")
        except BaseException as error:
            raised.append(error)
            raise
        return attempt.accept("alice")

    server = WseServer(identify)
    errors: list[WseError] = []
    server.when.error(lambda error, _: errors.append(error))
    peer = await bare_peer(server)
    peer.say("~wse:hi", {})
    await testing.settle()
    peer.transport.write([b'["~wse:challenge",' + payload + b"]"])
    await testing.settle()
    assert peer.ends == [(1000, "wse.not-authorized")]
    assert [type(error) for error in raised] == [asyncio.CancelledError]
    assert [type(error) for error in errors] == [InvalidPayload]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert nothing_is_left(server)


@testing.virtual_time
async def test_a_challenge_is_asked_within_identify() -> None:
    kept: list[Attempt] = []

    def identify(attempt: Attempt) -> Decision:
        kept.append(attempt)
        return attempt.accept("alice")

    async with testing.Network(WseServer(identify)) as network:
        alice = await network.connect()
        with pytest.raises(RuntimeError, match="within identify"):
            await kept[0].challenge("too late")
        await testing.settle()
        assert list(alice.received) == []


@testing.virtual_time
async def test_a_client_without_a_solver_does_not_hang() -> None:
    async def identify(attempt: Attempt) -> Decision:
        await attempt.challenge("?")
        return attempt.accept("alice")

    server = WseServer(identify)
    async with testing.Network(server) as network:
        device = network.device()
        with pytest.raises(SolverMissing) as caught:
            await device.connect()
        assert caught.value.code == "wse.client.solver-missing"
        assert asyncio.get_running_loop().time() < 1
        await testing.settle()
        assert nothing_is_left(server)


@pytest.mark.parametrize("is_async", [True, False])
@testing.virtual_time
async def test_what_a_solver_raises_reaches_connect(is_async: bool) -> None:
    async def identify(attempt: Attempt) -> Decision:
        await attempt.challenge("?")
        return attempt.accept("alice")

    def raise_now(_: Any) -> None:
        raise LookupError(f"no key {SECRET}")

    async def raise_later(_: Any) -> None:
        await asyncio.sleep(1)
        raise LookupError(f"no key {SECRET}")

    server = WseServer(identify)
    async with testing.Network(server) as network:
        device = network.device()
        device.client.challenge(raise_later if is_async else raise_now)
        with pytest.raises(LookupError, match="no key"):
            await device.connect()
        await testing.settle()
        assert nothing_is_left(server)


@testing.virtual_time
async def test_a_solver_is_cancelled_when_the_server_gives_up() -> None:
    outcome: list[str] = []

    async def identify(attempt: Attempt) -> Decision:
        await attempt.challenge("?")
        return attempt.accept("alice")

    async def hesitate(_: Any) -> None:
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise

    async with testing.Network(WseServer(identify)) as network:
        device = network.device()
        device.client.challenge(hesitate)
        with pytest.raises(ConnectionFailed):
            await device.connect()
        await testing.settle()
        assert outcome == ["cancelled"]
        assert nothing_is_left(network.server)


def test_a_solver_can_be_called() -> None:
    with pytest.raises(InvalidSolver):
        WseClient("ws://test/").challenge("no function")  # type: ignore[type-var]


# -- HMAC ------------------------------------------------------------------------------------


async def identify_by_key(attempt: Attempt) -> Decision:
    if await hmac_challenge(attempt, KEY):
        return attempt.accept("alice", "welcome")
    return attempt.refuse()


@pytest.mark.parametrize("key", [KEY, KEY.encode()])
@testing.virtual_time
async def test_the_right_key_passes(key: str | bytes) -> None:
    async with testing.Network(WseServer(identify_by_key)) as network:
        device = network.device()
        device.client.challenge(hmac_solver(key))
        assert await device.connect() == "welcome"


@testing.virtual_time
async def test_the_wrong_key_fails() -> None:
    async with testing.Network(WseServer(identify_by_key)) as network:
        device = network.device()
        device.client.challenge(hmac_solver("another key"))
        with pytest.raises(NotAuthorized):
            await device.connect()


@pytest.mark.parametrize("answer", [None, 3, ["a"], {"a": 1}, True, "", "\N{SNOWMAN}"])
@testing.virtual_time
async def test_an_answer_that_is_no_digest_fails_without_an_error(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with testing.Network(WseServer(identify_by_key)) as network:
        device = network.device()
        device.client.challenge(lambda _: answer)
        with pytest.raises(NotAuthorized):
            await device.connect()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@testing.virtual_time
async def test_a_replayed_answer_fails() -> None:
    server = WseServer(identify_by_key)
    overheard: list[tuple[Any, str]] = []
    async with testing.Network(server) as network:
        alice = network.device()
        solve = hmac_solver(KEY)

        @alice.client.challenge
        def overhear(quest: Any) -> str:
            overheard.append((quest, solve(quest)))
            return overheard[-1][1]

        await alice.connect()
        thief = network.device()
        quests: list[Any] = []

        @thief.client.challenge
        def replay(quest: Any) -> str:
            quests.append(quest)
            return overheard[0][1]

        with pytest.raises(NotAuthorized):
            await thief.connect()
        assert quests[0] != overheard[0][0]
        assert list(server.clients) == ["alice"]


@testing.virtual_time
async def test_the_answer_is_what_any_language_computes() -> None:
    peer = await bare_peer(WseServer(identify_by_key))
    peer.say("~wse:hi", {})
    await testing.settle()
    [[_, quest, _]] = peer.frames
    assert len(bytes.fromhex(quest["nonce"])) == 32
    digest = hmac.new(KEY.encode(), quest["nonce"].encode(), hashlib.sha256).hexdigest()
    peer.say("~wse:challenge", digest)
    await testing.settle()
    assert peer.frames[-1] == ["~wse:welcome", "welcome", None]
    peer.transport.abort()


@real_time
async def test_a_challenge_over_a_socket() -> None:
    server = WseServer(identify_by_key)
    async with server.listen(port=0) as listener:
        url = f"ws://127.0.0.1:{listener.port}/"
        async with WseClient(url) as alice, WseClient(url) as thief, WseClient(url) as nobody:
            alice.challenge(hmac_solver(KEY))
            thief.challenge(hmac_solver("another"))
            assert await alice.connect() == "welcome"
            with pytest.raises(NotAuthorized):
                await thief.connect()
            with pytest.raises(SolverMissing):
                await nobody.connect()
            assert list(server.clients) == ["alice"]
            conns: list[WseConnection[Any]] = list(server.clients["alice"].conns.values())
            assert len(conns) == 1
