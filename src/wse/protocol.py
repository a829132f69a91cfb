"""How messages become bytes and back.

A protocol packs and unpacks `(type, payload, stamp)`. What those three mean is the same for every
protocol and stands here once: which types are the library's own, what is a call, and the two
forms a reply may have (the stamp alone tells which one its caller understands).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import msgspec

from .codes import ErrorCode
from .errors import InvalidPayload, MessageUnreadable, ProtocolViolation
from .messages import (
    Call,
    Challenge,
    Event,
    Failure,
    Greeting,
    Hi,
    Message,
    Result,
    Resume,
    Terms,
    Welcome,
)

__all__ = [
    "DEFAULT",
    "MAX_STAMP_LENGTH",
    "RESERVED_PREFIX",
    "JSONCodec",
    "Protocol",
    "Reader",
    "Types",
    "WseJSON",
    "check_type",
    "decode_checked",
    "unfit",
]

RESERVED_PREFIX = "~wse:"
"""Types that begin so are the library's own."""
MAX_STAMP_LENGTH = 512
"""Characters; a longer stamp is a protocol violation."""

Reader = Callable[[Any, Any], Message]
"""From payload and stamp of one of the library's own types to the message."""
_SUCCESS = {"success": True}
_FAILED_MESSAGE = "Remote procedure failed"


def check_type(type: str) -> str:
    """A type that the application may use.

    Raises:
        ValueError: it begins with `~wse:`.
        TypeError: it is no `str`.
    """
    if not isinstance(type, str):
        raise TypeError(f"a message type is a str, not {type.__class__.__name__}")
    if type.startswith(RESERVED_PREFIX):
        raise ValueError(f"message types that begin with {RESERVED_PREFIX} are reserved")
    return type


@dataclass(frozen=True, slots=True)
class Types:
    """The names of the library's own messages, which a custom protocol may choose."""

    hi: str = "~wse:hi"
    challenge: str = "~wse:challenge"
    welcome: str = "~wse:welcome"
    call: str = "~wse:call"
    response: str = "~wse:response"
    response_error: str = "~wse:response-err"


class _HiPayload(msgspec.Struct):
    identity: Any = None
    meta: Any = None


class _ErrorPayload(msgspec.Struct):
    code: Any = None
    message: Any = None
    details: Any = None


