from __future__ import annotations

from typing import get_args

import pytest

from wse import messages
from wse.messages import Call, Challenge, Event, Failure, Hi, Message, Result, Welcome

EXAMPLES: list[Message] = [
    Hi({"identity": "me"}),
    Challenge(1),
    Welcome(None),
    Event("type", 0),
    Call("name", [], "s"),
    Result("s", False),
    Failure("s", "code", None, "text"),
]


def test_the_union_has_every_kind() -> None:
    kinds = set(get_args(Message))
    assert kinds == {type(example) for example in EXAMPLES}
    assert {kind.__name__ for kind in kinds} == set(messages.__all__) - {"Message"}


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_messages_are_frozen_values(message: Message) -> None:
    names = message.__struct_fields__
    twin = type(message)(*(getattr(message, name) for name in names))
    assert twin == message
    with pytest.raises(AttributeError):
        setattr(message, names[0], "changed")


def test_kinds_with_the_same_content_differ() -> None:
    one: Message = Challenge(1)
    other: Message = Welcome(1)
    assert one != other


def test_messages_are_matched_by_position_of_their_fields() -> None:
    match Failure("s", "code", {"a": 1}, "text"):
        case Failure(stamp, code, details, text):
            assert (stamp, code, details, text) == ("s", "code", {"a": 1}, "text")
