"""The client: one device of a user, which comes back by itself."""

from __future__ import annotations

import asyncio
import gc
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest
from carriers import CLOSE, TEXT, F, closing, raw_server
from support import SECRET, TOKEN, Boom, boom, real_time

from wse import (
    AlreadyConnected,
    AlreadyRegistered,
    Attempt,
    Backoff,
    CallDisconnected,
    CallFailed,
    CallNotRegistered,
    CallTimeout,
    ConnectionFailed,
    Decision,
    HandlerFailed,
    InvalidPayload,
    Limits,
    MessageTooLarge,
    NotAuthorized,
    NotConnected,
    SolverMissing,
    Status,
    WseClient,
    WseError,
    WseJSON,
    WseServer,
    testing,
)
from wse.handler import start_task
from wse.transports.base import Transport
from wse.transports.memory import MemoryDialer


def identify(attempt: Attempt) -> Decision:
    if attempt.identity == "wrong":
        return attempt.refuse()
    return attempt.accept("alice", attempt.identity)


def make_server(**options: Any) -> WseServer[Any]:
    """One whose sessions end with their connections, unless the options say otherwise."""
    return WseServer(
        identify, **{"conn_per_user": 3, "limits": Limits(session_window=None), **options}
    )


def record_events(client: WseClient) -> list[str]:
    told: list[str] = []
    client.when.connected(lambda: told.append("connected"))
    client.when.ready(lambda welcome: told.append(f"ready {welcome}"))
    client.when.closed(lambda code, reason: told.append(f"closed {code} {reason}"))
    client.when.updated(lambda status: told.append(f"{status}"))
    client.when.error(lambda error: told.append(f"error {error.code}"))
    return told


