"""One user, many devices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic

from .auth import S
from .codes import Reason, check_reason
from .connection import ServerHub, WseConnection
from .errors import NoSuchClient
from .outbox import Parcel
from .recipients import Newest, Others, To

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

    def send(
        self, type: str, payload: Any = None, *, to: To | None = None, keep: bool = True
    ) -> None:
        """Send a message to every device of this user; never waits. From any thread.

        Args:
            type: The message type.
            payload: Its payload.
            to: Some of the devices only: `others(conn)`, `newest()` or `device("phone")`.
            keep: Whether to keep it for devices that are away; see `WseConnection.send`.

        Raises:
            TypeError: the payload cannot be encoded.
            ValueError: a type that begins with `~wse:`.
            MessageTooLarge: above `Limits.max_message_bytes`.
        """
        self._hub.run(self.deliver, self._hub.parcel(type, payload), to, keep)

    async def call(
        self,
        name: str,
        payload: Any = None,
        *,
        timeout: float | None = None,
        to: To | None = None,
    ) -> Any:
        """Call a procedure of this user's newest device; see `WseConnection.call`.

        Args:
            name: As the device registered it.
            payload: What the procedure is given.
            timeout: Seconds; the server's `timeout` when None.
            to: Another device than the newest: `device("phone")`, or the newest of
                `others(conn)`.

        Raises:
            NoSuchClient: the user has left, or has no such device.
        """
        if not self.conns:
            raise NoSuchClient(message="the user has left")
        called = tuple(self._some(to))
        if not called:
            raise NoSuchClient(message="the user has no such device")
        return await called[-1].call(name, payload, timeout=timeout)

    def drop(self, reason: str = Reason.BY_SERVER) -> None:
        """Close all devices of this user, as `WseConnection.drop` does. From any thread.

        Raises:
            ValueError: a reason of more than 123 bytes (RFC 6455 section 5.5).
        """
        check_reason(reason)
        self._hub.run(self._drop, reason)

    def deliver(self, parcel: Parcel, to: To | None, keep: bool) -> None:
        """Send a parcel to every device, or to some; on the loop's thread."""
        for conn in tuple(self._some(to)):
            conn.enqueue(parcel.frame(conn.wire), keep=keep)

    def find(self, device: str) -> WseConnection[S] | None:
        """The device of this name."""
        return next((conn for conn in self.conns.values() if conn.device == device), None)

    def predecessor(self, conn: WseConnection[S]) -> WseConnection[S] | None:
        """The same device as it was before; none of one that does not say which it is."""
        return self.find(conn.device) if conn.device != conn.conn_id else None

    def _some(self, to: To | None) -> Iterable[WseConnection[S]]:
        match to:
            case None:
                return self.conns.values()
            case Newest():
                return (next(reversed(self.conns.values())),) if self.conns else ()
            case Others():
                return (one for one in self.conns.values() if one.conn_id != to.conn_id)
            case _:
                found = self.find(to.name)
                return () if found is None else (found,)

    def _drop(self, reason: str) -> None:
        for conn in tuple(self.conns.values()):
            conn.drop(reason)
