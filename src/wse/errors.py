"""Every exception of the library.

    WseError
    ├── CallError
    │   ├── CallTimeout
    │   ├── CallDisconnected
    │   ├── CallFailed
    │   └── CallNotRegistered
    ├── ConnectError
    │   ├── ConnectionFailed
    │   ├── NotAuthorized
    │   └── SolverMissing
    ├── UsageError
    │   ├── AlreadyConnected
    │   ├── AlreadyRegistered
    │   ├── ChallengeRoundsExceeded
    │   ├── IdentifyMissing
    │   ├── InvalidSolver
    │   ├── MessageTooLarge
    │   ├── NotConnected
    │   ├── NoSuchClient
    │   └── OutboxFull
    └── PeerError
        ├── InvalidPayload
        ├── MessageUnreadable
        ├── ProtocolViolation
        ├── ConnectionBroken
        └── HandlerFailed

`UsageError` is the caller's fault, `PeerError` reports what a peer sent; `CallError` and
`ConnectError` are the ways in which waiting for the other side ends badly.
"""

from __future__ import annotations

from typing import Any, ClassVar

from .codes import ErrorCode

__all__ = [
    "AlreadyConnected",
    "AlreadyRegistered",
    "CallDisconnected",
    "CallError",
    "CallFailed",
    "CallNotRegistered",
    "CallTimeout",
    "ChallengeRoundsExceeded",
    "ConnectError",
    "ConnectionBroken",
    "ConnectionFailed",
    "HandlerFailed",
    "IdentifyMissing",
    "InvalidPayload",
    "InvalidSolver",
    "MessageTooLarge",
    "MessageUnreadable",
    "NoSuchClient",
    "NotAuthorized",
    "NotConnected",
    "OutboxFull",
    "PeerError",
    "ProtocolViolation",
    "SolverMissing",
    "UsageError",
    "WseError",
    "error_of",
    "printable",
    "travels",
]


class WseError(Exception):
    """An error with a code that travels.

    Raised in a procedure, its code and details reach the caller whole; any other exception
    reaches it as `CallFailed` with nothing but an id.

    Args:
        code: What went wrong, for programs. The library's own are in `ErrorCode`.
        details: What the caller may know about it; must be encodable by the protocol in use.
        message: For people who read logs. It never travels.
    """

    code: str
    details: Any
    message: str

    def __init__(self, code: str, details: Any = None, message: str = "") -> None:
        super().__init__(code, details, message)
        self.code = str(code)
        self.details = {} if details is None else details
        self.message = message

    def __str__(self) -> str:
        text = f"{self.code}: {self.message}" if self.message else self.code
        return f"{text} {self.details}" if self.details else text


class _Coded(WseError):
    """An error of the library's: a class with one code of its own.

    One that escapes from a procedure, say of a call that it made itself, is not its caller's:
    the caller gets `CallFailed`.
    """

    CODE: ClassVar[ErrorCode]

    def __init__(self, details: Any = None, message: str = "") -> None:
        super().__init__(self.CODE, details, message)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.details, self.message), vars(self)


class CallError(_Coded):
    """A call that ended without an answer of the procedure."""


class CallTimeout(CallError):
    """Not answered in time. The procedure may have run, or may still."""

    CODE = ErrorCode.RP_TIMEOUT


class CallDisconnected(CallError):
    """The connection ended first. The procedure may have run."""

    CODE = ErrorCode.RP_DISCONNECT


class CallFailed(CallError):
    """The procedure raised; `details["id"]` finds the traceback in the other side's log."""

    CODE = ErrorCode.RP_EXECUTION_FAILED


class CallNotRegistered(CallError):
    """The other side has no such procedure."""

    CODE = ErrorCode.RP_NOT_REGISTERED


class ConnectError(_Coded):
    """`client.connect` did not reach a welcome."""


