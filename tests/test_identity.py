"""One user, many devices."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from wse import (
    Attempt,
    Decision,
    Limits,
    MessageTooLarge,
    NoSuchClient,
    WseIdentity,
    WseJSON,
    WseServer,
    testing,
)


def identify(attempt: Attempt) -> Decision:
    return attempt.accept(attempt.identity)


def make_server(**options: Any) -> WseServer[Any]:
    return WseServer(identify, **{"conn_per_user": 2, **options})


@testing.virtual_time
async def test_a_user_is_named_by_its_address() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        await network.connect("alice")
        alice = server.clients["alice"]
        assert isinstance(alice, WseIdentity)
        assert alice.cid == "alice"


@testing.virtual_time
async def test_its_repr_does_not_tell_who_it_is() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        await network.connect("alice@example.org")
        assert "alice" not in repr(server.clients["alice@example.org"])


@testing.virtual_time
async def test_its_meta_is_the_first_devices_and_each_device_has_its_own() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        phone = await network.connect("alice", {"device": "phone"})
        await network.connect("alice", {"device": "laptop"})
        alice = server.clients["alice"]
        assert alice.meta == {"device": "phone"}
        assert [conn.meta for conn in alice.conns.values()] == [
            {"device": "phone"},
            {"device": "laptop"},
        ]
        await phone.close()
        await testing.settle()
        assert alice.meta == {"device": "phone"}


@testing.virtual_time
async def test_send_reaches_every_device_of_this_user_only() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        devices = [await network.connect(cid) for cid in ("alice", "alice", "bob")]
        server.clients["alice"].send("news", {"n": 1})
        server.clients["alice"].send("news", {"n": 2})
        await testing.settle()
        both = [("news", {"n": 1}), ("news", {"n": 2})]
        assert [list(device.received) for device in devices] == [both, both, []]


@testing.virtual_time
async def test_send_refuses_what_cannot_be_sent() -> None:
    server = make_server(limits=Limits(max_message_bytes=200))
    async with testing.Network(server) as network:
        device = await network.connect("alice", protocols=[WseJSON()])
        alice = server.clients["alice"]
        with pytest.raises(ValueError, match="reserved"):
            alice.send("~wse:welcome", 1)
        with pytest.raises(TypeError):
            alice.send("news", object())
        with pytest.raises(MessageTooLarge):
            alice.send("news", "x" * 200)
        await testing.settle()
        assert list(device.received) == []
        assert device.closed is None


@testing.virtual_time
async def test_call_asks_the_newest_device() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        old = await network.connect("alice")
        new = await network.connect("alice")
        old.client.register("which", lambda _: "old")
        new.client.register("which", lambda _: "new")
        assert await server.clients["alice"].call("which") == "new"
        await new.close()
        await testing.settle()
        assert await server.clients["alice"].call("which") == "old"


@testing.virtual_time
async def test_drop_closes_all_its_devices() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        devices = [await network.connect(cid) for cid in ("alice", "alice", "bob")]
        server.clients["alice"].drop("banned")
        assert list(server.clients) == ["bob"]
        await testing.settle()
        assert [device.closed for device in devices] == [(1000, "banned"), (1000, "banned"), None]


@testing.virtual_time
async def test_drop_has_a_reason_of_its_own() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        server.clients["alice"].drop()
        assert await device.wait_closed() == (1000, "wse.by-server")


@testing.virtual_time
async def test_drop_refuses_a_reason_that_fits_no_close_frame() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        with pytest.raises(ValueError, match="123 bytes"):
            server.clients["alice"].drop("é" * 62)
        assert len(server.clients["alice"].conns) == 1
        server.clients["alice"].drop("é" * 61)
        assert await device.wait_closed() == (1000, "é" * 61)


@testing.virtual_time
async def test_who_has_left_gets_nothing() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        alice = server.clients["alice"]
        await device.close()
        await testing.settle()
        alice.send("news")
        alice.drop()
        with pytest.raises(NoSuchClient) as caught:
            await alice.call("which")
        assert "alice" not in repr(caught.value)
        await device.connect("alice")
        await testing.settle()
        assert list(device.received) == []
        assert device.closed is None


@testing.virtual_time
async def test_what_was_sent_leaves_before_the_drop() -> None:
    server = make_server()
    async with testing.Network(server) as network:
        device = await network.connect("alice")
        alice = server.clients["alice"]
        alice.send("news", 1)
        alice.send("news", 2)
        alice.drop("bye")
        alice.send("news", 3)
        assert await device.wait_closed() == (1000, "bye")
        assert list(device.received) == [("news", 1), ("news", 2)]
        await asyncio.sleep(0)
