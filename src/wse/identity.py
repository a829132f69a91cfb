"""One user, many devices."""

from __future__ import annotations

from typing import Any, Generic

from .auth import S
from .codes import Reason, check_reason
from .connection import ServerHub, WseConnection
from .errors import NoSuchClient
from .outbox import Parcel

__all__ = ["WseIdentity"]


class WseIdentity(Generic[S]):
    """A user who is there, from the `joined` of the first device to the `left` of the last."""

    __slots__ = ("_hub", "cid", "conns", "meta")

    def __init__(self, hub: ServerHub, cid: str, meta: Any) -> None:
        self._hub = hub
        self.cid = cid
        """The user's address."""
        self.meta = meta
        """What the first device said about itself."""
        self.conns: dict[str, WseConnection[S]] = {}
        """The devices by `conn_id`, the longest connected first."""

    def __repr__(self) -> str:
        return f"<WseIdentity, {len(self.conns)} connected>"

    def send(self, type: str, payload: Any = None) -> None:
        """Send a message to every device of this user; never waits. From any thread.

        Raises:
            TypeError: the payload cannot be encoded.
            ValueError: a type that begins with `~wse:`.
            MessageTooLarge: above `Limits.max_message_bytes`.
        """
        self._hub.run(self.deliver, self._hub.parcel(type, payload))

    async def call(self, name: str, payload: Any = None, *, timeout: float | None = None) -> Any:
        """Call a procedure of this user's newest device; see `WseConnection.call`.

        Raises:
            NoSuchClient: the user has left.
        """
        if not self.conns:
            raise NoSuchClient(message="the user has left")
        newest = next(reversed(self.conns.values()))
        return await newest.call(name, payload, timeout=timeout)

    def drop(self, reason: str = Reason.BY_SERVER) -> None:
        """Close all devices of this user, as `WseConnection.drop` does. From any thread.

        Raises:
            ValueError: a reason of more than 123 bytes (RFC 6455 section 5.5).
        """
        check_reason(reason)
        self._hub.run(self._drop, reason)

    def deliver(self, parcel: Parcel) -> None:
        """Send a parcel to every device; on the loop's thread."""
        for conn in tuple(self.conns.values()):
            conn.enqueue(parcel.frame(conn.wire))

    def _drop(self, reason: str) -> None:
        for conn in tuple(self.conns.values()):
            conn.drop(reason)
