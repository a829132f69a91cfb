"""Who may say what, when: the handshake as a table, both sides.

    server   STRANGER --hi--> IDENTIFYING --accept--> READY
                              IDENTIFYING --quest--> CHALLENGED --answer--> IDENTIFYING
             READY --drain--> LEAVING
    client   STRANGER --welcome--> READY
    both     READY --lost--> SUSPENDED --back--> READY, where the protocol keeps sessions

Every stage may become CLOSED, where nothing is heard any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import get_args

from .messages import (
    Ack,
    Bye,
    Call,
    Cancel,
    Challenge,
    Event,
    Failure,
    Hi,
    Message,
    Ping,
    Pong,
    Result,
    Welcome,
)

__all__ = ["CLIENT", "METERED", "SERVER", "Action", "Rules", "Stage"]


class Stage(Enum):
    """How far a connection has come."""

    STRANGER = auto()
    IDENTIFYING = auto()
    CHALLENGED = auto()
    READY = auto()
    LEAVING = auto()
    """It is sent away once what is at work for it has ended; only answers are heard."""
    SUSPENDED = auto()
    """It has no connection for now, and what is sent to it waits."""
    CLOSED = auto()


class Action(Enum):
    """What is to be done with a message."""

    DELIVER = auto()
    """To the handlers, or to the call that waits."""
    IGNORE = auto()
    VIOLATION = auto()
    """Close the connection with `wse.protocol-error`."""
    UNHANDLED = auto()
    """One of the library's own at the wrong time: reported as `ignored`."""
    IDENTIFY = auto()
    ANSWER = auto()
    """It answers the challenge that waits."""
    SOLVE = auto()
    READY = auto()
    METER = auto()
    """Count it, and do what `SERVER` says unless there were too many."""
    HOLD = auto()
    """Keep it until the welcome."""
    CONTROL = auto()
    """It is about the session, and does not count."""


class Rules:
    """The rules of one stage: an action for each kind of message, and one for the rest.

    Args:
        otherwise: The action for the kinds not named.
        actions: The action for a kind of message.
        unreadable: The action for what the protocol cannot read.
        hears: False where nothing is even read.
        counts: False where messages are not taken for good: whoever sent them sends them again.
    """

    __slots__ = ("actions", "counts", "hears", "unreadable")

    def __init__(
        self,
        otherwise: Action,
        actions: Mapping[type[Message], Action] | None = None,
        *,
        unreadable: Action = Action.VIOLATION,
        hears: bool = True,
        counts: bool = True,
    ) -> None:
        named = actions or {}
        self.actions: dict[type[Message], Action] = {
            kind: named.get(kind, otherwise) for kind in get_args(Message)
        }
        """The action for each kind of message."""
        self.unreadable = unreadable
        self.hears = hears
        self.counts = counts


_CONTROLS: dict[type[Message], Action] = dict.fromkeys((Ack, Ping, Pong, Bye), Action.CONTROL)
_DELIVERED: dict[type[Message], Action] = {
    **dict.fromkeys((Event, Call, Result, Failure, Cancel), Action.DELIVER),
    **_CONTROLS,
}
_DEAF = Rules(Action.IGNORE, hears=False)

SERVER: Mapping[Stage, Rules] = {
    Stage.STRANGER: Rules(Action.VIOLATION, {Hi: Action.IDENTIFY}),
    Stage.IDENTIFYING: _DEAF,
    Stage.CHALLENGED: Rules(Action.IGNORE, {Challenge: Action.ANSWER}, unreadable=Action.IGNORE),
    Stage.READY: Rules(Action.UNHANDLED, _DELIVERED),
    Stage.LEAVING: Rules(
        Action.IGNORE,
        {Result: Action.DELIVER, Failure: Action.DELIVER, Cancel: Action.DELIVER, **_CONTROLS},
        unreadable=Action.IGNORE,
        counts=False,
    ),
    Stage.SUSPENDED: _DEAF,
    Stage.CLOSED: _DEAF,
}

METERED: Mapping[Stage, Rules] = {
    **SERVER,
    Stage.READY: Rules(Action.METER, {**_CONTROLS, Cancel: Action.DELIVER}),
}
"""The server's rules where messages are counted."""

CLIENT: Mapping[Stage, Rules] = {
    Stage.STRANGER: Rules(
        Action.HOLD,
        {
            Hi: Action.IGNORE,
            Challenge: Action.SOLVE,
            Welcome: Action.READY,
            **dict.fromkeys((Result, Failure, Cancel, Ack, Ping, Pong, Bye), Action.IGNORE),
        },
    ),
    Stage.READY: Rules(Action.UNHANDLED, _DELIVERED),
    Stage.SUSPENDED: _DEAF,
    Stage.CLOSED: _DEAF,
}
