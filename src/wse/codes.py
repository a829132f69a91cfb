"""The words both ends agree on: close codes, close reasons, error codes and client states."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Self

__all__ = [
    "CloseCode",
    "ErrorCode",
    "Reason",
    "Status",
    "check_reason",
    "comes_back",
    "suspends",
]


class CloseCode(IntEnum):
    """Why a WebSocket ended (RFC 6455 section 7.4.1), and whether a client comes back."""

    NORMAL = 1000
    """The end was meant. Stay away."""
    GOING_AWAY = 1001
    """The page was left, the process ends. Stay away."""
    PROTOCOL_ERROR = 1002
    """A frame broke RFC 6455. Stay away: the next one would too."""
    UNSUPPORTED_DATA = 1003
    """A kind of data that the peer does not take. Stay away."""
    NO_STATUS = 1005
    """A close frame without a code; never sent. Come back."""
    ABNORMAL = 1006
    """Torn, without a close frame; never sent. Come back."""
    INVALID_DATA = 1007
    """Text that is not UTF-8. Stay away."""
    POLICY_VIOLATION = 1008
    """The peer does not want this. Stay away."""
    MESSAGE_TOO_BIG = 1009
    """A message above the limit, or in too many fragments. Stay away."""
    INTERNAL_ERROR = 1011
    """The server failed. Come back."""
    SERVICE_RESTART = 1012
    """The server restarts. Come back."""
    TRY_AGAIN_LATER = 1013
    """The server, or the way to it, is overloaded. Come back."""
    BAD_GATEWAY = 1014
    """A proxy lost its server. Come back."""
    JUMP = 4000
    """The client leaves for another server and connects there."""


_COMES_BACK = frozenset(
    {
        CloseCode.NO_STATUS,
        CloseCode.ABNORMAL,
        CloseCode.INTERNAL_ERROR,
        CloseCode.SERVICE_RESTART,
        CloseCode.TRY_AGAIN_LATER,
        CloseCode.BAD_GATEWAY,
        CloseCode.JUMP,
    }
)
_SUSPENDS = (_COMES_BACK - {CloseCode.JUMP}) | {CloseCode.GOING_AWAY}


def comes_back(code: int) -> bool:
    """Whether a client with reconnection on connects again after this close code."""
    return code in _COMES_BACK


def suspends(code: int) -> bool:
    """Whether a session outlasts a connection that ends with this code.

    1001 is what a page says as it goes, which may only be loading again.
    """
    return code in _SUSPENDS


class Reason(StrEnum):
    """The close reasons of the library, each with the close code it travels with.

    An application may close with any text of its own; that travels with code 1000.
    """

    close_code: CloseCode

    def __new__(cls, text: str, close_code: CloseCode = CloseCode.NORMAL) -> Self:
        member = str.__new__(cls, text)
        member._value_ = text
        member.close_code = close_code
        return member

    NO_REASON = ""
    """None was given."""
    NOT_AUTHORIZED = "wse.not-authorized"
    """`identify` refused. Stays away; ask the person to sign in again."""
    PROTOCOL_ERROR = "wse.protocol-error"
    """A message that may not be said, that cannot be read, or no common subprotocol. Stays away."""
    CLIENTS_CONCURRENCY = "wse.clients-concurrency"
    """One device too many: the oldest went. Stays away."""
    REPLACED = "wse.replaced"
    """The same device has connected again, or somebody has gone on with its session. Stays away."""
    SEATS_FULL = "wse.seats-full"
    """The user has as many devices as `conn_per_user` allows, and the newcomer is refused."""
    BY_CLIENT = "wse.by-client"
    """`client.close()` without a reason. Stays away."""
    BY_SERVER = "wse.by-server"
    """The server dropped the device or the user without a reason. Stays away."""
    JUMP = "jump", CloseCode.JUMP
    """The client moves to another server."""
    SERVER_CLOSING = "wse.server-closing", CloseCode.SERVICE_RESTART
    """The server ends or restarts. Comes back."""
    AUTHENTICATION_TIMEOUT = "wse.authentication-timeout", CloseCode.TRY_AGAIN_LATER
    """Not identified in time: a silent stranger, or an overloaded server. Comes back."""
    HEARTBEAT_LOST = "wse.heartbeat-lost", CloseCode.ABNORMAL
    """The peer gave no sign of life in time; never sent. Comes back."""
    SLOW_CONSUMER = "wse.slow-consumer", CloseCode.TRY_AGAIN_LATER
    """The peer does not read what is sent to it. Comes back."""
    RATE_LIMIT = "wse.rate-limit", CloseCode.TRY_AGAIN_LATER
    """More messages than the server's `Limits` allow one connection or user. Comes back."""
    MESSAGE_TOO_LARGE = "wse.message-too-large", CloseCode.MESSAGE_TOO_BIG
    """A message above the limit, or in too many fragments. Stays away."""


