"""Two ends joined in one process: no socket, no port, the same order and the same ends.

What one end writes reaches the other in a later turn of the loop. An end can be torn, and
stalled, as a network would.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from ..codes import CloseCode, Reason
from ..errors import ConnectionFailed
from ..limits import Limits
from .base import Acceptor, Handshake, Receiver, Transport, checked, refused

__all__ = ["MemoryDialer", "MemoryTransport", "pair"]


class _Binary(bytes):
    """A packed message that travels as a binary one."""


def _text(data: bytes) -> bytes:
    return data


def pair(limits: Limits) -> tuple[MemoryTransport, MemoryTransport]:
    """Two joined ends."""
    first, second = MemoryTransport(limits), MemoryTransport(limits)
    first._peer, second._peer = second, first
    return first, second


class MemoryTransport(Transport):
    """One of two joined ends; see `pair`."""

    _peer: MemoryTransport

    def __init__(self, limits: Limits) -> None:
        self.max_message_bytes = limits.max_message_bytes
        self.stalled = False
        """While true, this end reads nothing: what its peer writes stays unwritten there."""
        self._receiver: Receiver | None = None
        self._arriving: deque[bytes | tuple[int, str]] = deque()
        self._paused = False
        self._scheduled = False
        self._has_stopped = False
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._gone = self._loop.create_future()

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._schedule()

    def hand_over(self, receiver: Receiver) -> None:
        self._receiver = receiver

    @property
    def heard(self) -> float:
        return self._heard

    def framing(self, *, binary: bool) -> Callable[[bytes], bytes]:
        return _Binary if binary else _text

    def write(self, frames: list[bytes]) -> None:
        if not self._ended:
            self._peer._arriving.extend(frames)
            self._peer._schedule()

    @property
    def unwritten(self) -> int:
        if not (self._peer.stalled or self._peer._paused):
            return 0
        return sum(len(data) for data in self._peer._arriving if isinstance(data, bytes))

    def close(self, code: int, reason: str) -> None:
        if not self._ended:
            self._end()
            self._peer._arriving.append((code, reason))
            self._peer._schedule()

    def abort(self) -> None:
        if not self._ended:
            self._end()
            self._peer._arriving.clear()
            self._peer._arriving.append((CloseCode.ABNORMAL, Reason.NO_REASON))
            self._peer._schedule()

    def pause_reading(self) -> None:
        self._paused = self._has_stopped = True

    def resume_reading(self) -> None:
        self._paused = False
        self._schedule()

    async def wait_closed(self) -> None:
        await asyncio.shield(self._gone)

    def when_closed(self, tell: Callable[[Transport], object]) -> None:
        if self._gone.done():
            tell(self)
        else:
            self._gone.add_done_callback(lambda _: tell(self))

    def tear(self) -> None:
        """Break the connection: both ends see 1006, and what was under way is lost."""
        if self._ended:
            return
        self._arriving.clear()
        self.abort()
        if self._receiver is not None:
            self._receiver.lost(CloseCode.ABNORMAL, Reason.NO_REASON)

    def stall(self) -> None:
        """Stop reading, as a peer does that hangs."""
        self.stalled = self._has_stopped = True

    def resume(self) -> None:
        """Read again."""
        self.stalled = False
        self._schedule()

    def _end(self) -> None:
        self._ended = True
        self._gone.set_result(None)

    def _schedule(self) -> None:
        if self._arriving and not self._scheduled and self._receiver is not None:
            self._scheduled = True
            self._loop.call_soon(self._arrive)

    def _arrive(self) -> None:
        self._scheduled = False
        while self._arriving and not (self._paused or self.stalled):
            receiver = self._receiver
            assert receiver is not None
            data = self._arriving.popleft()
            if self._ended:
                continue
            self._heard = self._loop.time()
            if isinstance(data, tuple):
                receiver.flush()
                if not self._ended:
                    self._end()
                    receiver.lost(*data)
            elif len(data) > self.max_message_bytes:
                receiver.flush()
                if not self._ended:
                    reason = Reason.MESSAGE_TOO_LARGE
                    self.close(reason.close_code, reason)
                    receiver.lost(reason.close_code, reason, failed=True)
            else:
                receiver.receive(data, not isinstance(data, _Binary))
        if self._has_stopped and not self._arriving:
            self._has_stopped = self._paused or self.stalled
            self._loop.call_soon(self._peer._drained)

    def _drained(self) -> None:
        if self._receiver is not None and not self._ended:
            self._receiver.writable()


class MemoryDialer:
    """Reaches an acceptor in the same process.

    Args:
        acceptor: The server.
        remote_addr: What the server sees as the peer's address.
    """

    def __init__(self, acceptor: Acceptor, remote_addr: str | None = None) -> None:
        self._acceptor = acceptor
        self._remote_addr = remote_addr
        self.last: MemoryTransport | None = None
        """The client's end of the connection dialled last."""
        self.reachable = True
        """While false, no connection can be opened."""

    async def __call__(
        self, url: str, *, subprotocols: Sequence[str], headers: Mapping[str, str], limits: Limits
    ) -> tuple[Transport, str | None]:
        if not self.reachable:
            raise ConnectionFailed(message="unreachable")
        parts = urlsplit(url)
        handshake = Handshake(
            path=parts.path or "/",
            query_string=parts.query,
            headers=checked(headers),
            remote_addr=self._remote_addr,
            opened=asyncio.get_running_loop().time(),
        )
        refusal = self._acceptor.vet(handshake)
        if refusal is not None:
            raise refused(refusal.status, refusal.retry_after or 0.0)
        ours, theirs = pair(limits)
        self.last = ours
        subprotocol = self._acceptor.select(subprotocols)
        self._acceptor.open(theirs, handshake, subprotocol)
        return ours, subprotocol