@pytest.fixture
def ceilings(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The longest waits that the backoff asked for; each is waited in full."""
    asked: list[float] = []

    def longest(least: float, most: float) -> float:
        assert least == 0
        asked.append(most)
        return most

    monkeypatch.setattr(random, "uniform", longest)
    return asked


def end_with(server: WseServer[Any], code: int, reason: str = "") -> None:
    """Let the server end its only connection as proxies and other servers may."""
    [conn] = server.clients.conns.values()
    conn._close(code, reason)


# -- the order of events ---------------------------------------------------------------------


@testing.virtual_time
async def test_connecting_and_closing() -> None:
    async with testing.Network(make_server()) as network:
        client = network.device().client
        told = record_events(client)
        assert client.status is Status.IDLE
        assert told == []
        assert await client.connect("key") == "key"
        assert told == ["CONNECTING", "connected", "READY", "ready key"]
        told.clear()
        await client.close()
        assert told == ["closed 1000 wse.by-client", "OFFLINE"]


@testing.virtual_time
async def test_the_status_is_what_updated_says() -> None:
    async with testing.Network(make_server()) as network:
        client = network.device().client
        seen: list[tuple[Status, Status]] = []
        client.when.updated(lambda status: seen.append((status, client.status)))
        await client.connect("key")
        await client.close()
        assert seen == [(status, status) for status, _ in seen]
        assert [status for status, _ in seen] == [
            Status.CONNECTING,
            Status.READY,
            Status.OFFLINE,
        ]


@testing.virtual_time
async def test_being_refused() -> None:
    async with testing.Network(make_server()) as network:
        client = network.device(reconnect=True).client
        told = record_events(client)
        with pytest.raises(NotAuthorized):
            await client.connect("wrong")
        await testing.pass_time(1000)
        assert told == ["CONNECTING", "connected", "closed 1000 wse.not-authorized", "OFFLINE"]


@testing.virtual_time
async def test_an_unreachable_server() -> None:
    async with testing.Network(make_server()) as network:
        device = network.device()
        device._dialer.reachable = False
        told = record_events(device.client)
        with pytest.raises(ConnectionFailed) as caught:
            await device.connect("key")
        assert caught.value.code == "wse.client.ws-error"
        assert told == ["CONNECTING", "OFFLINE"]


@testing.virtual_time
async def test_torn_and_coming_back() -> None:
    async with testing.Network(make_server()) as network:
        device = await network.connect("key", reconnect=True)
        told = record_events(device.client)
        told.clear()
        device.tear()
        assert told == ["closed 1006 ", "OFFLINE", "RE_CONNECTING"]
        await testing.pass_time(60)
        assert told[3:] == ["connected", "READY", "ready key"]


@testing.virtual_time
async def test_torn_and_staying_away() -> None:
    async with testing.Network(make_server()) as network:
        device = await network.connect("key")
        told = record_events(device.client)
        told.clear()
        device.tear()
        await testing.pass_time(1000)
        assert told == ["closed 1006 ", "OFFLINE"]
        assert await device.connect("again") == "again"


@testing.virtual_time
async def test_failing_to_come_back_and_trying_again(ceilings: list[float]) -> None:
    async with testing.Network(make_server()) as network:
        device = await network.connect("key", reconnect=True)
        told = record_events(device.client)
        told.clear()
        device.unplug()
        await testing.pass_time(4)
        assert told == [
            "closed 1006 ",
            "OFFLINE",
            "RE_CONNECTING",
            "error wse.client.ws-error",
            "error wse.client.ws-error",
        ]
        told.clear()
        device.plug_in()
        await testing.pass_time(60)
        assert told == ["connected", "READY", "ready key"]
        assert len(ceilings) == 3


@testing.virtual_time
async def test_being_refused_when_coming_back() -> None:
    async with testing.Network(make_server()) as network:
        keys = ["right", "wrong", "right"]
        device = network.device(reconnect=True)
        await device.connect(lambda: keys.pop(0))
        told = record_events(device.client)
        told.clear()
        device.tear()
        await testing.pass_time(1000)
        assert told == [
            "closed 1006 ",
            "OFFLINE",
            "RE_CONNECTING",
            "connected",
            "closed 1000 wse.not-authorized",
            "OFFLINE",
            "error wse.not-authorized",
        ]
        assert keys == ["right"]
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert await device.connect("key") == "key"


@pytest.mark.parametrize("code", [1005, 1006, 1011, 1012, 1013, 1014, 4000])
@testing.virtual_time
async def test_codes_after_which_a_client_comes_back(code: int) -> None:
    async with testing.Network(make_server()) as network:
        device = await network.connect("key", reconnect=True)
        end_with(network.server, code, "why")
        assert await device.wait_closed() == (code, "why")
        assert device.client.status is Status.RE_CONNECTING
        await testing.pass_time(60)
        assert [conn.cid for conn in network.server.clients.conns.values()] == ["alice"]


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 3000, 4001, 4999])
@testing.virtual_time
async def test_codes_after_which_a_client_stays_away(code: int) -> None:
    async with testing.Network(make_server()) as network:
        device = await network.connect("key", reconnect=True)
        end_with(network.server, code, "why")
        assert await device.wait_closed() == (code, "why")
        await testing.pass_time(1000)
        assert device.client.status is Status.OFFLINE
        assert len(network.server.clients) == 0


@testing.virtual_time
async def test_who_is_dropped_or_evicted_stays_away() -> None:
    async with testing.Network(make_server(conn_per_user=1)) as network:
        evicted = await network.connect("key", reconnect=True)
        dropped = await network.connect("key", reconnect=True)
        network.server.drop_client("alice")
        await testing.pass_time(1000)
        assert evicted.closed == (1000, "wse.clients-concurrency")
        assert dropped.closed == (1000, "wse.by-server")
        assert len(network.server.clients) == 0


@testing.virtual_time
async def test_a_client_torn_as_it_becomes_ready_comes_back() -> None:
    async with testing.Network(make_server()) as network:
        device = network.device(reconnect=True)
        welcomed: list[Any] = []

        @device.client.when.ready
        def tear_first(welcome: Any) -> None:
            welcomed.append(welcome)
            if len(welcomed) <= 2:
                device.tear()

        assert await device.connect("key") == "key"
        await testing.pass_time(60)
        assert welcomed == ["key", "key", "key"]
        assert device.client.status is Status.READY


@testing.virtual_time
async def test_what_is_remembered_is_told_to_handlers_added_later() -> None:
    async with testing.Network(make_server()) as network:
        client = network.device().client
        told: list[Any] = []
        client.when.ready(told.append)
        client.when.updated(told.append)
        assert told == []
        await client.connect("key")
        told.clear()
        client.when.ready(lambda welcome: told.append(f"late {welcome}"))
        client.when.ready.once(lambda welcome: told.append(f"once {welcome}"))
        client.when.updated(lambda status: told.append(f"late {status}"))
        assert told == ["late key", "once key", "late READY"]
        await client.close()
        told.clear()
        client.when.ready(lambda welcome: told.append(f"late {welcome}"))
        client.when.updated(lambda status: told.append(f"late {status}"))
        client.when.closed(lambda *_: told.append("closed is not remembered"))
        assert told == ["late key", "late OFFLINE"]


@pytest.mark.parametrize("is_async", [False, True])
@testing.virtual_time
async def test_an_event_handler_that_raises_breaks_nothing(is_async: bool) -> None:
    async with testing.Network(make_server()) as network:
        client = network.device().client
        errors: list[WseError] = []

        def raise_now(*_: Any) -> None:
            raise LookupError(f"in a handler {SECRET}")

        async def raise_later(*_: Any) -> None:
            raise LookupError(f"in a handler {SECRET}")

        handler = raise_later if is_async else raise_now
        for signal in (
            client.when.connected,
            client.when.ready,
            client.when.closed,
            client.when.updated,
            client.when.error,
        ):
            signal(handler)
        client.when.error(errors.append)
        assert await client.connect("key") == "key"
        await client.close()
        await testing.settle()
        assert all(isinstance(error, HandlerFailed) for error in errors)
        assert sorted(error.details["event"] for error in errors) == [
            "closed",
            "connected",
            "ready",
            "updated",
            "updated",
            "updated",
        ]


# -- connecting ------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["", "test", "http://test/", "ws://", "ws:///path", "ws://a/#b"])
def test_a_url_is_a_websocket_url(url: str) -> None:
    with pytest.raises(ValueError, match="no WebSocket URL"):
        WseClient(url)


@testing.virtual_time
async def test_connecting_twice() -> None:
    async def identify(attempt: Attempt) -> Decision:
        await asyncio.sleep(1)
        return attempt.accept("alice", attempt.identity)

    async with testing.Network(WseServer(identify)) as network:
        device = network.device(reconnect=True)
        connecting = asyncio.create_task(device.connect("first"))
        await testing.settle()
        with pytest.raises(AlreadyConnected):
            await device.connect("while connecting")
        assert await connecting == "first"
        with pytest.raises(AlreadyConnected):
            await device.connect("while ready")
        device.tear()
        with pytest.raises(AlreadyConnected):
            await device.connect("while coming back")
        await testing.pass_time(60)
        assert device.welcome == "first"
        assert len(network.server.clients.conns) == 1


@testing.virtual_time
async def test_connecting_again_between_two_attempts_to_come_back() -> None:
    """While a failed attempt ends, the status is OFFLINE for a moment."""
    async with testing.Network(make_server()) as network:
        device = await network.connect("key", reconnect=True)
        errors: list[WseError] = []
        arrivals = 0

        @network.server.when.connected
        def arrived(_: Any) -> None:
            nonlocal arrivals
            arrivals += 1

        @device.client.when.updated
        async def impatient(status: Status) -> None:
            if status is Status.OFFLINE:
                try:
                    await device.client.connect("impatient")
                except AlreadyConnected as error:
                    errors.append(error)

        dial = device.client._dial
        attempts = 0

        async def dial_and_fail(url: str, **options: Any) -> tuple[Transport, str | None]:
            nonlocal attempts
            attempts += 1
            opened = await dial(url, **options)
            if attempts == 1:
                asyncio.get_running_loop().call_soon(device.tear)
            return opened

        device.client._dial = dial_and_fail
        device.client.when.updated.off(impatient)
        device.tear()
        device.client.when.updated(impatient)
        await testing.pass_time(120)
        assert [type(error) for error in errors] == [AlreadyConnected]
        assert arrivals == 1
        assert attempts == 2
        assert device.client.status is Status.READY


@testing.virtual_time
async def test_a_client_may_connect_again_after_its_end() -> None:
    async with testing.Network(make_server()) as network:
        device = network.device()
        with pytest.raises(NotAuthorized):
            await device.connect("wrong")
        for key in ("one", "two"):
            assert await device.connect(key) == key
            await device.close()
        assert device.client.status is Status.OFFLINE


@testing.virtual_time
async def test_a_closed_handler_may_connect_again() -> None:
    async with testing.Network(make_server()) as network:
        device = await network.connect("key")
        welcomes: list[Any] = []

        @device.client.when.updated
        async def again(status: Status) -> None:
            if status is Status.OFFLINE and not welcomes:
                welcomes.append(await device.client.connect("another key"))

        network.server.drop_client("alice")
        await testing.settle()
        assert welcomes == ["another key"]
        assert device.client.status is Status.READY


@testing.virtual_time
async def test_closing_while_connecting() -> None:
    async def identify(attempt: Attempt) -> Decision:
        await asyncio.sleep(5)
        return attempt.accept("alice")

    server = WseServer(identify)
    async with testing.Network(server) as network:
        device = network.device(reconnect=True)
        told = record_events(device.client)
        connecting = asyncio.create_task(device.connect("key"))
        await testing.settle()
        await device.close()
        with pytest.raises(ConnectionFailed) as caught:
            await connecting
        assert not caught.value.temporary
        await testing.pass_time(100)
        assert told == ["CONNECTING", "connected", "closed 1000 wse.by-client", "OFFLINE"]
        assert not server.acceptor.strangers
        assert asyncio.all_tasks() == {asyncio.current_task()}


@testing.virtual_time
async def test_closing_before_the_connection_is_open() -> None:
    class NeverThere(MemoryDialer):
        async def __call__(self, *_: Any, **__: Any) -> tuple[Transport, str | None]:
            await asyncio.Event().wait()
            raise AssertionError

    client = WseClient("ws://test/", dial=NeverThere(make_server().acceptor))
    told = record_events(client)
    connecting = asyncio.create_task(client.connect("key"))
    await testing.settle()
    await client.close()
    with pytest.raises(ConnectionFailed):
        await connecting
    assert told == ["CONNECTING", "OFFLINE"]


@testing.virtual_time
async def test_cancelling_connect() -> None:
    async def identify(attempt: Attempt) -> Decision:
        if attempt.identity == "slow":
            await asyncio.sleep(5)
        return attempt.accept("alice", attempt.identity)

    server = WseServer(identify)
    async with testing.Network(server) as network:
        device = network.device(reconnect=True)
        told = record_events(device.client)
        connecting = asyncio.create_task(device.connect("slow"))
        await testing.settle()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert told == ["CONNECTING", "connected", "closed 1000 wse.by-client", "OFFLINE"]
        await testing.settle()
        assert not server.acceptor.strangers
        assert asyncio.all_tasks() == {asyncio.current_task()}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(device.connect("slow"), 1)
        assert await device.connect("quick") == "quick"


@testing.virtual_time
async def test_connecting_takes_at_most_its_timeout() -> None:
    async def identify(attempt: Attempt) -> Decision:
        await asyncio.Event().wait()
        return attempt.accept("alice")

    server = WseServer(identify)
    async with testing.Network(server) as network:
        with pytest.raises(ConnectionFailed, match="no welcome in time"):
            await network.connect("key", timeout=3)
        assert asyncio.get_running_loop().time() == pytest.approx(3, abs=0.01)
        await testing.settle()
        assert not server.acceptor.strangers


@testing.virtual_time
async def test_an_identity_that_cannot_be_sent(caplog: pytest.LogCaptureFixture) -> None:
    async with testing.Network(make_server()) as network:
        device = network.device()
        with pytest.raises(TypeError):
            await device.connect(object())
        assert device.client.status is Status.OFFLINE
        gc.collect()
        await testing.settle()
        assert caplog.records == []
        assert not network.server.acceptor.strangers


@testing.virtual_time
async def test_async_with_closes() -> None:
    async with testing.Network(make_server()) as network:
        client = network.device().client
        told = record_events(client)

        async def fail_within() -> None:
            async with client as entered:
                assert entered is client
                await client.connect("key")
                raise LookupError(SECRET)

        with pytest.raises(LookupError):
            await fail_within()
        assert told[-2:] == ["closed 1000 wse.by-client", "OFFLINE"]


@testing.virtual_time
async def test_closing_what_was_never_connected() -> None:
    client = WseClient("ws://test/")
    told = record_events(client)
    async with client:
        await client.close()
    assert told == []
    assert repr(client) == "<WseClient IDLE>"


@testing.virtual_time
async def test_closing_with_a_reason_of_ones_own() -> None:
    server = make_server()
    ends: list[tuple[int, str]] = []
    server.when.disconnected(lambda _, code, reason: ends.append((code, reason)))
    async with testing.Network(server) as network:
        device = await network.connect("key")
        with pytest.raises(ValueError, match="123 bytes"):
            await device.client.close("x" * 124)
        await device.client.close("signed out")
        await testing.settle()
        assert ends == [(1000, "signed out")]
        assert device.closed == (1000, "signed out")


# -- identities ------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
@testing.virtual_time
async def test_an_identity_function_is_asked_on_every_attempt(is_async: bool) -> None:
    asked = 0

    def fresh_token() -> str:
        nonlocal asked
        asked += 1
        return f"token {asked}"

    async def fetched_token() -> str:
        await asyncio.sleep(0.5)
        return fresh_token()

    async with testing.Network(make_server()) as network:
        device = network.device(reconnect=True)
        assert await device.connect(fetched_token if is_async else fresh_token) == "token 1"
        device.tear()
        await testing.pass_time(60)
        assert device.welcome == "token 2"
        await device.client.jump("ws://test/")
        assert device.welcome == "token 3"


@pytest.mark.parametrize("is_async", [False, True])
@testing.virtual_time
async def test_an_identity_function_that_raises_when_coming_back_is_asked_again(
    is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes: list[Any] = ["first", LookupError(SECRET), LookupError(SECRET), "last"]

    def token() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return str(outcome)

    async def token_later() -> str:
        return token()

    async with testing.Network(make_server()) as network:
        device = network.device(reconnect=True)
        await device.connect(token_later if is_async else token)
        errors: list[WseError] = []
        device.client.when.error(errors.append)
        device.tear()
        await testing.pass_time(60)
        assert device.welcome == "last"
        assert [type(error) for error in errors] == [HandlerFailed] * 2
        assert [str(error.__cause__) for error in errors] == [SECRET] * 2
        logged = [record for record in caplog.records if record.exc_info]
        for record, error in zip(logged, errors, strict=True):
            assert (record.name, record.levelname) == ("wse.client", "ERROR")
            assert error.details == {"event": "connect", "id": error.details["id"]}
            assert error.details["id"] in record.getMessage()
            assert record.exc_info is not None
            assert record.exc_info[1] is error.__cause__
            assert record.exc_info[2] is not None


@testing.virtual_time
async def test_an_identity_function_that_raises_at_first_reaches_connect() -> None:
    def token() -> str:
        raise LookupError(f"no token {SECRET}")

    async with testing.Network(make_server()) as network:
        device = network.device(reconnect=True)
        told = record_events(device.client)
        with pytest.raises(LookupError, match="no token"):
            await device.connect(token)
        assert told == ["CONNECTING", "OFFLINE"]


@testing.virtual_time
async def test_an_attempt_to_come_back_that_takes_too_long_is_followed_by_another() -> None:
    attempts: list[float] = []

    async def identify(attempt: Attempt) -> Decision:
        attempts.append(asyncio.get_running_loop().time())
        if len(attempts) == 2:
            await asyncio.Event().wait()
        return attempt.accept("alice", len(attempts))

    server = WseServer(identify, limits=Limits(session_window=None))
    async with testing.Network(server) as network:
        device = await network.connect("key", reconnect=True, timeout=3)
        told = record_events(device.client)
        told.clear()
        device.tear()
        await testing.pass_time(60)
        assert told == [
            "closed 1006 ",
            "OFFLINE",
            "RE_CONNECTING",
            "connected",
            "closed 1000 wse.by-client",
            "OFFLINE",
            "error wse.client.ws-error",
            "RE_CONNECTING",
            "connected",
            "READY",
            "ready 3",
        ]
        assert attempts[2] - attempts[1] >= 3
        assert not server.acceptor.strangers


@testing.virtual_time
async def test_a_timeout_of_the_identity_function_is_its_own() -> None:
    def token() -> str:
        raise TimeoutError(f"the token server is slow {SECRET}")

    async with testing.Network(make_server()) as network:
        device = network.device()
        with pytest.raises(TimeoutError, match="the token server is slow"):
            await device.connect(token)


@testing.virtual_time
async def test_meta_is_the_same_on_every_attempt() -> None:
    server = make_server()
    metas: list[Any] = []
    server.when.connected(lambda conn: metas.append(conn.meta))
    async with testing.Network(server) as network:
        device = await network.connect("key", {"app": "demo"}, reconnect=True)
        device.tear()
        await testing.pass_time(60)
    assert metas == [{"app": "demo"}] * 2


# -- when to come back -----------------------------------------------------------------------


@testing.virtual_time
async def test_waits_grow_to_a_cap_with_full_jitter(ceilings: list[float]) -> None:
    async with testing.Network(make_server()) as network:
        backoff = Backoff(first=1, factor=3, cap=20)
        device = await network.connect("key", reconnect=True, backoff=backoff)
        await testing.pass_time(1000)
        device.unplug()
        await testing.pass_time(100)
        assert ceilings[:6] == [1, 3, 9, 20, 20, 20]


@testing.virtual_time
async def test_a_wait_is_as_long_as_the_jitter_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda _, most: most / 4)
    async with testing.Network(make_server()) as network:
        device = await network.connect("key", reconnect=True, backoff=Backoff(first=8))
        await testing.pass_time(1000)
        device.tear()
        told = record_events(device.client)
        await testing.pass_time(1.9)
        assert told == ["ready key", "RE_CONNECTING"]
        await testing.pass_time(0.2)
        assert told[2:] == ["connected", "READY", "ready key"]


@testing.virtual_time
async def test_a_connection_that_never_lasts_is_tried_less_and_less_often(
    ceilings: list[float],
) -> None:
    async with testing.Network(make_server()) as network:
        backoff = Backoff(first=1, factor=2, cap=16)
        device = await network.connect("key", reconnect=True, backoff=backoff)
        for _ in range(4):
            device.tear()
            await testing.pass_time(17)
            assert device.client.status is Status.READY
        assert ceilings == [2, 4, 8, 16]
        await testing.pass_time(1000)
        device.tear()
        await testing.settle()
        assert ceilings[4:] == [1]


@testing.virtual_time
async def test_close_ends_a_waiting_reconnection_at_once() -> None:
    async with testing.Network(make_server()) as network:
        device = await network.connect("key", reconnect=True)
        device.unplug()
        await testing.pass_time(50)
        told = record_events(device.client)
        told.clear()
        before = asyncio.get_running_loop().time()
        await device.close()
        assert asyncio.get_running_loop().time() == before
        assert told == ["OFFLINE"]
        await testing.settle()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        device.plug_in()
        await testing.pass_time(1000)
        assert told == ["OFFLINE"]


@testing.virtual_time
async def test_with_reconnect_connect_itself_keeps_trying() -> None:
    async with testing.Network(make_server()) as network:
        device = network.device(reconnect=True, backoff=Backoff(cap=1))
        device._dialer.reachable = False
        told = record_events(device.client)
        connecting = asyncio.create_task(device.connect("key"))
        await testing.pass_time(10)
        assert not connecting.done()
        device.plug_in()
        assert await connecting == "key"
        assert told[0] == "CONNECTING"
        assert told.count("error wse.client.ws-error") == len(told) - 4
        assert told[-3:] == ["connected", "READY", "ready key"]


@testing.virtual_time
async def test_with_reconnect_connect_keeps_trying_for_its_timeout() -> None:
    async with testing.Network(make_server()) as network:
        device = network.device(reconnect=True, timeout=20)
        device._dialer.reachable = False
        with pytest.raises(ConnectionFailed):
            await device.connect("key")
        assert asyncio.get_running_loop().time() == pytest.approx(20, abs=0.01)
        assert device.client.status is Status.OFFLINE
        await testing.pass_time(100)
        assert asyncio.all_tasks() == {asyncio.current_task()}


@testing.virtual_time
async def test_without_reconnect_connect_tries_once() -> None:
    async with testing.Network(make_server()) as network:
        device = network.device()
        device._dialer.reachable = False
        with pytest.raises(ConnectionFailed):
            await device.connect("key")
        assert asyncio.get_running_loop().time() == 0


@testing.virtual_time
async def test_connect_keeps_trying_through_a_server_that_restarts() -> None:
    server = make_server()
    attempts = 0

    async def identify(attempt: Attempt) -> Decision:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            await asyncio.Event().wait()
        return attempt.accept("alice", attempts)

    server = WseServer(identify)
    async with testing.Network(server) as network:
        device = network.device(reconnect=True)
        told = record_events(device.client)
        connecting = asyncio.create_task(device.connect("key"))
        await testing.settle()
        await server.close()
        assert await connecting == 2
        assert told == [
            "CONNECTING",
            "connected",
            "closed 1012 wse.server-closing",
            "OFFLINE",
            "error wse.client.ws-error",
            "RE_CONNECTING",
            "connected",
            "READY",
            "ready 2",
        ]


class Refusals:
    """A dialer that fails in these ways, one after the other, before it reaches the server."""

    def __init__(self, server: WseServer[Any], *failures: ConnectionFailed) -> None:
        self.failures = list(failures)
        self.dialled: list[float] = []
        self.reach = MemoryDialer(server.acceptor)

    async def __call__(
        self, url: str, *, subprotocols: Sequence[str], headers: Mapping[str, str], limits: Limits
    ) -> tuple[Transport, str | None]:
        self.dialled.append(asyncio.get_running_loop().time())
        if self.failures:
            raise self.failures.pop(0)
        return await self.reach(url, subprotocols=subprotocols, headers=headers, limits=limits)


@testing.virtual_time
async def test_a_retry_after_is_the_least_that_is_waited(ceilings: list[float]) -> None:
    dial = Refusals(
        make_server(), ConnectionFailed(retry_after=7), ConnectionFailed(retry_after=0.1)
    )
    async with WseClient("ws://test/", dial=dial, reconnect=True) as client:
        await client.connect("key")
    [first, second] = ceilings
    assert dial.dialled == [0, 7, 7 + second]
    assert first < 7
    assert second > 0.1


@testing.virtual_time
async def test_what_will_not_change_is_not_tried_again() -> None:
    dial = Refusals(make_server(), ConnectionFailed({"status": 404}, temporary=False))
    async with WseClient("ws://test/", dial=dial, reconnect=True) as client:
        with pytest.raises(ConnectionFailed):
            await client.connect("key")
        await testing.pass_time(100)
        assert dial.dialled == [0]
        assert await client.connect("key") == "key"
        dial.failures = [ConnectionFailed({"status": 404}, temporary=False)]
        told = record_events(client)
        told.clear()
        assert dial.reach.last is not None
        dial.reach.last.tear()
        await testing.pass_time(100)
        assert told[-2:] == ["error wse.client.ws-error", "OFFLINE"]
        assert len(dial.dialled) == 3


@asynccontextmanager
async def http_server(*answers: bytes) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that answers each request with the next of these, and its URL and requests."""
    waiting = list(answers)
    requests: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        requests.append(head.decode())
        writer.write(waiting.pop(0))
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        yield f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}/path", requests


