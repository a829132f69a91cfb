"""`server.when` and `client.when`: what happens at each."""

from __future__ import annotations

from typing import Any, Generic

from .auth import S
from .codes import Status
from .connection import WseConnection
from .errors import WseError
from .identity import WseIdentity
from .signals import Emitter, Signal

__all__ = ["ClientSignals", "ServerSignals"]


def _the_server(*_: Any) -> str:
    return "the server"


class ServerSignals(Generic[S]):
    """What happens at a server. Call or decorate with one to listen; `off` stops it."""

    def __init__(self, emitter: Emitter) -> None:
        self.joined: Signal[[WseIdentity[S], Any]] = Signal(emitter, "joined", "(client, meta)")
        """`(client, meta)`: a user is there, with the first device."""
        self.left: Signal[[WseIdentity[S], int, str]] = Signal(
            emitter, "left", "(client, code, reason)"
        )
        """`(client, code, reason)`: the last device has gone; once for each `joined`."""
        self.connected: Signal[[WseConnection[S]]] = Signal(emitter, "connected", "(conn)")
        """`(conn)`: a device is there. What handlers send follows the welcome."""
        self.disconnected: Signal[[WseConnection[S], int, str]] = Signal(
            emitter, "disconnected", "(conn, code, reason)"
        )
        """`(conn, code, reason)`: a device has gone; once for each `connected`."""
        self.suspended: Signal[[WseConnection[S], int, str]] = Signal(
            emitter, "suspended", "(conn, code, reason)"
        )
        """`(conn, code, reason)`: the connection of a device is lost, and its session waits."""
        self.resumed: Signal[[WseConnection[S]]] = Signal(emitter, "resumed", "(conn)")
        """`(conn)`: the device is back, and has missed nothing."""
        self.ignored: Signal[[WseConnection[S], str, Any]] = Signal(
            emitter, "ignored", "(conn, type, payload)", peer_of=lambda conn, *_: conn
        )
        """`(conn, type, payload)`: a message that nobody handles."""
        self.error: Signal[[WseError, WseConnection[S] | None]] = Signal(
            emitter, "error", "(error, conn)", peer_of=lambda _, conn: conn
        )
        """`(error, conn)`: a handler raised, or a peer sent what it may not."""


class ClientSignals:
    """What happens to a client. Call or decorate with one to listen; `off` stops it."""

    def __init__(self, emitter: Emitter) -> None:
        self.connected: Signal[[]] = Signal(emitter, "connected", "()")
        """`()`: the WebSocket is open; the server does not know who this is yet."""
        self.ready: Signal[[Any]] = Signal(emitter, "ready", "(welcome)", remembered=True)
        """`(welcome)`: welcomed. Remembered: a handler added later is told the last one."""
        self.closed: Signal[[int, str]] = Signal(emitter, "closed", "(code, reason)")
        """`(code, reason)`: a WebSocket that was open has ended."""
        self.suspended: Signal[[int, str]] = Signal(emitter, "suspended", "(code, reason)")
        """`(code, reason)`: the connection is lost, and the session waits for the next one."""
        self.resumed: Signal[[Any]] = Signal(emitter, "resumed", "(welcome)")
        """`(welcome)`: back, and nothing is missing on either side."""
        self.lost: Signal[[int]] = Signal(emitter, "lost", "(count)")
        """`(count)`: a session is over that was suspended. So many messages were sent of which
        nobody knows whether they came; what the server sent meanwhile is lost."""
        self.updated: Signal[[Status]] = Signal(emitter, "updated", "(status)", remembered=True)
        """`(status)`: `client.status` changed. Remembered, as `ready` is."""
        self.ignored: Signal[[str, Any]] = Signal(
            emitter, "ignored", "(type, payload)", peer_of=_the_server
        )
        """`(type, payload)`: a message that nobody handles."""
        self.error: Signal[[WseError]] = Signal(emitter, "error", "(error)", peer_of=_the_server)
        """`(error)`: a handler raised, the server sent what it may not, or coming back failed."""
