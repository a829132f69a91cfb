"""Who comes in: the way from a carrier's handshake to a connection that may identify itself."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Generic

from .admission import Addresses, Origins, Proxies, is_origin
from .auth import S
from .codes import Reason
from .connection import ServerHub, WseConnection
from .transports.base import Handshake, Refusal, Transport

__all__ = ["Gate"]

logger = logging.getLogger("wse.server")

_MOST_NAMED = 100
_FAREWELL = 1.0
"""Seconds in which a stranger whose time is over may still answer the close frame."""


class Gate(Generic[S]):
    """Takes the connections of every carrier; fills `Acceptor`.

    Args:
        hub: What the connections share.
        origins: The pages that may connect.
        proxies: Whose word about a peer's address is taken.

    Raises:
        ValueError: two protocols of one name, or an origin that is none.
    """

    def __init__(
        self,
        hub: ServerHub,
        origins: Iterable[str],
        proxies: Proxies | None,
    ) -> None:
        self.limits = hub.limits
        self.strangers: dict[WseConnection[S], float] = {}
        """The connections that are not identified yet, and the loop's time when they must be."""
        self._sent_away = 0
        """Strangers that were closed, and whose sockets are still there."""
        self._addresses = Addresses(hub.limits.max_connections_per_address)
        self._hub = hub
        self._protocols = {protocol.name: protocol for protocol in hub.protocols}
        if len(self._protocols) < len(hub.protocols):
            raise ValueError("two protocols have the same name")
        self.origins = Origins(origins)
        """The pages that may connect."""
        self._named: set[str] = set()
        self._proxies = proxies
        self._shut = 0

    @property
    def is_behind_proxies(self) -> bool:
        """Whether proxies are trusted to tell addresses, and so to have the certificate."""
        return self._proxies is not None

    @property
    def is_shut(self) -> bool:
        """Whether nobody is let in, because the server closes."""
        return self._shut > 0

    @property
    def strangers_count(self) -> int:
        """How many strangers hold a socket."""
        return len(self.strangers) + self._sent_away

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Let nobody in meanwhile."""
        self._shut += 1
        try:
            yield
        finally:
            self._shut -= 1

    def shut_for_good(self) -> None:
        """Let nobody in any more: the process ends."""
        self._shut += 1

    def select(self, offered: Sequence[str]) -> str | None:
        """The most preferred protocol of those offered; see `Acceptor`."""
        return next((name for name in self._protocols if name in offered), None)

    def vet(self, handshake: Handshake) -> Refusal | None:
        """Keep out pages of other origins, and more strangers than allowed; see `Acceptor`."""
        if self._shut:
            return self._refuse("closing", 503, "The server is closing.", retry_after=1)
        origin = handshake.headers.get("origin")
        if not self.origins.allow(origin, handshake.headers.get("host")):
            self._name(origin or "")
            return self._refuse("origin", 403, "This origin may not connect.")
        wait = math.ceil(self.limits.authentication_timeout)
        if self.strangers_count >= self.limits.max_strangers:
            logger.info("refused a connection: %d are not identified", self.strangers_count)
            return self._refuse("strangers", 503, "Too many at once.", retry_after=wait)
        peer = self._peer(handshake)
        if self._addresses.full(peer):
            logger.info("refused a connection: %s has as many as it may", peer)
            return self._refuse("address", 429, "Too many from one address.", retry_after=wait)
        return None

    def _name(self, origin: str) -> None:
        """Tell how to allow a page that is refused, once for each of the first hundred."""
        if origin not in self._named and len(self._named) < _MOST_NAMED and is_origin(origin):
            self._named.add(origin)
            logger.warning("refused a page; to allow it: origins=[%.200r]", origin)

    def _refuse(
        self, cause: str, status: int, text: str, *, retry_after: int | None = None
    ) -> Refusal:
        self._hub.counts.refused[cause] += 1
        return Refusal(status=status, text=text, retry_after=retry_after)

    def open(self, transport: Transport, handshake: Handshake, subprotocol: str | None) -> None:
        """Take a connection that a carrier has opened; see `Acceptor`."""
        self._hub.counts.connections += 1
        transport.max_message_bytes = self.limits.max_stranger_message_bytes
        peer = self._peer(handshake)
        if self._addresses.counts:
            self._addresses.add(peer)
            transport.when_closed(lambda _: self._addresses.remove(peer))
        deadline = handshake.opened + self.limits.authentication_timeout
        if self._shut or subprotocol is None:
            reason = Reason.SERVER_CLOSING if self._shut else Reason.PROTOCOL_ERROR
            self._hub.counts.close(reason.close_code, reason)
            transport.close(reason.close_code, reason)
            self._see_out(transport, deadline)
            return
        if peer != handshake.remote_addr:
            handshake = replace(handshake, remote_addr=peer)
        conn: WseConnection[S] = WseConnection(
            self._hub, transport, self._protocols[subprotocol], handshake
        )
        self.strangers[conn] = deadline
        conn.start()

    def identified(self, conn: WseConnection[S]) -> None:
        """A connection is no stranger any more."""
        del self.strangers[conn]

    def left(self, conn: WseConnection[S]) -> None:
        """A connection that was let in has ended."""
        deadline = self.strangers.pop(conn, None)
        if deadline is not None:
            self._see_out(conn._transport, deadline)

    def _see_out(self, transport: Transport, deadline: float) -> None:
        """Count a stranger that was closed while its socket lives: no longer than its time.

        Args:
            transport: What was closed.
            deadline: The loop's time when it must be identified.
        """
        loop = asyncio.get_running_loop()
        timer = loop.call_at(max(deadline, loop.time() + _FAREWELL), transport.abort)
        self._sent_away += 1

        def gone(_: Transport) -> None:
            timer.cancel()
            self._sent_away -= 1

        transport.when_closed(gone)

    def _peer(self, handshake: Handshake) -> str | None:
        """The peer's address, as far as proxies may tell it."""
        if self._proxies is None:
            return handshake.remote_addr
        return self._proxies.peer(handshake.remote_addr, handshake.headers)
