"""The application behind the page of `wse demo`: people with several devices who meet."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from ..auth import Attempt, Decision, hmac_challenge
from ..browser import static_path
from ..connection import WseConnection
from ..errors import WseError
from ..limits import Limits
from ..server import WseServer
from ..transports.base import Page
from .serving import enter_listening, in_url

__all__ = ["PASSPHRASES", "Meeting", "meet", "pages"]

_EVERY_ADDRESS = {
    "0.0.0.0": (socket.AF_INET, "192.0.2.1"),  # noqa: S104 - looked for, not bound
    "::": (socket.AF_INET6, "2001:db8::1"),
}
"""What binds to every address, and somewhere that is on no network (RFC 5737, RFC 3849)."""
PASSPHRASES = {
    "alice": "violet umbrella",
    "bob": "paper kite",
    "carol": "tin whistle",
}
_HERE = Path(__file__).parent / "page"
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_MOST_TEXT = 500


class ToPerson(msgspec.Struct):
    """What `say-person` is given."""

    who: str
    text: str


class ToDevice(msgspec.Struct):
    """What `say-device` is given."""

    device: str
    text: str


class Numbers(msgspec.Struct):
    """What `add` is given."""

    a: int | float
    b: int | float


class Meeting:
    """A server where Alice, Bob and Carol meet, each with up to three devices."""

    def __init__(self) -> None:
        limits = Limits(messages_per_second=10)
        self.server: WseServer = WseServer(self._identify, conn_per_user=3, limits=limits)
        when, channel, register = self.server.when, self.server.channel, self.server.register
        when.connected(lambda _: self._tell_who_is_here())
        when.disconnected(lambda *_: self._tell_who_is_here())
        channel.on("say-all", self._say_all)
        channel.on("say-person", self._say_person)
        channel.on("say-device", self._say_device)
        register("add", self._add)
        register("ask-me", self._ask)
        register("drop", self._drop)
        register("tear", self._tear)

    async def _identify(self, attempt: Attempt) -> Decision:
        """Whoever holds the passphrase; a name that nobody has is asked as well, in vain."""
        name = attempt.identity if isinstance(attempt.identity, str) else ""
        passphrase = PASSPHRASES.get(name) or secrets.token_hex()
        if await hmac_challenge(attempt, passphrase):
            return attempt.accept(name, {"you": name, "device": attempt.conn_id})
        return attempt.refuse()

    def _tell_who_is_here(self) -> None:
        people = [
            {
                "who": cid,
                "devices": [
                    {"id": conn.conn_id, "name": _name_of(conn)} for conn in client.conns.values()
                ],
            }
            for cid, client in sorted(self.server.clients.items())
        ]
        self.server.broadcast("people", people)

    # -- messages ----------------------------------------------------------------------------

    def _say_all(self, conn: WseConnection, text: str) -> None:
        self.server.broadcast("said", _said(conn, text, "everybody"))

    def _say_person(self, conn: WseConnection, to: ToPerson) -> None:
        said = _said(conn, to.text, to.who.capitalize())
        self.server.send(to.who, "said", said)
        if to.who != conn.cid:
            conn.send("said", said)

    def _say_device(self, conn: WseConnection, to: ToDevice) -> None:
        said = _said(conn, to.text, "one device")
        _own(conn, to.device).send("said", said)
        if to.device != conn.conn_id:
            conn.send("said", said)

    # -- procedures --------------------------------------------------------------------------

    def _add(self, _: WseConnection, numbers: Numbers) -> float:
        return numbers.a + numbers.b

    async def _ask(self, conn: WseConnection, _: None) -> dict[str, Any]:
        """Call the device that calls, and tell what it answered."""
        return {"you answered": await conn.call("describe", timeout=5)}

    def _drop(self, conn: WseConnection, device: str) -> None:
        _own(conn, device).drop("dropped by another of your devices")

    def _tear(self, conn: WseConnection, _: None) -> None:
        """As when a cable is cut: no goodbye, for neither side."""

        def cut() -> None:
            conn._transport.abort()
            conn.lost(1006, "")

        asyncio.get_running_loop().call_later(0.2, cut)


def _own(conn: WseConnection, device: str) -> WseConnection:
    """A device of the same user."""
    assert conn.client is not None
    own = conn.client.conns.get(device)
    if own is None:
        raise WseError("not-your-device")
    return own


def _name_of(conn: WseConnection) -> str:
    match conn.meta:
        case {"name": str(name)}:
            return name[:40]
    return "a device"


def _said(conn: WseConnection, text: str, to: str) -> dict[str, str]:
    return {"who": conn.cid, "text": text[:_MOST_TEXT], "to": to, "device": _name_of(conn)}


# -- pages -----------------------------------------------------------------------------------------


def pages() -> Mapping[str, Callable[[], Page]]:
    """The page, what it is made of, and the client that it uses."""
    files = {f"/{path.name}": path for path in _HERE.iterdir()}
    files |= {"/": _HERE / "index.html", "/wse.js": static_path() / "wse.js"}
    return {name: partial(_page, path) for name, path in files.items()}


def _page(path: Path) -> Page:
    kind = f"{_KINDS[path.suffix]}; charset=utf-8"
    return Page(body=path.read_bytes(), content_type=kind)


def _reached(host: str) -> str:
    """Where a browser, on a phone too, finds a server that is bound to this."""
    if host not in _EVERY_ADDRESS:
        return "localhost" if host == "127.0.0.1" else in_url(host)
    family, somewhere = _EVERY_ADDRESS[host]
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((somewhere, 9))  # which sends nothing
        return in_url(probe.getsockname()[0])
    return "localhost"


async def meet(console: Console, host: str, port: int) -> None:
    """Serve the page until cancelled.

    Args:
        console: Where to say at which address.
        host: The address to bind.
        port: The port; another one when it is taken.

    Raises:
        OSError: the server cannot listen.
    """
    meeting = Meeting()
    async with AsyncExitStack() as stack:
        listener = await enter_listening(stack, meeting.server, host=host, port=port, pages=pages())
        console.print(
            f"Open http://{_reached(host)}:{listener.port}/ in a browser. Ctrl-C ends it."
        )
        await asyncio.Event().wait()
