"""WebSocket frames in, messages out, without I/O: an express lane beside the reference.

A whole, masked as it must be, unfragmented text or binary frame within the limit is unmasked and
handed up at once; a ping is answered as quickly. Every other frame goes, whole, into a `websockets`
protocol made for the occasion, which checks, fails and closes as RFC 6455 wants, and is let go
again at a message boundary.
"""

from __future__ import annotations

import codecs
import logging
from typing import Protocol as Interface

from websockets.extensions import Extension
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from ..codes import CloseCode, Reason
from .frames import BINARY, CLOSE, PING, PONG, TEXT, apply_mask

__all__ = ["Lane", "let_go", "library_logger"]

library_logger = logging.getLogger("wse.websockets")
"""What `websockets` says of what it decides for us: only that it failed itself. Below it would log
URLs, headers and messages, and a level alone does not last: `logging.config` takes it off."""
library_logger.setLevel(logging.ERROR)
library_logger.addFilter(lambda record: record.levelno >= logging.ERROR)

_WHOLE = (TEXT, BINARY)
_COMPRESSED = (0x40 | Opcode.TEXT, 0x40 | Opcode.BINARY)
_HEARTBEAT = (PING, PONG)
_FRAME_COST = 64
"""Bytes that a frame counts besides its own towards `Limits.max_turn_bytes`."""
_SLOW_FRAME_COST = 512
"""The same for one that the reference decides about, which takes ten times as long."""
_MAX_CONTROL = 125


def let_go(protocol: Protocol) -> None:
    """Free a protocol of `websockets` at once: it, its parser and its errors hold each other.

    Until the collector came by, a peer could fill the memory with what nobody uses any more.
    """
    protocol.parser.close()
    error: BaseException | None = protocol.parser_exc or protocol.handshake_exc
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


class Port(Interface):
    """What a lane tells its carrier."""

    def deliver(self, data: bytes, text: bool) -> None:
        """A whole message."""

    def answer(self, data: bytes) -> None:
        """The peer pinged: answer with a pong that carries the same."""

    def closed_by_peer(self, code: int, reason: str, echo: bytes) -> None:
        """A close frame came; answer with `echo`. Nothing more is read."""

    def failed(self, code: CloseCode, reason: str) -> None:
        """The peer broke the rules: send a close frame. Only the peer's own is told after that.

        After a `PROTOCOL_ERROR` not even that: where its frames begin is anybody's guess.
        """