def http_answer(status: str, *headers: str) -> bytes:
    return "\r\n".join(
        [f"HTTP/1.1 {status}", "Content-Length: 0", "Connection: close", *headers, "", ""]
    ).encode()


@pytest.mark.parametrize("status", ["400 Bad", "401 No", "403 No", "404 No", "426 No"])
@real_time
async def test_an_http_4xx_is_the_end(status: str) -> None:
    async with http_server(http_answer(status)) as (url, requests):
        client = WseClient(url, reconnect=True, backoff=Backoff(first=0.001))
        with pytest.raises(ConnectionFailed) as caught:
            await client.connect("key")
        assert caught.value.details == {"status": int(status[:3])}
        assert not caught.value.temporary
        assert client.status is Status.OFFLINE
        assert len(requests) == 1


@real_time
async def test_429_and_503_are_tried_again() -> None:
    answers = [
        http_answer("429 Too Many Requests"),
        http_answer("503 Service Unavailable", "Retry-After: 0"),
        http_answer("404 Not Found"),
    ]
    async with http_server(*answers) as (url, requests):
        client = WseClient(url, reconnect=True, backoff=Backoff(first=0.001))
        failures: list[Any] = []
        client.when.error(lambda error: failures.append(error.details))
        with pytest.raises(ConnectionFailed) as caught:
            await client.connect("key")
        assert caught.value.details == {"status": 404}
        assert failures == [{"status": 429}, {"status": 503}]
        assert len(requests) == 3


