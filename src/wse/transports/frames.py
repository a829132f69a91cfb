"""WebSocket frames as they are sent (RFC 6455 section 5.2)."""

from __future__ import annotations

from os import urandom

from websockets.frames import Close, Opcode

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover - the C extension is optional
    from websockets.utils import apply_mask

__all__ = [
    "BINARY",
    "CLOSE",
    "PING",
    "PONG",
    "TEXT",
    "apply_mask",
    "close_frame",
    "frame_binary",
    "frame_ping",
    "frame_pong",
    "frame_text",
    "masked",
    "payload",
]

# The first byte of a frame that is whole.
TEXT = 0x80 | Opcode.TEXT
BINARY = 0x80 | Opcode.BINARY
CLOSE = 0x80 | Opcode.CLOSE
PING = 0x80 | Opcode.PING
PONG = 0x80 | Opcode.PONG


_SHORT_TEXT = [bytes((TEXT, size)) for size in range(126)]


def _frame(head: int, data: bytes) -> bytes:
    size = len(data)
    if size < 126:
        return bytes((head, size)) + data
    if size < 65536:
        return bytes((head, 126, size >> 8, size & 0xFF)) + data
    return bytes((head, 127)) + size.to_bytes(8, "big") + data


def frame_text(data: bytes) -> bytes:
    """A text frame as a server sends it."""
    size = len(data)
    return _SHORT_TEXT[size] + data if size < 126 else _frame(TEXT, data)


def frame_binary(data: bytes) -> bytes:
    """A binary frame as a server sends it."""
    return _frame(BINARY, data)


def _body(frame: bytes) -> int:
    """Where the payload of a server's frame begins."""
    size = frame[1]
    return 2 if size < 126 else 4 if size == 126 else 10


def payload(frame: bytes) -> bytes:
    """What a server's frame carries."""
    return frame[_body(frame) :]


def masked(frame: bytes) -> bytes:
    """The same frame as a client sends it (RFC 6455 section 5.3)."""
    body = _body(frame)
    mask = urandom(4)
    head = bytes((frame[0], frame[1] | 0x80))
    return b"".join((head, frame[2:body], mask, apply_mask(frame[body:], mask)))


def frame_ping() -> bytes:
    """A ping frame as a server sends it."""
    return _frame(PING, b"")


def frame_pong(data: bytes) -> bytes:
    """A pong as a server sends it."""
    return _frame(PONG, data)


def close_frame(code: int, reason: str) -> bytes:
    """A close frame as a server sends it; the reason is cut to what fits."""
    text = reason.encode()[:123].decode(errors="ignore")
    return _frame(CLOSE, Close(code, text).serialize())
