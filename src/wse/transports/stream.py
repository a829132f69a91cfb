"""An open WebSocket on a stream: TCP, TLS or a Unix socket, either side.

`lane` reads the frames; here are the socket's flow control, the deadlines, and the order of a
close.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import cast

from websockets.extensions import Extension
from websockets.frames import Frame, Opcode
from websockets.protocol import Side

from ..codes import CloseCode, Reason
from ..heartbeat import Heartbeat, Pulse
from ..limits import Limits
from .base import Receiver, Transport
from .frames import close_frame, frame_binary, frame_ping, frame_pong, frame_text, masked, payload
from .lane import Lane, Port

__all__ = ["StreamTransport", "read_buffer"]

_MAX_READ = 256 * 1024
_MIN_READ = 4 * 1024
_of_thread = threading.local()


def read_buffer(size: int) -> memoryview:
    """Memory to read into, for messages of this size.

    All connections of a thread share it, since each takes what was read before the next reads. So
    one that sends nothing holds none, and one that floods no more than this.
    """
    whole: memoryview | None = getattr(_of_thread, "memory", None)
    if whole is None:
        whole = _of_thread.memory = memoryview(bytearray(_MAX_READ))
    return whole[: max(size, _MIN_READ)]


class StreamTransport(asyncio.BufferedProtocol, Transport):
    """An open WebSocket on a stream.

    Args:
        stream: The socket's asyncio transport.
        side: Server or client.
        limits: Bounds on messages, and the time a close may take.
        extensions: Those that were negotiated.
    """

    def __init__(
        self,
        stream: asyncio.Transport,
        side: Side,
        limits: Limits,
        extensions: list[Extension],
    ) -> None:
        self._stream = stream
        self._side = side
        self._limits = limits
        self._extensions = extensions
        self._loop = asyncio.get_running_loop()
        self._lane = Lane(
            self,
            side,
            max_size=limits.max_message_bytes,
            max_fragments=limits.max_fragments,
            max_turn=limits.max_turn_bytes,
            extensions=extensions,
        )
        self._memory = read_buffer(limits.max_message_bytes)
        self._receiver: Receiver | None = None
        self.deliver: Callable[[bytes, bool], None]
        self._reading_paused = False
        self._writing_paused = False
        self._stream_paused = False
        self._is_gone = False
        self._behind = False
        self._pongs: list[bytes] = []
        self._heartbeat = Heartbeat(limits, self._loop.time())
        self._look: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._gone: asyncio.Future[None] | None = None
        self._when_closed: list[Callable[[Transport], object]] = []
        stream.set_write_buffer_limits(high=1, low=0)
        stream.set_protocol(self)

    # -- the port ----------------------------------------------------------------------------

    @property
    def max_message_bytes(self) -> int:
        return self._lane.max_size

    @max_message_bytes.setter
    def max_message_bytes(self, size: int) -> None:
        self._lane.max_size = size
        self._memory = read_buffer(size)

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self.deliver = receiver.receive
        self._lane.paused = self._reading_paused
        self._look_in(self._limits.heartbeat_interval)
        self._take()
        if self._is_gone and not self._lane.closing:
            self._lane.closing = True
            receiver.lost(CloseCode.ABNORMAL, Reason.NO_REASON)

    def hand_over(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self.deliver = receiver.receive

    @property
    def heard(self) -> float:
        return self._heartbeat.heard

    def framing(self, *, binary: bool) -> Callable[[bytes], bytes]:
        return frame_binary if binary else frame_text

    def _extended(self, frame: bytes) -> bytes:
        mask = self._side is Side.CLIENT
        data = Frame(Opcode(frame[0] & 0x0F), payload(frame))
        return data.serialize(mask=mask, extensions=self._extensions)

    def write(self, frames: list[bytes]) -> None:
        if not self._lane.closing:
            if self._extensions:  # only now: a broadcast is written over many turns
                frames = [self._extended(frame) for frame in frames]
            elif self._side is Side.CLIENT:  # each time anew: a frame may be sent again (5.3)
                frames = [masked(frame) for frame in frames]
            self._say(frames[0] if len(frames) == 1 else b"".join(frames))

    @property
    def unwritten(self) -> int:
        return self._stream.get_write_buffer_size() if self._writing_paused else 0

    def close(self, code: int, reason: str) -> None:
        if not self._lane.closing:
            self._lane.closing = True
            self._say(self._own(close_frame(code, reason)))
            self._end_before_long()
            self._read_or_not()
            self._lane.paused = False
            self._take()

    def abort(self) -> None:
        self._lane.closing = True
        self._stream.abort()

    def pause_reading(self) -> None:
        self._lane.paused = True
        self._reading_paused = True
        self._read_or_not()

    def resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self._lane.paused = False
            self._read_or_not()
            self._take()

    async def wait_closed(self) -> None:
        if not self._is_gone:
            if self._gone is None:
                self._gone = self._loop.create_future()
            await asyncio.shield(self._gone)

    def when_closed(self, tell: Callable[[Transport], object]) -> None:
        if self._is_gone:
            tell(self)
        else:
            self._when_closed.append(tell)

    # -- asyncio -----------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._memory

    def buffer_updated(self, nbytes: int) -> None:
        self._heartbeat.heard = self._loop.time()
        self._take(self._memory[:nbytes].tobytes())

    def pause_writing(self) -> None:
        self._writing_paused = True
        self._read_or_not()

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._heartbeat.heard = self._loop.time()
        self._read_or_not()
        if self._receiver is not None and not self._lane.closing:
            self._receiver.writable()

    def eof_received(self) -> None:
        """The peer says no more. asyncio closes then, once it has written what waits."""
        self._end_before_long()

    def connection_lost(self, _: Exception | None) -> None:
        self._is_gone = True
        for timer in (self._deadline, self._look):
            if timer is not None:
                timer.cancel()
        self._look = None
        self._tell_end()

    def _tell_end(self) -> None:
        """What came before the end is handed on first, over as many turns as it takes."""
        if self._behind and not self._lane.closing:
            self._loop.call_soon(self._tell_end)
            return
        if self._receiver is not None:
            self._lane.stop()
            if not self._lane.closing:
                self._lane.closing = True
                self._receiver.lost(CloseCode.ABNORMAL, Reason.NO_REASON)
            # They hold each other: what is left would wait for the collector.
            self._lane, self._receiver = _SPENT, None
            self.deliver = _hear_nothing
        if self._gone is not None:
            self._gone.set_result(None)
        when_closed, self._when_closed = self._when_closed, []
        for tell in when_closed:
            tell(self)

    # -- the lane ----------------------------------------------------------------------------

    def answer(self, data: bytes) -> None:
        """A peer that pings and does not read gets no more pongs (RFC 6455 section 5.5.3)."""
        if self.unwritten <= self._limits.max_unwritten_bytes:
            self._pongs.append(self._own(frame_pong(data)))

    def closed_by_peer(self, code: int, reason: str, echo: bytes) -> None:
        if self._lane.closing:
            self._finish()
            return
        assert self._receiver is not None
        self._receiver.flush()
        news = not self._lane.closing  # the flush may have closed, on a peer too slow
        if news:
            self._lane.closing = True
            self._say(echo)
        self._finish()
        if news:
            self._receiver.lost(code, reason)

    def failed(self, code: CloseCode, reason: str) -> None:
        """What the peer still sends is read and dropped: a reset would take our words from it."""
        assert self._receiver is not None
        self._receiver.flush()
        if not self._lane.closing:
            self._lane.closing = True
            self._say(self._own(close_frame(code, reason)))
            if self._side is Side.SERVER:
                if self._stream.can_write_eof():
                    self._stream.write_eof()
                elif code is CloseCode.PROTOCOL_ERROR:
                    self._stream.close()
            self._end_before_long()
            self._read_or_not()
            self._receiver.lost(code, reason, failed=True)

    # -- inside ------------------------------------------------------------------------------

    def preload(self, data: bytes) -> None:
        """What followed the handshake in the same read."""
        self._lane.feed(data)

    def _take(self, data: bytes = b"") -> None:
        """Read frames, no more than the loop's turn allows; the rest in the next."""
        self._lane.feed(data)
        if self._pongs:
            self._say(b"")
        if self._lane.behind and not self._behind:
            self._behind = True
            self._loop.call_soon(self._take_more)
            self._read_or_not()

    def _take_more(self) -> None:
        self._behind = False
        self._take()
        self._read_or_not()

    def _look_in(self, seconds: float) -> None:
        if not self._is_gone:
            self._look = self._loop.call_later(seconds, self._look_after)

    def _look_after(self) -> None:
        """Ask a silent peer for a sign of life, and give up one that has none."""
        now = self._loop.time()
        pulse, again = self._heartbeat.check(
            now, deaf=self._reading_paused, unwritten=self.unwritten
        )
        if self._lane.closing:
            return
        if pulse is Pulse.LOST:
            self.abort()
            assert self._receiver is not None
            self._receiver.lost(CloseCode.ABNORMAL, Reason.HEARTBEAT_LOST)
            return
        if pulse is Pulse.ASK and not self._writing_paused:
            self._say(self._own(frame_ping()))
        self._look_in(again - now)

    def _say(self, data: bytes) -> None:
        if self._pongs:
            data = b"".join((*self._pongs, data))
            self._pongs.clear()
        if not self._stream.is_closing():
            self._stream.write(data)

    def _own(self, frame: bytes) -> bytes:
        return frame if self._side is Side.SERVER else masked(frame)

    def _finish(self) -> None:
        """The closing handshake is over: the server ends TCP, the client lets it (7.1.1)."""
        if self._side is Side.SERVER:
            self._stream.close()
        self._end_before_long()

    def _end_before_long(self) -> None:
        if self._deadline is None and not self._is_gone:
            self._deadline = self._loop.call_later(self._limits.close_timeout, self._stream.abort)

    def _read_or_not(self) -> None:
        """A server does not read from a peer that does not read; a client always does."""
        unwilling = self._writing_paused and self._side is Side.SERVER
        pause = self._behind or ((self._reading_paused or unwilling) and not self._lane.closing)
        if pause != self._stream_paused and not self._stream.is_closing():
            self._stream_paused = pause
            if pause:
                self._stream.pause_reading()
            else:
                self._stream.resume_reading()


def _hear_nothing(_: bytes, __: bool) -> None:
    """Nobody is told of it."""


_SPENT = Lane(cast(Port, None), Side.SERVER, max_size=0, max_fragments=0, max_turn=0, extensions=[])
"""What every connection has as its lane that is gone: it hears nothing, and asks nobody."""
_SPENT.stop()
_SPENT.closing = True