@pytest.mark.parametrize(
    ("value", "seconds"), [("120", 120), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("-1", 0), ("²", 0)]
)
@real_time
async def test_what_retry_after_says(value: str, seconds: float) -> None:
    answer = f"Retry-After: {value}"
    async with http_server(http_answer("503 Service Unavailable", answer)) as (url, _):
        client = WseClient(url)
        with pytest.raises(ConnectionFailed) as caught:
            await client.connect("key")
        assert caught.value.temporary
        assert caught.value.retry_after == seconds


@real_time
async def test_a_port_where_nobody_listens() -> None:
    async with http_server() as (url, _):
        pass
    client = WseClient(url)
    told = record_events(client)
    with pytest.raises(ConnectionFailed) as caught:
        await client.connect("key")
    assert caught.value.temporary
    assert told == ["CONNECTING", "OFFLINE"]


@real_time
async def test_headers_are_sent() -> None:
    async with http_server(http_answer("404 Not Found")) as (url, requests):
        client = WseClient(url + "?a=1", headers={"Authorization": "Bearer t", "X-App": "demo"})
        with pytest.raises(ConnectionFailed):
            await client.connect("key")
    assert requests[0].startswith("GET /path?a=1 HTTP/1.1\r\n")
    assert "\r\nAuthorization: Bearer t\r\n" in requests[0]
    assert "\r\nX-App: demo\r\n" in requests[0]
    assert "\r\nSec-WebSocket-Protocol: wse.5.json, wse-default-json\r\n" in requests[0]


