from __future__ import annotations

import contextlib

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


@testing.virtual_time
async def test_the_log_names_a_refused_page_once_and_no_nonsense(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def come(origin: str) -> None:
        with contextlib.suppress(ConnectionFailed):
            await network.connect("alice", headers={"Host": "a.example", "Origin": origin})

    async with testing.Network(WseServer(lambda attempt: attempt.refuse())) as network:
        for _ in range(3):
            await come("https://app.example")
        await come("https://app.example/'] is fine, says the server")
        assert [record.getMessage() for record in caplog.records] == [
            "refused a page; to allow it: origins=['https://app.example']"
        ]
        for number in range(200):
            await come(f"https://{number}.example")
    assert len(caplog.records) == 100