class ErrorCode(StrEnum):
    """The `code` of every `WseError` that the library raises, reports or sends."""

    INVALID_CRA_HANDLER = "wse.client.invalid-cra-handler"
    """`client.challenge` was given something that cannot be called."""
    RP_TIMEOUT = "wse.client.rp.timeout"
    """A call was not answered in time."""
    RP_DISCONNECT = "wse.client.rp.disconnect"
    """The connection ended while a call waited."""
    CLIENT_ALREADY_CONNECTED = "wse.client.already-connected"
    """`connect` on a client that is connected or connecting."""
    WS_CLIENT_ERROR = "wse.client.ws-error"
    """The WebSocket could not be opened: no such host, refused, an HTTP error."""
    CONNECTION_NOT_READY = "wse.client.not-ready"
    """`send` or `call` on a client without a ready connection."""
    OUTBOX_FULL = "wse.client.outbox-full"
    """`send` or `call` on a client whose connection is lost, and that keeps as much as it may."""
    SOLVER_MISSING = "wse.client.solver-missing"
    """The server asked a challenge and the client has no solver."""
    NOT_AUTHORIZED = "wse.not-authorized"
    """The server refused this identity."""
    NO_CLIENT_CONNECTION = "wse.server.client.connection-missing"
    """A call to a user or a device that is not there."""
    IDENTIFY_HANDLER_MISSING = "wse.server.auth.identify-handler-missing"
    """A server was made without `identify`."""
    INVALID_CRA_GENERATOR = "wse.server.auth.invalid-cra-generator"
    """JavaScript's `useChallenge` was given no function; never raised here."""
    CHALLENGE_ROUNDS = "wse.server.auth.challenge-rounds"
    """`identify` asked more challenges of one attempt than `Limits.max_challenge_rounds`."""
    RP_EXECUTION_FAILED = "wse.server.rp.failed"
    """A procedure raised; `details["id"]` is in the log of the side that ran it."""
    RP_NOT_REGISTERED = "wse.server.rp.not-registered"
    """The other side has no such procedure."""
    RP_ALREADY_REGISTERED = "wse.server.rp.already-registered"
    """Two procedures of one name."""
    INVALID_PAYLOAD = "wse.invalid-payload"
    """A payload does not fit the handler's annotation; `details["path"]` names the field."""
    MESSAGE_TOO_LARGE = "wse.message-too-large"
    """A message to send is above `Limits.max_message_bytes`."""
    PROTOCOL_VIOLATION = "wse.server.protocol-violation"
    """A readable message that may not be said now, or has no type."""
    CONNECTION_ERROR = "wse.server.connection-error"
    """The WebSocket failed below the messages: frames against RFC 6455, or above the limits."""
    MESSAGE_PROCESSING_ERROR = "wse.server.msg-processing-error"
    """A message that could not be read, or whose handler raised."""


class Status(StrEnum):
    """Where a client stands; `client.when.updated` tells of each change."""

    IDLE = "IDLE"
    """Never connected."""
    CONNECTING = "CONNECTING"
    """Opening the connection and proving who it is."""
    READY = "READY"
    """Welcomed: `send` and `call` work."""
    OFFLINE = "OFFLINE"
    """The connection ended."""
    RE_CONNECTING = "RE_CONNECTING"
    """Waiting to try again, or trying."""


def check_reason(reason: str) -> None:
    """Refuse what does not fit into a close frame.

    Raises:
        ValueError: more than 123 bytes (RFC 6455 section 5.5), or one that is never sent.
    """
    if isinstance(reason, Reason) and reason.close_code is CloseCode.ABNORMAL:
        raise ValueError(f"{reason} is never sent")
    if len(reason.encode()) > 123:
        raise ValueError("a close reason has at most 123 bytes")