@real_time
async def test_closing_while_the_upgrade_is_awaited() -> None:
    asked = asyncio.Event()
    over = asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        writer.close()
        over.set()

    listener = await asyncio.start_server(never_answer, "127.0.0.1", 0)
    async with listener:
        client = WseClient(f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}/")
        connecting = asyncio.create_task(client.connect("key"))
        await asked.wait()
        await client.close()
        with pytest.raises(ConnectionFailed):
            await connecting
        await over.wait()
        assert client.status is Status.OFFLINE


def said(*message: Any) -> F:
    return F(TEXT, json.dumps(message).encode())


WELCOME, NEWS = said("~wse:welcome", "hello"), said("news", 1)
READY = ["READY", "ready hello"]


@pytest.mark.parametrize(
    ("frames", "told"),
    [
        pytest.param(
            [WELCOME, NEWS, closing(1000, "bye")],
            [*READY, "ignored news 1", "closed 1000 bye"],
            id="the server's close",
        ),
        pytest.param(
            [closing(1000, "wse.not-authorized")], ["closed 1000 wse.not-authorized"], id="refused"
        ),
        pytest.param(
            [WELCOME, F(TEXT, b"{")],
            [*READY, "error wse.server.msg-processing-error", "closed 1000 wse.protocol-error"],
            id="a violation",
        ),
        pytest.param(
            [F(TEXT, b"{")],
            ["error wse.server.msg-processing-error", "closed 1000 wse.protocol-error"],
            id="a violation before the welcome",
        ),
        pytest.param([said("~wse:challenge", "?")], ["closed 1000 wse.by-client"], id="no solver"),
    ],
)
@real_time
async def test_what_follows_the_end_in_the_same_segment_is_not_heard(
    frames: list[F], told: list[str]
) -> None:
    async with raw_server() as (url, peers):
        client = WseClient(url)
        events = record_events(client)
        client.when.ignored(lambda *what: events.append("ignored {} {}".format(*what)))
        connecting = asyncio.create_task(client.connect("key"))
        peer = await peers.get()
        await peer.answer_upgrade(Sec_WebSocket_Protocol="wse-default-json")
        assert (await peer.frame())[0] == 0x80 | TEXT
        peer.send(*frames, WELCOME, NEWS, said("~wse:challenge", "?"), WELCOME)
        assert [head for head, _ in await peer.until_close()] == [0x80 | CLOSE]
        await peer.close()
        with suppress(NotAuthorized, ConnectionFailed, SolverMissing):
            assert await connecting == "hello"
            assert told[:2] == READY
        await client.close()
        assert events == ["CONNECTING", "connected", *told, "OFFLINE"]


