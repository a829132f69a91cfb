"""What bytes mean, read a second time: slowly, whole, and without the library.

The fuzz holds these readings against what the library makes of the same bytes in any chops. What
the specification leaves open is left open here: a reading may name several ends.
"""

from __future__ import annotations

import codecs
import json
import zlib
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from carriers import BINARY, CLOSE, CONT, PING, PONG, TEXT, mask

from .terms import BROKEN, INVALID, TOO_LARGE, End

__all__ = [
    "UNSURE",
    "Frame",
    "Heard",
    "breaks_protocol",
    "frames",
    "hears",
    "json_of",
    "members",
    "stamp_of",
]

# -- messages (docs/wire.md) -----------------------------------------------------------------------


UNSURE = object()
"""JSON that nests so deeply that a reader may or may not take it."""


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def json_of(data: bytes) -> Any:
    """The JSON that this is.

    Raises:
        ValueError: it is none.
    """
    text = data.decode(errors="surrogateescape")
    try:
        return json.loads(text, parse_int=float, parse_constant=_no_number)
    except RecursionError:
        return UNSURE


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def breaks_protocol(data: bytes) -> bool | None:
    """Whether a message closes the connection, wherever it may be said; None where it might."""
    try:
        said = json_of(data)
    except ValueError:
        return True
    if not isinstance(said, list):
        return None if said is UNSURE else True
    if not said or not isinstance(said[0], str):
        return True
    if not _is_utf8(data) or b"[" * 200 in data or b"{" * 200 in data:
        return None  # in a payload it is the payload's fault alone
    stamp = said[2] if len(said) > 2 else None
    if said[0].startswith("~wse:"):
        return None if "Infinity" in json.dumps(stamp) else False
    return not (stamp is None or (isinstance(stamp, str) and len(stamp) <= 512))


def _repaired(text: str) -> str:
    """With U+FFFD for lone surrogates."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def members(data: bytes) -> list[Any]:
    """The members of a message; none when it is not one."""
    try:
        said = json_of(data)
    except ValueError:
        return []
    return said if isinstance(said, list) else []


def stamp_of(data: bytes) -> list[str]:
    """The stamp of a call, if this is one."""
    said = members(data)
    if len(said) < 3 or not isinstance(said[0], str) or not isinstance(said[2], str):
        return []
    return [] if said[0].startswith("~wse:") else [_repaired(said[2])]


# -- frames (RFC 6455 section 5) -------------------------------------------------------------------


class Frame(NamedTuple):
    """One frame as it came."""

    fin: bool
    rsv: int
    opcode: int
    masked: bool
    size: int
    is_minimal: bool
    """Whether its length is written in as few bytes as can be."""
    is_whole: bool
    """Whether all of it has come."""
    part: bytes
    """What has come of its payload, unmasked."""

    @property
    def payload(self) -> bytes | None:
        """None when not all of it has come."""
        return self.part if self.is_whole else None


def frames(data: bytes) -> Iterator[Frame]:
    """The frames in these bytes; the last one may be incomplete, without a head it is none."""
    at = 0
    while len(data) - at >= 2:
        head, size = data[at], data[at + 1]
        masked, size = bool(size & 0x80), size & 0x7F
        at += 2
        least = 0
        if size >= 126:
            width, least = (2, 126) if size == 126 else (8, 65536)
            if len(data) - at < width:
                return
            size = int.from_bytes(data[at : at + width], "big")
            at += width
        key = data[at : at + 4] if masked else bytes(4)
        at += 4 * masked
        yield Frame(
            fin=bool(head & 0x80),
            rsv=head >> 4 & 7,
            opcode=head & 0x0F,
            masked=masked,
            size=size,
            is_minimal=size >= least,
            is_whole=at + size <= len(data),
            part=mask(data[at : at + size], key),
        )
        at += size


class Heard(NamedTuple):
    """What a peer's bytes come to."""

    messages: list[tuple[bytes, bool]]
    """With whether they are text."""
    pings: list[bytes]
    ends: AbstractSet[End | None]
    """How the connection may have ended; not yet (None)."""
    frames: int = 0
    """How many frames came up to that."""
    counts: Sequence[int] = ()
    """How many came up to each message."""
    answered: bool | None = False
    """Whether the peer closed after we had failed the connection; None where that is not clear."""
    largest: int = 0
    """Bytes of the largest frame or message, whole or not."""

    @property
    def inputs(self) -> int:
        """How many frames came up to that, or to the first message that breaks the protocol."""
        for (data, _), count in zip(self.messages, self.counts, strict=True):
            if breaks_protocol(data):
                return count
        return self.frames


