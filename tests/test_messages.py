from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from wse import messages
from wse.messages import (
    Ack,
    Bye,
    Call,
    Cancel,
    Challenge,
    Event,
    Failure,
    Greeting,
    Hi,
    Message,
    Ping,
    Pong,
    Result,
    Resume,
    Terms,
    Welcome,
)

EXAMPLES: list[Message] = [
    Hi({"identity": "me"}),
    Challenge(1),
    Welcome(None),
    Event("type", 0),
    Call("name", [], "s"),
    Result("s", False),
    Failure("s", "code", None, "text"),
    Cancel("s"),
    Ack(3),
    Ping(),
    Pong(),
    Bye("reason", 2.5),
]
PARTS = [
    Resume("session", 3),
    Greeting("me", {}, "phone", Resume("session", 3)),
    Terms("session", "phone"),
]


def test_the_union_has_every_kind() -> None:
    kinds = set(get_args(Message))
    assert kinds == {type(example) for example in EXAMPLES}
    parts = {type(part) for part in PARTS}
    assert {kind.__name__ for kind in kinds | parts} == set(messages.__all__) - {"Message"}


@pytest.mark.parametrize("message", [*EXAMPLES, *PARTS], ids=lambda one: type(one).__name__)
def test_messages_are_frozen_values(message: msgspec.Struct) -> None:
    names = message.__struct_fields__
    twin = type(message)(*(getattr(message, name) for name in names))
    assert twin == message
    with pytest.raises(AttributeError):
        setattr(message, names[0] if names else "anything", "changed")


def test_kinds_with_the_same_content_differ() -> None:
    one: Message = Challenge(1)
    other: Message = Welcome(1)
    assert one != other


def test_messages_are_matched_by_position_of_their_fields() -> None:
    match Failure("s", "code", {"a": 1}, "text"):
        case Failure(stamp, code, details, text):
            assert (stamp, code, details, text) == ("s", "code", {"a": 1}, "text")