@real_time
async def test_coming_back_over_a_socket() -> None:
    server = make_server()
    ready: asyncio.Queue[Any] = asyncio.Queue()
    async with server.listen(port=0) as listener:
        url = f"ws://127.0.0.1:{listener.port}/"
        backoff = Backoff(first=0.001, cap=0.01)
        async with WseClient(url, reconnect=True, backoff=backoff) as client:
            told = record_events(client)
            client.when.ready(ready.put_nowait)
            await client.connect("key")
            await ready.get()
            told.clear()
            [conn] = server.clients.conns.values()
            conn._transport.abort()
            await ready.get()
            assert told == [
                "closed 1006 ",
                "OFFLINE",
                "RE_CONNECTING",
                "connected",
                "READY",
                "ready key",
            ]


# -- jumping ---------------------------------------------------------------------------------


def dial_by_host(**servers: WseServer[Any]) -> Callable[..., Any]:
    dialers = {f"ws://{name}/": MemoryDialer(server.acceptor) for name, server in servers.items()}

    async def dial(url: str, **options: Any) -> tuple[Transport, str | None]:
        if url not in dialers:
            raise ConnectionFailed(message="no such host")
        return await dialers[url](url, **options)

    return dial


@testing.virtual_time
async def test_jumping_to_another_server() -> None:
    here, there = make_server(), WseServer(lambda attempt: attempt.accept("alice", "there"))
    ends: list[tuple[int, str]] = []
    here.when.disconnected(lambda _, code, reason: ends.append((code, reason)))
    metas: list[Any] = []
    there.when.connected(lambda conn: metas.append(conn.meta))
    async with WseClient("ws://here/", dial=dial_by_host(here=here, there=there)) as client:
        await client.connect("key", {"app": "demo"})
        told = record_events(client)
        told.clear()
        assert await client.jump("ws://there/") == "there"
        assert told == [
            "closed 4000 jump",
            "OFFLINE",
            "RE_CONNECTING",
            "connected",
            "READY",
            "ready there",
        ]
        assert client.url == "ws://there/"
        await testing.settle()
        assert ends == [(4000, "jump")]
        assert metas == [{"app": "demo"}]
        assert (len(here.clients), len(there.clients)) == (0, 1)


@testing.virtual_time
async def test_jumping_nowhere() -> None:
    async with WseClient("ws://here/", dial=dial_by_host(here=make_server())) as client:
        with pytest.raises(NotConnected):
            await client.jump("ws://here/")
        await client.connect("key")
        with pytest.raises(ValueError, match="no WebSocket URL"):
            await client.jump("nowhere")
        assert [client.status, client.url] == [Status.READY, "ws://here/"]
        with pytest.raises(ConnectionFailed):
            await client.jump("ws://nowhere/")
        assert client.status is Status.OFFLINE
        assert await client.jump("ws://here/") == "key"


@testing.virtual_time
async def test_jumping_while_waiting_to_come_back() -> None:
    async with testing.Network(make_server()) as network:
        device = await network.connect("key", reconnect=True)
        device.unplug()
        await testing.pass_time(20)
        device.plug_in()
        before = asyncio.get_running_loop().time()
        assert await device.client.jump("ws://test/other") == "key"
        assert asyncio.get_running_loop().time() - before < 0.01
        await testing.pass_time(100)
        assert len(network.server.clients.conns) == 1


# -- talking ---------------------------------------------------------------------------------


