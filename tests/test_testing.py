"""The test kit, as its users find it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from support import real_time

from wse import (
    Attempt,
    Backoff,
    ConnectionFailed,
    Decision,
    Limits,
    NotAuthorized,
    Status,
    WseConnection,
    WseServer,
    testing,
)

DAY = 24 * 3600


def identify(attempt: Attempt) -> Decision:
    if attempt.identity == "wrong":
        return attempt.refuse()
    return attempt.accept("alice", {"path": attempt.path, "from": attempt.remote_addr})


def make_server(**options: Any) -> WseServer[Any]:
    server: WseServer[Any] = WseServer(identify, **{"conn_per_user": 5, **options})

    @server.channel.on("hello")
    def hello(conn: WseConnection[Any], data: Any) -> None:
        conn.send("welcome", {"got": data["n"]})

    return server


# -- the clock -------------------------------------------------------------------------------


def test_a_day_passes_at_once() -> None:
    @testing.virtual_time
    async def sleep_a_day() -> float:
        await asyncio.sleep(DAY)
        return asyncio.get_running_loop().time()

    assert sleep_a_day() == pytest.approx(DAY)


def test_run_returns_what_the_coroutine_returns() -> None:
    async def answer() -> int:
        await asyncio.sleep(DAY)
        return 42

    assert testing.run(answer()) == 42


def test_a_virtual_test_keeps_its_name_and_arguments() -> None:
    @testing.virtual_time
    async def test_something(a: int, b: int = 2) -> list[int]:
        """What it tests."""
        return [a, b]

    assert test_something(1, b=3) == [1, 3]
    assert test_something.__name__ == "test_something"
    assert test_something.__doc__ == "What it tests."


@testing.virtual_time
async def test_the_clock_stands_still_while_there_is_something_to_do() -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    for _ in range(1000):
        await asyncio.sleep(0)
    assert loop.time() == before


@testing.virtual_time
async def test_timers_fire_in_their_order() -> None:
    fired: list[int] = []
    loop = asyncio.get_running_loop()
    for seconds in (3, 1, 2, 5):
        loop.call_later(seconds, fired.append, seconds)
    await testing.pass_time(4)
    assert fired == [1, 2, 3]
    await testing.pass_time(1)
    assert fired == [1, 2, 3, 5]


@pytest.mark.parametrize("patience", [0.01])
def test_a_deadlock_is_an_error(patience: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "_PATIENCE", patience)

    @testing.virtual_time
    async def wait_for_nothing() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="deadlock"):
        wait_for_nothing()


@testing.virtual_time
async def test_the_clock_waits_for_threads() -> None:
    released = threading.Event()

    def work() -> str:
        released.wait(timeout=5)
        return "done"

    asyncio.get_running_loop().call_soon(threading.Timer(0.01, released.set).start)
    async with asyncio.timeout(5):
        assert await asyncio.to_thread(work) == "done"
    assert asyncio.get_running_loop().time() < 5


@real_time
async def test_time_cannot_be_passed_on_a_real_clock() -> None:
    with pytest.raises(RuntimeError, match="virtual_time"):
        await testing.pass_time(1)


# -- the network -----------------------------------------------------------------------------


@testing.virtual_time
async def test_the_example_of_the_documentation() -> None:
    async with testing.Network(make_server()) as network:
        alice = await network.connect("alice-token")
        alice.send("hello", {"n": 1})
        assert await alice.next("welcome") == {"got": 1}


@real_time
async def test_it_works_on_a_real_clock_too() -> None:
    async with testing.Network(make_server()) as network:
        alice = await network.connect("alice-token")
        alice.send("hello", {"n": 1})
        assert await alice.next("welcome") == {"got": 1}
        network.server.send("alice", "news")
        await testing.settle()
        assert list(alice.received) == [("news", None)]


@testing.virtual_time
async def test_devices_come_from_where_they_say() -> None:
    async with testing.Network(make_server(), "ws://test/ws?v=1") as network:
        assert (await network.connect()).welcome == {"path": "/ws", "from": "127.0.0.1"}
        device = await network.connect(url="ws://test/other", remote_addr="10.0.0.7")
        assert device.welcome == {"path": "/other", "from": "10.0.0.7"}
        assert network.devices[1] is device
        assert len(network.devices) == 2


@testing.virtual_time
async def test_options_are_the_clients() -> None:
    async with testing.Network(make_server()) as network:
        device = network.device(reconnect=True, timeout=7, headers={"X": "y"})
        assert (device.client.reconnect, device.client._timeout) == (True, 7)
        assert device.client.headers == {"X": "y"}
        with pytest.raises(TypeError):
            network.device(no_such_option=1)


@testing.virtual_time
async def test_leaving_closes_both_ends_of_everything() -> None:
    server = make_server()
    ends: list[tuple[int, str]] = []
    server.when.disconnected(lambda _, code, reason: ends.append((code, reason)))
    async with testing.Network(server) as network:
        devices = [await network.connect() for _ in range(3)]
        devices[0].unplug()
        network.device()
    assert sorted(ends) == [*[(1000, "wse.by-client")] * 2, (1012, "wse.server-closing")]
    assert [device.client.status for device in network.devices] == [
        *[Status.OFFLINE] * 3,
        Status.IDLE,
    ]
    assert len(server.clients) == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


@testing.virtual_time
async def test_a_refused_device_raises() -> None:
    async with testing.Network(make_server()) as network:
        with pytest.raises(NotAuthorized):
            await network.connect("wrong")
        assert network.devices[0].closed == (1000, "wse.not-authorized")


# -- devices ---------------------------------------------------------------------------------


@testing.virtual_time
async def test_next_takes_messages_of_its_type_in_order() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        alice = await network.connect()
        for number in range(4):
            server.send("alice", "odd" if number % 2 else "even", number)
        assert [await alice.next("odd") for _ in range(2)] == [1, 3]
        assert list(alice.received) == [("even", 0), ("even", 2)]
        assert [await alice.next("even") for _ in range(2)] == [0, 2]
        assert list(alice.received) == []


@testing.virtual_time
async def test_next_does_not_take_equal_messages_twice() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        alice = await network.connect()
        for payload in (1, True, 1.0, None):
            server.send("alice", "same", payload)
        await testing.settle()
        taken = [await alice.next("same") for _ in range(4)]
        assert [type(payload) for payload in taken] == [int, bool, float, type(None)]


@testing.virtual_time
async def test_next_gives_up() -> None:
    async with testing.Network(make_server()) as network:
        alice = await network.connect()
        before = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await alice.next("never")
        assert asyncio.get_running_loop().time() - before == pytest.approx(5)
        with pytest.raises(TimeoutError):
            await alice.next("never", timeout=60)
        assert asyncio.get_running_loop().time() - before == pytest.approx(65)


@testing.virtual_time
async def test_next_leaves_what_a_handler_takes() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        alice = await network.connect()
        heard: list[Any] = []
        alice.client.channel.on("mine", heard.append)
        server.send("alice", "mine", 1)
        server.send("alice", "yours", 2)
        assert await alice.next("yours") == 2
        assert heard == [1]
        assert list(alice.received) == []


@testing.virtual_time
async def test_several_may_wait() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        alice = await network.connect()
        waiting = [asyncio.create_task(alice.next(name)) for name in ("a", "b", "a")]
        await testing.settle()
        for name, number in (("b", 1), ("a", 2), ("a", 3)):
            server.send("alice", name, number)
        assert sorted([await task for task in waiting]) == [1, 2, 3]
        assert waiting[1].result() == 1


@testing.virtual_time
async def test_wait_closed_tells_how_it_ended() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        alice = await network.connect()
        with pytest.raises(TimeoutError):
            await alice.wait_closed(timeout=1)
        server.drop_client("alice", "banned")
        assert await alice.wait_closed() == alice.closed == (1000, "banned")
        await alice.connect()
        assert [alice.closed] == [None]


@testing.virtual_time
async def test_calls_and_procedures() -> None:
    server = make_server()
    server.register("double", lambda _, number: number * 2)
    async with testing.Network(server) as network:
        alice = await network.connect()
        alice.client.register("triple", lambda number: number * 3)
        assert await alice.call("double", 21) == 42
        assert await server.call("alice", "triple", 14) == 42


@pytest.mark.parametrize("window", [None, 120.0])
@testing.virtual_time
async def test_tear_breaks_both_ends_and_loses_what_was_under_way(window: float | None) -> None:
    server = make_server(limits=Limits(session_window=window))
    heard: list[Any] = []
    ends: list[tuple[int, str]] = []
    server.channel.on("up", lambda _, data: heard.append(data))
    server.when.suspended(lambda _, code, reason: ends.append((code, reason)))
    server.when.disconnected(lambda _, code, reason: ends.append((code, reason)))
    async with testing.Network(server) as network:
        alice = await network.connect()
        alice.send("up", 1)
        server.send("alice", "down", 2)
        alice.tear()
        assert await alice.wait_closed() == (1006, "")
        await testing.settle()
        assert ends == [(1006, "")]
        assert heard == []
        assert list(alice.received) == []
        alice.tear()
        await testing.settle()
        assert len(ends) == 1
        assert len(server.clients) == (window is not None)


@testing.virtual_time
async def test_a_stalled_device_reads_nothing_until_it_resumes() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        alice = await network.connect()
        alice.stall()
        for number in range(3):
            server.send("alice", "n", number)
            await testing.settle()
        assert list(alice.received) == []
        alice.send("hello", {"n": 4})
        alice.resume()
        assert [await alice.next("n") for _ in range(3)] == [0, 1, 2]
        assert await alice.next("welcome") == {"got": 4}


@testing.virtual_time
async def test_a_stalled_device_costs_a_bounded_amount() -> None:
    server = make_server(limits=Limits(max_unwritten_bytes=1000))
    async with testing.Network(server) as network:
        alice = await network.connect()
        alice.stall()
        for _ in range(20):
            server.send("alice", "n", "x" * 100)
            await testing.settle()
        assert len(server.clients) == 0
        alice.resume()
        assert await alice.wait_closed() == (1013, "wse.slow-consumer")


@testing.virtual_time
async def test_unplugged_nothing_can_be_opened() -> None:
    async with testing.Network(make_server()) as network:
        alice = await network.connect(reconnect=True, backoff=Backoff(cap=1))
        alice.unplug()
        await testing.pass_time(30)
        assert alice.client.status is Status.RE_CONNECTING
        other = network.device()
        await other.connect()
        alice.plug_in()
        await testing.pass_time(2)
        assert alice.closed is None
        other.unplug()
        with pytest.raises(ConnectionFailed):
            await other.connect()


@testing.virtual_time
async def test_what_was_never_connected_has_no_cable() -> None:
    async with testing.Network(make_server()) as network:
        device = network.device()
        for pull in (device.tear, device.stall, device.resume):
            with pytest.raises(RuntimeError, match="never connected"):
                pull()


@testing.virtual_time
async def test_a_device_may_be_unplugged_before_it_connects() -> None:
    async with testing.Network(make_server()) as network:
        device = network.device()
        device.unplug()
        with pytest.raises(ConnectionFailed):
            await device.connect()
        device.plug_in()
        await device.connect()
        assert device.closed is None