class Protocol(ABC):
    """The base of protocols: give it a `name`, `pack` and `unpack`.

    What either raises on bytes from a peer is that peer's bad input and closes its connection;
    what `pack` raises on a payload reaches whoever sends it.
    """

    name: ClassVar[str]
    """The subprotocol offered and selected in the upgrade (RFC 6455 section 1.9): a token."""
    binary: ClassVar[bool] = False
    """Whether messages leave in binary frames instead of text frames. Both are read."""
    keeps_sessions: ClassVar[bool] = False
    """Whether it can say what it takes to come back; see `Protocol5`."""
    types: ClassVar[Types] = Types()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @abstractmethod
    def pack(self, type: str, payload: Any, stamp: Any) -> bytes | str:
        """One message as the content of one frame; text may be a `str` or UTF-8 bytes."""

    @abstractmethod
    def unpack(self, data: bytes) -> tuple[Any, Any, Any]:
        """The `(type, payload, stamp)` of one frame's content, None for what is absent."""

    def decoder(self, kind: Any) -> Callable[[Any], Any]:
        """A function from an unpacked payload to a checked value of the annotation `kind`.

        The function raises `msgspec.ValidationError` for a payload that does not fit. This one
        converts plain data, as `msgspec.convert` does.
        """
        return partial(msgspec.convert, type=kind)

    # -- out ---------------------------------------------------------------------------------

    def encode(self, type: str, payload: Any, stamp: Any = None) -> bytes:
        """`pack`, as bytes.

        Raises:
            TypeError: the payload cannot be encoded.
        """
        try:
            data = self.pack(type, payload, stamp)
            return data.encode() if isinstance(data, str) else data
        except UnicodeEncodeError:  # its `repr` would quote all of it
            raise TypeError("text with a lone surrogate cannot be encoded") from None

    def event(self, type: str, payload: Any, stamp: str | None = None) -> bytes:
        """A message of the application's, or its call when there is a stamp.

        Raises:
            ValueError: the type is one of the library's own.
            TypeError: it is no `str`, or the payload cannot be encoded.
        """
        self.check(type)
        return self.encode(type, payload, stamp)

    def check(self, type: str) -> None:
        """Whether the application may use this type.

        Raises:
            ValueError: the type is one of the library's own.
            TypeError: it is no `str`.
        """
        if check_type(type) in self._readers:
            raise ValueError(f"the message type {type!r} is reserved")

    def call(self, name: str, payload: Any, stamp: str, seconds: float) -> bytes:
        """A call whose caller waits for so many seconds; raises as `event` does."""
        return self.event(name, payload, stamp)

    def hi(
        self, identity: Any, meta: Any, device: str | None = None, resume: Resume | None = None
    ) -> bytes:
        """A client's first message. The classic protocol knows neither devices nor sessions."""
        return self.encode(self.types.hi, {"identity": identity, "meta": meta})

    def challenge(self, payload: Any) -> bytes:
        """The server's quest, or the client's answer."""
        return self.encode(self.types.challenge, payload)

    def welcome(self, payload: Any, terms: Terms | None = None) -> bytes:
        """The server's acceptance, and where the protocol keeps sessions, the terms of this one."""
        return self.encode(self.types.welcome, payload)

    def call_stamp(self, name: str, number: int) -> str:
        """A stamp whose answer every JavaScript server knows how to give."""
        return f"{self._call_prefix}{name}:{number}"

    def result(self, stamp: str, value: Any) -> bytes:
        """The reply with a result, in the form that the caller's stamp asks for."""
        if stamp.startswith(self._call_prefix):
            return self.encode(stamp, value, _SUCCESS)
        return self.encode(self.types.response, value, stamp)

    def failure(self, stamp: str, code: str, details: Any = None) -> bytes:
        """The reply for a code alone, or for an error of the application's with its details."""
        error = self.error(code, details)
        if not stamp.startswith(self._call_prefix):
            return self.encode(self.types.response_error, error, stamp)
        if details is not None and code != ErrorCode.RP_EXECUTION_FAILED:
            error["type"] = "wse-error"
        return self.encode(stamp, None, error)

    @staticmethod
    def error(code: str, details: Any = None) -> dict[str, Any]:
        """What a failure says."""
        error: dict[str, Any] = {"code": code}
        if details is not None:
            error["details"] = details
        if code == ErrorCode.RP_EXECUTION_FAILED:
            error["message"] = _FAILED_MESSAGE
        return error

    # -- in ----------------------------------------------------------------------------------

    @cached_property
    def plain(self) -> Callable[[Any], Any]:
        """The decoder to plain data."""
        return self.decoder(Any)

    @cached_property
    def _hi_payload(self) -> Callable[[Any], _HiPayload]:
        return self.decoder(_HiPayload)

    @cached_property
    def _error_payload(self) -> Callable[[Any], _ErrorPayload]:
        return self.decoder(_ErrorPayload)

    @cached_property
    def _call_prefix(self) -> str:
        return self.types.call + ":"

    @cached_property
    def _no_calls(self) -> tuple[str, str]:
        return self._call_prefix, RESERVED_PREFIX

    @cached_property
    def _readers(self) -> dict[str, Reader]:
        types = self.types
        return {
            types.hi: lambda payload, _: Hi(payload),
            types.challenge: lambda payload, _: Challenge(payload),
            types.welcome: lambda payload, _: Welcome(payload),
            types.response: self._read_response,
            types.response_error: self._read_response_error,
        }

    def read(self, data: bytes) -> Message:
        """The message in one frame's content.

        Raises:
            MessageUnreadable: `unpack` failed.
            ProtocolViolation: it has no type, or a stamp or shape that cannot be.
        """
        try:
            type, payload, stamp = self.unpack(data)
        except ProtocolViolation:
            raise
        except Exception as error:
            raise MessageUnreadable from error
        if type.__class__ is not str:
            raise ProtocolViolation(message="a message without a type")
        reader = self._readers.get(type)
        if reader is not None:
            return reader(payload, stamp)
        if stamp is None:
            return Event(type, payload)
        if type.startswith(self._no_calls):
            if type.startswith(self._call_prefix):
                return self._read_old_reply(type, payload, stamp)
            return Event(type, payload)
        if stamp.__class__ is not str or len(stamp) > MAX_STAMP_LENGTH:
            raise ProtocolViolation(message="a stamp that is no short string")
        return Call(type, payload, stamp)

    def read_hi(self, hi: Hi) -> Greeting:
        """What a hi says; its meta is {} when it says none.

        Raises:
            ProtocolViolation: its payload is no object, or cannot be.
        """
        try:
            said = self._hi_payload(hi.payload)
        except Exception as error:
            raise ProtocolViolation(message="a hi without an object payload") from error
        return Greeting(said.identity, {} if said.meta is None else said.meta)

    def _read_response(self, payload: Any, stamp: Any) -> Result:
        return Result(stamp if isinstance(stamp, str) else "", payload)

    def _read_response_error(self, payload: Any, stamp: Any) -> Failure:
        return self._read_error(
            stamp if isinstance(stamp, str) else "", self._error_payload, payload
        )

    def _read_old_reply(self, type: str, payload: Any, outcome: Any) -> Message:
        if outcome == _SUCCESS:
            return Result(type, payload)
        return self._read_error(type, partial(msgspec.convert, type=_ErrorPayload), outcome)

    def _read_error(self, stamp: str, decode: Callable[[Any], Any], payload: Any) -> Failure:
        """An error that cannot be read is still the end of its call."""
        try:
            error = decode(payload)
        except Exception:
            error = _ErrorPayload()
        code = error.code if isinstance(error.code, str) else ErrorCode.RP_EXECUTION_FAILED
        message = error.message if isinstance(error.message, str) else ""
        return Failure(stamp, code, error.details, message)


