"""Protocol 5: what the classic one says, and what it takes to come back."""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import cached_property
from typing import Any, ClassVar
from typing import Protocol as Interface

import msgspec

from .errors import MessageUnreadable, ProtocolViolation
from .messages import (
    Ack,
    Bye,
    Call,
    Cancel,
    Challenge,
    Event,
    Greeting,
    Hi,
    Message,
    Ping,
    Pong,
    Resume,
    Terms,
    Welcome,
)
from .protocol import DEFAULT, MAX_STAMP_LENGTH, RESERVED_PREFIX, JSONCodec, Protocol, Reader

__all__ = ["DEFAULTS", "JSON5", "Protocol5", "WseJSON5", "WseMsgpack5"]

_LONGEST = 1e15
"""Milliseconds that a caller may wait."""
_ACK = "~wse:ack"
_PING = "~wse:ping"
_PONG = "~wse:pong"
_CANCEL = "~wse:cancel"
_BYE = "~wse:bye"


class _Frame(Interface):
    """The members of a message whose payload is not decoded yet."""

    type: str
    payload: Any
    stamp: Any
    milliseconds: Any


class _ByePayload(msgspec.Struct):
    reason: str = ""
    after: float = 0.0


class Protocol5(Protocol):
    """What both forms of protocol 5 have in common: all but the bytes."""

    keeps_sessions: ClassVar[bool] = True

    @abstractmethod
    def frame(self, data: bytes) -> _Frame:
        """The members of one message. What it raises is the peer's bad input."""

    @abstractmethod
    def pack_call(self, name: str, payload: Any, stamp: str, milliseconds: int) -> bytes:
        """A call with its deadline."""

    def unpack(self, data: bytes) -> tuple[Any, Any, Any]:
        frame = self.frame(data)
        return frame.type, frame.payload, frame.stamp

    # -- out ---------------------------------------------------------------------------------

    def hi(
        self, identity: Any, meta: Any, device: str | None = None, resume: Resume | None = None
    ) -> bytes:
        said: dict[str, Any] = {"identity": identity, "meta": meta}
        if device is not None:
            said["device"] = device
        if resume is not None:
            said["resume"] = resume
        return self.encode(self.types.hi, said)

    def welcome(self, payload: Any, terms: Terms | None = None) -> bytes:
        return self.encode(self.types.welcome, payload, terms)

    def call(self, name: str, payload: Any, stamp: str, seconds: float) -> bytes:
        self.check(name)
        milliseconds = math.ceil(min(seconds, 1e12) * 1000)
        try:
            return self.pack_call(name, payload, stamp, milliseconds)
        except UnicodeEncodeError:  # its `repr` would quote all of it
            raise TypeError("text with a lone surrogate cannot be encoded") from None

    def call_stamp(self, name: str, number: int) -> str:
        return str(number)

    def result(self, stamp: str, value: Any) -> bytes:
        return self.encode(self.types.response, value, stamp)

    def failure(self, stamp: str, code: str, details: Any = None) -> bytes:
        return self.encode(self.types.response_error, self.error(code, details), stamp)

    def cancel(self, stamp: str) -> bytes:
        """The caller waits no longer."""
        return self.encode(_CANCEL, None, stamp)

    def ack(self, received: int) -> bytes:
        """So many counted messages have come."""
        return self.encode(_ACK, received)

    def ping(self) -> bytes:
        """A sign of life is asked for."""
        return self.encode(_PING, None)

    def pong(self) -> bytes:
        """There it is."""
        return self.encode(_PONG, None)

    def bye(self, reason: str, after: float) -> bytes:
        """The server goes; come back after so many seconds."""
        return self.encode(_BYE, {"reason": reason, "after": after})

    # -- in ----------------------------------------------------------------------------------

    @cached_property
    def _readers(self) -> dict[str, Reader]:
        return {
            self.types.hi: lambda payload, _: Hi(payload),
            self.types.challenge: lambda payload, _: Challenge(payload),
            self.types.welcome: Welcome,
            self.types.response: self._read_response,
            self.types.response_error: self._read_response_error,
            _CANCEL: lambda _, stamp: Cancel(stamp if isinstance(stamp, str) else ""),
            _ACK: self._read_ack,
            _PING: lambda _, __: Ping(),
            _PONG: lambda _, __: Pong(),
            _BYE: self._read_bye,
        }

    def read(self, data: bytes) -> Message:
        try:
            frame = self.frame(data)
        except ProtocolViolation:
            raise
        except Exception as error:
            raise MessageUnreadable from error
        type, payload, stamp = frame.type, frame.payload, frame.stamp
        reader = self._readers.get(type)
        if reader is not None:
            return reader(payload, stamp)
        if stamp is None or type.startswith(RESERVED_PREFIX):
            return Event(type, payload)
        if stamp.__class__ is not str or len(stamp) > MAX_STAMP_LENGTH:
            raise ProtocolViolation(message="a stamp that is no short string")
        milliseconds = frame.milliseconds
        if milliseconds is None:
            return Call(type, payload, stamp)
        if milliseconds.__class__ not in (int, float) or not 0 <= milliseconds <= _LONGEST:
            raise ProtocolViolation(message="a deadline that is no time")
        return Call(type, payload, stamp, milliseconds)

    def read_hi(self, hi: Hi) -> Greeting:
        try:
            said = self._greeting(hi.payload)
        except Exception as error:
            raise ProtocolViolation(message="a hi that cannot be") from error
        assert isinstance(said, Greeting)
        if said.meta is None:
            return Greeting(said.identity, {}, said.device, said.resume)
        return said

    def read_terms(self, welcome: Welcome) -> Terms:
        """What a welcome says of the session.

        Raises:
            ProtocolViolation: nothing, or what cannot be.
        """
        try:
            return msgspec.convert(welcome.terms, Terms)
        except msgspec.ValidationError as error:
            raise ProtocolViolation(message="a welcome without a session") from error

    @cached_property
    def _greeting(self) -> Any:
        return self.decoder(Greeting)

    @cached_property
    def _count(self) -> Any:
        return self.decoder(int)

    @cached_property
    def _bye_payload(self) -> Any:
        return self.decoder(_ByePayload)

    def _read_ack(self, payload: Any, _: Any) -> Ack:
        try:
            return Ack(self._count(payload))
        except Exception as error:
            raise ProtocolViolation(message="an acknowledgement of no number") from error

    def _read_bye(self, payload: Any, _: Any) -> Bye:
        """One that cannot be read is still a goodbye."""
        try:
            said = self._bye_payload(payload)
        except Exception:
            said = _ByePayload()
        return Bye(said.reason, said.after if 0 <= said.after < math.inf else 0.0)


