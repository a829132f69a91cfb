from __future__ import annotations

import contextlib
from typing import Any

import pytest
from carriers import CLOSE, FakeStream
from crowd import say, upgrade

from wse import (
    Attempt,
    ConnectionFailed,
    Decision,
    Limits,
    NotAuthorized,
    Proxies,
    WseServer,
    testing,
)
from wse.transports import tcp


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


# -- strangers who do not go -----------------------------------------------------------------------


class Stubborn(FakeStream):
    """A peer who asks, and then neither answers a close frame nor goes."""

    def __init__(self, server: WseServer, asks: bytes, *, address: str = "192.0.2.1") -> None:
        super().__init__()
        self._address = address
        http = tcp._Upgrade(tcp.Listener(server.acceptor))
        self.set_protocol(http)
        http.connection_made(self)
        self.feed(asks)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self._address, 4200) if name == "peername" else default

    @property
    def status(self) -> int:
        return int(self.written.split(b" ", 2)[1])

    @property
    def is_told_to_go(self) -> bool:
        """Whether a close frame was sent."""
        return bytes([0x80 | CLOSE]) in self.written.partition(b"\r\n\r\n")[2]


def hospitable(**limits: Any) -> WseServer:
    def identify(attempt: Attempt) -> Decision:
        if attempt.identity == "nobody":
            return attempt.refuse()
        return attempt.accept(attempt.identity)

    return WseServer(identify, limits=Limits(**limits))


WITHOUT_SUBPROTOCOL = upgrade().replace(b"wse-default-json", b"another")
UNWELCOME = {
    "no common subprotocol": WITHOUT_SUBPROTOCOL,
    "refused": upgrade("nobody"),
    "speaks nonsense": upgrade() + say("nonsense"),
}


@pytest.mark.parametrize("asks", UNWELCOME.values(), ids=UNWELCOME)
@testing.virtual_time
async def test_a_stranger_who_was_sent_away_counts_until_its_socket_is_gone(asks: bytes) -> None:
    server = hospitable(max_strangers=1)
    stubborn = Stubborn(server, asks)
    assert (stubborn.status, stubborn.is_told_to_go) == (101, True)
    assert Stubborn(server, upgrade()).status == 503
    assert server.stats().strangers == 1
    await testing.pass_time(4.9)
    assert Stubborn(server, upgrade()).status == 503
    await testing.pass_time(0.2)
    assert stubborn.is_aborted()
    assert server.stats().strangers == 0
    last = Stubborn(server, upgrade("alice"))
    assert last.status == 101
    last.lose()


@pytest.mark.parametrize("asks", [*UNWELCOME.values(), upgrade("alice")])
@testing.virtual_time
async def test_an_address_has_its_place_back_when_the_socket_is_gone(asks: bytes) -> None:
    server = hospitable(max_connections_per_address=1)
    stubborn = Stubborn(server, asks)
    server.drop_client("alice")
    assert stubborn.is_told_to_go
    assert Stubborn(server, upgrade()).status == 429
    elsewhere = Stubborn(server, upgrade("bob"), address="192.0.2.2")
    assert elsewhere.status == 101
    await testing.pass_time(5.1)
    last = Stubborn(server, upgrade("carol"))
    assert last.status == 101
    for stream in (elsewhere, last):
        stream.lose()
    assert len(server.acceptor._addresses) == 0


@pytest.mark.parametrize("asks", UNWELCOME.values(), ids=UNWELCOME)
@testing.virtual_time
async def test_a_stranger_who_was_sent_away_is_aborted_when_its_time_is_over(asks: bytes) -> None:
    server = hospitable(authentication_timeout=2)
    stubborn = Stubborn(server, asks)
    await testing.pass_time(1.9)
    assert not stubborn.is_aborted()
    await testing.pass_time(0.2)
    assert stubborn.is_aborted()


@testing.virtual_time
async def test_a_stranger_who_is_too_late_has_a_moment_to_go() -> None:
    server = hospitable()
    stubborn = Stubborn(server, upgrade())
    await testing.pass_time(10.1)
    assert stubborn.is_told_to_go
    assert not stubborn.is_aborted()
    await testing.pass_time(1)
    assert stubborn.is_aborted()
    await testing.pass_time(60)
    assert server.stats().strangers == 0


@testing.virtual_time
async def test_no_more_is_read_at_once_of_a_stranger_than_it_may_say() -> None:
    server = hospitable(max_upgrade_bytes=6000, max_stranger_message_bytes=5000)
    stream = Stubborn(server, b"")

    def most() -> int:
        return memoryview(stream._protocol.get_buffer(-1)).nbytes

    assert most() == 6000
    stream.feed(upgrade())
    assert most() == 5000
    stream.feed(say(["~wse:hi", {"identity": "alice"}]))
    assert most() == 256 * 1024
    stream.lose()


@testing.virtual_time
async def test_a_device_has_the_whole_time_of_a_close() -> None:
    server = hospitable(authentication_timeout=2)
    device = Stubborn(server, upgrade("alice"))
    server.drop_client("alice")
    await testing.pass_time(4.9)
    assert not device.is_aborted()
    await testing.pass_time(0.2)
    assert device.is_aborted()
