"""What two ends say to each other: one small type for each thing.

A `payload` is as the protocol unpacked it; `Protocol.decoder` turns it into a value.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

__all__ = [
    "Ack",
    "Bye",
    "Call",
    "Cancel",
    "Challenge",
    "Event",
    "Failure",
    "Greeting",
    "Hi",
    "Message",
    "Ping",
    "Pong",
    "Result",
    "Resume",
    "Terms",
    "Welcome",
]


_Name = Annotated[str, Meta(min_length=1, max_length=128)]
_Count = Annotated[int, Meta(ge=0)]


class Hi(Struct, frozen=True, gc=False):
    """A client says who it is."""

    payload: Any


class Challenge(Struct, frozen=True, gc=False):
    """The server's quest, or the client's answer."""

    payload: Any


class Welcome(Struct, frozen=True, gc=False):
    """The server accepts."""

    payload: Any
    terms: Any = None
    """Those of the session, not read yet; None without one."""


class Event(Struct, frozen=True, gc=False):
    """A typed message that wants no answer."""

    type: str
    payload: Any


class Call(Struct, frozen=True, gc=False):
    """A remote procedure is asked for; the stamp names the answer."""

    name: str
    payload: Any
    stamp: str
    milliseconds: float | None = None
    """For which its caller waits; None when it did not say."""


class Result(Struct, frozen=True, gc=False):
    """A call's result."""

    stamp: str
    payload: Any


class Failure(Struct, frozen=True, gc=False):
    """A call's error."""

    stamp: str
    code: str
    details: Any
    message: str


class Cancel(Struct, frozen=True, gc=False):
    """The caller waits no longer."""

    stamp: str


class Ack(Struct, frozen=True, gc=False):
    """So many counted messages have come in this session."""

    received: int


class Ping(Struct, frozen=True, gc=False):
    """A sign of life is asked for."""


class Pong(Struct, frozen=True, gc=False):
    """There it is."""


class Bye(Struct, frozen=True, gc=False):
    """The server goes: come back after so many seconds."""

    reason: str
    after: float


Message = (
    Hi | Challenge | Welcome | Event | Call | Result | Failure | Cancel | Ack | Ping | Pong | Bye
)


class Resume(Struct, frozen=True, gc=False):
    """The session that a client wants to go on with."""

    session: _Name
    received: _Count
    """How many counted messages of the server's have come in it."""


class Greeting(Struct, frozen=True, gc=False):
    """What a hi says."""

    identity: Any = None
    meta: Any = None
    device: _Name | None = None
    resume: Resume | None = None


class Terms(Struct, frozen=True, gc=False):
    """What a welcome says of the session."""

    session: _Name
    device: _Name
    conn: str = ""
    resumed: bool = False
    received: _Count = 0
    """How many counted messages of the client's have come in it."""
    window: Annotated[float, Meta(ge=0)] = 0.0
    """Seconds for which it outlasts its connection."""
    ring: Annotated[int, Meta(ge=1)] = 1
    """Messages that the server keeps."""
    ring_bytes: Annotated[int, Meta(ge=1)] = 1
    """The same in bytes."""
    heartbeat: Annotated[float, Meta(gt=0)] = 25.0
    """Seconds of silence after which to ask for a sign of life."""
