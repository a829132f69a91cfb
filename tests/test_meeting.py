"""The application behind the demo's page, without a browser, and the command that serves it."""

from __future__ import annotations

import asyncio
import errno
import re
import signal
import socket
from typing import Self
from urllib.request import urlopen

import pytest
from programs import program
from support import SECRET, real_time

from wse import NotAuthorized, WseError, hmac_solver, testing
from wse.cli import meeting
from wse.cli.meeting import PASSPHRASES, Meeting, pages


def test_each_file_of_the_page_is_served_as_what_it_is() -> None:
    served = {path: make().content_type.partition(";")[0] for path, make in pages().items()}
    assert served == {
        "/": "text/html",
        "/index.html": "text/html",
        "/page.css": "text/css",
        "/page.js": "text/javascript",
        "/room.js": "text/javascript",
        "/device.js": "text/javascript",
        "/hmac.js": "text/javascript",
        "/wse.js": "text/javascript",
    }


def test_the_page_uses_nothing_from_elsewhere() -> None:
    for make in pages().values():
        body = make().body
        assert isinstance(body, bytes)
        assert not re.search(rb"""(src|href|url|from|import)\W{0,3}(https?:)?//""", body)


async def come(network: testing.Network, name: str, passphrase: str) -> testing.Device:
    device = network.device()
    device.client.challenge(hmac_solver(passphrase))
    await device.connect(name)
    return device


@testing.virtual_time
async def test_nobody_comes_in_without_the_passphrase() -> None:
    async with testing.Network(Meeting().server) as network:
        for name, passphrase in (("alice", PASSPHRASES["bob"]), ("mallory", "")):
            with pytest.raises(NotAuthorized):
                await come(network, name, passphrase)
        await come(network, "alice", PASSPHRASES["alice"])


@testing.virtual_time
async def test_a_device_of_somebody_else_is_out_of_reach() -> None:
    async with testing.Network(Meeting().server) as network:
        alice = await come(network, "alice", PASSPHRASES["alice"])
        bob = await come(network, "bob", PASSPHRASES["bob"])
        with pytest.raises(WseError) as refused:
            await alice.call("drop", bob.welcome["device"])
        assert refused.value.code == "not-your-device"
        assert await bob.call("add", {"a": 1, "b": 2}) == 3


@real_time
async def test_the_command_serves_the_page_at_another_port_if_its_own_is_taken() -> None:
    async with program("demo", "--port", "0") as first:
        url = (await first.until("Open http://")).split()[1]
        port = url.rstrip("/").rpartition(":")[2]
        async with program("demo", "--port", port) as second:
            other = (await second.until("Open http://")).split()[1]
            assert other != url
            for address in (url, other):
                page = await asyncio.to_thread(read, address.replace("localhost", "127.0.0.1"))
                assert "<title>wse" in page
            for running in (first, second):
                running.process.send_signal(signal.SIGINT)
                assert await running.end() == (0, "", "")


def read(url: str) -> str:
    with urlopen(url) as answer:  # noqa: S310 - of our own server
        body: bytes = answer.read()
        return body.decode()


class Probe:
    """A socket on a machine with this address; on one without a network there is none."""

    def __init__(self, address: str | None) -> None:
        self._address = address

    def __call__(self, *_: object) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def connect(self, _: object) -> None:
        if self._address is None:
            raise OSError(errno.ENETUNREACH, SECRET)

    def getsockname(self) -> tuple[str | None, int]:
        return self._address, 50000


@pytest.mark.parametrize(
    ("host", "own", "shown"),
    [
        ("127.0.0.1", None, "localhost"),
        ("chat.example", None, "chat.example"),
        ("::1", None, "[::1]"),
        ("0.0.0.0", "192.168.1.5", "192.168.1.5"),  # noqa: S104 - nothing is bound
        ("::", "fd00::5", "[fd00::5]"),
        ("0.0.0.0", None, "localhost"),  # noqa: S104
    ],
)
def test_the_address_shown_is_one_that_a_phone_can_open(
    host: str, own: str | None, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", Probe(own))
    assert meeting._reached(host) == shown
