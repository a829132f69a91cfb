"""Sending from another thread than the loop's, as synchronous views and routes do."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from support import real_time

from wse import (
    Attempt,
    Decision,
    Limits,
    MessageTooLarge,
    NotConnected,
    WseClient,
    WseConnection,
    WseJSON,
    WseServer,
    testing,
)

COUNT = 200


def identify(attempt: Attempt) -> Decision:
    return attempt.accept(attempt.identity)


def make_server(**options: Any) -> WseServer[Any]:
    return WseServer(identify, **{"conn_per_user": 3, **options})


@testing.virtual_time
async def test_what_threads_send_arrives_in_order() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        alice = await network.connect("alice")
        [conn] = server.clients.conns.values()
        client = server.clients["alice"]

        def send_all() -> None:
            for number in range(0, COUNT, 4):
                server.send("alice", "n", number)
                conn.send("n", number + 1)
                client.send("n", number + 2)
                server.broadcast("n", number + 3)

        await asyncio.to_thread(send_all)
        assert [await alice.next("n") for _ in range(COUNT)] == list(range(COUNT))


@testing.virtual_time
async def test_a_client_sends_from_threads_too() -> None:
    server = make_server()
    heard: list[int] = []
    server.channel.on("n", lambda _, number: heard.append(number))
    async with testing.Network(server) as network:
        alice = await network.connect("alice")

        def send_all() -> None:
            for number in range(COUNT):
                alice.send("n", number)

        await asyncio.to_thread(send_all)
        await testing.settle()
        assert heard == list(range(COUNT))


@testing.virtual_time
async def test_each_of_several_threads_keeps_its_order() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        alice = await network.connect("alice")

        def send_all(name: str) -> None:
            for number in range(COUNT):
                server.send("alice", name, number)

        await asyncio.gather(*(asyncio.to_thread(send_all, name) for name in "abc"))
        for name in "abc":
            assert [await alice.next(name) for _ in range(COUNT)] == list(range(COUNT))


@testing.virtual_time
async def test_drops_from_threads_follow_what_was_sent() -> None:
    server = make_server()
    told: list[str] = []
    loop_thread = threading.get_ident()

    @server.when.disconnected
    def disconnected(conn: WseConnection[Any], _: int, reason: str) -> None:
        assert threading.get_ident() == loop_thread
        told.append(f"{conn.cid} {reason}")

    async with testing.Network(server) as network:
        devices = [await network.connect(cid) for cid in ("alice", "bob", "carol")]
        conn = next(iter(server.clients["alice"].conns.values()))
        client = server.clients["bob"]

        def drop_all() -> None:
            server.broadcast("last words")
            conn.drop("one")
            client.drop("two")
            server.drop_client("carol", "three")
            server.broadcast("nobody is left to hear this")

        await asyncio.to_thread(drop_all)
        assert [await device.wait_closed() for device in devices] == [
            (1000, "one"),
            (1000, "two"),
            (1000, "three"),
        ]
        assert [list(device.received) for device in devices] == [[("last words", None)]] * 3
        assert told == ["alice one", "bob two", "carol three"]


@testing.virtual_time
async def test_errors_are_raised_in_the_calling_thread() -> None:
    server = make_server(limits=Limits(max_message_bytes=200))
    unhandled: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    async with testing.Network(server) as network:
        alice = await network.connect(
            "alice", limits=Limits(max_message_bytes=200), protocols=[WseJSON()]
        )
        [conn] = server.clients.conns.values()
        client = server.clients["alice"]

        def fail() -> int:
            ways = (
                alice.send,
                conn.send,
                client.send,
                server.broadcast,
                lambda *message: server.send("alice", *message),
                lambda *message: server.send("nobody", *message),
            )
            for send in ways:
                with pytest.raises(TypeError):
                    send("n", object())
                with pytest.raises(ValueError, match="reserved"):
                    send("~wse:n", 1)
                with pytest.raises(MessageTooLarge):
                    send("n", "x" * 200)
            for drop in (
                conn.drop,
                client.drop,
                lambda reason: server.drop_client("alice", reason),
            ):
                with pytest.raises(ValueError, match="123 bytes"):
                    drop("x" * 124)
            return len(ways)

        assert await asyncio.to_thread(fail) == 6
        await testing.settle()
        assert unhandled == []
        assert list(alice.received) == []
        assert alice.closed is None
        await alice.close()
        with pytest.raises(NotConnected):
            await asyncio.to_thread(alice.send, "n")


@testing.virtual_time
async def test_a_call_belongs_to_the_loop() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        alice = await network.connect("alice")
        alice.client.register("ping", lambda _: "pong")
        loop = asyncio.get_running_loop()

        def call_on_another_loop() -> None:
            with pytest.raises(RuntimeError, match="loop's own thread"):
                asyncio.run(server.call("alice", "ping"))

        def call_on_the_loop() -> Any:
            calling = asyncio.run_coroutine_threadsafe(server.call("alice", "ping"), loop)
            return calling.result(timeout=5)

        await asyncio.to_thread(call_on_another_loop)
        assert await asyncio.to_thread(call_on_the_loop) == "pong"


@testing.virtual_time
async def test_blocking_handlers_run_in_threads_and_answer_from_there() -> None:
    server = make_server()
    loop_thread = threading.get_ident()
    threads: list[int] = []

    @server.channel.on("work", blocking=True)
    def work(conn: WseConnection[Any], number: int) -> None:
        threads.append(threading.get_ident())
        conn.send("done", number)
        server.broadcast("done", number + 1)

    @server.register("compute", blocking=True)
    def compute(_: WseConnection[Any], number: int) -> int:
        threads.append(threading.get_ident())
        return number * 2

    async with testing.Network(server) as network:
        alice = await network.connect("alice")
        alice.send("work", 1)
        assert [await alice.next("done") for _ in range(2)] == [1, 2]
        assert await alice.call("compute", 21) == 42
    assert len(threads) == 2
    assert loop_thread not in threads


def test_what_is_sent_once_the_loop_is_over_goes_nowhere() -> None:
    server = make_server()
    kept: list[WseConnection[Any]] = []

    @testing.virtual_time
    async def meet() -> None:
        async with testing.Network(server) as network:
            await network.connect("alice")
            kept.extend(server.clients.conns.values())

    meet()
    errors: list[BaseException] = []

    def send_late() -> None:
        try:
            kept[0].send("late")
            kept[0].drop()
            server.send("alice", "late")
            server.broadcast("late")
            server.drop_client("alice")
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=send_late)
    thread.start()
    thread.join()
    assert errors == []
    assert len(server.clients) == 0


@real_time
async def test_threads_over_a_socket() -> None:
    server = make_server()
    heard: asyncio.Queue[int] = asyncio.Queue()
    echoed: asyncio.Queue[int] = asyncio.Queue()
    server.channel.on("up", lambda _, number: echoed.put_nowait(number))
    async with (
        server.listen(port=0) as listener,
        WseClient(f"ws://127.0.0.1:{listener.port}/") as client,
    ):
        client.channel.on("n", heard.put_nowait)
        await client.connect("alice")

        def send_all() -> None:
            for number in range(COUNT):
                server.send("alice", "n", number)
                client.send("up", number)

        await asyncio.to_thread(send_all)
        assert [await heard.get() for _ in range(COUNT)] == list(range(COUNT))
        assert [await echoed.get() for _ in range(COUNT)] == list(range(COUNT))
