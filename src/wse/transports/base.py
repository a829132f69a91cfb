"""The port that every carrier fills, and what it tells the other side of the port."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import parse_qsl

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeader

from ..errors import ConnectionFailed
from ..limits import Limits

__all__ = [
    "NOWHERE",
    "NO_WEBSOCKET",
    "Acceptor",
    "Dialer",
    "Fields",
    "Handshake",
    "Page",
    "Pages",
    "Receiver",
    "Refusal",
    "Transport",
    "checked",
    "merged",
    "refused",
]

_LONGEST_WAIT = 3600.0
"""Seconds that a client waits at most because a server says so."""
_token = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Receiver(Protocol):
    """What a transport tells, always on the loop's thread."""

    def receive(self, data: bytes, text: bool) -> None:
        """One whole message has come. Not called any more after `lost` or `Transport.close`."""

    def flush(self) -> None:
        """Write now what waits: a close frame is about to follow."""

    def writable(self) -> None:
        """Everything that was given to `write` has been written."""

    def lost(self, code: int, reason: str, *, failed: bool = False) -> None:
        """The connection has ended; told once, and not after `Transport.close`.

        Args:
            code: As received, 1006 without a close frame, or as sent when the carrier failed it.
            reason: The same.
            failed: Whether the carrier failed it for what the peer sent (RFC 6455 section 7.1.7).
        """


class Transport(ABC):
    """One open connection that carries whole messages, for one `Receiver`."""

    max_message_bytes: int
    """The bound on messages that come; the receiver raises it once it knows the peer."""

    pings = True
    """Whether the carrier itself asks a silent peer for a sign of life (RFC 6455 section 5.5.2)."""

    @abstractmethod
    def start(self, receiver: Receiver) -> None:
        """Deliver to this receiver from now on, what came already first."""

    @abstractmethod
    def hand_over(self, receiver: Receiver) -> None:
        """Deliver to another receiver from now on; after `start`."""

    @property
    @abstractmethod
    def heard(self) -> float:
        """The loop's time when the last sign of life came from the peer."""

    @abstractmethod
    def framing(self, *, binary: bool) -> Callable[[bytes], bytes]:
        """The function from a packed message to what `write` takes.

        Connections that return the same function share what it makes.
        """

    @abstractmethod
    def write(self, frames: list[bytes]) -> None:
        """Send these frames, in one write where the carrier can."""

    @property
    @abstractmethod
    def unwritten(self) -> int:
        """Bytes given to `write` that wait for the peer to read; 0 means write on."""

    @abstractmethod
    def close(self, code: int, reason: str) -> None:
        """Send a close frame; deliver nothing any more, and end the connection before long."""

    @abstractmethod
    def abort(self) -> None:
        """End the connection at once, without a word."""

    @abstractmethod
    def pause_reading(self) -> None:
        """Deliver nothing until `resume_reading`; nothing is lost meanwhile."""

    @abstractmethod
    def resume_reading(self) -> None:
        """Deliver again."""

    @abstractmethod
    async def wait_closed(self) -> None:
        """Wait until nothing of the connection is left."""

    @abstractmethod
    def when_closed(self, tell: Callable[[Transport], object]) -> None:
        """Tell of this transport once nothing of it is left; now, when that is so already."""


