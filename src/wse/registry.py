"""Who is there: users by their address, and the seats of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic

from .auth import S, cid_of
from .connection import WseConnection
from .identity import WseIdentity

__all__ = ["Registry"]


class Registry(Mapping[str, WseIdentity[S]], Generic[S]):
    """The users that are connected, by cid; 7 and "7" find the same one.

    Args:
        seats: How many devices one user may have at once.

    Raises:
        ValueError: less than one.
    """

    def __init__(self, seats: int) -> None:
        if seats < 1:
            raise ValueError("conn_per_user is at least 1")
        self._seats = seats
        self._clients: dict[str, WseIdentity[S]] = {}
        self.conns: dict[str, WseConnection[S]] = {}
        """Every device of everybody, by conn_id."""

    def __getitem__(self, cid: object) -> WseIdentity[S]:
        client = self._clients.get(cid_of(cid))
        if client is None:
            raise KeyError("no such user")  # without the cid, which belongs in no log
        return client

    def __iter__(self) -> Iterator[str]:
        return iter(self._clients)

    def __len__(self) -> int:
        return len(self._clients)

    def __repr__(self) -> str:
        return f"<Registry, {len(self)} users, {len(self.conns)} devices>"

    def has_seat(self, client: WseIdentity[S] | None, conn: WseConnection[S]) -> bool:
        """Whether nobody has to go for this device, but itself as it was before."""
        if client is None or len(client.conns) < self._seats:
            return True
        return len(client.conns) == self._seats and client.predecessor(conn) is not None

    def seat(self, client: WseIdentity[S], conn: WseConnection[S]) -> None:
        """Give a device its seat, even if it is one too many."""
        self._clients[client.cid] = client
        client.conns[conn.conn_id] = self.conns[conn.conn_id] = conn

    def surplus(self, client: WseIdentity[S]) -> list[WseConnection[S]]:
        """The devices that must go: those that are away the longest, then the oldest."""
        count = len(client.conns) - self._seats
        if count <= 0:
            return []
        conns = list(client.conns.values())
        away = sorted((one for one in conns if one.is_suspended), key=lambda one: one.away_since)
        return [*away, *(one for one in conns if not one.is_suspended)][:count]

    def unseat(self, client: WseIdentity[S], conn: WseConnection[Any]) -> bool:
        """Take a device's seat away.

        Returns:
            Whether it was the user's last.
        """
        del client.conns[conn.conn_id], self.conns[conn.conn_id]
        if client.conns:
            return False
        del self._clients[client.cid]
        return True
