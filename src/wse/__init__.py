"""Users and their devices over WebSocket: server and client."""

from __future__ import annotations

from .admission import Proxies
from .auth import Attempt, Decision, hmac_challenge, hmac_solver
from .backoff import Backoff
from .browser import static_path
from .channel import Channel
from .client import WseClient
from .codes import CloseCode, ErrorCode, Reason, Status
from .connection import WseConnection
from .deadline import time_left
from .devices import DeviceInfo
from .errors import (
    AlreadyConnected,
    AlreadyRegistered,
    CallDisconnected,
    CallError,
    CallFailed,
    CallNotRegistered,
    CallTimeout,
    ChallengeRoundsExceeded,
    ConnectError,
    ConnectionBroken,
    ConnectionFailed,
    HandlerFailed,
    IdentifyMissing,
    InvalidPayload,
    InvalidSolver,
    MessageTooLarge,
    MessageUnreadable,
    NoSuchClient,
    NotAuthorized,
    NotConnected,
    OutboxFull,
    PeerError,
    ProtocolViolation,
    SolverMissing,
    UsageError,
    WseError,
)
from .identity import WseIdentity
from .limits import Limits
from .procedures import Procedures
from .protocol import Protocol, Types, WseJSON
from .protocol5 import WseJSON5, WseMsgpack5
from .recipients import device, newest, others
from .server import WseServer
from .stats import Stats
from .transports.base import Page

__all__ = [
    "AlreadyConnected",
    "AlreadyRegistered",
    "Attempt",
    "Backoff",
    "CallDisconnected",
    "CallError",
    "CallFailed",
    "CallNotRegistered",
    "CallTimeout",
    "ChallengeRoundsExceeded",
    "Channel",
    "CloseCode",
    "ConnectError",
    "ConnectionBroken",
    "ConnectionFailed",
    "Decision",
    "DeviceInfo",
    "ErrorCode",
    "HandlerFailed",
    "IdentifyMissing",
    "InvalidPayload",
    "InvalidSolver",
    "Limits",
    "MessageTooLarge",
    "MessageUnreadable",
    "NoSuchClient",
    "NotAuthorized",
    "NotConnected",
    "OutboxFull",
    "Page",
    "PeerError",
    "Procedures",
    "Protocol",
    "ProtocolViolation",
    "Proxies",
    "Reason",
    "SolverMissing",
    "Stats",
    "Status",
    "Types",
    "UsageError",
    "WseClient",
    "WseConnection",
    "WseError",
    "WseIdentity",
    "WseJSON",
    "WseJSON5",
    "WseMsgpack5",
    "WseServer",
    "device",
    "hmac_challenge",
    "hmac_solver",
    "newest",
    "others",
    "static_path",
    "time_left",
]