class Lane:
    """One direction of one open connection: what comes from the peer.

    Args:
        port: Who is told.
        side: Which side this is.
        max_size: Bytes of the largest message; may change at any time.
        max_fragments: Frames of a message.
        max_turn: Bytes of frames, inflated, that are taken in at once; see
            `Limits.max_turn_bytes`.
        extensions: Those that were negotiated.
    """

    __slots__ = (
        "_ahead",
        "_at",
        "_buffer",
        "_busy",
        "_extensions",
        "_held",
        "_masked",
        "_max_fragments",
        "_max_turn",
        "_need",
        "_parts",
        "_port",
        "_seen",
        "_side",
        "_skip",
        "_slow",
        "_stopped",
        "_utf8",
        "behind",
        "closing",
        "max_size",
        "paused",
    )

    def __init__(
        self,
        port: Port,
        side: Side,
        *,
        max_size: int,
        max_fragments: int,
        max_turn: int,
        extensions: list[Extension],
    ) -> None:
        self._port = port
        self._side = side
        self._masked = 0x80 if side is Side.SERVER else 0
        self.max_size = max_size
        self._max_fragments = max_fragments
        self._max_turn = max_turn
        self._extensions = extensions
        self._held = b""
        self._at = 0
        self._buffer = bytearray()
        self._need = 0
        self._skip = 0
        self._slow: Protocol | None = None
        self._parts: list[bytes] = []
        self._utf8: codecs.IncrementalDecoder | None = None
        self._ahead: codecs.IncrementalDecoder | None = None
        self._seen = 0
        self._busy = False
        self._stopped = False
        self.paused = True
        """Keep what comes; a lane starts so."""
        self.behind = False
        """Whether there is more than one turn of the loop takes in: call `feed` in the next."""
        self.closing = False
        """Whether a close frame was sent: only the peer's own matters now."""

    def feed(self, data: bytes = b"") -> None:
        """Take in what the peer sent; without an argument, go on after a pause or a turn.

        What is left at a pause or at the turn's end stays where it is: to copy it in each turn
        would cost more than its frames.
        """
        self.behind = False
        if self._held or self._buffer or self._skip or self._busy or self.paused or self._stopped:
            if self._stopped:
                return
            self._buffer += data
            if self._busy or self.paused:
                return
        else:
            self._held, self._at = data, 0
        self._busy = True
        try:
            while self._held or self._refill():
                self._need = 0
                held = self._held
                self._at = self._parse(held, self._at)
                if self._need:
                    self._buffer[:0] = held[self._at :]
                    self._held = b""
                elif self._at < len(held):
                    break
                else:
                    self._held = b""
                if not self._buffer:
                    break
        finally:
            self._busy = False

    def stop(self) -> None:
        """Forget everything; nothing is read any more."""
        self._stopped = True
        self._held = b""
        self._buffer.clear()
        self._forget_parts()

    def _refill(self) -> bool:
        """Go on with what came behind, once it has a whole frame; not with a refused message."""
        if self._skip:
            skipped = min(self._skip, len(self._buffer))
            self._skip -= skipped
            del self._buffer[:skipped]
        if not self._buffer or len(self._buffer) < self._need:
            self._look_ahead()
            return False
        self._ahead = None
        self._held, self._at = bytes(self._buffer), 0
        self._buffer.clear()
        return True

    def _look_ahead(self) -> None:
        """Fail at once on text that is no UTF-8, though its frame is not whole (section 8.1).

        What continues a message may be compressed where that was agreed on, and is no text then.
        """
        frame = self._buffer
        if len(frame) < 2 or frame[1] & 0x80 != self._masked or self.closing:
            return
        size = frame[1] & 0x7F
        body = 2 + (size >= 126) * 2 + (size == 127) * 6 + (4 if self._masked else 0)
        if len(frame) < body:
            return
        if self._ahead is None:
            continues = frame[0] & 0x7F == Opcode.CONT and self._parts and not self._extensions
            if continues and self._utf8 is not None:
                state = self._utf8.getstate()
            elif frame[0] & 0x7F == Opcode.TEXT:
                state = (b"", 0)
            else:
                return
            self._ahead = codecs.getincrementaldecoder("utf-8")()
            self._ahead.setstate(state)
            self._seen = 0
        end = body + (len(frame) - body) // 4 * 4  # a mask is four bytes long
        part = bytes(frame[body + self._seen : end])
        if self._masked:
            part = apply_mask(part, bytes(frame[body - 4 : body]))
        try:
            self._ahead.decode(part)
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_DATA)
        else:
            self._seen = end - body

    def _parse(self, data: bytes, start: int) -> int:  # noqa: C901, PLR0912, PLR0915 - the hot path, in one place
        """Take whole frames off `data`; the position of the first byte that is left."""
        end = len(data)
        left = self._max_turn
        masked = self._masked
        while start < end and not (self.paused or self._stopped):
            if left <= 0:
                self.behind = True
                break
            if end - start < 2:
                self._need = 2
                break
            head, size = data[start], data[start + 1]
            mask = size & 0x80
            size &= 0x7F
            body = start + 2
            if size >= 126:
                body += 2 if size == 126 else 8
                if body > end:
                    self._need = body - start
                    break
                least = 126 if size == 126 else 65536
                size = int.from_bytes(data[start + 2 : body], "big")
                if size < least:
                    self._fail(CloseCode.PROTOCOL_ERROR)
                    break
            if mask:
                body += 4
            stop = body + size
            if size > self.max_size and size > self._allowed(head):
                self._refuse(data[start : start + 2])
                self._skip = max(0, stop - end)
                start = min(stop, end)
                continue
            if stop > end:
                self._need = stop - start
                break
            if self.closing:
                if head == CLOSE:
                    self.stop()
                    self._port.closed_by_peer(CloseCode.NORMAL, "", b"")
                    break
            elif head in _WHOLE and mask == masked and self._slow is None:
                message = data[body:stop]
                if mask:
                    message = apply_mask(message, data[body - 4 : body])
                if head == BINARY or message.isascii() or _is_utf8(message):
                    self._port.deliver(message, head == TEXT)
                else:
                    self._fail(CloseCode.INVALID_DATA)
            elif head in _HEARTBEAT and mask == masked and size <= _MAX_CONTROL:
                if head == PING:
                    payload = data[body:stop]
                    if mask:
                        payload = apply_mask(payload, data[body - 4 : body])
                    self._port.answer(payload)
            else:
                inflated = self._take_slowly(data[start:stop], head)
                left -= _SLOW_FRAME_COST + max(0, inflated - size)
            left -= stop - start + _FRAME_COST
            start = stop
        return start

    def _allowed(self, head: int) -> int:
        """Bytes of payload that a frame may have as it travels."""
        if head & 0x08:
            return _MAX_CONTROL
        if self._extensions and head not in _WHOLE:
            return self.max_size + self.max_size // 8 + 64  # noise grows when it is compressed
        return self.max_size

    def _refuse(self, head: bytes) -> None:
        """A frame above the limit: unless its head is worse still, it is too big."""
        well_formed = head[0] & 0x70 == 0 and head[0] & 0x0F in (0, 1, 2)
        masked_right = head[1] & 0x80 == self._masked
        compressed = bool(self._extensions) and head[0] & 0x7F in _COMPRESSED
        if (well_formed or compressed) and masked_right:
            self._fail(CloseCode.MESSAGE_TOO_BIG)
        else:
            self._fail(CloseCode.PROTOCOL_ERROR)

    def _take_slowly(self, frame: bytes, head: int) -> int:
        """Let the reference decide about one whole frame; the bytes that it carried, inflated."""
        slow = self._slow
        is_control = head & 0x08
        if slow is None or is_control:
            # A control frame may come amid fragments (RFC 6455 section 5.4) and is not of them.
            slow = Protocol(self._side, state=State.OPEN, logger=library_logger)
            slow.extensions = self._extensions
        slow.max_message_size = None if is_control else self._allowed(head)
        slow.receive_data(frame)
        failed, sent, close = slow.parser_exc is not None, slow.close_sent, slow.close_rcvd
        received, echo = slow.events_received(), b"".join(slow.data_to_send())
        goes_on = slow.current_size is not None and not failed
        if not goes_on:
            let_go(slow)
        if not is_control:
            self._slow = slow if goes_on else None
        if failed:
            assert sent is not None
            self._fail(CloseCode(sent.code))
        elif close is not None:
            self.stop()
            self._port.closed_by_peer(int(close.code), close.reason, echo)
        else:
            (taken,) = received
            assert isinstance(taken, Frame)
            self._take_frame(taken)
            return len(taken.data)
        return 0

    def _take_frame(self, frame: Frame) -> None:
        """A data frame that the reference let pass: put the message together."""
        if frame.opcode is not Opcode.CONT:
            text = frame.opcode is Opcode.TEXT
            self._utf8 = codecs.getincrementaldecoder("utf-8")() if text else None
        if self._utf8 is not None:
            try:
                self._utf8.decode(frame.data, final=frame.fin)
            except UnicodeDecodeError:
                self._fail(CloseCode.INVALID_DATA)
                return
        self._parts.append(bytes(frame.data))
        size = sum(map(len, self._parts))
        if len(self._parts) > self._max_fragments or size > self.max_size:
            self._fail(CloseCode.MESSAGE_TOO_BIG)
        elif frame.fin:
            message = b"".join(self._parts)
            self._parts.clear()
            self._port.deliver(message, self._utf8 is not None)

    def _forget_parts(self) -> None:
        self._parts.clear()
        if self._slow is not None:
            let_go(self._slow)
            self._slow = None

    def _fail(self, code: CloseCode) -> None:
        self._forget_parts()
        if code is CloseCode.PROTOCOL_ERROR:
            self.stop()
        if not self.closing:
            too_big = code is CloseCode.MESSAGE_TOO_BIG
            self._port.failed(code, Reason.MESSAGE_TOO_LARGE if too_big else Reason.PROTOCOL_ERROR)
            self.closing = True


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
