"""What two ends say to each other: one small type for each thing.

A `payload` is as the protocol unpacked it; `Protocol.decoder` turns it into a value.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

__all__ = ["Call", "Challenge", "Event", "Failure", "Hi", "Message", "Result", "Welcome"]


class Hi(Struct, frozen=True, gc=False):
    """A client says who it is."""

    payload: Any


class Challenge(Struct, frozen=True, gc=False):
    """The server's quest, or the client's answer."""

    payload: Any


class Welcome(Struct, frozen=True, gc=False):
    """The server accepts."""

    payload: Any


class Event(Struct, frozen=True, gc=False):
    """A typed message that wants no answer."""

    type: str
    payload: Any


class Call(Struct, frozen=True, gc=False):
    """A remote procedure is asked for; the stamp names the answer."""

    name: str
    payload: Any
    stamp: str


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


Message = Hi | Challenge | Welcome | Event | Call | Result | Failure