class _Nowhere(Transport):
    """The transport of a session whose connection is lost."""

    max_message_bytes = 0
    heard = 0.0
    unwritten = 0

    def start(self, receiver: Receiver) -> None:
        raise NotImplementedError

    def hand_over(self, receiver: Receiver) -> None:
        raise NotImplementedError

    def framing(self, *, binary: bool) -> Callable[[bytes], bytes]:
        raise NotImplementedError

    def write(self, frames: list[bytes]) -> None:
        pass

    def close(self, code: int, reason: str) -> None:
        pass

    def abort(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    async def wait_closed(self) -> None:
        pass

    def when_closed(self, tell: Callable[[Transport], object]) -> None:
        tell(self)


NOWHERE: Transport = _Nowhere()
"""Where nothing comes from and what is written is gone."""


@dataclass(frozen=True, kw_only=True)
class Handshake:
    """What a connection said as it was opened (RFC 6455 section 4.1)."""

    path: str
    """Without the query."""
    query_string: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """By name in whatever case, and with one value for each."""
    remote_addr: str | None = None
    """The peer's IP address; None where there is none (a Unix socket)."""
    opened: float
    """The loop's time when the peer connected, in seconds."""
    context: Any = field(default=None, repr=False)
    """What a web framework has of the connection: the ASGI scope, or aiohttp's request."""

    @cached_property
    def query(self) -> dict[str, str]:
        """The parameters of the query, the last one where several have a name."""
        return dict(parse_qsl(self.query_string, keep_blank_values=True))

    @cached_property
    def cookies(self) -> dict[str, str]:
        """The cookies (RFC 6265 section 5.4)."""
        pairs = (part.partition("=") for part in self.headers.get("cookie", "").split(";"))
        return {name.strip(): value.strip().strip('"') for name, equals, value in pairs if equals}


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a connection is not upgraded: an HTTP answer (RFC 6455 section 4.2.2)."""

    status: int
    text: str
    """One sentence for the body."""
    retry_after: int | None = None
    """Seconds after which to come back (RFC 9110 section 10.2.3)."""


NO_WEBSOCKET = Refusal(
    status=426, text="This is a WebSocket server: connect with a WebSocket client."
)
"""The answer to a plain HTTP request."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a plain HTTP request is answered with: for health checks and the like.

    Raises:
        ValueError: a status that HTTP does not know (RFC 9110 section 15) or that is no answer, or
            a content type that is no header.
    """

    body: str | bytes
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"

    def __post_init__(self) -> None:
        if HTTPStatus(self.status) < 200:
            raise ValueError("a status below 200 is no answer")
        checked({"Content-Type": self.content_type})


Pages = Mapping[str, Callable[[], Page]]
"""A function for each path that plain HTTP requests may ask for."""


def refused(status: int, retry_after: float) -> ConnectionFailed:
    """The error of a client whose upgrade was answered with another HTTP status than 101."""
    return ConnectionFailed(
        {"status": status},
        f"the server answered with HTTP status {status}",
        temporary=status == 429 or status >= 500,
        retry_after=min(retry_after, _LONGEST_WAIT),
    )


class Fields(Mapping[str, str]):
    """The header fields of a request, by name in whatever case (RFC 9110 section 5.1).

    Args:
        values: One for each name, which is in small letters.
    """

    __slots__ = ("_values",)

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def merged(lines: Iterable[tuple[str, str]]) -> Fields:
    """One value for each name (RFC 9110 section 5.3, for cookies RFC 6265 section 5.4)."""
    values: dict[str, str] = {}
    for name, value in lines:
        key = name.lower()
        if key in values:
            values[key] += f"{'; ' if key == 'cookie' else ', '}{value}"
        else:
            values[key] = value
    return Fields(values)


def checked(headers: Mapping[str, str]) -> Headers:
    """The headers of a client's upgrade.

    Raises:
        ValueError: one cannot be sent. Its value, which may be a token, is not told.
    """
    sent = Headers()
    for name, value in headers.items():
        if not _token.fullmatch(name):
            raise ValueError(f"no name of a header: {name!r}")
        try:
            sent[name] = value
        except InvalidHeader:
            raise ValueError(f"no value for the header {name}") from None
    return sent


class Acceptor(Protocol):
    """Who takes the connections that a carrier listens for."""

    limits: Limits

    def vet(self, handshake: Handshake) -> Refusal | None:
        """Whether not to upgrade a connection that asks for it."""

    def select(self, offered: Sequence[str]) -> str | None:
        """The subprotocol to answer with, one of those offered (RFC 6455 section 4.2.2)."""

    def open(self, transport: Transport, handshake: Handshake, subprotocol: str | None) -> None:
        """A connection has been opened."""


class Dialer(Protocol):
    """How a client reaches a server."""

    async def __call__(
        self, url: str, *, subprotocols: Sequence[str], headers: Mapping[str, str], limits: Limits
    ) -> tuple[Transport, str | None]:
        """Open a connection, not started yet. May be cancelled, and leaves nothing then.

        Returns:
            The connection, and which of the subprotocols the server has selected.

        Raises:
            ConnectionFailed: it could not be opened.
        """
