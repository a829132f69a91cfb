from __future__ import annotations

import pytest

from wse import ConnectionFailed, Limits, NotAuthorized, Proxies, WseServer, testing


@testing.virtual_time
async def test_more_connections_of_one_address_than_allowed_come_back_later() -> None:
    server = WseServer(
        lambda attempt: attempt.accept(attempt.identity),
        limits=Limits(max_connections_per_address=2),
        proxies=Proxies("10.0.0.0/8"),
    )
    told = {"X-Forwarded-For": "192.0.2.1"}
    async with testing.Network(server) as network:
        alice = await network.connect("alice", remote_addr="192.0.2.1")
        await network.connect("bob", headers=told, remote_addr="10.0.0.1")
        for way in ({"remote_addr": "192.0.2.1"}, {"headers": told, "remote_addr": "10.0.0.2"}):
            with pytest.raises(ConnectionFailed) as caught:
                await network.connect("carol", **way)
            assert caught.value.details == {"status": 429}
            assert (caught.value.temporary, caught.value.retry_after) == (True, 10)
        await network.connect("dave", remote_addr="192.0.2.2")
        await alice.close()
        await network.connect("carol", remote_addr="192.0.2.1")
    assert len(server.acceptor._addresses) == 0


@testing.virtual_time
async def test_a_stranger_counts_for_its_address_until_it_is_gone() -> None:
    server = WseServer(
        lambda attempt: attempt.refuse(), limits=Limits(max_connections_per_address=1)
    )
    async with testing.Network(server) as network:
        for _ in range(3):
            with pytest.raises(NotAuthorized):
                await network.connect("alice", remote_addr="192.0.2.1")