class _JSONFrame(msgspec.Struct, array_like=True, gc=False):
    type: str
    payload: msgspec.Raw = msgspec.Raw(b"null")
    stamp: Any = None
    milliseconds: Any = None


class WseJSON5(JSONCodec, Protocol5):
    """`wse.5.json`: protocol 5 in text frames."""

    name = "wse.5.json"

    def __init__(self) -> None:
        super().__init__(_JSONFrame)

    def pack_call(self, name: str, payload: Any, stamp: str, milliseconds: int) -> bytes:
        return self._encode((name, payload, stamp, milliseconds))


class _PackedFrame(msgspec.Struct, array_like=True, gc=False):
    type: str
    payload: msgspec.Raw = msgspec.Raw(b"\xc0")
    stamp: Any = None
    milliseconds: Any = None


_decode_packed = msgspec.msgpack.Decoder(_PackedFrame).decode
_skip_packed = msgspec.msgpack.Decoder(msgspec.Raw).decode


class WseMsgpack5(Protocol5):
    """`wse.5.msgpack`: protocol 5 in binary frames, as MessagePack.

    Payloads may have bytes, and keys that are no texts.
    """

    name = "wse.5.msgpack"
    binary = True

    def __init__(self) -> None:
        self._encode = msgspec.msgpack.Encoder().encode

    def pack(self, type: str, payload: Any, stamp: Any) -> bytes:
        return self._encode((type, payload, stamp))

    def pack_call(self, name: str, payload: Any, stamp: str, milliseconds: int) -> bytes:
        return self._encode((name, payload, stamp, milliseconds))

    def frame(self, data: bytes) -> _Frame:
        try:
            return _decode_packed(data)
        except msgspec.ValidationError as error:
            _skip_packed(data)  # what is no MessagePack at all cannot be read
            raise ProtocolViolation(message="a message without a type") from error

    def decoder(self, kind: Any) -> Any:
        return msgspec.msgpack.Decoder(kind).decode


JSON5 = WseJSON5()
"""It keeps nothing between messages, as the others do not."""
DEFAULTS: tuple[Protocol, ...] = (JSON5, WseMsgpack5(), DEFAULT)
"""What a server speaks unless told otherwise, the most preferred first."""
