"""Who is there."""

from __future__ import annotations

from typing import Any

import pytest

from wse import Attempt, Decision, WseServer, testing


def identify(attempt: Attempt) -> Decision:
    return attempt.accept(attempt.identity)


def make_server(seats: int = 1) -> WseServer[Any]:
    return WseServer(identify, conn_per_user=seats)


@pytest.mark.parametrize("seats", [0, -1])
def test_a_user_has_at_least_one_seat(seats: int) -> None:
    with pytest.raises(ValueError, match="conn_per_user"):
        make_server(seats)


@testing.virtual_time
async def test_nobody_is_there_at_first() -> None:
    server = make_server()
    assert len(server.clients) == 0
    assert dict(server.clients) == {}
    assert "alice" not in server.clients
    assert server.clients.get("alice") is None
    with pytest.raises(KeyError) as caught:
        server.clients["alice"]
    assert "alice" not in repr(caught.value)


@testing.virtual_time
async def test_users_are_found_by_their_address() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        await network.connect("alice")
        await network.connect(7)
        assert list(server.clients) == ["alice", "7"]
        assert server.clients[7] is server.clients["7"] is server.clients.get("7")
        assert [client.cid for client in server.clients.values()] == ["alice", "7"]
        assert None not in server.clients
        assert repr(server.clients) == "<Registry, 2 users, 2 devices>"


@testing.virtual_time
async def test_it_cannot_be_written() -> None:
    assert not hasattr(make_server().clients, "__setitem__")
    assert not hasattr(make_server().clients, "__delitem__")


@testing.virtual_time
async def test_devices_are_listed_the_longest_connected_first() -> None:
    server = make_server(3)
    async with testing.Network(server) as network:
        for number in range(3):
            await network.connect("alice", number)
        await network.connect("bob", "b")
        assert [conn.meta for conn in server.clients["alice"].conns.values()] == [0, 1, 2]
        assert [conn.meta for conn in server.clients.conns.values()] == [0, 1, 2, "b"]
        for conn_id, conn in server.clients.conns.items():
            assert conn.conn_id == conn_id
            assert conn.client is server.clients[conn.cid]
            assert conn.client.conns[conn_id] is conn


@testing.virtual_time
async def test_it_holds_whom_it_should_while_they_are_there() -> None:
    server = make_server(2)
    async with testing.Network(server) as network:
        first = await network.connect("alice", 1)
        second = await network.connect("alice", 2)
        alice = server.clients["alice"]
        await first.close()
        await testing.settle()
        assert server.clients["alice"] is alice
        assert [conn.meta for conn in alice.conns.values()] == [2]
        await second.close()
        await testing.settle()
        assert dict(server.clients) == {}
        assert dict(server.clients.conns) == {}
        assert alice.conns == {}


@testing.virtual_time
async def test_who_comes_again_is_a_new_identity() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        device = await network.connect("alice", {"visit": 1})
        before = server.clients["alice"]
        await device.close()
        await testing.settle()
        await device.connect("alice", {"visit": 2})
        after = server.clients["alice"]
        assert after is not before
        assert (before.meta, after.meta) == ({"visit": 1}, {"visit": 2})


@testing.virtual_time
async def test_the_surplus_goes_oldest_first() -> None:
    server = make_server(2)
    async with testing.Network(server) as network:
        devices = [await network.connect("alice", number) for number in range(5)]
        await testing.settle()
        assert [device.closed for device in devices] == [
            (1000, "wse.clients-concurrency"),
            (1000, "wse.clients-concurrency"),
            (1000, "wse.clients-concurrency"),
            None,
            None,
        ]
        assert [conn.meta for conn in server.clients["alice"].conns.values()] == [3, 4]