class _Frame(msgspec.Struct, array_like=True, gc=False):
    type: str
    payload: msgspec.Raw = msgspec.Raw(b"null")
    stamp: Any = None


_skip_json = msgspec.json.Decoder(msgspec.Raw).decode


class JSONCodec:
    """Messages as JSON.

    The payload stays JSON until a handler's own decoder reads it, once, into the type that the
    handler asks for. Further members than those of the frame are not even decoded.

    Args:
        frame: What a message consists of.
    """

    def __init__(self, frame: type[msgspec.Struct] = _Frame) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(frame).decode

    def pack(self, type: str, payload: Any, stamp: Any) -> bytes:
        return self._encode((type, payload, stamp))

    def frame(self, data: bytes) -> Any:
        """The members of one message."""
        try:
            return self._decode(data)
        except msgspec.ValidationError as error:
            _skip_json(data)  # what is no JSON at all cannot be read
            raise ProtocolViolation(message="a message without a type") from error
        except msgspec.DecodeError:
            return self._decode(without_lone_surrogates(data))

    def decoder(self, kind: Any) -> Callable[[Any], Any]:
        decode = msgspec.json.Decoder(kind).decode

        def decode_payload(payload: Any) -> Any:
            try:
                return decode(payload)
            except msgspec.ValidationError:
                raise
            except msgspec.DecodeError:
                return decode(without_lone_surrogates(bytes(payload)))

        return decode_payload


class WseJSON(JSONCodec, Protocol):
    """`wse-default-json`: `[type, payload, stamp]`, the protocol of the JavaScript package."""

    name = "wse-default-json"

    def unpack(self, data: bytes) -> tuple[str, msgspec.Raw, Any]:
        frame = self.frame(data)
        return frame.type, frame.payload, frame.stamp


DEFAULT = WseJSON()
"""What both sides speak unless told otherwise; it keeps nothing between messages."""

_place = re.compile(r" - at `(?:key` in `)?(\$[^`]*)`\Z")
_missing_field = re.compile(r"Object missing required field `([^`]*)`")


def payload_path(error: Exception) -> str:
    """Where in a payload a decoder stopped, as a JSON path: `$`, `$.user.age`, `$[2]`.

    Nothing else of what the error says goes on.
    """
    said = str(error)
    if not isinstance(error, msgspec.ValidationError) or said.startswith("Object contains unknown"):
        return "$"  # the application said it, or a peer named a field so that it looks like a path
    if error.__cause__ is not None:  # the application's `__post_init__` said most of it
        said = said.removeprefix(str(error.__cause__))
    place, missing = _place.search(said), _missing_field.match(said)
    path = place[1] if place else "$"
    return f"{path}.{missing[1]}" if missing else path


def decode_checked(decode: Callable[[Any], Any], payload: Any) -> Any:
    """`decode(payload)`.

    Raises:
        InvalidPayload: it does not fit, with the path of the offending field.
    """
    try:
        return decode(payload)
    except Exception as error:
        raise unfit(error) from error


def unfit(error: Exception) -> InvalidPayload:
    """What a decoder raised, as what may be told: the path of the offending field."""
    return InvalidPayload({"path": payload_path(error)})


_HIGH = rb"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW = rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_lone_surrogate = re.compile(_HIGH + rb"(?!" + _LOW + rb")|(?<!" + _HIGH + rb")" + _LOW)
_NO_UTF8 = b"\xff"


def without_lone_surrogates(data: bytes) -> bytes:
    r"""JSON with each lone surrogate (``"\ud800"``, which JavaScript can write) as U+FFFD.

    Raises:
        ValueError: there is none, or the data is no UTF-8.
    """
    if _NO_UTF8 in data:
        raise ValueError("no UTF-8")
    # An escaped backslash may stand before a `u` that is one: out of the way with it meanwhile.
    escapes = data.replace(rb"\\", _NO_UTF8)
    repaired, count = _lone_surrogate.subn(rb"\\ufffd", escapes)
    if not count:
        raise ValueError("no lone surrogate")
    return repaired.replace(_NO_UTF8, rb"\\")