@testing.virtual_time
async def test_talking_while_not_ready() -> None:
    async def identify(attempt: Attempt) -> Decision:
        await asyncio.sleep(1)
        return attempt.accept("alice")

    async def refuses_to_talk(client: WseClient) -> bool:
        with pytest.raises(NotConnected) as caught:
            client.send("hello", 1)
        with pytest.raises(NotConnected):
            await client.call("add", 1)
        return caught.value.code == "wse.client.not-ready"

    server = WseServer(identify, limits=Limits(session_window=None))
    async with testing.Network(server) as network:
        device = network.device(reconnect=True)
        client = device.client
        assert await refuses_to_talk(client)
        told = record_events(client)
        connecting = asyncio.create_task(client.connect("key"))
        await testing.settle()
        assert await refuses_to_talk(client)
        await connecting
        device.unplug()
        assert await refuses_to_talk(client)
        await client.close()
        assert await refuses_to_talk(client)
        assert [state for state in told if state.isupper()] == [
            "CONNECTING",
            "READY",
            "OFFLINE",
            "RE_CONNECTING",
            "OFFLINE",
        ]


@testing.virtual_time
async def test_talking_as_soon_as_ready() -> None:
    server = make_server()
    heard: list[Any] = []
    server.channel.on("hello", lambda _, data: heard.append(data))
    async with testing.Network(server) as network:
        device = network.device()
        device.client.when.ready(lambda welcome: device.send("hello", f"in ready {welcome}"))
        await device.connect("key")
        device.send("hello", "after connect")
        await testing.settle()
    assert heard == ["in ready key", "after connect"]


@testing.virtual_time
async def test_sending_refuses_what_cannot_be_sent() -> None:
    server = make_server()
    ignored: list[Any] = []
    server.when.ignored(lambda _, *message: ignored.append(message))
    async with testing.Network(server) as network:
        limits = Limits(max_message_bytes=200)  # too few for the welcome of protocol 5
        device = await network.connect("key", limits=limits, protocols=[WseJSON()])
        with pytest.raises(ValueError, match="reserved"):
            device.send("~wse:hi")
        with pytest.raises(TypeError):
            device.send("news", object())
        with pytest.raises(MessageTooLarge):
            device.send("news", "x" * 200)
        with pytest.raises(ValueError, match="reserved"):
            await device.call("~wse:call")
        with pytest.raises(TypeError):
            await device.call("add", object())
        with pytest.raises(MessageTooLarge):
            await device.call("add", "x" * 200)
        with pytest.raises(ValueError, match="too long"):
            await device.call("n" * 600)
        await testing.settle()
        assert ignored == []
        assert device.closed is None


@testing.virtual_time
async def test_what_was_sent_leaves_before_the_close() -> None:
    server = make_server()
    heard: list[int] = []
    server.channel.on("n", lambda _, number: heard.append(number))
    async with testing.Network(server) as network:
        device = await network.connect("key")
        for number in range(3):
            device.send("n", number)
        await device.close()
        await testing.settle()
        assert heard == [0, 1, 2]


class Point(msgspec.Struct):
    x: int
    y: int


@testing.virtual_time
async def test_handlers_of_messages() -> None:
    server = make_server()
    heard: list[Any] = []
    ignored: list[Any] = []
    errors: list[WseError] = []
    async with testing.Network(server) as network:
        device = await network.connect("key")
        client = device.client
        client.when.ignored(lambda *message: ignored.append(message))
        client.when.error(errors.append)

        @client.channel.on("point")
        def point(point: Point) -> None:
            heard.append(point)

        @client.channel.once("point")
        async def once(payload: Any) -> None:
            heard.append(payload)

        server.send("alice", "point", {"x": 1, "y": 2})
        server.send("alice", "point", {"x": 3, "y": 4})
        server.send("alice", "point", {"x": "wrong", "y": 4})
        server.send("alice", "unheard of", 0)
        await testing.settle()
        assert heard == [Point(1, 2), {"x": 1, "y": 2}, Point(3, 4)]
        assert ignored == [("unheard of", 0)]
        assert [error.details for error in errors] == [{"path": "$.x"}]
        assert isinstance(errors[0], InvalidPayload)
        client.channel.off("point")
        server.send("alice", "point", 1)
        await testing.settle()
        assert ignored[1:] == [("point", 1)]


@testing.virtual_time
async def test_a_message_handler_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    server = make_server()
    errors: list[WseError] = []
    async with testing.Network(server) as network:
        device = await network.connect("key")
        device.client.channel.on("boom", boom)
        device.client.when.error(errors.append)
        server.send("alice", "boom")
        await testing.settle()
        [error] = errors
        assert isinstance(error, HandlerFailed)
        assert isinstance(error.__cause__, Boom)
        assert error.details["id"] in caplog.text
        assert device.closed is None


@testing.virtual_time
async def test_handlers_survive_a_reconnection() -> None:
    server = make_server()
    heard: list[Any] = []
    async with testing.Network(server) as network:
        device = await network.connect("key", reconnect=True)
        device.client.channel.on("news", heard.append)
        device.client.register("ping", lambda _: "pong")
        device.tear()
        await testing.pass_time(60)
        server.send("alice", "news", 1)
        assert await server.call("alice", "ping") == "pong"
        assert heard == [1]


@testing.virtual_time
async def test_calls_and_their_ends() -> None:
    server = make_server()
    server.register("add", lambda _, numbers: sum(numbers))
    server.register("never", lambda *_: asyncio.sleep(1000))

    @server.register("fail")
    def fail(*_: Any) -> None:
        raise LookupError(SECRET)

    async with testing.Network(server) as network:
        device = await network.connect("key", timeout=4, limits=Limits())
        loop = asyncio.get_running_loop()
        assert await device.call("add", [1, 2]) == 3
        for timeout, seconds in ((None, 4), (0.25, 0.25), (6, 6)):
            before = loop.time()
            with pytest.raises(CallTimeout) as caught:
                await device.call("never", timeout=timeout)
            assert loop.time() - before == pytest.approx(seconds)
            assert caught.value.code == "wse.client.rp.timeout"
        with pytest.raises(ValueError, match="positive"):
            await device.call("add", [1], timeout=0)
        with pytest.raises(CallNotRegistered):
            await device.call("missing")
        with pytest.raises(CallFailed) as failed:
            await device.call("fail")
        assert SECRET not in repr(failed.value)
        waiting = asyncio.create_task(device.call("never"))
        await testing.settle()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert device.client._link is not None
        assert len(device.client._link._calls) == 0
        assert await device.call("add", [3, 4]) == 7


