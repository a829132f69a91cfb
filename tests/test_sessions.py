"""What a server keeps of devices that are away, and what its users see of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from wse import (
    Attempt,
    Backoff,
    CallDisconnected,
    ConnectionFailed,
    Decision,
    DeviceInfo,
    Limits,
    NoSuchClient,
    NotConnected,
    OutboxFull,
    Status,
    WseConnection,
    WseJSON,
    WseServer,
    device,
    newest,
    others,
    testing,
    time_left,
)
from wse.transports.memory import MemoryTransport

QUICK = Backoff(first=0.01, cap=0.01)


def identify(attempt: Attempt) -> Decision:
    return attempt.accept(attempt.identity, state=attempt.meta)


def make_server(told: list[Any] | None = None, **options: Any) -> WseServer[Any]:
    server = WseServer(identify, **{"conn_per_user": 5, **options})
    if told is not None:
        server.when.joined(lambda client, _: told.append(("joined", client.cid)))
        server.when.left(lambda client, *end: told.append(("left", client.cid, *end)))
        server.when.connected(lambda conn: told.append(("connected", conn.device)))
        server.when.disconnected(lambda conn, *end: told.append(("gone", conn.device, *end)))
        server.when.suspended(lambda conn, *end: told.append(("suspended", conn.device, *end)))
        server.when.resumed(lambda conn: told.append(("resumed", conn.device)))
    return server


async def phone(
    network: testing.Network, name: str | None = "phone", **options: Any
) -> testing.Device:
    options = {"reconnect": True, "backoff": QUICK, "device": name, **options}
    return await network.connect("alice", {"on": name}, **options)


# -- going on ----------------------------------------------------------------------------------


@testing.virtual_time
async def test_the_application_sees_one_connection_with_its_state() -> None:
    told: list[Any] = []
    server = make_server(told)
    async with testing.Network(server) as network:
        alice = await phone(network)
        (conn,) = server.clients.conns.values()
        conn.state["seen"] = 1
        alice.tear()
        assert conn.is_open
        await testing.pass_time(1)
        assert list(server.clients.conns.values()) == [conn]
        assert conn.state == {"on": "phone", "seen": 1}
        assert not conn.is_suspended
        assert server.stats().resumed == 1
        assert told == [
            ("joined", "alice"),
            ("connected", "phone"),
            ("suspended", "phone", 1006, ""),
            ("resumed", "phone"),
        ]


@testing.virtual_time
async def test_what_handlers_of_resumed_send_follows_what_is_sent_again() -> None:
    server = make_server()
    server.when.resumed(lambda conn: conn.send("after"))
    async with testing.Network(server) as network:
        alice = await phone(network)
        alice.tear()
        server.send("alice", "missed")
        await testing.pass_time(1)
        assert [type for type, _ in alice.received] == ["missed", "after"]


@testing.virtual_time
async def test_a_session_expires_after_its_window() -> None:
    told: list[Any] = []
    server = make_server(told, limits=Limits(session_window=30))
    async with testing.Network(server) as network:
        alice = await phone(network)
        told.clear()
        alice.unplug()
        await testing.pass_time(29)
        assert server.stats().suspended == 1
        await testing.pass_time(2)
        assert told == [
            ("suspended", "phone", 1006, ""),
            ("gone", "phone", 1006, ""),
            ("left", "alice", 1006, ""),
        ]
        assert server.stats().suspended_bytes == 0


@testing.virtual_time
async def test_a_page_that_goes_is_waited_for_a_moment() -> None:
    told: list[Any] = []
    server = make_server(told)
    async with testing.Network(server) as network:
        alice = await phone(network, reconnect=False)
        told.clear()
        alice._end.close(1001, "")
        await testing.pass_time(4)
        assert told == [("suspended", "phone", 1001, "")]
        await phone(network)
        assert told[1:] == [("gone", "phone", 1000, "wse.replaced"), ("connected", "phone")]
        told.clear()
        network.devices[-1]._end.close(1001, "")
        await testing.pass_time(6)
        assert told[1:] == [("gone", "phone", 1001, ""), ("left", "alice", 1001, "")]


@testing.virtual_time
async def test_without_a_window_nothing_waits() -> None:
    told: list[Any] = []
    server = make_server(told, limits=Limits(session_window=None))
    async with testing.Network(server) as network:
        alice = await phone(network)
        alice.tear()
        await testing.pass_time(1)
        assert [event for event, *_ in told] == [
            *["joined", "connected", "gone", "left", "joined", "connected"]
        ]


# -- what crosses a return ---------------------------------------------------------------------


@pytest.mark.parametrize("event", ["suspended", "resumed"])
@testing.virtual_time
async def test_a_device_that_is_dropped_as_it_goes_or_comes(event: str) -> None:
    told: list[Any] = []
    server = make_server(told)
    getattr(server.when, event)(lambda conn, *_: conn.drop("enough"))
    async with testing.Network(server) as network:
        alice = await phone(network)
        alice.tear()
        await testing.pass_time(1)
        assert alice.closed == (1000, "enough")
        assert alice.client.status is Status.OFFLINE
        assert told[-2:] == [("gone", "phone", 1000, "enough"), ("left", "alice", 1000, "enough")]


@pytest.mark.parametrize("event", ["suspended", "resumed"])
@testing.virtual_time
async def test_a_client_that_closes_as_it_goes_or_comes(event: str) -> None:
    server = make_server()
    async with testing.Network(server) as network:
        alice = await phone(network)

        async def close(*_: Any) -> None:
            await alice.client.close("enough")

        getattr(alice.client.when, event)(close)
        alice.tear()
        await testing.pass_time(1)
        assert alice.closed == (1000, "enough")
        assert alice.client.status is Status.OFFLINE
        assert server.stats().suspended == (event == "suspended")
        await testing.pass_time(121)
        assert not server.clients


@testing.virtual_time
async def test_a_client_that_leaves_for_another_server_while_it_is_away() -> None:
    here, there = make_server(), make_server()
    async with testing.Network(here) as network:
        alice = await phone(network)
        lost: list[int] = []
        alice.client.when.lost(lost.append)
        alice.unplug()
        alice.plug_in()
        alice._dialer._acceptor = there.acceptor
        await alice.client.jump("ws://there/")
        assert lost == [0]
        assert "alice" in there.clients
        await testing.pass_time(121)
        assert "alice" not in here.clients
    await there.close()


@testing.virtual_time
async def test_a_session_that_ends_while_its_device_is_identified() -> None:
    decides = asyncio.Event()
    decides.set()

    async def identify_slowly(attempt: Attempt) -> Decision:
        await decides.wait()
        return attempt.accept(attempt.identity)

    limits = Limits(session_window=5, authentication_timeout=30)
    server: WseServer[Any] = WseServer(identify_slowly, limits=limits)
    told: list[Any] = []
    server.when.disconnected(lambda _, *end: told.append(end))
    async with testing.Network(server) as network:
        alice = await phone(network)
        lost: list[int] = []
        alice.client.when.lost(lost.append)
        decides.clear()
        alice.tear()
        await testing.pass_time(10)
        assert told == [(1006, "")]
        decides.set()
        await testing.pass_time(1)
        assert lost == [0]
        assert "alice" in server.clients
        decides.clear()
        alice.tear()
        await testing.pass_time(2)
        server.drop_client("alice", "enough")
        decides.set()
        await testing.pass_time(1)
        assert await alice.wait_closed() == (1000, "enough")
        assert alice.client.status is Status.OFFLINE
        await testing.pass_time(10)
        stats = server.stats()
        assert (stats.suspended, stats.strangers, stats.devices) == (0, 0, 0)


# -- bounds ------------------------------------------------------------------------------------


@testing.virtual_time
async def test_more_than_is_kept_ends_a_session_with_the_turn() -> None:
    told: list[Any] = []
    server = make_server(told, limits=Limits(max_kept_messages=10))
    lost: list[int] = []
    async with testing.Network(server) as network:
        alice = await phone(network)
        alice.client.when.lost(lost.append)
        alice.unplug()
        await testing.settle()
        told.clear()
        for number in range(11):
            server.send("alice", "news", number)
        assert ("left", "alice", 1013, "wse.slow-consumer") not in told
        await testing.settle()
        assert told[-1] == ("left", "alice", 1013, "wse.slow-consumer")
        alice.plug_in()
        await testing.pass_time(1)
        assert lost == [0]
        assert alice.client.status is Status.READY
        assert not alice.received


@testing.virtual_time
async def test_those_away_the_longest_give_way_to_the_budget() -> None:
    told: list[Any] = []
    server = make_server(told, limits=Limits(max_suspended_bytes=12_000))
    async with testing.Network(server) as network:
        devices = [await phone(network, f"phone {number}") for number in range(3)]
        told.clear()
        for one in devices:
            one.unplug()
            await testing.pass_time(1)
        assert [event[1] for event in told if event[0] == "gone"] == ["phone 0"]
        stats = server.stats()
        assert stats.suspended == 2
        assert stats.suspended_bytes == 2 * 4096
        server.send("alice", "long", "x" * 3000)
        await testing.settle()
        assert [event[1] for event in told if event[0] == "gone"] == ["phone 0", "phone 1"]
        assert 4096 + 3000 < server.stats().suspended_bytes < 4096 + 3100


@testing.virtual_time
async def test_who_was_replaced_drives_nobody_out_of_the_budget() -> None:
    server = make_server(conn_per_user=1, limits=Limits(max_suspended_bytes=20_000))
    async with testing.Network(server) as network:
        victim = await network.connect("victim", reconnect=True, backoff=QUICK)
        victim.unplug()
        for number in range(60):
            (await phone(network, f"phone {number}", reconnect=False)).tear()
            await testing.settle()
        assert "victim" in server.clients


@testing.virtual_time
async def test_closing_as_a_session_is_lost_is_told() -> None:
    server = make_server(limits=Limits(session_window=10))
    closed: list[Any] = []
    async with testing.Network(server) as network:
        alice = await phone(network)
        alice.client.when.closed(lambda *end: closed.append(end))

        @alice.client.when.lost
        async def close(_: int) -> None:
            await alice.client.close()

        alice.unplug()
        await testing.pass_time(30)
        assert closed == [(1000, "wse.by-client")]


@testing.virtual_time
async def test_a_client_keeps_so_much_and_loses_nothing_of_it() -> None:
    server = make_server()
    heard: list[int] = []
    server.channel.on("count", lambda _, number: heard.append(number))
    async with testing.Network(server) as network:
        alice = await phone(network, limits=Limits(max_kept_messages=5))
        alice.unplug()
        for number in range(5):
            alice.send("count", number)
        with pytest.raises(OutboxFull):
            alice.send("count", 5)
        alice.plug_in()
        await testing.pass_time(1)
        assert heard == [0, 1, 2, 3, 4]
        alice.send("count", 6)
        await testing.settle()
        assert heard[-1] == 6


@testing.virtual_time
async def test_a_client_knows_when_it_is_too_late() -> None:
    server = make_server(limits=Limits(session_window=30))
    async with testing.Network(server) as network:
        alice = await phone(network)
        lost: list[int] = []
        closed: list[Any] = []
        alice.client.when.lost(lost.append)
        alice.client.when.closed(lambda *end: closed.append(end))
        alice.unplug()
        call = asyncio.ensure_future(alice.call("nothing", timeout=100))
        alice.send("x")
        await testing.pass_time(31)
        assert lost == [2]
        with pytest.raises(CallDisconnected):
            await call
        with pytest.raises(NotConnected):
            alice.send("x")
        assert closed == []
        assert alice.client.status is Status.RE_CONNECTING
        await alice.close()
        assert closed == [(1000, "wse.by-client")]
        assert lost == [2]


# -- volatile ----------------------------------------------------------------------------------


@testing.virtual_time
async def test_what_need_not_be_kept_is_skipped_for_those_who_are_away() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        alice = await phone(network)
        bob = await network.connect("bob")
        alice.tear()
        server.broadcast("cursor", 1, keep=False)
        server.send("alice", "cursor", 2, keep=False)
        server.clients["alice"].send("cursor", 3, keep=False)
        server.broadcast("news", 4)
        await testing.pass_time(1)
        assert list(alice.received) == [("news", 4)]
        assert list(bob.received) == [("cursor", 1), ("news", 4)]


# -- devices -----------------------------------------------------------------------------------


@testing.virtual_time
async def test_a_device_that_connects_again_replaces_itself() -> None:
    told: list[Any] = []
    server = make_server(told, conn_per_user=1)
    async with testing.Network(server) as network:
        first = await phone(network)
        second = await phone(network)
        assert await first.wait_closed() == (1000, "wse.replaced")
        await testing.pass_time(60)
        assert first.client.status is Status.OFFLINE
        assert second.client.status is Status.READY
        assert told == [
            ("joined", "alice"),
            ("connected", "phone"),
            ("gone", "phone", 1000, "wse.replaced"),
            ("connected", "phone"),
        ]


@testing.virtual_time
async def test_some_of_a_users_devices() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        devices = {name: await phone(network, name) for name in ("phone", "laptop", "tablet")}
        (laptop,) = [c for c in server.clients.conns.values() if c.device == "laptop"]
        server.send("alice", "all")
        server.send("alice", "others", to=others(laptop))
        server.send("alice", "newest", to=newest())
        server.send("alice", "phone", to=device("phone"))
        server.send("alice", "nobody", to=device("watch"))
        server.clients["alice"].send("user", to=device("laptop"))
        await testing.settle()
        heard = {name: [type for type, _ in one.received] for name, one in devices.items()}
        assert heard == {
            "phone": ["all", "others", "phone"],
            "laptop": ["all", "user"],
            "tablet": ["all", "others", "newest"],
        }
        for name, one in devices.items():
            one.client.register("who", lambda _, name=name: name)
        assert await server.call("alice", "who") == "tablet"
        assert await server.call("alice", "who", to=device("phone")) == "phone"
        with pytest.raises(NoSuchClient):
            await server.call("alice", "who", to=device("watch"))
        with pytest.raises(TypeError):
            device(7)  # type: ignore[arg-type]


@testing.virtual_time
async def test_what_is_known_of_devices() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        alice = await phone(network, remote_addr="192.0.2.7")
        await testing.pass_time(10)
        alice.send("hello")
        await testing.pass_time(5)
        classic = await network.connect("alice", protocols=[WseJSON()])
        alice.unplug()
        await testing.pass_time(1)
        first, second = await server.devices("alice")
        assert first.connected_for == pytest.approx(16, abs=0.01)
        assert first.silent_for == pytest.approx(1, abs=0.01)
        assert first == DeviceInfo(
            device="phone",
            conn_id=first.conn_id,
            meta={"on": "phone"},
            connected_for=first.connected_for,
            silent_for=first.silent_for,
            remote_addr="192.0.2.7",
            suspended=True,
        )
        assert second.device == second.conn_id
        assert not second.suspended
        assert classic.client.device is None
        assert await server.devices("bob") == []


@testing.virtual_time
async def test_the_server_names_a_device_that_does_not_and_the_client_keeps_the_name() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        alice = await phone(network, None)
        name = alice.client.device
        assert name
        await alice.close()
        await alice.connect("alice")
        assert alice.client.device == name
        assert [one.device for one in await server.devices("alice")] == [name]
        for bad in ("", "x" * 129):
            with pytest.raises(ValueError, match="1 to 128"):
                network.device(device=bad)


# -- seats -------------------------------------------------------------------------------------


@testing.virtual_time
async def test_one_too_many_takes_the_seat_of_who_is_away_the_longest() -> None:
    told: list[Any] = []
    server = make_server(told, conn_per_user=3)
    async with testing.Network(server) as network:
        devices = [await phone(network, name) for name in "abc"]
        for one in (devices[2], devices[1]):
            one.unplug()
            await testing.pass_time(1)
        await phone(network, "d")
        await phone(network, "e")
        await phone(network, "f")
        gone = [event[1] for event in told if event[0] == "gone"]
        assert gone == ["c", "b", "a"]
        ends = [event[2:] for event in told if event[0] == "gone"]
        assert set(ends) == {(1000, "wse.clients-concurrency")}


@testing.virtual_time
async def test_who_was_sent_away_while_away_learns_why_and_stays_away() -> None:
    server = make_server(conn_per_user=1)
    async with testing.Network(server) as network:
        first = await phone(network, "first")
        first.unplug()
        second = await phone(network, "second")
        first.plug_in()
        assert await first.wait_closed() == (1000, "wse.clients-concurrency")
        await testing.pass_time(60)
        assert first.client.status is Status.OFFLINE
        assert second.client.status is Status.READY
        await first.connect("alice")
        assert await second.wait_closed() == (1000, "wse.clients-concurrency")


@testing.virtual_time
async def test_a_newcomer_may_be_refused_instead() -> None:
    told: list[Any] = []
    server = make_server(told, conn_per_user=1, when_full="refuse")
    async with testing.Network(server) as network:
        await phone(network, "first")
        with pytest.raises(ConnectionFailed) as caught:
            await phone(network, "second")
        assert caught.value.details == {"code": 1000, "reason": "wse.seats-full"}
        assert not caught.value.temporary
        again = await phone(network, "first")
        assert again.client.status is Status.READY
        assert [event[:2] for event in told] == [
            ("joined", "alice"),
            ("connected", "first"),
            ("gone", "first"),
            ("connected", "first"),
        ]
        assert server.stats().strangers == 0
    with pytest.raises(ValueError, match="when_full"):
        make_server(when_full="maybe")


# -- calls -------------------------------------------------------------------------------------


@testing.virtual_time
async def test_who_waits_no_longer_cancels_the_handler() -> None:
    server = make_server()
    ends: list[str] = []

    async def work(*_: Any) -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    failures: list[Any] = []
    server.register("work", work)
    server.register("busy", work, ordered=True)
    server.when.error(lambda *error: failures.append(error))
    async with testing.Network(server) as network:
        alice = await phone(network)
        alice.client.register("work", work)
        (conn,) = server.clients.conns.values()
        for call in (alice.call("work"), conn.call("work")):
            waiting = asyncio.ensure_future(call)
            await testing.settle()
            waiting.cancel()
            await testing.settle()
        assert ends == ["cancelled", "cancelled"]
        first = asyncio.ensure_future(alice.call("busy"))
        second = asyncio.ensure_future(alice.call("busy"))
        await testing.settle()
        second.cancel()
        await testing.settle()
        assert len(ends) == 2
        assert server.stats().waiting_messages == 0
        first.cancel()
        await testing.settle()
        assert len(ends) == 3
        assert failures == []


@testing.virtual_time
async def test_a_procedure_knows_how_long_its_caller_waits() -> None:
    server = make_server()
    assert time_left() is None

    @server.register("left")
    async def left(_: WseConnection[Any], __: None) -> list[float | None]:
        before = time_left()
        await asyncio.sleep(2)
        return [before, time_left()]

    server.register("plain", lambda *_: time_left())
    server.channel.on("event", lambda conn, _: conn.send("event", time_left()))
    async with testing.Network(server) as network:
        alice = await phone(network)
        assert await alice.call("left", timeout=8) == pytest.approx([8, 6], abs=0.01)
        assert await alice.call("plain", timeout=5) == pytest.approx(5, abs=0.01)
        alice.send("event")
        assert await alice.next("event") is None
        bob = await network.connect("bob", protocols=[WseJSON()])
        assert await bob.call("plain", timeout=5) is None


# -- signs of life -----------------------------------------------------------------------------


@testing.virtual_time
async def test_where_the_carrier_cannot_ping_the_server_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(MemoryTransport, "pings", False)
    told: list[Any] = []
    server = make_server(told)
    async with testing.Network(server) as network:
        alice = await phone(network)
        classic = await network.connect("bob", protocols=[WseJSON()])
        await testing.pass_time(300)
        assert [event[0] for event in told].count("suspended") == 0
        (info,) = await server.devices("alice")
        assert info.silent_for <= 26
        told.clear()
        alice.stall()
        classic.stall()
        await testing.pass_time(40)
        assert told == [("suspended", "phone", 1006, "wse.heartbeat-lost")]
        alice.resume()
        await testing.pass_time(2)
        assert alice.client.status is Status.READY
        await testing.pass_time(300)
        assert [event[0] for event in told] == ["suspended", "resumed"]
        assert classic.client.status is Status.READY


# -- going away --------------------------------------------------------------------------------


@testing.virtual_time
async def test_a_server_that_drains_says_when_to_come_back() -> None:
    told: list[Any] = []
    server = make_server(told, conn_per_user=20)
    clock = asyncio.get_running_loop().time
    tried: list[float] = []
    async with testing.Network(server) as network:
        devices = [await phone(network, f"phone {number}") for number in range(20)]
        for one in devices:
            one.client.when.connected(lambda: tried.append(clock()))
        told.clear()
        began = clock()
        await server.close(drain=10)
        assert {event[0] for event in told[:20]} == {"suspended"}
        assert told[-1] == ("left", "alice", 1012, "wse.server-closing")
        await testing.pass_time(15)
        assert all(one.client.status is Status.READY for one in devices)
        waits = sorted(time - began for time in tried)
        assert waits[0] >= 10
        assert waits[-1] - waits[0] > 3


@testing.virtual_time
async def test_what_is_said_while_a_drain_waits_is_not_lost_when_it_is_given_up() -> None:
    server = make_server()
    said: list[int] = []
    server.channel.on("say", lambda _, number: said.append(number))

    @server.register("work")
    async def work(_: WseConnection[Any], seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    async with testing.Network(server) as network:
        alice = await phone(network)
        bob = await network.connect("bob")
        early = asyncio.ensure_future(alice.call("work", 3))
        bobs = asyncio.ensure_future(bob.call("work", 20))
        await testing.settle()
        closing = asyncio.ensure_future(server.close(drain=10))
        await testing.pass_time(1)
        alice.send("say", 1)
        late = asyncio.ensure_future(alice.call("work", 1, timeout=60))
        await testing.pass_time(4)
        closing.cancel()
        await testing.pass_time(30)
        alice.send("say", 2)
        await testing.settle()
        assert said == [1, 2]
        assert await late == 1
        assert (await early, await bobs) == (3, 20)


@testing.virtual_time
async def test_who_thinks_better_of_closing_finds_all_sessions_again() -> None:
    told: list[Any] = []
    server = make_server(told)
    server.register("work", lambda *_: asyncio.sleep(1000))
    async with testing.Network(server) as network:
        alice = await phone(network)
        bob = await network.connect("bob")
        work = asyncio.ensure_future(bob.call("work", timeout=1000))
        await testing.settle()
        told.clear()
        closing = asyncio.ensure_future(server.close(drain=20))
        await testing.pass_time(1)
        closing.cancel()
        await testing.pass_time(130)
        assert [event[0] for event in told] == ["suspended", "resumed"]
        assert alice.client.status is Status.READY
        work.cancel()