class _Reader:
    """One reading of an open WebSocket."""

    def __init__(self, *, server: bool, limit: int, fragments: int, deflate: bool) -> None:
        self.server = server
        self.limit = limit
        self.fragments = fragments
        self.inflate = zlib.decompressobj(wbits=-15) if deflate else None
        self.slack = limit // 8 + 64 if deflate else 0  # noise grows when it is compressed
        self.opcode = CONT
        self.inflates = False
        self.parts: list[bytes] = []
        self.largest = 0
        self.heard = Heard([], [], {None})

    def errors(self, frame: Frame) -> set[End | None]:
        """The ends that the head of a frame alone must have."""
        found: set[End | None] = set()
        control = frame.opcode & 8
        rsv = 4 if self.inflate and frame.opcode in (TEXT, BINARY) else 0
        started = self.opcode != CONT
        if (
            frame.masked is not self.server
            or not frame.is_minimal
            or frame.rsv & ~rsv
            or frame.opcode not in (CONT, TEXT, BINARY, CLOSE, PING, PONG)
            or (control and (frame.size > 125 or not frame.fin))
            or (not control and started is not (frame.opcode == CONT))
            or frame.size >= 1 << 63
        ):
            found.add(BROKEN)
        too_large = frame.size > self.limit + self.slack
        if BROKEN in found:  # what is wrong in two ways may end for either
            total = sum(map(len, self.parts)) + frame.size
            too_large |= bool(frame.rsv & rsv) or (started and total > self.limit)
        if too_large and not control:
            found.add(TOO_LARGE)
        return found

    def take(self, frame: Frame) -> None:
        """One frame; the end is in `heard.ends` then."""
        self.largest = max(self.largest, frame.size)
        ends = self.errors(frame)
        if frame.payload is None and not frame.opcode & 8 and frame.size > self.limit:
            ends.add(TOO_LARGE)
        if frame.payload is None and not self.may_be_text(frame):
            ends.add(INVALID)
        if ends:
            if frame.payload is None and frame.size <= self.limit + self.slack:
                ends.add(None)  # who fails it may wait for all of it
            self.heard = self.heard._replace(ends=ends)
        elif frame.payload is not None:
            if frame.opcode == PING:
                self.heard.pings.append(frame.payload)
            elif frame.opcode == CLOSE:
                self.close(frame.payload)
            elif frame.opcode != PONG:
                self.data(frame, frame.payload)

    def may_be_text(self, frame: Frame) -> bool:
        """Whether what has come of a frame is no text that is not UTF-8."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        if frame.opcode == CONT and self.opcode == TEXT and not self.inflates:
            decoder.setstate(self.utf8.getstate())
        elif frame.opcode != TEXT or frame.rsv:
            return True
        try:
            decoder.decode(frame.part)
        except UnicodeDecodeError:
            return False
        return True

    def end(self, *ends: End) -> None:
        self.heard = self.heard._replace(ends=set(ends))

    def answered(self, coming: Iterator[Frame]) -> bool | None:
        """Whether a close comes after what made us close."""
        if BROKEN in self.heard.ends:
            return None
        for frame in coming:
            if not frame.is_minimal or frame.size > (125 if frame.opcode & 8 else self.limit):
                return None
            if frame[:3] == (True, 0, CLOSE):
                return frame.payload is not None
        return False

    def close(self, payload: bytes) -> None:
        code = int.from_bytes(payload[:2], "big")
        defined = code in range(1000, 1004) or code in range(1007, 1015)
        if len(payload) == 1 or (payload and not (defined or 3000 <= code < 5000)):
            self.end(BROKEN, *([] if _is_utf8(payload[2:]) else [INVALID]))
        elif not _is_utf8(payload[2:]):
            self.end(INVALID)
        else:
            self.end((code, payload[2:].decode()) if payload else (1005, ""))

    def data(self, frame: Frame, payload: bytes) -> None:
        if frame.opcode != CONT:
            self.opcode = frame.opcode
            self.inflates = bool(frame.rsv)
            self.utf8 = codecs.getincrementaldecoder("utf-8")()
        ends: list[End] = []
        if self.inflates and self.inflate:
            try:
                tail = b"\x00\x00\xff\xff" if frame.fin else b""
                payload = self.inflate.decompress(payload + tail, self.limit + self.slack + 1)
            except zlib.error:
                ends.append(BROKEN)
        self.parts.append(payload)
        if self.opcode == TEXT:
            try:
                self.utf8.decode(payload, final=frame.fin)
            except UnicodeDecodeError:
                ends.append(INVALID)
        message = b"".join(self.parts)
        self.largest = max(self.largest, len(message))
        if len(message) > self.limit or len(self.parts) > self.fragments:
            ends.append(TOO_LARGE)
        if ends:
            self.end(*ends)
        elif frame.fin:
            self.heard.messages.append((message, self.opcode == TEXT))
            self.parts = []
            self.opcode = CONT


def hears(data: bytes, *, server: bool, limit: int, fragments: int, deflate: bool) -> Heard:
    """What one side hears in the bytes of an open WebSocket, up to their end or its own.

    Args:
        data: All that the peer sent.
        server: Whether this side is the server.
        limit: Bytes that a message may have.
        fragments: Frames that a message may come in.
        deflate: Whether permessage-deflate was agreed on (RFC 7692).
    """
    reader = _Reader(server=server, limit=limit, fragments=fragments, deflate=deflate)
    counts: list[int] = []
    count = 0
    coming = frames(data)
    for frame in coming:
        count += 1
        reader.take(frame)
        if len(reader.heard.messages) > len(counts):
            counts.append(count)
        if reader.heard.ends != {None}:
            break
    heard = reader.heard._replace(frames=count, counts=counts, largest=reader.largest)
    return heard._replace(answered=reader.answered(coming))