class ConnectionFailed(ConnectError):
    """The WebSocket could not be opened, or ended before the welcome.

    `details` has the HTTP `status`, or the close `code` and `reason`, where there was one.
    """

    CODE = ErrorCode.WS_CLIENT_ERROR

    def __init__(
        self,
        details: Any = None,
        message: str = "",
        *,
        temporary: bool = True,
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(details, message)
        self.temporary = temporary
        """Whether the same attempt may succeed later."""
        self.retry_after = retry_after
        """Seconds that the server asked to wait (HTTP Retry-After, RFC 9110 section 10.2.3)."""


class NotAuthorized(ConnectError):
    """The server refused this identity. Do not try again with it."""

    CODE = ErrorCode.NOT_AUTHORIZED


class SolverMissing(ConnectError):
    """The server asked a challenge; give the client a solver with `client.challenge`."""

    CODE = ErrorCode.SOLVER_MISSING


class UsageError(_Coded):
    """The caller asked for something that cannot be."""


class AlreadyConnected(UsageError):
    """`connect` on a client that is connected or connecting: close it first."""

    CODE = ErrorCode.CLIENT_ALREADY_CONNECTED


class AlreadyRegistered(UsageError):
    """Two procedures of one name: unregister the first."""

    CODE = ErrorCode.RP_ALREADY_REGISTERED


class ChallengeRoundsExceeded(UsageError):
    """More challenges in one attempt than `Limits.max_challenge_rounds`."""

    CODE = ErrorCode.CHALLENGE_ROUNDS


class IdentifyMissing(UsageError):
    """A server needs a function that says who a connection is."""

    CODE = ErrorCode.IDENTIFY_HANDLER_MISSING


class InvalidSolver(UsageError):
    """`client.challenge` takes a function."""

    CODE = ErrorCode.INVALID_CRA_HANDLER


class MessageTooLarge(UsageError):
    """A message to send is above `Limits.max_message_bytes`; nothing was sent."""

    CODE = ErrorCode.MESSAGE_TOO_LARGE


class NotConnected(UsageError):
    """`send` or `call` on a client that is not ready; nothing was sent."""

    CODE = ErrorCode.CONNECTION_NOT_READY


class NoSuchClient(UsageError):
    """A call to a user or a device that is not there."""

    CODE = ErrorCode.NO_CLIENT_CONNECTION


class OutboxFull(UsageError):
    """The connection is lost, and as much waits for its return as may; nothing was sent.

    The bounds are `Limits.max_kept_messages` and `max_kept_bytes`.
    """

    CODE = ErrorCode.OUTBOX_FULL


class PeerError(_Coded):
    """What a peer sent was not acceptable; reported by `when.error`."""


class InvalidPayload(PeerError):
    """The payload does not fit the handler's annotation; the connection stays."""

    CODE = ErrorCode.INVALID_PAYLOAD


class MessageUnreadable(PeerError):
    """The protocol in use could not read a message; the connection is closed."""

    CODE = ErrorCode.MESSAGE_PROCESSING_ERROR


class ProtocolViolation(PeerError):
    """A message that may not be said now, or has no type; the connection is closed."""

    CODE = ErrorCode.PROTOCOL_VIOLATION


class ConnectionBroken(PeerError):
    """The carrier failed the connection: frames against RFC 6455, or above the limits."""

    CODE = ErrorCode.CONNECTION_ERROR


class HandlerFailed(PeerError):
    """A handler of the application raised; the exception is its `__cause__`."""

    CODE = ErrorCode.MESSAGE_PROCESSING_ERROR


_FROM_PEER: dict[str, type[_Coded]] = {
    cls.CODE: cls
    for cls in (CallTimeout, CallDisconnected, CallFailed, CallNotRegistered, InvalidPayload)
}


def travels(error: BaseException) -> bool:
    """Whether a procedure that raises this answers with it: an error of the application's own."""
    return isinstance(error, WseError) and not isinstance(error, _Coded)


def error_of(code: str, details: Any, message: str = "") -> WseError:
    """The exception for an error that a peer replied with."""
    code, message = printable(code), printable(message)
    known = _FROM_PEER.get(code)
    return known(details, message) if known else WseError(code, details, message)


def printable(text: str) -> str:
    """What a peer wrote, fit for a log: without line breaks and other control characters."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