@pytest.mark.parametrize("end", ["tear", "close", "drop", "jump"])
@testing.virtual_time
async def test_a_call_ends_with_its_connection(end: str) -> None:
    server = make_server()
    server.register("never", lambda *_: asyncio.sleep(1000))
    async with testing.Network(server) as network:
        device = await network.connect("key", reconnect=True)
        waiting = asyncio.create_task(device.call("never"))
        await testing.settle()
        match end:
            case "tear":
                device.tear()
            case "close":
                await device.close()
            case "drop":
                server.drop_client("alice")
            case _:
                await device.client.jump("ws://test/")
        with pytest.raises(CallDisconnected) as caught:
            await waiting
        assert caught.value.code == "wse.client.rp.disconnect"
        assert asyncio.get_running_loop().time() < 1


@testing.virtual_time
async def test_a_procedure_of_a_client_is_registered_once() -> None:
    client = WseClient("ws://test/")

    @client.register("ping")
    def ping(_: Any) -> str:
        return "pong"

    with pytest.raises(AlreadyRegistered):
        client.register("ping", ping)
    client.unregister("ping")
    client.register("ping", ping)
    with pytest.raises(TypeError, match="payload"):
        client.register("two", lambda _, __: None)


@testing.virtual_time
async def test_a_handler_may_close_its_client() -> None:
    server = make_server()
    outcome: list[str] = []
    async with testing.Network(server) as network:
        device = await network.connect("key")

        @device.client.channel.on("go away")
        async def leave(_: Any) -> None:
            await device.client.close()
            outcome.append("left")

        server.send("alice", "go away")
        await testing.settle()
        assert outcome == ["left"]
        assert device.closed == (1000, "wse.by-client")
        assert len(server.clients) == 0


@testing.virtual_time
async def test_a_handler_of_closed_may_connect_again() -> None:
    server = WseServer(lambda attempt: attempt.accept(attempt.identity))
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        told: list[Any] = []
        device.client.when.updated(told.append)

        @device.client.when.closed.once
        def again(code: int, reason: str) -> None:
            told.append((code, reason, device.client.status))
            told.append(start_task(asyncio.get_running_loop(), device.client.connect("alice")))

        device.tear()
        await testing.settle()
        assert await told.pop(2) is None
        assert told == [
            Status.READY,
            (1006, "", Status.OFFLINE),
            Status.OFFLINE,
            Status.CONNECTING,
            Status.READY,
        ]


@pytest.mark.parametrize(
    "url",
    [
        f"http://host/?token={TOKEN}",
        f"ws://host/?token=\udc80{TOKEN}",
        f"ws://me:{TOKEN}/@host/",
        f"ws://me:{TOKEN}%ff@host/",
        f"ws://{TOKEN}@host/",
    ],
)
def test_a_url_is_not_shown_in_the_error(url: str) -> None:
    with pytest.raises(ValueError, match="no WebSocket URL") as caught:
        WseClient(url)
    assert TOKEN not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@testing.virtual_time
async def test_a_handler_of_closed_cannot_connect_during_a_jump() -> None:
    server = WseServer(lambda attempt: attempt.accept(attempt.identity), conn_per_user=5)
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        refused: list[Any] = []

        @device.client.when.closed.once
        async def again(_: int, __: str) -> None:
            with pytest.raises(AlreadyConnected):
                await device.client.connect("alice")
            refused.append(device.client.status)

        await device.client.jump("ws://elsewhere/")
        await testing.settle()
        assert len(refused) == 1
        assert len(server.clients["alice"].conns) == 1


@testing.virtual_time
async def test_a_handler_of_closed_may_jump_during_a_jump() -> None:
    server = WseServer(lambda attempt: attempt.accept(attempt.identity), conn_per_user=5)
    async with testing.Network(server) as network:
        device = await network.connect("alice")

        @device.client.when.closed.once
        async def elsewhere(_: int, __: str) -> None:
            await device.client.jump("ws://elsewhere/")

        with pytest.raises(ConnectionFailed, match="closed while connecting"):
            await device.client.jump("ws://nowhere/")
        await testing.settle()
        assert device.client.status is Status.READY
        assert device.client.url == "ws://elsewhere/"
        assert len(server.clients["alice"].conns) == 1


@pytest.mark.parametrize("goes", ["connect", "jump"])
@testing.virtual_time
async def test_a_handler_may_close_a_client_that_begins_to_connect(goes: str) -> None:
    async with testing.Network(make_server()) as network:
        device = network.device()
        if goes == "jump":
            await device.connect("key")

        @device.client.when.updated
        async def close(status: Status) -> None:
            if status in (Status.CONNECTING, Status.RE_CONNECTING):
                await device.client.close()

        with pytest.raises(ConnectionFailed, match="closed while connecting"):
            await (device.connect("key") if goes == "connect" else device.client.jump("ws://b/"))
        await testing.settle()
        assert device.client.status is Status.OFFLINE
        assert not network.server.clients


@pytest.mark.parametrize("goes", ["close", "jump"])
@pytest.mark.parametrize("comes_back", [False, True])
@testing.virtual_time
async def test_a_handler_may_end_an_attempt_as_its_connection_opens(
    goes: str, comes_back: bool
) -> None:
    async with testing.Network(make_server()) as network:
        device = network.device(reconnect=True)
        client = device.client
        if comes_back:
            await device.connect("key")
        told = record_events(client)

        @client.when.connected.once
        async def end() -> None:
            await (client.close() if goes == "close" else client.jump("ws://elsewhere/"))

        if comes_back:
            device.tear()
            await testing.pass_time(40)
        else:
            with pytest.raises(ConnectionFailed, match="closed while connecting"):
                await device.connect("key")
            await testing.settle()
        assert not [event for event in told if event.startswith("error")]
        there = [] if goes == "close" else ["alice"]
        assert client.status is (Status.OFFLINE if goes == "close" else Status.READY)
        assert list(network.server.clients) == there
        assert len(network.server.clients.conns) == len(there)
